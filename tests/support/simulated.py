"""A search without an event loop: oracle, history, and a program that is called in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiotune.events import Event, RunStarted, SpaceGrew, TrialCreated, TrialEnded, TrialMet
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Exhausted, Oracle, Promote, Suggest, Wait
from aiotune.space import Values, unit_draw
from aiotune.trial import FailureKind, Trial, TrialState, trial_id_of

__all__ = ["Simulation"]

Program = Callable[[HyperParameters], float | Mapping[str, float]]


@dataclass
class Simulation:
    """Asks for trials, up to `slots` at a time, and ends them in the order that `pick` says.

    program: declares its names and returns a score, or metrics; MemoryError or NaN fails the trial.
    has_discovery: whether it is called once beforehand, at its defaults. facts: of an earlier session.
    """

    oracle: Oracle
    program: Program
    slots: int = 1
    has_discovery: bool = True
    facts: list[Event] = field(default_factory=list)
    pick: Callable[[list[str]], int] = lambda in_flight: 0
    is_exhausted: bool = False

    def __post_init__(self) -> None:
        earlier, self.facts = self.facts, []
        self.history = History()
        for fact in earlier:
            self._record(fact)
        if self.has_discovery and not earlier:
            hp = HyperParameters()
            self._call(hp)
            self._record(SpaceGrew(0.0, None, hp.declared))

    def run(self, trials: int) -> Simulation:
        """Go on until so many trials were asked for and have ended, or the oracle is exhausted."""
        while True:
            self.ask(trials)
            in_flight = [each.trial_id for each in self.history.trials_in_flight()]
            if not in_flight:
                return self
            self._end(in_flight[self.pick(in_flight)])

    def ask(self, trials: int) -> None:
        """Ask for trials until every slot has one, but for no more than so many in all."""
        while self.history.counted() < trials and len(self.history.trials_in_flight()) < self.slots:
            number = self.history.next_number
            match self.oracle.ask(self.history, number):
                case Suggest(values=values, stream=stream):
                    self._record(
                        TrialCreated(
                            0.0, trial_id_of(number), number, stream, values, self.history.length
                        )
                    )
                case Wait():
                    assert self.history.trials_in_flight(), "it waits with nothing in flight"
                    return
                case Exhausted():
                    self.is_exhausted = True
                    return
                case Promote():
                    raise AssertionError("nothing is paused here")

    @property
    def trials(self) -> list[Trial]:
        return list(self.history.trials.values())

    @property
    def points(self) -> list[Values]:
        """The points that were tried, in the order of asking."""
        return [dict(each.values) for each in self.trials if each.state is not TrialState.DUPLICATE]

    @property
    def best(self) -> float:
        """The lowest score."""
        return min(each.score for each in self.trials if each.score is not None)

    def _end(self, trial_id: str) -> None:
        trial = self.history.trial(trial_id)
        self._record(RunStarted(0.0, trial_id, len(trial.runs), 0, 0, (), None))
        hp = HyperParameters(
            space=self.history.space,
            values=dict(trial.values),
            fill=lambda each: (
                each.from_unit(unit_draw(self.oracle.chance, trial.stream, each.name))
                if self.oracle.draws_new_names
                else each.default
            ),
        )
        result = self._call(hp)
        added = tuple(each for each in hp.declared if each not in self.history.space)
        if added:
            self._record(SpaceGrew(0.0, trial_id, added))
        self._record(TrialMet(0.0, trial_id, hp.met, hp.met_values(), result is not None))
        if self.oracle.is_duplicate(self.history, self.history.trial(trial_id)):
            self._record(TrialEnded(0.0, trial_id, TrialState.DUPLICATE))
        elif result is None:
            self._record(_failed(trial_id, FailureKind.OUT_OF_MEMORY))
        else:
            self._record(self._scored(trial_id, result))

    def _scored(self, trial_id: str, result: float | Mapping[str, float]) -> TrialEnded:
        if isinstance(result, Mapping):
            metrics, score = result, self.oracle.objective.get_value(result)
        else:
            metrics, score = None, float(result)
        if math.isnan(score):
            return _failed(trial_id, FailureKind.NAN)
        return TrialEnded(0.0, trial_id, TrialState.COMPLETED, score, metrics=metrics)

    def _call(self, hp: HyperParameters) -> float | Mapping[str, float] | None:
        try:
            return self.program(hp)
        except MemoryError:
            return None

    def _record(self, fact: Event) -> None:
        self.facts.append(fact)
        self.history.apply(fact)


def _failed(trial_id: str, kind: FailureKind) -> TrialEnded:
    return TrialEnded(0.0, trial_id, TrialState.FAILED, failure=kind, message=kind.value)
