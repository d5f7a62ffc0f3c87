"""Weights in HDF5 that refer to other files."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aiotune.frameworks.hdf5 import require_own_data

h5py: Any = pytest.importorskip("h5py")


def test_weights_of_its_own_pass(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "w.h5", "w") as file:
        file["layers/dense/vars/0"] = np.zeros(3)
        file["again"] = file["layers"]  # a circle of links within the file
        file["layers/self"] = file["layers"]
        file["soft"] = h5py.SoftLink("/layers")
    require_own_data(tmp_path / "w.h5")


def test_weights_elsewhere_are_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(24))
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["vars"] = np.zeros(3)
    with h5py.File(tmp_path / "link.h5", "w") as file:
        file["layers/vars"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/vars")
    with h5py.File(tmp_path / "data.h5", "w") as file:
        outside = [(str(tmp_path / "secret"), 0, 24)]
        file.create_dataset("layers/vars", (3,), "f8", external=outside)
    with h5py.File(tmp_path / "virtual.h5", "w") as file:
        layout = h5py.VirtualLayout((3,), "f8")
        layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "vars", (3,))
        file.create_virtual_dataset("layers/vars", layout)

    for name in ("link.h5", "data.h5", "virtual.h5"):
        with pytest.raises(ValueError, match=r"takes '.*vars' from another file"):
            require_own_data(tmp_path / name)


def test_weights_that_are_an_archive_too_are_looked_at(tmp_path: Path) -> None:
    path = tmp_path / "best.weights.h5"
    with h5py.File(path, "w") as file:
        file["vars"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/vars")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("config.json", "{}")
    assert zipfile.is_zipfile(path)

    with pytest.raises(ValueError, match="takes '/vars' from another file"):
        require_own_data(path)


def test_an_archive_is_left_to_keras_and_a_link_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
    require_own_data(tmp_path / "model.keras")

    (tmp_path / "w.h5").symlink_to(tmp_path / "model.keras")
    with pytest.raises(OSError, match="symbolic link"):
        require_own_data(tmp_path / "w.h5")
    os.mkfifo(tmp_path / "fifo.h5")
    with pytest.raises(OSError, match="FIFO"):
        require_own_data(tmp_path / "fifo.h5")
