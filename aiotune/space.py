"""The search space: an immutable, ordered collection of hyperparameters, its points and their keys.

The kinds of hyperparameters live in `kinds` and are imported from here.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cached_property
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.kinds.base import Condition, HyperParameter, Identity
from aiotune.kinds.categorical import Boolean, Choice, Fixed
from aiotune.kinds.numeric import Float, Int
from aiotune.labels import Scalar, Values, is_scalar, plain

__all__ = [
    "Boolean",
    "Choice",
    "Condition",
    "Fixed",
    "Float",
    "HyperParameter",
    "Identity",
    "Int",
    "Scalar",
    "Space",
    "Values",
    "deserialize",
    "point_key",
    "serialize",
    "unit_draw",
]

KINDS: Mapping[str, type[HyperParameter]] = {
    kind.__name__: kind for kind in (Int, Float, Choice, Boolean, Fixed)
}
# `json.dumps` would make an encoder for each of very many draws.
_COMPACT = json.JSONEncoder(separators=(",", ":"))
MOST_BRANCHES = 10_000  # a conditional space with more of them is not counted


class Space:
    """Hyperparameters in the order of declaration, each identity once. Immutable.

    One name may be declared under several conditions; the first one whose conditions hold owns its
    value. A condition on a name of this space holds only while that name is active itself.
    """

    def __init__(self, params: Iterable[HyperParameter] = ()) -> None:
        self._by_identity: dict[Identity, HyperParameter] = {}
        for each in params:
            self._by_identity.setdefault(each.identity, each)

    def __iter__(self) -> Iterator[HyperParameter]:
        return iter(self._by_identity.values())

    def __len__(self) -> int:
        return len(self._by_identity)

    def __contains__(self, hyperparameter: object) -> bool:
        """Tell whether the identity is known, whatever its range."""
        return (
            isinstance(hyperparameter, HyperParameter)
            and hyperparameter.identity in self._by_identity
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Space) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Space([{', '.join(f'{each.name}: {each}' for each in self)}])"

    @cached_property
    def _by_name(self) -> Mapping[str, tuple[HyperParameter, ...]]:
        names: dict[str, tuple[HyperParameter, ...]] = {}
        for each in self:
            names[each.name] = (*names.get(each.name, ()), each)
        return names

    def grow(self, params: Iterable[HyperParameter]) -> Space:
        """Return this space with what is new in `params` at its end; itself if nothing is."""
        new = [each for each in params if each.identity not in self._by_identity]
        return Space([*self, *new]) if new else self

    def named(self, name: str) -> tuple[HyperParameter, ...]:
        """Return every declaration of `name`, under whatever conditions."""
        return self._by_name.get(name, ())

    def active(self, values: Mapping[str, Scalar]) -> tuple[HyperParameter, ...]:
        """Return those whose conditions hold given `values`: parents first, each name once."""
        return tuple(each for each, _ in self._walk(values))

    def find(self, name: str, values: Mapping[str, Scalar]) -> HyperParameter | None:
        """Return the declaration of `name` that owns its value given `values`, if one is active."""
        if name not in self._by_name:
            return None
        return next((each for each, _ in self._walk(values) if each.name == name), None)

    def complete(
        self,
        fill: Callable[[HyperParameter], Scalar],
        values: Mapping[str, Scalar] | None = None,
    ) -> Values:
        """Return a whole point: `values` where given, `fill` for each other active hyperparameter.

        Values of names that are declared but inactive are left out; those of unknown names stay.
        """
        given = values or {}
        point = {name: value for name, value in given.items() if name not in self._by_name}
        point.update((each.name, value) for each, value in self._walk(given, fill))
        return point

    def _walk(
        self,
        values: Mapping[str, Scalar],
        fill: Callable[[HyperParameter], Scalar] | None = None,
    ) -> Iterator[tuple[HyperParameter, Scalar]]:
        """Yield each active hyperparameter with its value (None without a value and `fill`).

        In order of declaration; what waits for a parent comes next once the parent has its value.
        """
        live = {name: value for name, value in values.items() if name not in self._by_name}
        owned: set[str] = set()
        waiting: list[HyperParameter] = []
        queue = list(reversed(self._by_identity.values()))
        while queue:
            each = queue.pop()
            if each.name in owned:
                continue
            if not all(condition.holds(live) for condition in each.conditions):
                waiting.append(each)
                continue
            owned.add(each.name)
            if each.name not in values and fill is None:
                yield each, None
                continue
            value = values[each.name] if fill is None or each.name in values else fill(each)
            live[each.name] = value
            waiting, released = _released(waiting, each.name)
            queue.extend(reversed(released))
            yield each, value

    @cached_property
    def size(self) -> int | None:
        """How many distinct points there are; None if infinitely many, or too long to count.

        The count is exact. It goes through the combinations of those values that conditions tell
        apart, and gives up after `MOST_BRANCHES` of them.
        """
        parents = {each.name for one in self for each in one.conditions}
        total, branches = 0, 0
        stack: list[tuple[Values, int]] = [({}, 1)]
        while stack:
            values, factor = stack.pop()
            active = self.active(values)
            parent = next((p for p in active if p.name in parents and p.name not in values), None)
            if parent is not None:
                if parent.size is None:
                    return None
                groups = self._told_apart(parent)
                stack.extend(({**values, parent.name: v}, factor * n) for v, n in groups)
                continue
            sizes = [each.size for each in active if each.name not in parents]
            branches += 1
            if None in sizes or branches > MOST_BRANCHES:
                return None
            total += factor * math.prod(size for size in sizes if size is not None)
        return total

    def _told_apart(self, parent: HyperParameter) -> list[tuple[Scalar, int]]:
        """Return one value for each group that the conditions treat alike, and the group's size."""
        conditions = {c for one in self for c in one.conditions if c.name == parent.name}
        named = {
            parent.index_of(value): value
            for condition in conditions
            for value in condition.values
            if parent.contains(value) and parent.value_at(parent.index_of(value)) == value
        }
        groups: dict[tuple[bool, ...], tuple[Scalar, int]] = {}
        for value in named.values():
            key = tuple(condition.holds({parent.name: value}) for condition in conditions)
            first, count = groups.get(key, (value, 0))
            groups[key] = (first, count + 1)
        size = parent.size or 0
        others = next((index for index in range(size) if index not in named), None)
        rest = [] if others is None else [(parent.value_at(others), size - len(named))]
        return [*groups.values(), *rest]

    def points(self) -> Iterator[Values]:
        """Return every point of a finite space, lazily; the last name varies fastest.

        FatalValueError, at once, if a hyperparameter has infinitely many values.
        """
        for each in self:
            each.finite_size()
        return self._points()

    def _points(self) -> Iterator[Values]:
        values: Values = {}
        path: list[tuple[HyperParameter, int]] = []  # with the index of its current value
        while True:
            while opened := self._first_open(values):
                path.append((opened, 0))
                values[opened.name] = opened.value_at(0)
            yield {name: values[name] for name in values}
            while path:
                last, index = path.pop()
                del values[last.name]
                if index + 1 < (last.size or 0):
                    path.append((last, index + 1))
                    values[last.name] = last.value_at(index + 1)
                    break
            else:
                return

    def _first_open(self, values: Values) -> HyperParameter | None:
        return next((each for each, _ in self._walk(values) if each.name not in values), None)

    def conflicts(self, other: Space) -> list[str]:
        """Return a line for each range that differs: this space as stored, `other` as declared.

        Defaults may differ: they decide nothing that is stored.
        """
        return [
            f"{each.name}{_under(each)}: stored {each}, declared {declared}"
            for each in self
            if (declared := other._by_identity.get(each.identity)) is not None
            and not each.has_range_of(declared)
        ]


