"""A search with budgets and without an event loop: oracle, history, and runs whose scores are functions."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from aiotune.conclusion import conclude
from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SpaceGrew,
    StopRequested,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.executors.base import Failed, Finished
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.oracles.base import (
    Answer,
    Exhausted,
    Oracle,
    Promote,
    Retire,
    Suggest,
    Verdict,
    Wait,
)
from aiotune.settlement import Policy, Settlement, complete, settle
from aiotune.space import unit_draw
from aiotune.trial import (
    Budget,
    FailureKind,
    Observation,
    StopCause,
    Trial,
    TrialState,
    trial_id_of,
)

__all__ = ["Rungs", "noise", "one_name", "rungs_of"]

Score = Callable[[Trial, int], float]  # of a trial at an epoch
_POLICY = Policy()


def one_name(hp: HyperParameters) -> None:
    hp.Float("x", 0, 1)


def noise(trial: Trial, epoch: int) -> float:
    """A score that depends on the point and the epoch alone: who leads in one rung may not in the next."""
    return unit_draw(1, "score", trial.stream, epoch)


@dataclass
class Rungs:
    """Asks for work, up to `slots` runs at a time, and lets runs go on as `pick` says.

    score: of a trial at an epoch, to be minimised; NaN fails the run, if there is no number. fails: whether a
    run breaks. pick: which of the runs goes on next. by_epoch: a run goes on by one epoch, and may be stopped;
    else to its end at once. facts: of an earlier session.
    """

    oracle: Oracle
    slots: int = 1
    score: Score = noise
    fails: Callable[[Trial], bool] = lambda trial: False
    pick: Callable[[list[str]], int] = lambda running: 0
    declare: Callable[[HyperParameters], object] = one_name
    by_epoch: bool = False
    facts: list[Event] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    exhausted: Exhausted | None = None

    def __post_init__(self) -> None:
        earlier, self.facts = self.facts, []
        self.history = History()
        self.oracle.follow(lambda: self.history)
        for fact in earlier:
            self._record(fact)
        if not earlier:
            hp = HyperParameters()
            self.declare(hp)
            self._record(SpaceGrew(0.0, None, hp.declared))

    def run(self, steps: int | None = None) -> Rungs:
        """Go on to the end, or for so many steps of runs."""
        while steps is None or steps > 0:
            self.ask()
            running = [each.trial_id for each in self.history.trials_in_flight()]
            if not running:
                assert self.exhausted is not None
                return self
            self._go_on(running[self.pick(running) % len(running)])
            steps = None if steps is None else steps - 1
        return self

    def ask(self) -> None:
        """Ask until every slot has a run, or the oracle waits."""
        while len(self.history.trials_in_flight()) < self.slots:
            number = self.history.next_number
            answer = self.oracle.next_answer(self.history, number)
            self.answers.append(answer)
            match answer:
                case Suggest():
                    self._create(answer, number)
                case Promote(trial_id, budget):
                    assert self.history.trial(trial_id).state is TrialState.PAUSED
                    self._record(TrialPromoted(0.0, trial_id, budget))
                case Retire(trial_id):
                    trial = self.history.trial(trial_id)
                    self._end(complete(trial, _POLICY, self.oracle.objective), trial_id)
                case Wait():
                    assert self.history.has_trials_in_flight, "it waits with nothing in flight"
                    return
                case Exhausted():
                    self.exhausted = answer
                    return

    @property
    def trials(self) -> list[Trial]:
        return list(self.history.trials.values())

    def _create(self, answer: Suggest, number: int) -> None:
        most = self.oracle.max_trials
        assert most is None or self.history.counted() < most
        self._record(
            TrialCreated(
                0.0,
                trial_id_of(number),
                number,
                answer.stream,
                dict(answer.values),
                self.history.length,
                answer.budget,
            )
        )

    def _go_on(self, trial_id: str) -> None:
        trial = self.history.trial(trial_id)
        if trial.state is TrialState.QUEUED:
            self._start(trial)
            trial = self.history.trial(trial_id)
        run = trial.runs[-1]
        if self.fails(trial):
            self._conclude(trial_id, Failed(FailureKind.USER_ERROR, "ValueError: no"))
            return
        budget = run.budget
        assert budget is not None
        first = run.observations[-1].step + 1 if run.observations else budget.initial_epoch
        for epoch in range(first, first + 1 if self.by_epoch else budget.epochs):
            observation = Observation(epoch, {"score": self.score(trial, epoch)})
            self._record(Reported(0.0, trial_id, run.index, epoch, observation.metrics))
            if self.oracle.judge(self.history.trial(trial_id), observation) is Verdict.STOP:
                self._record(StopRequested(0.0, trial_id, run.index, StopCause.RULE))
                self._conclude(trial_id, Finished(is_stopped=True))
                return
            if epoch == budget.epochs - 1:
                self._conclude(trial_id, Finished())

    def _start(self, trial: Trial) -> None:
        self._record(
            RunStarted(0.0, trial.trial_id, len(trial.runs), 0, 0, (), None, budget=trial.budget)
        )
        hp = HyperParameters(space=self.history.space, values=dict(trial.values))
        self.declare(hp)
        self._record(TrialMet(0.0, trial.trial_id, hp.met, hp.met_values(), True))

    def _conclude(self, trial_id: str, outcome: Finished | Failed) -> None:
        trial = self.history.trial(trial_id)
        run = trial.runs[-1]
        ended = conclude(outcome, run, self.oracle.objective, list(run.observations))
        self._record(
            RunEnded(
                0.0, trial_id, run.index, ended.state, ended.metrics, ended.best_step, ended.failure
            )
        )
        settlement = settle(self.history.trial(trial_id), _POLICY, self.oracle.objective)
        assert settlement is not None
        if settlement.status is TrialState.PAUSED:
            self._record(TrialPaused(0.0, trial_id, settlement.score, settlement.best_step))
        else:
            self._end(settlement, trial_id)

    def _end(self, settlement: Settlement, trial_id: str) -> None:
        self._record(
            TrialEnded(
                0.0,
                trial_id,
                settlement.status,
                settlement.score,
                settlement.best_step,
                settlement.metrics,
                settlement.failure,
            )
        )

    def _record(self, fact: Event) -> None:
        self.facts.append(fact)
        self.history.apply(fact)


def rungs_of(history: History) -> Mapping[tuple[int, int, int], list[Trial]]:
    """Return who trained where, (iteration, bracket, rung), in the order of asking."""
    rungs: dict[tuple[int, int, int], list[Trial]] = defaultdict(list)
    for trial in history.trials.values():
        budgets: list[Budget | None] = [run.budget for run in trial.runs]
        for budget in dict.fromkeys(budgets):
            assert budget is not None
            assert budget.bracket is not None
            assert budget.rung is not None
            rungs[budget.iteration, budget.bracket, budget.rung].append(trial)
    return rungs


def score_at(trial: Trial, rung: int) -> float:
    """Return the trial's score in a rung; NaN if it failed there."""
    scores = [
        run.metrics["score"]
        for run in trial.runs
        if run.budget is not None and run.budget.rung == rung and run.metrics
    ]
    return scores[0] if scores else math.nan
