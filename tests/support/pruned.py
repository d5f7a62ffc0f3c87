"""A search without loop or children: trials report given curves, and a pruner is asked as a runner asks."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchOpened,
    StopRequested,
    TrialCreated,
    TrialEnded,
)
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.outcome import score_of
from aiotune.pruners.base import Pruner
from aiotune.trial import RunState, StopCause, Trial, TrialState, trial_id_of

__all__ = ["SCORE", "PrunedSearch", "losses", "opened"]

SCORE = Objective("loss", "min")
Report = Mapping[str, float]
Curve = Sequence[Report]  # what a trial reports at its steps 0, 1, ...


def losses(*values: float) -> list[Report]:
    """Return the reports of a trial with these losses; of one that is None, a report without it."""
    return [{"loss": each} for each in values]


def opened(objective: Objective = SCORE) -> SearchOpened:
    return SearchOpened(0.0, objective.get_config(), 1, "Fake", "0")


@dataclass
class PrunedSearch:
    """Runs trials of one repeat, `slots` at a time: those that run report in turn.

    facts: what a store would have. answers: what the pruner said to each report, by trial number and step.
    """

    pruner: Pruner
    objective: Objective = SCORE
    slots: int = 1
    facts: list[Event] = field(default_factory=list)
    answers: dict[tuple[int, int], str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        facts = self.facts or [opened(self.objective)]
        self.facts, self.history = [], History()
        self.record(*facts)

    def record(self, *facts: Event) -> None:
        for fact in facts:
            self.facts.append(fact)
            self.history.apply(fact)

    def run(self, *curves: Curve) -> list[int]:
        """Run a trial for each curve, and return how many steps each of these made."""
        first = self.history.next_number
        waiting = iter(curves)
        flying: list[Iterator[None]] = []
        while True:
            while len(flying) < self.slots and (curve := next(waiting, None)) is not None:
                flying.append(self.life(curve))
            if not flying:
                return [
                    len(self.numbered(n).runs[-1].observations) for n in range(first, self.next)
                ]
            flying = [each for each in flying if next(each, flying) is not flying]

    @property
    def next(self) -> int:
        return self.history.next_number

    def numbered(self, number: int) -> Trial:
        return self.history.numbered(number)

    def life(self, curve: Curve) -> Iterator[None]:
        """Do one report of a new trial at each step."""
        number = self.next
        name = trial_id_of(number)
        self.record(TrialCreated(0.0, name, number, number, {}, 0), started(name))
        for step, metrics in enumerate(curve):
            if self.report(number, step, metrics) is not None:
                self.record(StopRequested(0.0, name, 0, StopCause.RULE, "hopeless"))
                self.end(number, RunState.STOPPED, TrialState.PRUNED)
                return
            yield
        self.end(number, RunState.FINISHED, TrialState.COMPLETED)

    def report(self, number: int, step: int, metrics: Report, run: int = 0) -> str | None:
        """Let a run report, and return the pruner's answer."""
        self.record(Reported(0.0, trial_id_of(number), run, step, metrics))
        trial = self.numbered(number)
        answer = self.pruner.judge(self.history, trial, trial.runs[run])
        self.answers[number, step] = answer
        return answer

    def end(self, number: int, run: RunState, state: TrialState) -> None:
        name, trial = trial_id_of(number), self.numbered(number)
        best = score_of(trial.runs[-1].observations, self.objective)
        value, step = best or (math.nan, None)
        metrics = {} if best is None else trial.runs[-1].observations[step or 0].metrics
        self.record(RunEnded(0.0, name, trial.runs[-1].index, run, metrics, step))
        self.record(TrialEnded(0.0, name, state, None if best is None else value, step, metrics))


def started(name: str, run: int = 0, continues: int | None = None, repeat: int = 0) -> RunStarted:
    return RunStarted(0.0, name, run, repeat, 0, (), None, continues=continues)
