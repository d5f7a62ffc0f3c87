"""When a search ends by itself: limits, and too many failures in a row."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from aiotune.constraints import Bound, breach_of
from aiotune.errors import SearchFailed
from aiotune.events import EndReason, Event, Reported, RunEnded, TrialEnded, TrialPaused
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.resources import Limits
from aiotune.settlement import FAILURES
from aiotune.shared_error import shared_error
from aiotune.spending import Spending
from aiotune.trial import TRIAL_MOVES, Run, RunState, Trial, TrialState
from aiotune.usage import Usage

__all__ = ["EndRules", "Ending"]

_SUCCESSES = frozenset({TrialState.COMPLETED, TrialState.PRUNED, TrialState.PAUSED})
_CUT_OFF = frozenset({RunState.LOST, RunState.CANCELLED})


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a search ends. `error` is what its caller gets instead of a result."""

    reason: EndReason
    message: str | None = None
    error: SearchFailed | None = None


class EndRules:
    """Looks at each fact and tells whether it ends the search. One fact costs no more than a few steps."""

    def __init__(
        self,
        history: History,
        objective: Objective,
        limits: Limits,
        most_failures: int,
        bounds: Sequence[Bound] = (),
    ) -> None:
        self._history = history
        self._objective = objective
        self._bounds = bounds
        self._limits = limits
        self._most_failures = most_failures
        runs = [(trial, run) for trial in history.trials.values() for run in trial.runs]
        self._epochs = sum(_epochs_of(trial, run) for trial, run in runs)
        self.spending = Spending(limits, (run.usage for _, run in runs))
        self._best: float | None = None
        self._without_gain = (
            0  # trials in a row that trained to their end and brought no better score
        )
        # The newest failures that count, since the last success: no more of them than end the search.
        self._failures: deque[Trial] = deque(maxlen=most_failures)
        for trial, state, score in history.moves():
            if state is TrialState.PAUSED or trial.state is state:
                self._learn(trial, state, score)
        # Before the last session that was not cut off they are none: the program may have been mended since.
        recent = {trial.trial_id for trial in history.ended_trials(after=history.ends_settled)}
        failures = [trial for trial in self._failures if trial.trial_id in recent]
        self._failures = deque(failures, maxlen=most_failures)

    def already(self) -> Ending | None:
        """Return the limit that was reached before this session did anything."""
        return (
            self._failures_in_a_row()
            or self._epochs_spent()
            or self.spent()
            or self._patience_spent()
            or self._target_reached(self._best)
            or self._target_reported()
        )

    def after(self, fact: Event) -> Ending | None:
        """Return why `fact`, which the history has already, ends the search; None if it does not."""
        match fact:
            case Reported():
                trial = self._history.trial(fact.trial_id)
                self._epochs += not _is_repeated(trial, trial.runs[fact.run], fact.step)
                return self._epochs_spent() or self._target_reached(self._value(fact.metrics))
            case RunEnded():
                self.spending.note(fact.usage)
                return self.spent()
            case TrialEnded():
                self._learn(self._history.trial(fact.trial_id), fact.status, fact.score)
                return (
                    self._failures_in_a_row()
                    or self._patience_spent()
                    or self._target_reached(fact.score)
                )
            case TrialPaused():
                self._learn(self._history.trial(fact.trial_id), TrialState.PAUSED, fact.score)
                return self._target_reached(fact.score)
            case _:
                return None

    def spent(self, running: Iterable[Usage] = ()) -> Ending | None:
        """Return the limit of GPU time or energy that is reached, counting these runs in progress."""
        reached = self.spending.reached(running)
        return None if reached is None else Ending(*reached)

    def _learn(self, trial: Trial, state: TrialState, score: float | None) -> None:
        """Note what a trial has reached that moves to `state`.

        A gain is one wherever it comes. The lack of one counts only for a trial that was to train no further:
        others were not given the epochs to show what is in them. A success, also a pause, ends a row of
        failures.
        """
        if score is not None and self._is_gain(score):
            self._best, self._without_gain = score, 0
        elif _had_its_chance(trial, state):
            self._without_gain += 1
        if state in _SUCCESSES:
            self._failures.clear()
        elif trial.is_over and trial.failure is not None and FAILURES[trial.failure].counts:
            self._failures.append(trial)

    def _is_gain(self, score: float) -> bool:
        return self._best is None or self._objective.better_than(score, self._best)

    def _value(self, metrics: Mapping[str, float]) -> float | None:
        """Return the score that these metrics stand for, if they do not break a bound."""
        has_value = self._objective.has_value(metrics) and breach_of(self._bounds, metrics) is None
        return self._objective.get_value(metrics) if has_value else None

    def _epochs_spent(self) -> Ending | None:
        most = self._limits.max_epochs
        if most is None or self._epochs < most:
            return None
        return Ending(EndReason.EPOCHS, f"max_epochs={most} steps were reported")

    def _target_reported(self) -> Ending | None:
        """Look at what trials have reported that are not over: what one reached in vain shows only there."""
        for trial in self._history.open_trials():
            for run in trial.runs:
                for each in run.observations:
                    if ending := self._target_reached(self._value(each.metrics)):
                        return ending
        return None

    def _target_reached(self, score: float | None) -> Ending | None:
        target = self._limits.target
        if target is None or score is None or score != score:
            return None
        if self._objective.better_than(target, score):
            return None
        return Ending(EndReason.TARGET, f"the score {score:g} reached target={target:g}")

    def _patience_spent(self) -> Ending | None:
        most = self._limits.patience
        if most is None or self._without_gain < most:
            return None
        return Ending(
            EndReason.PATIENCE, f"patience={most} trials in a row brought no better score"
        )

    def _failures_in_a_row(self) -> Ending | None:
        most, failures = self._most_failures, [*reversed(self._failures)]
        if len(failures) < most:
            return None
        error = SearchFailed(
            f"{most} trials failed in a row (max_consecutive_failed_trials={most}). "
            f"{shared_error(failures)}\n"
            "Every result so far is kept: mend the program and call search() again to go on."
        )
        return Ending(EndReason.FAILED, str(error), error)


def _epochs_of(trial: Trial, run: Run) -> int:
    """Return how many steps a run has reported that no run before it had."""
    if all(former.state not in _CUT_OFF for former in trial.runs[: run.index]):
        return len(run.observations)
    return sum(not _is_repeated(trial, run, each.step) for each in run.observations)


def _is_repeated(trial: Trial, run: Run, step: int) -> bool:
    """Tell whether a run that was cut off has reported this step before, so that it is trained once more."""
    return any(
        former.state in _CUT_OFF
        and (former.repeat, former.budget) == (run.repeat, run.budget)
        and any(each.step == step for each in former.observations)
        for former in trial.runs[: run.index]
    )


def _had_its_chance(trial: Trial, state: TrialState) -> bool:
    """Tell whether a trial that moves to `state` has ended, and not for want of a promotion."""
    if state in TRIAL_MOVES or state is TrialState.DUPLICATE:
        return False
    return state is not TrialState.COMPLETED or trial.budget is None or trial.budget.is_last
