"""What all tests share."""

from __future__ import annotations

import atexit
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

import aiotune
from aiotune.devices.ledger import shared_ledger
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings
from tests.support import gpu_framework, nvml_standin
from tests.support.nvml_standin import Machine, build


def take_temporary_directory() -> None:
    """Let what this process makes of temporary files be in a directory of its own.

    Some tests look whether anything is left there: of another process that runs tests at the same time, they
    see nothing. What pytest keeps of a test (`tmp_path`) stays where it always is.
    """
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    directory, owner = tempfile.mkdtemp(prefix="tests-"), os.getpid()
    os.environ["TMPDIR"] = tempfile.tempdir = directory

    def remove() -> None:
        if os.getpid() == owner:  # and no fork of it
            shutil.rmtree(directory, ignore_errors=True)

    atexit.register(remove)


take_temporary_directory()

# Before any test has changed it: most searches of the suite see it so, and share one fork server.
ENVIRONMENT = dict(os.environ)

NUMBERS = itertools.count()  # of tests


# What a machine that does other things makes slow is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos", "fault injection (tests/chaos)")
    group.addoption(
        "--chaos", action="store_true", help="the long versions, as `make chaos` runs them"
    )
    group.addoption("--chaos-seed", type=int, help="replay what a failed test has printed")
    group.addoption("--chaos-report", help="write the counts of faults and losses into this file")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes a minute; leave it out with -m 'not slow'")


@pytest.fixture(autouse=True)
def lock_directory(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """Lock the cards of each test in a directory of its own, which is made when it is needed."""
    directory = tmp_path_factory.getbasetemp() / f"locks-{next(NUMBERS)}"
    monkeypatch.setenv("AIOTUNE_LOCK_DIR", str(directory))
    shared_ledger().locks = (
        None  # opened with the first pool that has GPUs, and kept by the process
    )
    return directory


@pytest.fixture(scope="session")
def nvml_library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the stand-in for libnvidia-ml.so.1, compiled."""
    library = build(tmp_path_factory.mktemp("nvml"))
    if library is None:
        pytest.skip("no C compiler (gcc or cc) is here: the stand-in for NVML cannot be compiled")
    return library


@pytest.fixture
def machine(tmp_path: Path, nvml_library: Path) -> Machine:
    """Return a machine with a driver, and without cards: `put` some."""
    return Machine(tmp_path / "machine", nvml_library)


@pytest.fixture
def driver(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the machine below this process and all that it starts, and the stand-in frameworks on its path."""
    monkeypatch.syspath_prepend(str(gpu_framework.FOLDER))
    for name, value in nvml_standin.environment(machine).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    with nvml_standin.load(machine):
        yield


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """Hold one fork server for all tests of a module, but those that harm it or need their own."""
    server = acquire_server()
    yield server
    release_server(server)


@pytest.fixture(scope="session")
def keras_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Hold a fork server that has Keras imported: searches of Keras models share it.

    Its import takes 10 to 20 s. It serves what runs with the environment that this process was started with.
    """
    directory = tmp_path_factory.mktemp("keras_server")
    tuner = aiotune.RandomSearch(lambda hp: None, "val_loss", directory=directory)
    server = acquire_server(
        modules_to_preload(tuner, (), Settings()),
        environment=ENVIRONMENT,
        log=directory / "server.log",
    )
    try:
        yield server
    finally:
        release_server(server)
