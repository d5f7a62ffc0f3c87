"""A search without loop, store or runs: an oracle, a program that declares names, and a schedule."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from random import Random

from aiotune.events import (
    Event,
    RunEnded,
    RunStarted,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
)
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import Exhausted, Oracle, Suggest, Wait
from aiotune.trial import FailureKind, RunState, TrialState


@dataclass
class Simulation:
    """Runs trials on `slots` slots in an order that `chance` decides.

    Those whose numbers are in `bad` break before they meet a name. `facts` is what a store would have.
    """

    oracle: Oracle
    declare: Callable[[HyperParameters], None]
    chance: Random
    slots: int = 1
    bad: Collection[int] = ()
    facts: list[Event] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.history = History(self.facts)

    def run(self) -> History:
        """Ask until nothing is left."""
        trials = self.history.open_trials()  # those of an earlier session run again
        flying = {trial.trial_id: self._life(trial.trial_id) for trial in trials}
        while True:
            if len(flying) < self.slots and (not flying or self.chance.random() < 0.6):
                number = self.history.next_number
                match self.oracle.ask(self.history, number):
                    case Suggest() as answer:
                        trial_id = f"{number:04d}"
                        self.record(
                            TrialCreated(0, trial_id, number, answer.stream, answer.values, 0)
                        )
                        flying[trial_id] = self._life(trial_id)
                        continue
                    case Wait() | Exhausted() as answer:
                        assert flying or isinstance(answer, Exhausted), "it waits for nothing"
                if not flying:
                    return self.history
            trial_id = self.chance.choice(list(flying))
            if next(flying[trial_id], None) is None:
                del flying[trial_id]

    def record(self, *facts: Event) -> None:
        """Take in facts."""
        for fact in facts:
            self.history.apply(fact)
            self.facts.append(fact)

    def _life(self, trial_id: str) -> Iterator[str]:
        """Do one thing of the trial's life at each step."""
        trial = self.history.trial(trial_id)
        hp = HyperParameters(self.history.space, dict(trial.values))
        if not trial.runs:
            self.record(RunStarted(0, trial_id, 0, 0, 0, ("cpu",), None))
            yield "started"
        if trial.number in self.bad:
            return self._end(trial_id, TrialState.FAILED)
        self.declare(hp)
        some = self.chance.randint(0, len(hp.met))
        for count in (some, None):
            self._meet(trial_id, hp, count)
            yield "met"
            if self.oracle.is_duplicate(self.history, self.history.trial(trial_id)):
                return self._end(trial_id, TrialState.DUPLICATE)
            yield "judged"
        return self._end(trial_id, TrialState.COMPLETED)

    def _meet(self, trial_id: str, hp: HyperParameters, count: int | None) -> None:
        """Tell of the first `count` names, or of all; a trial that runs again may have told of more."""
        met = hp.met[:count]
        trial = self.history.trial(trial_id)
        if len(met) < len(trial.space) or trial.is_path_complete:
            return
        values = {each.name: hp.met_values()[each.name] for each in met}
        declared = hp.declared if count is None else met
        added = tuple(each for each in declared if each not in self.history.space)
        if added:
            self.record(SpaceGrew(0, trial_id, added))
        self.record(TrialMet(0, trial_id, met, values, count is None))

    def _end(self, trial_id: str, state: TrialState) -> None:
        failure = FailureKind.CRASH if state is TrialState.FAILED else None
        if not self.history.trial(trial_id).runs[0].is_over:
            run = RunState.FAILED if failure else RunState.FINISHED
            self.record(RunEnded(0, trial_id, 0, run, {"score": 0.0}, failure=failure))
        self.record(TrialEnded(0, trial_id, state, None if failure else 0.0, failure=failure))
