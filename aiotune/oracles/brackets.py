"""Hyperband's arithmetic: how many trials each rung of each bracket has, and how far they train.

Li et al. 2018 (JMLR 18), Algorithm 1, with KerasTuner's numbers: fractions are rounded up, so that the last
rung of every bracket trains for exactly `max_epochs`, and bracket b has b + 1 rungs. Whole numbers only, so
that no logarithm goes astray at a power of the factor.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from aiotune.errors import FatalTypeError, FatalValueError

__all__ = ["Bracket", "Rung", "brackets_of", "require_whole"]


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


def brackets_of(max_epochs: int, factor: int) -> tuple[Bracket, ...]:
    """Return the brackets in the order in which they start: the one with the most rungs first.

    FatalTypeError, FatalValueError unless `max_epochs` >= 1 and `factor` >= 2 are whole numbers.
    """
    require_whole("max_epochs", max_epochs, at_least=1)
    require_whole("factor", factor, at_least=2)
    most = 0
    while factor ** (most + 1) <= max_epochs:
        most += 1
    is_power = factor**most == max_epochs
    share = most + (1 if is_power else 2)  # ceil(1 + log_factor(max_epochs))
    return tuple(_bracket(number, share, max_epochs, factor) for number in range(most, -1, -1))


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
