"""How one point becomes another that is near it: the explore step of population based training.

Jaderberg et al. 2017 (arXiv 1711.09846), section 4: each hyperparameter by itself is either drawn anew or
multiplied by a factor.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from aiotune.errors import FatalValueError
from aiotune.oracles.tried import Fill
from aiotune.space import Choice, Float, HyperParameter, Int, Scalar, Space, Values

__all__ = ["Exploration", "perturbed"]

Chance = Callable[[str, str], float]  # (what for, name of a hyperparameter) -> a number in [0, 1)


@dataclass(frozen=True, slots=True)
class Exploration:
    """How far a point may move. names: those that may change; None: all."""

    resample_probability: float
    factors: tuple[float, ...]
    names: frozenset[str] | None = None

    def near(
        self, space: Space, values: Mapping[str, Scalar], drawn: Fill, chance: Chance
    ) -> Values:
        """Return a whole point of `space` near `values`.

        `drawn` gives what is drawn anew, and what a changed parent lets a point have for the first time. Names
        beyond the space keep their values.
        """

        def explored(each: HyperParameter) -> Scalar:
            if each.name not in values or not each.contains(values[each.name]):
                return drawn(each)
            return self._explored(each, values[each.name], drawn, chance)

        kept = {name: value for name, value in values.items() if not space.named(name)}
        return space.complete(explored, kept)

    def _explored(self, each: HyperParameter, value: Scalar, drawn: Fill, chance: Chance) -> Scalar:
        if self.names is not None and each.name not in self.names:
            return value
        if chance("resample", each.name) < self.resample_probability:
            return drawn(each)
        index = int(chance("factor", each.name) * len(self.factors))
        return perturbed(each, value, self.factors[index])

    def check(self, space: Space) -> None:
        """Raise FatalValueError for a name that the space does not have."""
        known = {each.name for each in space}
        for name in sorted((self.names or frozenset()) - known):
            raise FatalValueError(
                f"explore: {name!r} is not among the names of the space; {_hint(name, known)}"
            )


def perturbed(declared: HyperParameter, value: Scalar, factor: float) -> Scalar:
    """Return `value` times `factor` within the range; on steps, the next value there is at least.

    An ordered Choice goes to its next value up or down. Names without an order stay, and so does a continuous
    0, of which every multiple is 0.
    """
    match declared:
        case _ if factor == 1.0:
            return value
        case Int() | Float() if isinstance(value, int | float):
            return _scaled(declared, value, factor)
        case Choice(ordered=True):
            return _shifted(declared, value, 1 if factor > 1.0 else -1)
        case _:
            return value


def _scaled(declared: Int | Float, value: float, factor: float) -> Scalar:
    # Clipped before it is rounded, for a product may be too large for an int.
    number = min(max(value * factor, declared.min_value), declared.max_value)
    if declared.size is None:
        return number
    start = declared.index_of(value)
    reached = declared.index_of(round(number) if isinstance(declared, Int) else number)
    grows = (factor > 1.0) == (value >= 0)
    nearest = start + (1 if grows else -1)
    reached = max(reached, nearest) if grows else min(reached, nearest)
    return declared.value_at(min(max(reached, 0), declared.size - 1))


def _shifted(declared: Choice, value: Scalar, by: int) -> Scalar:
    """Return the option that is so many ranks higher by size, or the last one there is."""
    order = sorted(range(declared.size), key=lambda index: float(declared.options[index]))  # type: ignore[arg-type]
    rank = order.index(declared.index_of(value)) + by
    return declared.value_at(order[min(max(rank, 0), declared.size - 1)])


def _hint(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else "declare it in hyperparameters=..."
