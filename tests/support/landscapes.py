"""Programs to minimise, in place: what an oracle is tried on."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aiotune.hyperparameters import HyperParameters
from aiotune.space import Scalar, unit_draw

__all__ = ["SmallSpace", "bowl", "conditional", "mixed", "wide"]


def bowl(hp: HyperParameters) -> float:
    """Least, 0, at (0.3, 10**-2.3)."""
    rate = hp.Float("rate", 1e-4, 1.0, sampling="log")
    return (hp.Float("x", -1, 1) - 0.3) ** 2 + (math.log10(rate) + 2.3) ** 2 / 4  # type: ignore[no-any-return]


def mixed(hp: HyperParameters) -> float:
    """Least, 0, with kind "c"; the best of the others is 0.1."""
    kind = hp.Choice("kind", ["a", "b", "c", "d"])
    floor = {"a": 0.3, "b": 0.1, "c": 0.0, "d": 0.5}[kind]
    middle = {"a": 0.2, "b": 0.5, "c": 0.8, "d": 0.4}[kind]
    near = (hp.Float("x", 0, 1) - middle) ** 2 + (hp.Float("y", 0, 1) - 0.35) ** 2
    return floor + near + 0.01 * (hp.Int("k", 1, 10) - 7) ** 2  # type: ignore[no-any-return]


def conditional(hp: HyperParameters) -> float:
    """Branches by `if` and a loop; least, 0, in the deepest one."""
    kind = hp.Choice("kind", ["flat", "loop"])
    if kind == "flat":
        return 0.1 + (hp.Float("height", 0, 1) - 0.5) ** 2  # type: ignore[no-any-return]
    layers = hp.Int("layers", 1, 3)
    widths = [hp.Float(f"width_{index}", 0, 1) for index in range(layers)]
    return 0.05 * (3 - layers) + sum((width - 0.4) ** 2 for width in widths)  # type: ignore[no-any-return]


def wide(hp: HyperParameters) -> float:
    """Two hundred names, a third of them conditional."""
    floats = [hp.Float(f"x{index}", 0, 1) for index in range(70)]
    kinds = [hp.Choice(f"k{index}", ["a", "b", "c"]) for index in range(65)]
    counts = []
    for index in range(65):
        with hp.conditional_scope(f"k{index}", ["a", "b"]):
            counts.append(hp.Int(f"i{index}", 0, 9) or 0)
    return float(sum(floats) + kinds.count("a") + sum(counts))


@dataclass(frozen=True)
class SmallSpace:
    """A program over a finite space; a name may depend on the one before it.

    sizes: how many values each name has. depends: whether it is declared only where the one before it exists
    and has its first value. has_scopes: whether it says so, or only does so by an `if`. failing: of so many
    points one fails, at random; 0: none.
    """

    sizes: Sequence[int]
    depends: Sequence[bool]
    has_scopes: bool
    failing: int = 0

    def __call__(self, hp: HyperParameters) -> float:
        values: dict[str, Scalar] = {}
        for index in range(len(self.sizes)):
            value = self._declare(hp, index, values)
            if value is not None:
                values[f"n{index}"] = value
        chance = unit_draw(0, *(f"{name}={value}" for name, value in values.items()))
        if self.failing and chance * 1e6 % self.failing < 1:
            raise MemoryError
        return chance

    @property
    def count(self) -> int:
        """How many points there are."""
        return sum(1 for _ in self._points(0, {}))

    def _points(self, index: int, values: Mapping[str, Scalar]) -> Iterator[Mapping[str, Scalar]]:
        if index == len(self.sizes):
            yield values
        elif not self._is_met(index, values):
            yield from self._points(index + 1, values)
        else:
            for each in _values(index, self.sizes[index]):
                yield from self._points(index + 1, {**values, f"n{index}": each})

    def _is_met(self, index: int, values: Mapping[str, Scalar]) -> bool:
        if not (self.depends[index] and index):
            return True
        return values.get(f"n{index - 1}") == _values(index - 1, 1)[0]

    def _declare(
        self, hp: HyperParameters, index: int, values: Mapping[str, Scalar]
    ) -> Scalar | None:
        if self.has_scopes and self.depends[index] and index:
            with hp.conditional_scope(f"n{index - 1}", [_values(index - 1, 1)[0]]):
                return _declared(hp, index, self.sizes[index])
        return _declared(hp, index, self.sizes[index]) if self._is_met(index, values) else None


def _declared(hp: HyperParameters, index: int, size: int) -> Scalar | None:
    name, values = f"n{index}", list(_values(index, size))
    match index % 4:
        case 0:
            return hp.Choice(name, values)  # type: ignore[no-any-return]
        case 1:
            return hp.Int(name, 0, 3 * (size - 1), step=3)  # type: ignore[no-any-return]
        case 2:
            return hp.Float(name, 0.0, 0.5 * (size - 1), step=0.5)  # type: ignore[no-any-return]
        case _:
            return hp.Choice(name, values, ordered=True)  # type: ignore[no-any-return]


def _values(index: int, size: int) -> Sequence[Scalar]:
    """Return the values of name number `index`: texts, whole numbers, halves, powers of ten."""
    return [(f"v{each}", 3 * each, 0.5 * each, 10.0**each)[index % 4] for each in range(size)]
