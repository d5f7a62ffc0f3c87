"""Drives an oracle of aiotune's by facts: no event loop, no processes, no store."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from quality_tasks import Measured, Task, measure
from quality_traces import Outcome

from aiotune.events import (
    Event,
    RunEnded,
    RunStarted,
    SearchOpened,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
)
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Exhausted, Oracle, Promote, Suggest, Wait
from aiotune.space import unit_draw
from aiotune.trial import FailureKind, RunState, TrialState, trial_id_of

__all__ = ["SCORE", "OracleFactory", "Search", "run"]

SCORE = Objective("score", "min")

# (seed, trials) -> oracle: `trials` is its budget.
OracleFactory = Callable[[int, int], Oracle]


def run(
    factory: OracleFactory,
    task: Task,
    seed: int,
    trials: int,
    parallel: int = 1,
    order_seed: int | None = None,
) -> list[Outcome]:
    """Return the trials of a search in the order of their ends; fewer if the space is exhausted.

    parallel: so many are in flight at a time; `order_seed` (default: the seed) decides in which order they end.
    """
    chance = random.Random(f"order/{seed if order_seed is None else order_seed}")
    search = Search(factory(seed, trials), task, seed)
    while len(search.outcomes) < trials:
        while len(search.in_flight) < parallel and search.counted < trials and search.ask():
            pass
        if not search.in_flight:
            break
        search.end(chance.choice(list(search.in_flight)))
    return search.outcomes


@dataclass
class Search:
    """One search: what was asked is in flight until it is ended."""

    oracle: Oracle
    task: Task
    seed: int
    outcomes: list[Outcome] = field(default_factory=list)
    in_flight: dict[str, Outcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.history = History()
        self.oracle.follow(lambda: self.history)
        self._record(SearchOpened(0.0, SCORE.get_config(), self.seed, "", ""))
        hp = HyperParameters()
        measure(
            self.task, hp, self.seed, 0
        )  # discovery: the program is called once at its defaults
        self._record(SpaceGrew(0.0, None, hp.declared))

    @property
    def counted(self) -> int:
        return self.history.counted()

    def ask(self) -> bool:
        """Ask for a trial and start it; tell whether there was one."""
        number = self.history.next_number
        start = time.process_time()
        answer = self.oracle.ask(self.history, number)
        seconds = time.process_time() - start
        match answer:
            case Suggest():
                self._start(answer, number, seconds)
                return True
            case Wait() | Exhausted():
                return False
            case Promote():
                raise ValueError("an oracle that trains by budget is not measured here")

    def _start(self, answer: Suggest, number: int, seconds: float) -> None:
        trial_id = trial_id_of(number)
        asked_after = self.history.length
        self._record(TrialCreated(0.0, trial_id, number, answer.stream, answer.values, asked_after))
        self._record(RunStarted(0.0, trial_id, 0, 0, 0, (), None))
        hp = HyperParameters(
            self.history.space,
            dict(answer.values),
            lambda each: each.from_unit(unit_draw(self.oracle.chance, answer.stream, each.name)),
        )
        measured = measure(self.task, hp, self.seed, self.counted - 1)
        added = tuple(each for each in hp.declared if each not in self.history.space)
        if added:
            self._record(SpaceGrew(0.0, trial_id, added))
        self._record(TrialMet(0.0, trial_id, hp.met, hp.met_values(), is_complete=True))
        if self.oracle.is_duplicate(self.history, self.history.trial(trial_id)):
            self._record(RunEnded(0.0, trial_id, 0, RunState.STOPPED, {}))
            self._record(TrialEnded(0.0, trial_id, TrialState.DUPLICATE))
        else:
            self.in_flight[trial_id] = Outcome(measured, seconds)

    def end(self, trial_id: str) -> None:
        """End a trial and tell the oracle."""
        outcome = self.in_flight.pop(trial_id)
        self._conclude(trial_id, outcome.measured)
        self.outcomes.append(outcome)
        self.oracle.tell(self.history.trial(trial_id))

    def _conclude(self, trial_id: str, measured: Measured) -> None:
        score = measured.observed
        if measured.failure is not None:
            kind = FailureKind(measured.failure)
            self._record(RunEnded(0.0, trial_id, 0, RunState.FAILED, {}, failure=kind))
            self._record(
                TrialEnded(0.0, trial_id, TrialState.FAILED, failure=kind, message=kind.value)
            )
            return
        assert score is not None  # it did not fail
        metrics = {SCORE.name: score}
        self._record(RunEnded(0.0, trial_id, 0, RunState.FINISHED, metrics, best_step=0))
        self._record(TrialEnded(0.0, trial_id, TrialState.COMPLETED, score, 0, metrics))

    def _record(self, fact: Event) -> None:
        self.history.apply(fact)
