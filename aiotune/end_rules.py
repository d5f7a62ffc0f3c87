"""When a search ends by itself: limits, and too many failures in a row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from aiotune.errors import SearchFailed
from aiotune.events import EndReason, Event, Reported, TrialEnded
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.resources import Limits
from aiotune.trial import FailureKind, Trial, TrialState

__all__ = ["EndRules"]

_COUNTED_FAILURES = frozenset({FailureKind.USER_ERROR, FailureKind.CRASH})
_SUCCESSES = frozenset({TrialState.COMPLETED, TrialState.PRUNED})

Ending = tuple[EndReason, str]


class EndRules:
    """Looks at each fact and tells whether it ends the search."""

    def __init__(
        self, history: History, objective: Objective, limits: Limits, most_failures: int
    ) -> None:
        self._history = history
        self._objective = objective
        self._limits = limits
        self._most_failures = most_failures
        # Failures of an earlier session do not count: the program may have been mended since.
        self._first = len(history.ended_trials())
        self._epochs = sum(len(run.observations) for t in history.trials.values() for run in t.runs)

    def already(self) -> Ending | None:
        """Return the limit that was reached before this session did anything."""
        return self._epochs_spent() or self._patience_spent() or self._target_reached()

    def after(self, fact: Event) -> Ending | None:
        """Return why `fact` ends the search, or None. SearchFailed after too many failures in a row."""
        match fact:
            case Reported():
                self._epochs += 1
                return self._epochs_spent() or self._is_target(fact.metrics)
            case TrialEnded():
                self._check_failures()
                return self._patience_spent() or self._target_reached()
            case _:
                return None

    def _epochs_spent(self) -> Ending | None:
        most = self._limits.max_epochs
        if most is None or self._epochs < most:
            return None
        return EndReason.EPOCHS, f"max_epochs={most} steps were reported"

    def _is_target(self, metrics: Mapping[str, float]) -> Ending | None:
        if not self._objective.has_value(metrics):
            return None
        return self._judge_target(self._objective.get_value(metrics))

    def _target_reached(self) -> Ending | None:
        scores = [t.score for t in self._history.trials.values() if t.has_score]
        for score in scores:
            if score is not None and (ending := self._judge_target(score)):
                return ending
        return None

    def _judge_target(self, score: float) -> Ending | None:
        target = self._limits.target
        if target is None or self._objective.better_than(target, score) or score != score:
            return None
        return EndReason.TARGET, f"the score {score:g} reached target={target:g}"

    def _patience_spent(self) -> Ending | None:
        most = self._limits.patience
        if most is None or self._trials_without_gain() < most:
            return None
        return EndReason.PATIENCE, f"patience={most} trials in a row brought no better score"

    def _trials_without_gain(self) -> int:
        best: float | None = None
        count = 0
        for trial in self._history.ended_trials():
            if trial.state is TrialState.DUPLICATE:
                continue
            count += 1
            if trial.score is not None and (
                best is None or self._objective.better_than(trial.score, best)
            ):
                best, count = trial.score, 0
        return count

    def _check_failures(self) -> None:
        failures = list(_failures_in_a_row(reversed(self._history.ended_trials(after=self._first))))
        if len(failures) < self._most_failures:
            return
        messages = {_error_line(each) for each in failures}
        shared = (
            f"They share one error: {messages.pop()}"
            if len(messages) == 1
            else ("Their errors differ; the last one:")
        )
        raise SearchFailed(
            f"{len(failures)} trials failed in a row (max_consecutive_failed_trials="
            f"{self._most_failures}). {shared}\n{failures[0].message}\n"
            "Every result so far is kept: mend the program and call search() again to go on."
        )


def _failures_in_a_row(newest_first: Iterable[Trial]) -> Iterable[Trial]:
    for trial in newest_first:
        if trial.state in _SUCCESSES:
            return
        if trial.state is TrialState.FAILED and trial.failure in _COUNTED_FAILURES:
            yield trial


def _error_line(trial: Trial) -> str:
    """Return the line that names the error: of a traceback, the one after its last, indented, call."""
    lines = (trial.message or "").splitlines()
    if not lines or not lines[0].startswith("Traceback"):
        return next(iter(lines), "")
    calls = [number for number, line in enumerate(lines) if line.startswith(" ")]
    return next(iter(lines[calls[-1] + 1 if calls else 1 :]), lines[0])
