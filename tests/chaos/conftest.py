"""The fixture by which a test learns how many faults to inject, and tells what it did."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator
from pathlib import Path

import pytest

from tests.support.chaos import Chaos, Session, Tally, write_report

_TALLIES = pytest.StashKey[dict[str, Tally]]()
_SEED = pytest.StashKey[int]()
_SKIPPED = pytest.StashKey[list[str]]()
_BEGUN = pytest.StashKey[float]()


def pytest_configure(config: pytest.Config) -> None:
    given = config.getoption("--chaos-seed", default=None)
    config.stash[_TALLIES] = {}
    config.stash[_SEED] = secrets.randbits(32) if given is None else given
    config.stash[_SKIPPED] = []
    config.stash[_BEGUN] = time.monotonic()


@pytest.fixture
def chaos(request: pytest.FixtureRequest) -> Chaos:
    """Return what this test asks for the extent of its faults, and tells of them."""
    config = request.config
    seed = config.stash[_SEED]
    print(f"to replay: --chaos-seed={seed}")  # shown when the test fails
    is_long = bool(config.getoption("--chaos", default=False))
    return Chaos(request.node.nodeid, config.stash[_TALLIES], seed=seed, is_long=is_long)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.skipped:
        item.config.stash[_SKIPPED].append(item.nodeid)
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    path = config.getoption("--chaos-report", default=None)
    if path is not None:
        told = Session(
            seed=config.stash[_SEED],
            is_long=bool(config.getoption("--chaos", default=False)),
            has_passed=session.testsfailed == 0 and session.testscollected > 0,
            skipped=config.stash[_SKIPPED],
            seconds=time.monotonic() - config.stash[_BEGUN],
        )
        write_report(Path(path), config.stash[_TALLIES], told)
