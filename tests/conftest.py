"""What all tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator

import hypothesis
import pytest

import aiotune
from aiotune.executors.launch import Server, acquire_server, release_server
from aiotune.processes import modules_to_preload
from aiotune.settings import Settings

# Before any test has changed it: most searches of the suite see it so, and share one fork server.
ENVIRONMENT = dict(os.environ)


# What a machine that does other things makes slow is no failure.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "slow: takes a minute; leave it out with -m 'not slow'")


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
