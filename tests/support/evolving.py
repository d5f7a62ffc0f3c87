"""A search whose trials are paused and promoted, without an event loop: scores follow a formula."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Exhausted, Oracle, Promote, Retire, Suggest, Wait
from aiotune.settlement import Policy, complete
from aiotune.space import unit_draw
from aiotune.trial import FailureKind, RunState, Trial, TrialState, trial_id_of

__all__ = ["Evolution"]

Score = Callable[[Trial, int], float]  # (trial, epoch)


def noise(trial: Trial, epoch: int) -> float:
    """A score that depends on the trial's stream and the epoch alone."""
    return unit_draw(9, "score", trial.stream, epoch)


@dataclass
class Evolution:
    """Trains up to `slots` trials at a time, and ends them in the order that `pick` says.

    declare: the program's names; has_discovery: whether they are known beforehand. fails: whether a trial
    breaks in its present budget. facts: of an earlier session, whose runs in progress are lost.
    """

    oracle: Oracle
    declare: Callable[[HyperParameters], object]
    slots: int = 1
    score: Score = noise
    fails: Callable[[Trial], bool] = lambda trial: False
    pick: Callable[[list[str]], int] = lambda in_flight: 0
    has_discovery: bool = True
    policy: Policy = field(default_factory=Policy)
    facts: list[Event] = field(default_factory=list)
    message: str | None = None  # why the oracle was exhausted

    def __post_init__(self) -> None:
        earlier, self.facts = self.facts, []
        self.history = History()
        for fact in earlier:
            self.record(fact)
        if not earlier and self.has_discovery:
            hp = HyperParameters()
            self.declare(hp)
            self.record(SpaceGrew(0.0, None, hp.declared))
        for trial in self.history.trials_in_flight():
            if trial.runs and not trial.runs[-1].is_over:
                lost = RunEnded(0.0, trial.trial_id, trial.runs[-1].index, RunState.LOST, {})
                self.record(lost)

    def run(self) -> Evolution:
        """Go on until the oracle is exhausted."""
        while self.step():
            pass
        assert self.message is not None
        return self

    def step(self) -> bool:
        """Ask until every slot has a trial, and train one to the end of its budget; False if there is none."""
        while len(self.history.trials_in_flight()) < self.slots and self._follow():
            pass
        in_flight = [each.trial_id for each in self.history.trials_in_flight()]
        if in_flight:
            self._train(self.history.trial(in_flight[self.pick(in_flight) % len(in_flight)]))
        return bool(in_flight)

    def record(self, fact: Event) -> None:
        """Take in a fact."""
        self.facts.append(fact)
        self.history.apply(fact)

    @property
    def trials(self) -> list[Trial]:
        return list(self.history.trials.values())

    def _follow(self) -> bool:
        """Ask once; True if there was work."""
        match self.oracle.next_answer(self.history, self.history.next_number):
            case Suggest() as answer:
                self._create(answer)
            case Promote(trial_id, budget):
                assert self.history.trial(trial_id).state is TrialState.PAUSED
                self.record(TrialPromoted(0.0, trial_id, budget))
            case Retire(trial_id):
                self._end(self.history.trial(trial_id))
            case Wait():
                assert self.history.has_trials_in_flight, "it waits with nothing in flight"
                return False
            case Exhausted(message):
                self.message = message
                return False
        return True

    def _create(self, answer: Suggest) -> None:
        if answer.parent is not None:
            parent = self.history.trial(answer.parent)
            assert parent.state is TrialState.PAUSED
            assert parent.budget is not None
            assert answer.budget is not None
            assert parent.budget.epochs == answer.budget.initial_epoch
        number = self.history.next_number
        created = TrialCreated(
            0.0,
            trial_id_of(number),
            number,
            answer.stream,
            dict(answer.values),
            self.history.length,
            answer.budget,
            answer.parent,
        )
        self.record(created)

    def _train(self, trial: Trial) -> None:
        """Run the trial to the end of its budget."""
        assert trial.budget is not None
        trial_id, run = trial.trial_id, len(trial.runs)
        self.record(RunStarted(0.0, trial_id, run, 0, 0, (), None, trial.budget))
        hp = HyperParameters(
            space=self.history.space,
            values=dict(trial.values),
            fill=lambda each: each.from_unit(
                unit_draw(self.oracle.chance, trial.stream, each.name)
            ),
        )
        self.declare(hp)
        added = tuple(each for each in hp.declared if each not in self.history.space)
        if added:
            self.record(SpaceGrew(0.0, trial_id, added))
        self.record(TrialMet(0.0, trial_id, hp.met, hp.met_values(), True))
        if self.fails(trial):
            kind = FailureKind.USER_ERROR
            self.record(RunEnded(0.0, trial_id, run, RunState.FAILED, {}, failure=kind))
            self.record(TrialEnded(0.0, trial_id, TrialState.FAILED, failure=kind, message="no"))
            return
        scores = {
            epoch: self.score(self.history.trial(trial_id), epoch)
            for epoch in range(trial.budget.initial_epoch, trial.budget.epochs)
        }
        for epoch, score in scores.items():
            self.record(Reported(0.0, trial_id, run, epoch, {"score": score}))
        best = min(scores, key=lambda epoch: scores[epoch])
        metrics = {"score": scores[best]}
        self.record(RunEnded(0.0, trial_id, run, RunState.FINISHED, metrics, best))
        if trial.budget.is_last:
            self._end(self.history.trial(trial_id))
        else:
            self.record(TrialPaused(0.0, trial_id, scores[best], best))

    def _end(self, trial: Trial) -> None:
        assert trial.state in (TrialState.PAUSED, TrialState.RUNNING)
        ended = complete(trial, self.policy, Objective("score", "min"))
        self.record(
            TrialEnded(
                0.0, trial.trial_id, ended.status, ended.score, ended.best_step, ended.metrics
            )
        )
