"""The fixture by which a test learns how many faults to inject, and tells what it did."""

from __future__ import annotations

import secrets
from pathlib import Path

import pytest

from tests.support.chaos import Chaos, Tally, write_report

_TALLIES = pytest.StashKey[dict[str, Tally]]()
_SEED = pytest.StashKey[int]()


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--chaos-seed", default=None)
    config.stash[_TALLIES] = {}
    config.stash[_SEED] = secrets.randbits(32) if given is None else given


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """Return what this test asks for the extent of its faults, and tells of them."""
    config = request.config
    seed = config.stash[_SEED]
    print(f"to replay: --chaos-seed={seed}")  # shown when the test fails
    is_long = bool(config.getoption("--chaos", default=False))
    return Chaos(request.node.nodeid, config.stash[_TALLIES], seed=seed, is_long=is_long)


def pytest_sessionfinish(session: pytest.Session) -> None:
    path = session.config.getoption("--chaos-report", default=None)
    if path is not None:
        write_report(Path(path), session.config.stash[_TALLIES], session.config.stash[_SEED])
