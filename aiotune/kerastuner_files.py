"""A project directory that KerasTuner wrote, as records. It is read, never changed.

    {directory}/{project_name}/
        oracle.json                              the space, the order of the trials, the seed
        trial_07/trial.json                      a trial: its space and values, metrics, score, status
        trial_07/checkpoint.weights.h5           the weights of its best epoch
        trial_07/build_config.json               the shapes that the weights need

Files that are missing or torn are left out, and said to be: a project is read as far as it can be.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from aiotune.decoding import a_count, a_text, space_of, values_of
from aiotune.errors import FatalError, FatalValueError
from aiotune.kerastuner_json import (
    a_plan,
    a_step,
    a_text_or_none,
    a_time,
    an_object,
    ids_of,
    read_object,
    values_at,
)
from aiotune.objective import Direction
from aiotune.private_files import check_directory
from aiotune.space import (
    Choice,
    Condition,
    Float,
    HyperParameter,
    Scalar,
    Space,
    Values,
)

__all__ = ["Metric", "Plan", "SourceProject", "SourceTrial", "read_project"]

_BROKEN = (AttributeError, LookupError, TypeError, ArithmeticError, OSError, RecursionError)
_NEARLY = 1e-12  # relative: what KerasTuner's arithmetic may add to a value on a grid


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric of a trial. At each step a list of values: KerasTuner takes their mean."""

    direction: Direction
    values: Mapping[int, Sequence[float]]

    def best(self) -> float | None:
        """Return the best mean of a step, None without a number."""
        means = [statistics.fmean(each) for each in self.values.values()]
        numbers = [mean for mean in means if not math.isnan(mean)]
        choose = min if self.direction == "min" else max
        return choose(numbers) if numbers else None


@dataclass(frozen=True, slots=True)
class SourceTrial:
    """What trial.json says. `space` and `values` are those that are active, as aiotune keeps them."""

    trial_id: str
    directory: Path
    space: tuple[HyperParameter, ...]
    declared: tuple[HyperParameter, ...]  # active or not
    values: Values  # with names that no declaration owns: set by hand, or Hyperband's
    metrics: Mapping[str, Metric]
    score: float | None
    best_step: int | None
    status: str
    message: str | None
    started_at: float | None
    written_at: float  # when the file was
    attempts: int  # that were made

    @property
    def is_scored(self) -> bool:
        return self.status == "COMPLETED" and self.score is not None and not math.isnan(self.score)

    @property
    def weights(self) -> Path:
        return self.directory / "checkpoint.weights.h5"

    @property
    def build_config(self) -> Path:
        return self.directory / "build_config.json"


@dataclass(frozen=True, slots=True)
class Plan:
    """The arguments that KerasTuner's Hyperband was made with."""

    max_epochs: int
    factor: int
    iterations: int


@dataclass(frozen=True, slots=True)
class SourceProject:
    """A whole project. `trials` are in the order in which they began."""

    directory: Path
    trials: tuple[SourceTrial, ...]
    space: Space
    ended: tuple[str, ...]  # ids, in the order of their ends
    to_retry: frozenset[str]  # ids of trials that failed and were to be tried again
    seed: int | None
    plan: Plan | None  # of Hyperband
    proposer: str | None  # its algorithm, where the files tell
    warnings: tuple[str, ...]


def read_project(directory: Path, booleans: Collection[str] = ()) -> SourceProject:
    """Return the project in `directory`. FatalValueError if there is none.

    `booleans`: names of those Choices of 1 and 0 that the program declares with True and False.
    """
    warnings: list[str] = []
    oracle = _read_oracle(directory, warnings)
    states = _read_trials(directory, warnings)
    if not states:
        raise FatalValueError(_nothing_in(directory, warnings))
    space = _space_of(oracle.get("hyperparameters"), booleans, directory / "oracle.json")
    trials = [_trial(path, state, oracle, booleans) for path, state in states]
    for trial in trials:
        space = space.grow(trial.declared)
    _check_known(booleans, space)
    trials = _each_once(trials, warnings)
    order = {trial_id: place for place, trial_id in enumerate(ids_of(oracle.get("start_order")))}
    warnings.extend(_missing(order, trials))
    return SourceProject(
        directory=directory,
        trials=tuple(
            sorted(trials, key=lambda each: (order.get(each.trial_id, len(order)), each.trial_id))
        ),
        space=space,
        ended=tuple(ids_of(oracle.get("end_order"))),
        to_retry=frozenset(ids_of(oracle.get("retry_queue"))),
        seed=seed if type(seed := oracle.get("seed")) is int else None,
        plan=_plan_of(oracle),
        proposer=_proposer_of(oracle),
        warnings=(*warnings, *_ambiguous(space)),
    )


