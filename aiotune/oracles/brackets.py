"""Hyperband's arithmetic: how many trials each rung of each bracket has, and how far they train.

Li et al. 2018 (JMLR 18), Algorithm 1, with KerasTuner's numbers: fractions are rounded up, so that the last
rung of every bracket trains for exactly `max_epochs`, and bracket b has b + 1 rungs. Whole numbers only, so
that no logarithm goes astray at a power of the factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.trial import Budget

__all__ = [
    "Bracket",
    "BracketPlan",
    "Resource",
    "Rung",
    "brackets_of",
    "budgets_of",
    "require_whole",
]

# What a rung gives a trial more of: epochs, or training data, of which `max_epochs` parts are all.
Resource = Literal["epochs", "data"]


@dataclass(frozen=True, slots=True)
class Rung:
    """One level of a bracket: `size` trials train from `initial_epoch` up to, not including, `epochs`."""

    size: int
    epochs: int
    initial_epoch: int = 0


@dataclass(frozen=True, slots=True)
class Bracket:
    """One round of successive halving: the best of each rung go on to the next one."""

    number: int  # the rungs above the first one: the larger, the more trials are dropped early
    rungs: tuple[Rung, ...]

    @property
    def size(self) -> int:
        """How many trials it has."""
        return self.rungs[0].size

    @property
    def epochs(self) -> int:
        """How many epochs its trials train in all. A promoted one does not repeat those that it has."""
        return sum(rung.size * (rung.epochs - rung.initial_epoch) for rung in self.rungs)

    def sizes(self, size: int) -> tuple[int, ...]:
        """Return the sizes of the rungs if there are only `size` trials: in proportion, at least one each."""
        return tuple(_divided(rung.size * size, self.size) for rung in self.rungs)


@dataclass(frozen=True, slots=True)
class BracketPlan:
    """What a search does if it goes to its end: `print(tuner.plan())`.

    iterations: how often all brackets are run. is_estimate: the sizes of the rungs are not known beforehand.
    """

    brackets: tuple[Bracket, ...]
    iterations: int = 1
    resource: Resource = "epochs"
    is_estimate: bool = False

    @property
    def trials(self) -> int:
        """How many points are tried."""
        return self.iterations * sum(each.size for each in self.brackets)

    @property
    def runs(self) -> int:
        """How many runs there are: one for each trial, and one for each promotion."""
        return self.iterations * sum(rung.size for each in self.brackets for rung in each.rungs)

    @property
    def epochs(self) -> int:
        """How many epochs are trained in all; of data, how many parts are trained on.

        A promoted trial does not repeat the epochs that it has, but trains anew on more data.
        """
        if self.resource == "epochs":
            return self.iterations * sum(each.epochs for each in self.brackets)
        rungs = [rung for each in self.brackets for rung in each.rungs]
        return self.iterations * sum(rung.size * rung.epochs for rung in rungs)

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        until = "until epoch" if self.resource == "epochs" else "share of the data"
        yield f"{'Bracket':>7}  {'Rung':>4}  {'Trials':>6}  {until}"
        most = self.brackets[0].rungs[-1].epochs
        for bracket in self.brackets:
            for index, rung in enumerate(bracket.rungs):
                share = f"{rung.epochs / most:.1%}"
                reached = str(rung.epochs) if self.resource == "epochs" else share
                yield f"{bracket.number:>7}  {index:>4}  {rung.size:>6}  {reached:>{len(until)}}"
        yield self._total(most)

    def _total(self, most: int) -> str:
        times = f", {self.iterations} times over" if self.iterations > 1 else ""
        about = "About " if self.is_estimate else ""
        cost = f"{self.epochs} epochs"
        if self.resource == "data":
            cost = f"the cost of {self.epochs / most:.1f} trainings on all data"
        return f"{about}{self.trials} trials, {self.runs} runs, {cost}{times}"


def brackets_of(max_epochs: int, factor: int, min_epochs: int = 1) -> tuple[Bracket, ...]:
    """Return the brackets in the order in which they start: the one with the most rungs first.

    No rung ends before `min_epochs`. FatalTypeError, FatalValueError unless 1 <= `min_epochs` <= `max_epochs`
    and `factor` >= 2 are whole numbers.
    """
    require_whole("max_epochs", max_epochs, at_least=1)
    require_whole("min_epochs", min_epochs, at_least=1)
    require_whole("factor", factor, at_least=2)
    if max_epochs < min_epochs:
        raise FatalValueError(
            f"max_epochs={max_epochs} is less than min_epochs={min_epochs}: a trial trains for min_epochs at "
            "least"
        )
    most = 0
    while min_epochs * factor ** (most + 1) <= max_epochs:
        most += 1
    is_power = min_epochs * factor**most == max_epochs
    share = most + (1 if is_power else 2)  # ceil(1 + log_factor(max_epochs / min_epochs))
    return tuple(_bracket(number, share, max_epochs, factor) for number in range(most, -1, -1))


def budgets_of(
    bracket: Bracket, *, iteration: int = 0, resource: Resource = "epochs"
) -> tuple[Budget, ...]:
    """Return the budget of each rung. On a share of the data each run trains anew."""
    last = len(bracket.rungs) - 1
    is_share = resource == "data"
    return tuple(
        Budget(
            rung.epochs,
            0 if is_share else rung.initial_epoch,
            bracket=bracket.number,
            rung=index,
            iteration=iteration,
            is_last=index == last,
            share=rung.epochs / bracket.rungs[-1].epochs if is_share else None,
        )
        for index, rung in enumerate(bracket.rungs)
    )


def _bracket(number: int, share: int, max_epochs: int, factor: int) -> Bracket:
    steps = [factor**power for power in range(number, -1, -1)]
    epochs = [0, *(_divided(max_epochs, step) for step in steps)]
    sizes = [_divided(share * step, number + 1) for step in steps]
    return Bracket(number, tuple(_rungs(sizes, epochs)))


def _rungs(sizes: list[int], epochs: list[int]) -> Iterator[Rung]:
    for size, (initial, until) in zip(sizes, pairwise(epochs), strict=True):
        yield Rung(size, until, initial)


def _divided(dividend: int, divisor: int) -> int:
    """Return the quotient, rounded up."""
    return -(-dividend // divisor)


def require_whole(name: str, value: object, *, at_least: int) -> None:
    """Raise FatalTypeError unless it is a whole number, FatalValueError if it is too small."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise FatalTypeError(f"{name}={value!r}: a whole number is needed")
    if value < at_least:
        raise FatalValueError(f"{name}={value}: it must be {at_least} or more")
