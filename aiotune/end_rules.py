"""When a search ends by itself: limits, and too many failures in a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

from aiotune.conclusion import LOG_MARK
from aiotune.constraints import Bound, breach_of
from aiotune.errors import SearchFailed
from aiotune.events import EndReason, Event, Reported, RunEnded, TrialEnded, TrialPaused
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.resources import Limits
from aiotune.spending import Spending
from aiotune.trial import TRIAL_MOVES, FailureKind, Trial, TrialState
from aiotune.usage import Usage

__all__ = ["EndRules", "Ending"]

_COUNTED_FAILURES = frozenset({FailureKind.USER_ERROR, FailureKind.CRASH})
_SUCCESSES = frozenset({TrialState.COMPLETED, TrialState.PRUNED})


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
        runs = [run for trial in history.trials.values() for run in trial.runs]
        self._epochs = sum(len(run.observations) for run in runs)
        self.spending = Spending(limits, (run.usage for run in runs))
        self._best: float | None = None
        self._without_gain = (
            0  # trials in a row that trained to their end and brought no better score
        )
        self._ended_here = 0  # trials that ended in this session, since the last one paused
        for trial, state in history.moves():
            if state is TrialState.PAUSED or trial.state is state:
                self._learn(trial, state)

    def already(self) -> Ending | None:
        """Return the limit that was reached before this session did anything."""
        return (
            self._epochs_spent()
            or self.spent()
            or self._patience_spent()
            or self._target_reached(self._best)
        )

    def after(self, fact: Event) -> Ending | None:
        """Return why `fact`, which the history has already, ends the search; None if it does not."""
        match fact:
            case Reported():
                self._epochs += 1
                return self._epochs_spent() or self._target_reached(self._value(fact.metrics))
            case RunEnded():
                self.spending.note(fact.usage)
                return self.spent()
            case TrialEnded():
                self._learn(self._history.trial(fact.trial_id), fact.status)
                self._ended_here += 1
                return (
                    self._failures_in_a_row()
                    or self._patience_spent()
                    or self._target_reached(fact.score)
                )
            case TrialPaused():
                self._ended_here = 0  # a success: the failures before it are none in a row
                self._learn(self._history.trial(fact.trial_id), TrialState.PAUSED)
                return self._target_reached(fact.score)
            case _:
                return None

    def spent(self, running: Iterable[Usage] = ()) -> Ending | None:
        """Return the limit of GPU time or energy that is reached, counting these runs in progress."""
        reached = self.spending.reached(running)
        return None if reached is None else Ending(*reached)

    def _learn(self, trial: Trial, state: TrialState) -> None:
        """Note what a trial has reached that moves to `state`.

        A gain is one wherever it comes. The lack of one counts only for a trial that was to train no further:
        others were not given the epochs to show what is in them.
        """
        score = trial.score
        if score is not None and self._is_gain(score):
            self._best, self._without_gain = score, 0
        elif _had_its_chance(trial, state):
            self._without_gain += 1

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
        """Look back over this session only: the program may have been mended since an earlier one."""
        most = self._most_failures
        newest = islice(self._history.newest_ended(), self._ended_here)
        failures = list(islice(_failures_first(newest), most))
        if len(failures) < most:
            return None
        lines = {_error_line(each) for each in failures}
        shared = (
            f"They share one error: {lines.pop()}"
            if len(lines) == 1
            else "Their errors differ; the last one:"
        )
        error = SearchFailed(
            f"{most} trials failed in a row (max_consecutive_failed_trials={most}). "
            f"{shared}\n{failures[0].message}\n"
            "Every result so far is kept: mend the program and call search() again to go on."
        )
        return Ending(EndReason.FAILED, str(error), error)


def _had_its_chance(trial: Trial, state: TrialState) -> bool:
    """Tell whether a trial that moves to `state` has ended, and not for want of a promotion."""
    if state in TRIAL_MOVES or state is TrialState.DUPLICATE:
        return False
    return state is not TrialState.COMPLETED or trial.budget is None or trial.budget.is_last


def _failures_first(newest_first: Iterable[Trial]) -> Iterable[Trial]:
    """Yield the failures that count, up to the last success."""
    for trial in newest_first:
        if trial.state in _SUCCESSES:
            return
        if trial.state is TrialState.FAILED and trial.failure in _COUNTED_FAILURES:
            yield trial


def _error_line(trial: Trial) -> str:
    """Return the line that names the error: of a traceback, the one after its last, indented, call."""
    lines = [each for each in (trial.message or "").splitlines() if not each.startswith(LOG_MARK)]
    if not lines or not lines[0].startswith("Traceback"):
        return next(iter(lines), "")
    calls = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return next(iter(lines[calls[-1] + 1 :]), lines[0]) if calls else lines[-1]