# --- files ---


def _read_oracle(directory: Path, warnings: list[str]) -> Mapping[str, Any]:
    try:
        oracle = read_object(directory / "oracle.json")
        for name in ("start_order", "end_order", "retry_queue"):
            ids_of(oracle.get(name))
        return oracle
    except FileNotFoundError:
        warnings.append("oracle.json is missing: seed and order of the trials are not known")
    except (OSError, ValueError) as error:
        warnings.append(f"oracle.json cannot be read ({error}): seed and order are not known")
    return {}


def _read_trials(directory: Path, warnings: list[str]) -> list[tuple[Path, dict[str, Any]]]:
    """Return the path and the content of each trial.json that is whole."""
    found = []
    for path in sorted(directory.glob("trial_*/trial.json")):
        try:
            check_directory(path.parent)
            found.append((path, read_object(path)))
        except (OSError, ValueError) as error:
            warnings.append(f"{path.parent.name} is left out: its trial.json is torn ({error})")
    return found


def _nothing_in(directory: Path, warnings: Iterable[str]) -> str:
    if not directory.is_dir():
        return f"{directory} is no directory: give that of a KerasTuner project, directory/project_name"
    below = sorted(path.parent.name for path in directory.glob("*/oracle.json"))
    if below:
        return f"{directory} is no project, but has some: import one of {', '.join(below)}"
    found = "".join(f"; {each}" for each in warnings)
    return (
        f"{directory} has no trial of KerasTuner in it (trial_*/trial.json): give the directory of a "
        f"project, directory/project_name{found}"
    )


def _missing(order: Iterable[str], trials: Iterable[SourceTrial]) -> list[str]:
    known = {trial.trial_id for trial in trials}
    return [
        f"trial {each} is left out: it has no trial.json" for each in order if each not in known
    ]


# --- trials ---


def _each_once(trials: Iterable[SourceTrial], warnings: list[str]) -> list[SourceTrial]:
    """Return the trials, of those with one id the first."""
    found: dict[str, SourceTrial] = {}
    doubles = [each for each in trials if found.setdefault(each.trial_id, each) is not each]
    warnings.extend(
        f"{each.directory.name} is left out: its id is another trial's" for each in doubles
    )
    return list(found.values())


def _trial(
    path: Path, state: Mapping[str, Any], oracle: Mapping[str, Any], booleans: Collection[str]
) -> SourceTrial:
    """Return the trial that the file describes. FatalValueError, naming the file, for what is no trial."""
    try:
        trial_id = a_text(state["trial_id"])
        known = an_object(state["hyperparameters"])
        space = _space_of(known, booleans, path)
        values = _kept_values(space, values_of(known["values"]))
        score, step = state.get("score"), state.get("best_step")
        return SourceTrial(
            trial_id=trial_id,
            directory=path.parent,
            space=tuple(
                each for each in space.active(values) if each.contains(values.get(each.name))
            ),
            declared=tuple(space),
            values=values,
            metrics=_metrics_of(state["metrics"]["metrics"]),
            score=None if score is None else float(score),
            best_step=None if step is None else a_step(step),
            status=str(state.get("status")),
            message=a_text_or_none(state.get("message")),
            started_at=a_time(oracle, trial_id),
            written_at=path.stat().st_mtime,
            attempts=a_count((oracle.get("run_times") or {}).get(trial_id, 1)),
        )
    except (*_BROKEN, ValueError) as error:
        if isinstance(error, FatalError):
            raise
        raise FatalValueError(
            f"{path} is not as KerasTuner writes it ({type(error).__name__}: {error!s:.300}): move its folder "
            "away to import the other trials"
        ) from error


