"""One training along a schedule: a line of trials, each of which goes on from the one before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn

from aiotune.errors import FatalTypeError, FatalValueError, StoreMismatch
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.labels import exact
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Retire, Suggest, Wait
from aiotune.schedule import Schedule, Stage
from aiotune.space import Space
from aiotune.trial import Budget, Trial, TrialState

__all__ = ["ReplayOracle"]


class ReplayOracle(Oracle):
    """Proposes a trial for each stage of `schedule`, one after the other.

    seed: None: the schedule's, so that the training has the same chance as the one that was found.
    """

    def __init__(
        self,
        schedule: Schedule,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        max_retries_per_trial: int = 0,
    ) -> None:
        if not isinstance(schedule, Schedule):
            raise FatalTypeError(
                f"schedule={schedule!r:.80}: an aiotune.Schedule is needed, as tuner.best_schedule() and "
                "aiotune.Schedule.load(path) return it"
            )
        super().__init__(
            objective=objective,
            hyperparameters=hyperparameters,
            seed=schedule.seed if seed is None else seed,
            max_retries_per_trial=max_retries_per_trial,
        )
        self.schedule = schedule
        self._checked: Space | None = None  # the values fit it

    def ask(self, history: History, number: int) -> Answer:
        self._check_values(history)
        trials = [history.numbered(each) for each in range(history.next_number)]
        for index, trial in enumerate(trials):
            self._require_planned(trial, index)
        for passed in trials[:-1]:
            if passed.state is TrialState.PAUSED:
                return Retire(passed.trial_id)
        if not trials:
            return self._suggested(0, None)
        last = trials[-1]
        if last.state is TrialState.PAUSED:
            return self._suggested(len(trials), last.trial_id)
        if not last.is_over:
            return Wait()
        if last.state is not TrialState.COMPLETED:
            return Exhausted(
                f"trial {last.trial_id} ended as {last.status}: nothing goes on from it"
            )
        return Exhausted("the schedule is done")

    def enqueue(self, *points: object, is_wish: bool = False) -> NoReturn:
        """FatalTypeError: no other point is tried."""
        raise FatalTypeError("Replay takes no further points: its schedule has the values")

    def _suggested(self, index: int, parent: str | None) -> Suggest:
        stage = self.schedule.stages[index]
        return Suggest(dict(stage.values), stage.stream, self._budget(index), parent)

    def _budget(self, index: int) -> Budget:
        stage = self.schedule.stages[index]
        is_last = index == len(self.schedule) - 1
        return Budget(stage.to_epoch, stage.from_epoch, rung=index, is_last=is_last)

    def _require_planned(self, trial: Trial, index: int) -> None:
        """Raise StoreMismatch for a trial of another schedule, or of a search."""
        if index < len(self.schedule):
            stage = self.schedule.stages[index]
            if trial.budget == self._budget(index) and _is_at(trial, stage):
                return
        raise StoreMismatch(
            f"trial {trial.trial_id} of this project is none of this schedule: choose another project_name, or "
            "pass overwrite=True to begin anew"
        )

    def _check_values(self, history: History) -> None:
        """Raise FatalValueError for a value that the space, once it is known, does not have."""
        if history.space is self._checked:
            return
        for name, value in [pair for stage in self.schedule for pair in stage.values.items()]:
            declared = history.space.named(name)
            if declared and not any(each.contains(value) for each in declared):
                raise FatalValueError(
                    f"schedule: {name} = {value!r} is not in {' or '.join(map(str, declared))}"
                )
        self._checked = history.space


def _is_at(trial: Trial, stage: Stage) -> bool:
    """Tell whether a trial was begun with the values of a stage."""
    return trial.stream == stage.stream and {
        name: exact(each) for name, each in trial.proposed.items()
    } == {name: exact(each) for name, each in stage.values.items()}
