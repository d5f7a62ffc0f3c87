"""Searches that are killed: what they knew is kept, and they go on as if nothing had been."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from aiotune.events import Event
from tests.support.chaos import Chaos
from tests.support.crashing import SEEN, Ended, Order, Zygotes, zygotes
from tests.support.crashing_checks import (
    Row,
    damage,
    differences,
    duplicates,
    facts_of,
    lost_facts,
    lost_runs,
    table,
)
from tests.support.crashing_tuners import KINDS

KEPT, ALIKE = "Nothing is lost", "A resumed search decides alike"

INLINE = [kind for kind in KINDS if kind != "children"]
TUNERS = frozenset({"random", "grid", "bayesian", "hyperband", "asha", "population"})
MOST_IN_A_ROW = 4  # kills of one search
SLOTS = 3
AT_A_TIME = 2


@pytest.fixture(scope="module")
def killer() -> Iterator[Zygotes]:
    with zygotes(AT_A_TIME) as forked:
        yield forked


@dataclass(frozen=True, slots=True)
class Whole:
    """A search that nobody killed."""

    facts: Sequence[Event]
    seconds: float
    statements: int

    def table(self, *, is_ordered: bool = True) -> Sequence[Row]:
        return table(self.facts, is_ordered=is_ordered)


Wholes = Callable[..., Whole]


@pytest.fixture(scope="module")
def whole(killer: Zygotes, tmp_path_factory: pytest.TempPathFactory) -> Wholes:
    """Return what searches a kind to its end, once for all tests."""

    @cache
    def searched(kind: str, **changes: Any) -> Whole:
        directory = tmp_path_factory.mktemp("whole")
        ended = killer.run(Order(kind, str(directory), changes=changes))
        facts = facts_of(directory)
        assert duplicates(facts) == []
        return Whole(facts, ended.seconds, ended.statements)

    return searched


@dataclass
class Victim:
    """A search that is killed, as often as is wished, and then resumed to its end."""

    killer: Zygotes
    kind: str
    directory: Path
    changes: dict[str, Any] = field(default_factory=dict)
    kills: int = 0
    lost: int = 0  # facts that were seen, and are not stored

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True)

    def session(self, **instant: float) -> Ended:
        """Search until killed, or to the end."""
        before = len(facts_of(self.directory))
        (self.directory / SEEN).unlink(missing_ok=True)
        order = Order(self.kind, str(self.directory), changes=self.changes, **instant)
        ended = self.killer.run(order)
        self.kills += ended.was_killed
        self.lost += lost_facts(self.directory, before)
        assert damage(self.directory) == []
        return ended

    def resumed(self, slots: int = 1) -> list[Event]:
        """Search to the end, and return all facts."""
        assert not self.session().was_killed
        facts = facts_of(self.directory)
        assert duplicates(facts) == []
        assert lost_runs(facts) <= self.kills * slots
        assert self.lost == 0
        return facts


Kill = Callable[[int, Victim], None]


@dataclass
class Matrix:
    """Searches of one kind, each killed in its own way, and then compared with one that was not."""

    chaos: Chaos
    killer: Zygotes
    reference: Whole
    kind: str
    directory: Path
    slots: int = 1

    def perform(self, kill: Kill, indices: Iterable[int], *, fault: str, kills: int) -> None:
        """Do so many kills at least, with the searches of these indices, and count them."""
        done = lost = 0
        with ThreadPoolExecutor(AT_A_TIME) as threads:
            for batch in _batches(indices):
                victims = list(threads.map(lambda index: self._perform_one(kill, index), batch))
                done += sum(each.kills for each in victims)
                lost += sum(each.lost for each in victims)
                if done >= kills:
                    break
        assert done >= kills
        self.chaos.count(KEPT, fault, done, losses=lost)
        self.chaos.count(ALIKE, fault, done)

    def chance(self, index: int) -> random.Random:
        return random.Random(f"{self.chaos.seed} {self.kind} {index}")

    def instants(self, index: int, victim: Victim) -> None:
        """Kill at random instants, some times in a row."""
        chance = self.chance(index)
        for _ in range(chance.randint(1, MOST_IN_A_ROW)):
            victim.session(seconds=chance.uniform(0, self.reference.seconds))

    def _perform_one(self, kill: Kill, index: int) -> Victim:
        changes = {} if self.slots == 1 else {"max_concurrent_trials": self.slots}
        victim = Victim(self.killer, self.kind, self.directory / f"{index}", changes)
        kill(index, victim)
        is_ordered = self.slots == 1
        found = table(victim.resumed(self.slots), is_ordered=is_ordered)
        expected = self.reference.table(is_ordered=is_ordered)
        assert differences(found, expected) == [], f"search {index}"
        return victim


def _batches(indices: Iterable[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for index in indices:
        batch.append(index)
        if len(batch) == AT_A_TIME:
            yield batch
            batch = []
    if batch:
        yield batch


@pytest.mark.parametrize("kind", INLINE)
def test_killed_after_each_fact(
    chaos: Chaos, killer: Zygotes, whole: Wholes, tmp_path: Path, kind: str
) -> None:
    matrix = Matrix(chaos, killer, whole(kind), kind, tmp_path)
    every = range(1, len(matrix.reference.facts) + 1, 1 if kind in TUNERS else 3)
    facts = chaos.pick(matrix.chance(0).sample(every, 2), every)

    def kill(fact: int, victim: Victim) -> None:
        assert victim.session(fact=fact).was_killed

    matrix.perform(kill, facts, fault="caller killed after a recorded fact", kills=len(facts))


@pytest.mark.parametrize("kind", INLINE)
def test_killed_at_random_instants_again_and_again(
    chaos: Chaos, killer: Zygotes, whole: Wholes, tmp_path: Path, kind: str
) -> None:
    matrix = Matrix(chaos, killer, whole(kind), kind, tmp_path)
    kills = chaos.pick(1, 200 if kind in TUNERS else 40)
    fault = "caller killed at a random instant"
    matrix.perform(matrix.instants, count(), fault=fault, kills=kills)


@pytest.mark.parametrize("kind", ["random", "hyperband", "repeats"])
def test_killed_in_the_middle_of_a_transaction(
    chaos: Chaos, killer: Zygotes, whole: Wholes, tmp_path: Path, kind: str
) -> None:
    matrix = Matrix(chaos, killer, whole(kind), kind, tmp_path)

    def kill(index: int, victim: Victim) -> None:
        statement = matrix.chance(index).randint(1, matrix.reference.statements)
        assert victim.session(statement=statement).was_killed

    fault = "caller killed as SQLite begins a statement"
    matrix.perform(kill, count(), fault=fault, kills=chaos.pick(2, 60))


@pytest.mark.parametrize("kind", [kind for kind in INLINE if not KINDS[kind].order_matters])
def test_killed_with_several_slots(
    chaos: Chaos, killer: Zygotes, whole: Wholes, tmp_path: Path, kind: str
) -> None:
    reference = whole(kind, max_concurrent_trials=SLOTS)
    matrix = Matrix(chaos, killer, reference, kind, tmp_path, SLOTS)
    fault = "caller with several slots killed at a random instant"
    matrix.perform(matrix.instants, count(), fault=fault, kills=chaos.pick(1, 40))


def test_killed_with_children_that_write_checkpoints(
    chaos: Chaos, killer: Zygotes, whole: Wholes, tmp_path: Path
) -> None:
    matrix = Matrix(chaos, killer, whole("children"), "children", tmp_path)
    fault = "caller of child processes killed at a random instant"
    matrix.perform(matrix.instants, count(), fault=fault, kills=chaos.pick(1, 20))
