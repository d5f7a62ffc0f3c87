"""What is optimised, and the only place that says when one value is better than another.

Directions are inferred from a static table, so that naming an objective loads no framework.
"""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = [
    "By",
    "DefaultObjective",
    "Direction",
    "MultiObjective",
    "Objective",
    "create_objective",
    "infer_direction",
    "numbers_of",
]

Direction = Literal["min", "max"]
By = Literal["hypervolume", "sum"]

# Names of Keras 3, classes, functions and aliases, in lower case and without underscores. Cosine
# similarity is a metric (max) and a loss (min): a logged name is taken for the metric.
_MAXIMISED = """
    acc accuracy binaryaccuracy categoricalaccuracy sparsecategoricalaccuracy topkcategoricalaccuracy
    sparsetopkcategoricalaccuracy precision recall auc truepositives truenegatives precisionatrecall
    recallatprecision sensitivityatspecificity specificityatsensitivity sensitivity specificity
    f1 f1score fbetascore r2 r2score iou miou binaryiou meaniou onehotiou onehotmeaniou
    pearsoncorrelation concordancecorrelation cosinesimilarity
"""
_MINIMISED = """
    loss error ce crossentropy bce binarycrossentropy cce categoricalcrossentropy
    sparsecategoricalcrossentropy binaryfocalcrossentropy categoricalfocalcrossentropy
    categoricalgeneralizedcrossentropy mse meansquarederror rmse rootmeansquarederror
    mae meanabsoluteerror mape meanabsolutepercentageerror msle meansquaredlogarithmicerror
    logcosh logcosherror huber hinge squaredhinge categoricalhinge kld kldivergence
    kullbackleiblerdivergence poisson perplexity dice tversky circle ctc
    falsepositives falsenegatives
"""
_DIRECTIONS: Mapping[str, Direction] = {
    **dict.fromkeys(_MAXIMISED.split(), "max"),
    **dict.fromkeys(_MINIMISED.split(), "min"),
}


def infer_direction(name: str) -> Direction | None:
    """Return the direction of a metric or loss of Keras, or None for an unknown name.

    The prefixes `val_` and `weighted_` and a counter such as `_1`, which Keras adds, do not matter.
    """
    bare = name.removeprefix("val_").removeprefix("weighted_")
    for each in (bare, re.sub(r"_\d+$", "", bare)):
        direction = _DIRECTIONS.get(each.replace("_", "").lower())
        if direction is not None:
            return direction
    return None


@dataclass(frozen=True)
class Objective:
    """A metric by name, to be made small ("min") or large ("max")."""

    name: str
    direction: Direction

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not self.name:
            raise FatalTypeError(f"an objective needs a name, a string, not {self.name!r}")
        if self.direction not in ("min", "max"):
            raise FatalValueError(
                f'objective {self.name!r}: direction must be "min" or "max", not {self.direction!r}'
            )

    @property
    def worst(self) -> float:
        """The value that every other one is better than, save NaN."""
        return math.inf if self.direction == "min" else -math.inf

    def better_than(self, a: float, b: float) -> bool:
        """Tell whether `a` is strictly better than `b`. Any number is better than NaN."""
        if math.isnan(a) or math.isnan(b):
            return math.isnan(b) and not math.isnan(a)
        return a < b if self.direction == "min" else a > b

    def cost(self, value: float) -> float:
        """Return a number that is the less, the better the value is: a key to sort by. Not for NaN."""
        return value if self.direction == "min" else -value

    def best(self, values: Sequence[float]) -> int:
        """Return the index of the best value; of equals, the first. FatalValueError if empty."""
        if not values:
            raise FatalValueError(f"{self}: there is no value to choose from")
        best = 0
        for index, value in enumerate(values):
            if self.better_than(value, values[best]):
                best = index
        return best

    @property
    def parts(self) -> tuple[Objective, ...]:
        """The single objectives: itself, if there is one."""
        return (self,)

    @property
    def seeks_front(self) -> bool:
        """Whether a front of trials is looked for, and not one best trial."""
        return False

    def direction_of(self, metric: str) -> Direction | None:
        """Return the direction that is declared for a metric, or None if none is."""
        return self.direction if metric == self.name else None

    def minimised(self, values: Sequence[float]) -> tuple[float, ...]:
        """Return a value of each of the parts such that less is better: those to be maximised are negated."""
        pairs = zip(self.parts, values, strict=True)
        return tuple(value if each.direction == "min" else -value for each, value in pairs)

    def has_value(self, logs: Mapping[str, Any]) -> bool:
        """Tell whether `get_value` finds what it needs in `logs`."""
        return self.name in logs

    def get_value(self, logs: Mapping[str, Any]) -> float:
        """Return the objective's value; FatalValueError, naming what `logs` has, if absent."""
        if self.name not in logs:
            raise FatalValueError(absent(self.name, logs))
        return float(logs[self.name])

    def get_config(self) -> dict[str, Any]:
        """Return the objective in plain JSON values."""
        return {"name": self.name, "direction": self.direction}

    @staticmethod
    def from_config(config: Mapping[str, Any]) -> Objective:
        """Return the objective, of whatever kind, that `get_config` described."""
        if "objectives" in config:
            return MultiObjective(
                map(Objective.from_config, config["objectives"]),
                by=config.get("by", "sum"),
                reference=config.get("reference"),
                weights=config.get("weights"),
            )
        objective = Objective(config["name"], config["direction"])
        return DefaultObjective() if objective == DefaultObjective() else objective

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Objective) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash((self.name, self.direction))

    def __str__(self) -> str:
        return f'Objective(name="{self.name}", direction="{self.direction}")'


