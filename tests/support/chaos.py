"""Fault injection: how much of it a test does, with which chance, and what it counts.

In the normal suite each test of `tests/chaos` injects a few faults, in `make chaos` many, and there its counts
go into a report, from which docs/reliability.md is written.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

__all__ = ["PROMISES", "Chaos", "Measure", "Session", "Tally", "write_report"]

_Value = TypeVar("_Value")

# The headings of docs/reliability.md, in its order.
PROMISES = (
    "Nothing is lost",
    "A resumed search decides alike",
    "Nothing is left behind",
    "The store tells the truth",
    "Nothing hangs",
    "Failures are told apart",
    "The disk does not fill",
    "No one gets in",
    "It lasts",
)


@dataclass(frozen=True, slots=True)
class Measure:
    """A figure beside its target. `is_met` is None where there is none."""

    name: str
    value: str  # with its unit
    target: str | None = None
    is_met: bool | None = None


@dataclass(slots=True)
class Tally:
    """What the tests of one promise have done: the faults by kind, what was lost by them, and figures."""

    faults: dict[str, int] = field(default_factory=dict)
    losses: int = 0
    tests: list[str] = field(default_factory=list)
    measures: list[Measure] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Session:
    """The run of pytest that the counts come from.

    has_passed: no test failed. skipped: the ids of the tests that could not run here.
    """

    seed: int
    is_long: bool
    has_passed: bool = True
    skipped: Sequence[str] = ()
    seconds: float = 0.0


class Chaos:
    """What one test asks and tells.

    seed: from which all its chance derives; shown when the test fails, and taken from `--chaos-seed`.
    """

    def __init__(self, test: str, tallies: dict[str, Tally], *, seed: int, is_long: bool) -> None:
        self._test = test
        self._tallies = tallies
        self.seed = seed
        self.is_long = is_long
        self.chance = random.Random(seed)

    def pick(self, quick: _Value, long: _Value) -> _Value:
        """Return the first in the normal suite, the second in `make chaos`."""
        return long if self.is_long else quick

    def count(self, promise: str, fault: str, number: int = 1, *, losses: int = 0) -> None:
        """Note so many faults of a kind that were injected to test a promise, and what was lost by them.

        promise: the heading under which docs/reliability.md states it, one of PROMISES; else ValueError.
        """
        tally = self._tally(promise)
        tally.faults[fault] = tally.faults.get(fault, 0) + number
        tally.losses += losses

    def measure(self, promise: str, name: str, value: str, *, target: str, is_met: bool) -> None:
        """Note a figure beside its target. It is no assertion: speeds are not asserted in tests."""
        self._tally(promise).measures.append(Measure(name, value, target, is_met))

    def _tally(self, promise: str) -> Tally:
        if promise not in PROMISES:
            raise ValueError(f"{promise!r} is no promise of docs/reliability.md")
        tally = self._tallies.setdefault(promise, Tally())
        if self._test not in tally.tests:
            tally.tests.append(self._test)
        return tally


def write_report(path: Path, tallies: Mapping[str, Tally], session: Session) -> None:
    """Write what all tests counted as JSON."""
    promises = {promise: asdict(tally) for promise, tally in tallies.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"session": asdict(session), "promises": promises}, indent=2) + "\n")
