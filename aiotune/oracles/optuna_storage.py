"""A study of Optuna in memory whose newest trials can be taken back."""

from __future__ import annotations

import copy
from collections.abc import Container, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any, NoReturn

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

__all__ = ["RewindableStorage", "open_study"]

_NAME = "aiotune"
_ID = 0  # of the one study; a trial's id is its number


class RewindableStorage(BaseStorage):
    """What Optuna asks of a storage, for one study, in one thread at a time.

    What a sampler notes while a point is sought must not stay: nobody knows yet whether it becomes a trial.
    Invariant: a trial that was handed out never changes; it is replaced.
    """

    def __init__(self, directions: Sequence[StudyDirection]) -> None:
        self.trials: list[FrozenTrial] = []
        self._directions = list(directions)
        self._user_attrs: dict[str, Any] = {}
        self._system_attrs: dict[str, Any] = {}

    # --- for its owner ---

    def drop_after(self, count: int) -> None:
        """Forget all trials but the first `count`; what was noted for the study stays."""
        del self.trials[count:]

    @contextmanager
    def rewinding(self) -> Iterator[None]:
        """Forget, after the block, the trials and the study's attributes that were added in it."""
        count, user_attrs, system_attrs = len(self.trials), self._user_attrs, self._system_attrs
        self._user_attrs, self._system_attrs = dict(user_attrs), dict(system_attrs)
        try:
            yield
        finally:
            self.drop_after(count)
            self._user_attrs, self._system_attrs = user_attrs, system_attrs

    def change(self, number: int, **changes: Any) -> None:
        """Replace attributes of a trial."""
        changed = copy.copy(self.trials[number])
        for name, value in changes.items():
            setattr(changed, name, value)
        self.trials[number] = changed

    # --- the study ---

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> NoReturn:
        raise NotImplementedError("it has one study, and no other")

    def delete_study(self, study_id: int) -> NoReturn:
        raise NotImplementedError("it has one study, for good")

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        self._user_attrs[key] = value

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        self._system_attrs[key] = value

    def get_study_id_from_name(self, study_name: str) -> int:
        return _ID

    def get_study_name_from_id(self, study_id: int) -> str:
        return _NAME

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        return self._directions

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        return self._user_attrs

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        return self._system_attrs

    def get_all_studies(self) -> NoReturn:
        raise NotImplementedError("it has one study, which is open")

    # --- its trials ---

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        number = len(self.trials)
        trial = _running() if template_trial is None else copy.copy(template_trial)
        trial.number = trial._trial_id = number
        self.trials.append(trial)
        return number

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        trial = self.trials[trial_id]
        value = distribution.to_external_repr(param_value_internal)
        self.change(
            trial_id,
            params={**trial.params, param_name: value},
            distributions={**trial.distributions, param_name: distribution},
        )

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        self.change(trial_id, state=state, values=values)
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        known = self.trials[trial_id].intermediate_values
        self.change(trial_id, intermediate_values={**known, step: intermediate_value})

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.change(trial_id, user_attrs={**self.trials[trial_id].user_attrs, key: value})

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        self.change(trial_id, system_attrs={**self.trials[trial_id].system_attrs, key: value})

    def get_trial(self, trial_id: int) -> FrozenTrial:
        return copy.copy(self.trials[trial_id])

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        found = [each for each in self.trials if states is None or each.state in states]
        return copy.deepcopy(found) if deepcopy else found


def _running() -> FrozenTrial:
    return FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.fromtimestamp(
            0
        ),  # no sampler asks when; the search's clock has the times
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


class _Study(Study):
    def stop(self) -> None:
        """Go on: a sampler that knows nothing more stops a loop of Optuna's; the oracle sees it by itself."""


def open_study(storage: RewindableStorage) -> Study:
    """Return the storage's study, to be given a sampler before it is asked."""
    return _Study(_NAME, storage)
