"""The harness of fault injection itself."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.support.chaos import Chaos, Session, Tally, write_report


def test_counts_reach_the_report(tmp_path: Path) -> None:
    tallies: dict[str, Tally] = {}
    for test in ("one", "two"):
        each = Chaos(test, tallies, seed=3, is_long=False)
        each.count("Nothing is lost", "kill -9", each.pick(2, 200))
    each.count("Nothing is lost", "kill -9 of a child", losses=1)
    each.measure("Nothing is lost", "resume", "2.1 s", target="3 s", is_met=True)

    write_report(tmp_path / "new" / "report.json", tallies, Session(3, is_long=False))

    report = json.loads((tmp_path / "new" / "report.json").read_text())
    promise = report["promises"]["Nothing is lost"]
    assert (report["session"]["seed"], report["session"]["has_passed"]) == (3, True)
    assert promise["faults"] == {"kill -9": 4, "kill -9 of a child": 1}
    assert (promise["losses"], promise["tests"]) == (1, ["one", "two"])
    assert promise["measures"] == [
        {"name": "resume", "value": "2.1 s", "target": "3 s", "is_met": True}
    ]


def test_a_promise_that_nobody_made_is_an_error() -> None:
    with pytest.raises(ValueError, match="'Nothing is lots' is no promise"):
        Chaos("test", {}, seed=0, is_long=False).count("Nothing is lots", "kill -9")


def test_same_seed_same_chance() -> None:
    draws = [Chaos("test", {}, seed=seed, is_long=True).chance.random() for seed in (7, 7, 8)]

    assert draws[0] == draws[1] != draws[2]


def test_seed_and_extent_come_from_the_command_line(chaos: Chaos, request) -> None:  # type: ignore[no-untyped-def]
    assert chaos.is_long == request.config.getoption("--chaos")
    given = request.config.getoption("--chaos-seed")
    assert given is None or chaos.seed == given