def _released(
    waiting: list[HyperParameter], name: str
) -> tuple[list[HyperParameter], list[HyperParameter]]:
    """Split into those without and those with a condition on `name`."""
    released = [each for each in waiting if any(c.name == name for c in each.conditions)]
    if not released:
        return waiting, released
    return [each for each in waiting if each not in released], released


def _under(hyperparameter: HyperParameter) -> str:
    """Return its conditions in words, to tell declarations of one name apart."""
    if not hyperparameter.conditions:
        return ""
    return f" (where {' and '.join(map(str, hyperparameter.conditions))})"


def serialize(hyperparameter: HyperParameter) -> dict[str, Any]:
    """Return {"class_name", "config"} in plain JSON values, as KerasTuner writes it."""
    return {
        "class_name": type(hyperparameter).__name__,
        "config": hyperparameter.get_config(),
    }


def deserialize(config: Mapping[str, Any]) -> HyperParameter:
    """Return the hyperparameter that `serialize` described. FatalValueError for an unknown kind."""
    kind = KINDS.get(config["class_name"])
    if kind is None:
        raise FatalValueError(
            f"{config['class_name']!r} is no kind of hyperparameter: use {', '.join(KINDS)}"
        )
    return kind.from_config(config["config"])


def point_key(values: Mapping[str, Scalar]) -> str:
    """Return canonical JSON text: the same for equal points; 1, true, 1.0 and "1" differ."""
    return json.dumps(dict(values), sort_keys=True, separators=(",", ":"), allow_nan=False)


def unit_draw(seed: int, *path: object) -> float:
    """Return a number in [0, 1) that depends on the seed and the path alone: uniform, 53 bits.

    `path` holds scalars: numbers and texts. The same on every platform and in every process.
    """
    scalars = [plain(each) for each in (seed, *path)]
    for each in scalars:
        if not is_scalar(each):
            raise FatalTypeError(f"unit_draw() takes numbers and texts, not {each!r}")
    digest = hashlib.blake2b(_COMPACT.encode(scalars).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> 11) / 2**53
