"""The trials of a search as a study of Optuna: for its plots, its importances, its dashboard."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.storages import BaseStorage, RDBStorage
from optuna.study import Study, create_study
from optuna.trial import FrozenTrial

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.labels import Scalar, exact
from aiotune.objective import Objective
from aiotune.oracles.optuna_axes import has_exact_step, parameter_names, texts_or_options
from aiotune.oracles.optuna_quiet import quiet
from aiotune.oracles.optuna_trials import (
    attributes_of,
    curve_of,
    directions_of,
    goals_of,
    outcome_of,
)
from aiotune.space import Float, HyperParameter, Int, Space
from aiotune.trial import Trial

__all__ = ["BaseStorage", "Study", "shown", "to_study"]

_OWNER = (
    "aiotune/created_at"  # a study's attribute: when the first trial of its search was asked for
)


def to_study(
    trials: Sequence[Trial],
    objective: Objective,
    study_name: str | None = None,
    storage: str | BaseStorage | None = None,
) -> Study:
    """Return a study that has these trials, all of one search, in the order of asking.

    storage: where to keep it, as for `optuna.create_study`: "sqlite:///study.db"; None: in memory. A study that
    is there under `study_name` gets what is new. FatalValueError if it is another search's.
    """
    with quiet():
        backend = _backend(storage, study_name)
        study = _opened(study_name, backend, objective)
        _claim(study, trials)
        recorder = _Recorder(trials, objective)
        known = {each.user_attrs["trial_id"]: each for each in study.get_trials(deepcopy=False)}
        for trial in trials:
            former = known.get(trial.trial_id)
            if former is None:
                study.add_trial(recorder.record(trial))
            elif backend is not None and not former.state.is_finished():
                _update(study, backend, former, recorder.record(trial))
    return study


# --- the study ---


def _backend(storage: object, study_name: str | None) -> BaseStorage | None:
    """Return where the study is kept; None: in memory. FatalTypeError, FatalValueError for no such place."""
    if storage is None:
        return None
    if not isinstance(storage, str | BaseStorage):
        raise FatalTypeError(
            f'storage={storage!r}: a URL such as "sqlite:///study.db" is needed, or a storage of Optuna'
        )
    if study_name is None:
        raise FatalValueError(
            "study_name is missing: with it, a later call finds the study in the storage"
        )
    if isinstance(storage, BaseStorage):
        return storage
    try:
        return RDBStorage(storage)
    except Exception as error:
        raise FatalValueError(
            f"storage={storage!r} cannot be opened: {error}\nFor a file write "
            'storage="sqlite:///study.db"'
        ) from error


def _opened(study_name: str | None, backend: BaseStorage | None, objective: Objective) -> Study:
    directions = directions_of(objective)
    study = create_study(
        storage=backend, study_name=study_name, directions=directions, load_if_exists=True
    )
    if study.directions != directions:
        raise FatalValueError(
            f"the study {study_name!r} has other directions than {objective}: choose another study_name"
        )
    if study.metric_names is None:
        study.set_metric_names([each.name for each in goals_of(objective)])
    return study


def _claim(study: Study, trials: Sequence[Trial]) -> None:
    """Note whose study it is. FatalValueError if it has trials of another search, or of none."""
    if not trials:
        return
    owner = trials[0].created_at
    if _OWNER not in study.user_attrs and not study.get_trials(deepcopy=False):
        study.set_user_attr(_OWNER, owner)
    elif study.user_attrs.get(_OWNER) != owner:
        raise FatalValueError(
            f"the study {study.study_name!r} has trials that are not of this search: choose another study_name"
        )


def _update(study: Study, backend: BaseStorage, former: FrozenTrial, trial: FrozenTrial) -> None:
    """Bring a trial that was in progress up to date."""
    study_id = backend.get_study_id_from_name(study.study_name)
    trial_id = backend.get_trial_id_from_study_id_trial_number(study_id, former.number)
    for name in trial.params.keys() - former.params.keys():
        distribution = trial.distributions[name]
        internal = distribution.to_internal_repr(trial.params[name])
        backend.set_trial_param(trial_id, name, internal, distribution)
    for step, value in trial.intermediate_values.items():
        if former.intermediate_values.get(step) != value:
            backend.set_trial_intermediate_value(trial_id, step, value)
    for key, attribute in trial.user_attrs.items():
        if former.user_attrs.get(key) != attribute:
            backend.set_trial_user_attr(trial_id, key, attribute)
    if trial.state.is_finished():
        backend.set_trial_state_values(trial_id, trial.state, trial.values)


# --- its trials ---


class _Recorder:
    """Writes trials of one search in Optuna's terms."""

    def __init__(self, trials: Sequence[Trial], objective: Objective) -> None:
        self._objective = objective
        self._space = Space(each for trial in trials for each in trial.space)
        self._names = parameter_names(self._space, _usual_distribution)

    def record(self, trial: Trial) -> FrozenTrial:
        state, values = outcome_of(trial, self._objective)
        parameters, distributions = self._point(trial)
        started_at = trial.runs[0].started_at if trial.runs else trial.created_at
        return FrozenTrial(
            number=-1,  # the study gives it
            trial_id=-1,
            state=state,
            value=None,
            values=values,
            datetime_start=datetime.fromtimestamp(started_at),
            datetime_complete=_ended_at(trial),
            params=parameters,
            distributions=distributions,
            user_attrs=attributes_of(trial),
            system_attrs={},
            intermediate_values=curve_of(trial, self._objective),
        )

    def _point(self, trial: Trial) -> tuple[dict[str, Any], dict[str, BaseDistribution]]:
        """Return the parameters with their distributions; none before the trial's names are known.

        What was proposed for it may be more than the program asks for, and a storage takes nothing back.
        """
        parameters: dict[str, Any] = {}
        distributions: dict[str, BaseDistribution] = {}
        if trial.is_path_complete or trial.is_over:
            for each in self._space.active(trial.values):
                if each.name in trial.values and each.contains(trial.values[each.name]):
                    name = self._names[each.identity]
                    distributions[name], parameters[name] = shown(each, trial.values[each.name])
        return parameters, distributions