class DefaultObjective(Objective):
    """The objective where none is given: the number that user code returns, made small."""

    def __init__(self) -> None:
        super().__init__("default_objective", "min")


class MultiObjective(Objective):
    """Several objectives at once: each an `Objective`, or a name whose direction is known.

    by: "hypervolume" looks for the Pareto front, the trials that no other one beats in every objective; "sum"
    for the least score. The score is in both cases the weighted sum of the minimised values less the maximised
    ones: a trial's best epoch is chosen by it, and lists of trials are sorted by it. weights: one for each
    objective, above 0; 1 if not given. reference: for each objective, in its own units, the value from which on
    a trial is of no use, so that none is looked for there; by default, a little worse than the front's worst.
    """

    objectives: tuple[Objective, ...]
    by: By
    reference: tuple[float, ...] | None
    weights: tuple[float, ...]

    def __init__(
        self,
        objectives: Iterable[Objective | str],
        by: By = "hypervolume",
        reference: Sequence[float] | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__("multi_objective", "min")
        if not isinstance(objectives, Iterable) or isinstance(objectives, str):
            raise FatalTypeError(
                f"objectives={objectives!r}: a list of objectives, or names, is needed"
            )
        parts = tuple(create_objective(each) for each in objectives)
        _check_parts(parts, by)
        if reference is not None and by == "sum":
            raise FatalValueError(
                'reference has no effect on a sum: drop it, or pass by="hypervolume"'
            )
        weights = [1.0] * len(parts) if weights is None else weights
        checked = numbers_of("weights", weights, parts)
        if min(checked) <= 0.0:
            raise FatalValueError(
                f"weights={list(checked)}: each must be above 0; the directions say what is minimised"
            )
        vars(self).update(  # the dataclass is frozen
            objectives=parts,
            by=by,
            reference=None if reference is None else numbers_of("reference", reference, parts),
            weights=checked,
        )

    @property
    def parts(self) -> tuple[Objective, ...]:
        return self.objectives

    @property
    def seeks_front(self) -> bool:
        return self.by == "hypervolume"

    def direction_of(self, metric: str) -> Direction | None:
        known = [each.direction_of(metric) for each in self.objectives]
        return next((each for each in known if each), super().direction_of(metric))

    def has_value(self, logs: Mapping[str, Any]) -> bool:
        return self._has_sum(logs) or all(each.has_value(logs) for each in self.objectives)

    def get_value(self, logs: Mapping[str, Any]) -> float:
        if self._has_sum(logs):
            return float(logs[self.name])
        values = self.minimised([each.get_value(logs) for each in self.objectives])
        return sum(weight * value for weight, value in zip(self.weights, values, strict=True))

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = {
            **super().get_config(),
            "objectives": [each.get_config() for each in self.objectives],
        }
        # Only what differs from a plain list of objectives: so the stored ones, without these keys, stay equal.
        if self.by != "sum":
            config["by"] = self.by
        if self.reference is not None:
            config["reference"] = list(self.reference)
        if any(weight != 1.0 for weight in self.weights):
            config["weights"] = list(self.weights)
        return config

    def __str__(self) -> str:
        config = self.get_config()
        options = [key for key in ("by", "reference", "weights") if key in config]
        given = [f"{key}={json.dumps(config[key])}" for key in options]
        return f"MultiObjective({', '.join([*map(str, self.objectives), *given])})"

    def _has_sum(self, logs: Mapping[str, Any]) -> bool:
        """Tell whether the score itself is given; a front needs its parts in any case."""
        return self.by == "sum" and self.name in logs


def _check_parts(parts: Sequence[Objective], by: object) -> None:
    """Raise FatalValueError for objectives that are too few, nested, or given twice."""
    if by not in ("hypervolume", "sum"):
        raise FatalValueError(f'by={by!r}: it must be "hypervolume" or "sum"')
    if not parts:
        raise FatalValueError("a list of objectives needs at least one")
    if any(isinstance(each, MultiObjective) for each in parts):
        raise FatalValueError(
            "several objectives within several ones: list all of them side by side"
        )
    names = [each.name for each in parts]
    if len(set(names)) < len(names):
        raise FatalValueError(f"an objective is given twice: {', '.join(names)}")
    if by == "hypervolume" and len(parts) < 2:
        raise FatalValueError(
            f"a front needs two objectives or more: pass objective={names[0]!r} itself"
        )


def create_objective(objective: object) -> Objective:
    """Return an Objective for what a user gives: None, a name, a list of these, or an Objective.

    FatalValueError for a name of unknown direction, FatalTypeError for anything else.
    """
    match objective:
        case None:
            return DefaultObjective()
        case Objective():
            return objective
        case str():
            return _named(objective)
        case list() | tuple():
            return MultiObjective(objective, by="sum")
        case _:
            raise FatalTypeError(
                f"objective={objective!r} is not understood: give a metric's name, an "
                f"aiotune.Objective, or a list of them"
            )


def _named(name: str) -> Objective:
    direction = infer_direction(name)
    if direction is None:
        raise FatalValueError(
            f"the direction of objective {name!r} is not known: write "
            f'aiotune.Objective("{name}", direction="max"), or "min"'
        )
    return Objective(name, direction)


def numbers_of(name: str, values: object, parts: Sequence[Objective]) -> tuple[float, ...]:
    """Return what was passed as `name`: a finite number for each objective. FatalTypeError, FatalValueError."""
    if not isinstance(values, Iterable) or isinstance(values, str | Mapping):
        raise FatalTypeError(
            f"{name}={values!r}: a list of numbers is needed, one for each objective"
        )
    listed = list(values)
    if any(isinstance(each, bool) or not hasattr(each, "__float__") for each in listed):
        raise FatalTypeError(f"{name}={listed!r}: these must be numbers, one for each objective")
    numbers = tuple(float(each) for each in listed)
    if len(numbers) != len(parts):
        names = ", ".join(each.name for each in parts)
        raise FatalValueError(
            f"{name} has {len(numbers)} values for {len(parts)} objectives: {names}"
        )
    if not all(map(math.isfinite, numbers)):
        raise FatalValueError(f"{name}={listed!r}: each must be finite")
    return numbers


def absent(name: str, logs: Iterable[str]) -> str:
    """Return a message for a metric that is not among `logs`."""
    present = sorted(map(str, logs))
    if not present:
        return f"the objective {name!r} is not among the metrics: there are none"
    close = difflib.get_close_matches(name, present, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"the objective {name!r} is not among the metrics: {', '.join(present)}{hint}"
