"""Ends what makes no headway any more, or lets another rule do so."""

from __future__ import annotations

import math

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.options import whole_number
from aiotune.pruners.base import Pruner
from aiotune.pruners.options import number
from aiotune.pruners.reports import Loss, is_deciding, loss_of
from aiotune.trial import Run, Trial

__all__ = ["PatientPruner"]


class PatientPruner(Pruner):
    """Lets another pruner end a trial only if its last `patience` reports brought no gain.

    pruner: the other one; None: such a trial is ended without further question. min_delta: what is less than
    this is no gain, as with Keras's EarlyStopping. A report without the objective does not count; one that is
    not a number is no gain. With several objectives, a gain in any of them is one.
    """

    def __init__(self, pruner: Pruner | None, patience: int, min_delta: float = 0.0) -> None:
        if pruner is not None and not isinstance(pruner, Pruner):
            raise FatalTypeError(
                f"PatientPruner({pruner!r}, ...): a pruner comes first, or None for no other rule"
            )
        if pruner is not None and not pruner.judges_reports:
            raise FatalValueError(
                f"PatientPruner({type(pruner).__name__}(...), ...): that one looks at the ends of repeats, for "
                "which patience means nothing"
            )
        self.pruner = pruner
        self.patience = whole_number("patience", patience)
        self.min_delta = number("min_delta", min_delta)
        if self.min_delta < 0:
            raise FatalValueError(f"min_delta={min_delta}: it must be 0 or more")

    def judge(self, history: History, trial: Trial, run: Run) -> str | None:
        # The other one is asked in any case: it keeps up with the search by what it is asked.
        reason = None if self.pruner is None else self.pruner.judge(history, trial, run)
        if self.pruner is not None and reason is None:
            return None
        if trial.objective is None or not is_deciding(run) or self._has_gained(trial, run):
            return None
        return reason or f"its last {self.patience} reports brought no gain"

    def check(self, objective: Objective, repeats: int) -> None:
        super().check(objective, repeats)
        if self.pruner is not None:
            self.pruner.check(objective, repeats)

    def _has_gained(self, trial: Trial, run: Run) -> bool:
        """Tell whether the newest reports are better than all before them, or too few to tell."""
        objective = trial.objective
        assert objective is not None
        curve = [each for each in trial.curve(run) if objective.has_value(each.metrics)]
        if not curve or curve[-1] != run.observations[-1]:
            return True  # nothing to judge at the newest step
        losses = [loss_of(each.metrics, objective) for each in curve]
        before, after = losses[: -self.patience], losses[-self.patience :]
        if not before:
            return True
        return any(
            _least(after, part) < _least(before, part) - self.min_delta
            for part in range(_width(objective))
        )


def _width(objective: Objective) -> int:
    return len(objective.parts) if objective.seeks_front else 1


def _least(losses: list[Loss | None], part: int) -> float:
    return min((each[part] for each in losses if each is not None), default=math.inf)
