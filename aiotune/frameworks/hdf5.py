"""Files of weights in HDF5, which may refer to other files: one that does is not loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aiotune.private_files import open_to_read

__all__ = ["require_own_data"]


def require_own_data(path: Path) -> None:
    """Raise ValueError for weights that stand in other files than this one: any that the user may read.

    Links and datasets of HDF5 may name files. OSError if it is no plain file. An archive (`.keras`) is left to
    Keras, which takes only weights out of it. Keras goes by the name, and so does this: a file may be both.
    """
    with open_to_read(path) as file:
        if path.suffix == ".keras":
            return
        import h5py

        with h5py.File(file, "r") as content:
            outside = next(_outside(content), None)
    if outside is not None:
        raise ValueError(f"{path.name} takes {outside!r:.100} from another file")


def _outside(content: Any) -> Iterator[str]:
    """Yield the names of what is elsewhere. Each object is seen once, however it is linked."""
    import h5py

    found: list[str] = []

    def look(name: str, each: Any) -> None:
        if isinstance(each, h5py.Dataset):
            if each.external or each.is_virtual:
                found.append(name)
            return
        links = ((child, each.get(child, getlink=True)) for child in each)
        found.extend(
            f"{name}/{child}" for child, link in links if isinstance(link, h5py.ExternalLink)
        )

    look("", content)
    content.visititems(look)
    yield from found