def _ended_at(trial: Trial) -> datetime | None:
    if not trial.is_over:
        return None
    assert trial.ended_at is not None
    return datetime.fromtimestamp(trial.ended_at)


def shown(declared: HyperParameter, value: Scalar) -> tuple[BaseDistribution, Any]:
    """Return a distribution that has the value, and the value in it, for people to read.

    Steps in factors are left out, which Optuna does not have, and so are steps beside which the value lies: a
    default may. Reversed factors are shown on a linear scale. Choices are categories; where Python takes two of
    them for equal (1 and True), they are shown as JSON texts.
    """
    match declared:
        case Int(min_value=low, max_value=high, sampling="linear", step=step):
            if not _is_on_step(declared, value):
                return IntDistribution(low, high), value
            return IntDistribution(low, declared.value_at(declared.size - 1), step=step or 1), value
        case Int(min_value=low, max_value=high, sampling=sampling):
            return IntDistribution(low, high, log=sampling == "log"), value
        case Float(min_value=low, step=step) if has_exact_step(declared):
            if _is_on_step(declared, value):
                last = declared.value_at(declared.finite_size() - 1)
                return FloatDistribution(low, last, step=step), value
            return FloatDistribution(low, declared.max_value), value
        case Float(min_value=low, max_value=high, sampling=sampling):
            return FloatDistribution(low, high, log=sampling == "log"), value
        case _:
            choices = texts_or_options(declared)
            return CategoricalDistribution(choices), choices[declared.index_of(value)]


def _is_on_step(declared: Int | Float, value: Scalar) -> bool:
    return exact(declared.value_at(declared.index_of(value))) == exact(value)


def _usual_distribution(declared: HyperParameter) -> BaseDistribution:
    """Return the distribution of the values that are no default between the steps."""
    value = declared.default if declared.size is None else declared.value_at(0)
    return shown(declared, value)[0]