def _metrics_of(state: Mapping[str, Any]) -> dict[str, Metric]:
    return {
        name: Metric(
            "max" if each.get("direction") == "max" else "min",
            {a_step(at["step"]): values_at(at["value"]) for at in each["observations"]},
        )
        for name, each in state.items()
    }


# --- the space ---


def _space_of(config: Any, booleans: Collection[str], path: Path) -> Space:
    """Return what is declared in a file, conditions on the values as aiotune keeps them."""
    if config is None:
        return Space()
    try:
        raw = space_of(an_object(config)["space"])
    except (KeyError, ValueError) as error:
        raise FatalValueError(
            f"{path} has a hyperparameter that cannot be had here: {error!s:.300}"
        ) from error
    asked = {condition.name: condition.values for each in raw for condition in each.conditions}
    kept = Space(_as_boolean(each) if _is_boolean(each, asked, booleans) else each for each in raw)
    return Space(
        replace(
            cast(Any, each), conditions=tuple(_kept_condition(kept, one) for one in each.conditions)
        )
        for each in kept
    )


def _is_boolean(
    each: HyperParameter, asked: Mapping[str, Iterable[Scalar]], booleans: Collection[str]
) -> bool:
    """Tell whether it is a Choice of True and False: KerasTuner keeps that as one of 1 and 0."""
    if not isinstance(each, Choice) or not set(each.options) <= {0, 1}:
        return False
    return each.name in booleans or any(type(value) is bool for value in asked.get(each.name, ()))


def _as_boolean(each: HyperParameter) -> Choice:
    assert isinstance(each, Choice)
    values = [bool(option) for option in each.options]
    return Choice(each.name, values, None, bool(each.default), each.conditions)


def _kept_condition(space: Space, condition: Condition) -> Condition:
    parents = space.named(condition.name)
    return Condition(condition.name, tuple(_label(parents, value) for value in condition.values))


def _label(declarations: Iterable[HyperParameter], value: Scalar) -> Scalar:
    """Return the value as one of the declarations keeps it; as it is, if it is in none of their ranges."""
    for each in declarations:
        try:
            return each.label_of(value)
        except FatalValueError:
            continue
    return value


def _kept_values(space: Space, values: Mapping[str, Any]) -> Values:
    """Return the values as aiotune keeps them: 0.30000000000000004 on a step of 0.1 is 0.3."""
    return {
        name: _on_grid(space.named(name), _label(space.named(name), value))
        for name, value in values.items()
    }


def _on_grid(declarations: Iterable[HyperParameter], value: Scalar) -> Scalar:
    """Return the value that a grid has for a continuous range, where only rounding lies between."""
    for each in declarations:
        if isinstance(each, Float) and each.size is None and isinstance(value, float):
            near = (one for one in each.values if math.isclose(one, value, rel_tol=_NEARLY))
            return next(near, value)
    return value


def _ambiguous(space: Space) -> list[str]:
    return [
        f"{each.name} is a Choice of {', '.join(map(str, each.options))}: if your program declares it with "
        f"True and False, which KerasTuner keeps as numbers, import again with --boolean {each.name}"
        for each in space
        if isinstance(each, Choice) and each.ordered and set(each.options) == {0, 1}
    ]


def _check_known(booleans: Collection[str], space: Space) -> None:
    known = {each.name for each in space}
    unknown = sorted(set(booleans) - known)
    if unknown:
        raise FatalValueError(
            f"--boolean {unknown[0]}: there is no such name; known are {', '.join(sorted(known))}"
        )


# --- the algorithm ---


def _plan_of(oracle: Mapping[str, Any]) -> Plan | None:
    """Return Hyperband's arguments, None if the search was another one or rounds differently."""
    plan = a_plan(oracle)
    return None if plan is None else Plan(*plan)


def _proposer_of(oracle: Mapping[str, Any]) -> str | None:
    if "brackets" in oracle:
        return "Hyperband"
    if "num_initial_points" in oracle:
        return "BayesianOptimization"
    return None
