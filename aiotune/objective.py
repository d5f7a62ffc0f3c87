"""What is optimised, and the only place that says when one value is better than another.

Directions are inferred from a static table, so that naming an objective loads no framework.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = [
    "DefaultObjective",
    "Direction",
    "MultiObjective",
    "Objective",
    "create_objective",
    "infer_direction",
]

Direction = Literal["min", "max"]

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

    def best(self, values: Sequence[float]) -> int:
        """Return the index of the best value; of equals, the first. FatalValueError if empty."""
        if not values:
            raise FatalValueError(f"{self}: there is no value to choose from")
        best = 0
        for index, value in enumerate(values):
            if self.better_than(value, values[best]):
                best = index
        return best

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
            return MultiObjective(map(Objective.from_config, config["objectives"]))
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
    """Several objectives as one: the sum of those to be minimised less those to be maximised."""

    objectives: tuple[Objective, ...]

    def __init__(self, objectives: Iterable[Objective]) -> None:
        super().__init__("multi_objective", "min")
        object.__setattr__(self, "objectives", tuple(objectives))
        if not self.objectives:
            raise FatalValueError("a list of objectives needs at least one")

    def has_value(self, logs: Mapping[str, Any]) -> bool:
        return self.name in logs or all(each.has_value(logs) for each in self.objectives)

    def get_value(self, logs: Mapping[str, Any]) -> float:
        if self.name in logs:
            return float(logs[self.name])
        signs = {"min": 1.0, "max": -1.0}
        return sum(signs[each.direction] * each.get_value(logs) for each in self.objectives)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "objectives": [each.get_config() for each in self.objectives],
        }

    def __str__(self) -> str:
        return f"MultiObjective({', '.join(map(str, self.objectives))})"


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
            return MultiObjective([create_objective(each) for each in objective])
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


def absent(name: str, logs: Iterable[str]) -> str:
    """Return a message for a metric that is not among `logs`."""
    present = sorted(map(str, logs))
    if not present:
        return f"the objective {name!r} is not among the metrics: there are none"
    close = difflib.get_close_matches(name, present, n=1)
    hint = f". Did you mean {close[0]!r}?" if close else ""
    return f"the objective {name!r} is not among the metrics: {', '.join(present)}{hint}"
