"""HyperParameters: the define-by-run face of the space, under KerasTuner's names.

    def build(hp):
        units = hp.Int("units", min_value=32, max_value=256, step=32)
        with hp.name_scope("head"):
            kind = hp.Choice("kind", ["dense", "conv"])
            with hp.conditional_scope("kind", ["conv"]):
                filters = hp.Int("filters", 8, 64, sampling="log")

A name gets its value when the program meets it; a name whose conditions do not hold gives None.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from typing import Any, ParamSpec, Self, cast

from aiotune import space as kinds
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.labels import is_scalar, label_of, plain
from aiotune.space import (
    Condition,
    HyperParameter,
    Identity,
    Scalar,
    Space,
    Values,
    deserialize,
    serialize,
)

__all__ = ["HyperParameters"]

P = ParamSpec("P")
_NOT_GIVEN = object()
_MEANT = {"min": "min_value", "max": "max_value", "minimum": "min_value", "maximum": "max_value"}


def _explains_keywords(method: Callable[P, Any]) -> Callable[P, Any]:
    """Let an unknown keyword, such as `min=`, say which one is meant."""
    known = list(inspect.signature(method).parameters)[1:]

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> Any:
        for keyword in kwargs:
            if keyword not in known:
                raise FatalTypeError(_unknown_keyword(method.__name__, keyword, known))
        return method(*args, **kwargs)

    return call


def _unknown_keyword(method: str, keyword: str, known: list[str]) -> str:
    meant = _MEANT.get(keyword)
    if meant in known:
        return f"hp.{method}() has no argument {keyword!r}: use min_value/max_value"
    close = difflib.get_close_matches(keyword, known, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"it takes {', '.join(known)}"
    return f"hp.{method}() has no argument {keyword!r}: {hint}"


class HyperParameters:
    """A point of a space that grows while it is read.

    space: what is known beforehand; its ranges hold against later declarations of the same name
    under the same conditions. values: given values, scalars by name. fill: gives a value to a name
    that has none when it is first met; without it the default is taken.

    `values` is a plain dict of the active values; it may be changed by hand.
    """

    def __init__(
        self,
        space: Iterable[HyperParameter] = (),
        values: dict[str, Any] | None = None,
        fill: Callable[[HyperParameter], Scalar] | None = None,
    ) -> None:
        self.values: Values = dict(values or {})
        self.active_scopes: list[list[Condition]] = []
        self.inactive_scopes: list[list[Condition]] = []
        self._fill = fill
        self._known: dict[Identity, HyperParameter] = {}
        self._by_name: dict[str, tuple[Identity, ...]] = {}
        self._owners: dict[str, Identity] = {}  # of each name: whose range its value was checked by
        self._declared: dict[Identity, HyperParameter] = {}  # as the program wrote it first
        self._met: dict[Identity, None] = {}  # an ordered set
        self._redeclared: dict[Identity, tuple[HyperParameter, HyperParameter]] = {}
        self._warned: set[str] = set()
        self._name_scopes: list[str] = []
        self._conditions: list[Condition] = []
        for each in space:
            self._learn(each)

    # ---- declarations

    @_explains_keywords
    def Int(
        self,
        name: str,
        min_value: int,
        max_value: int,
        step: int | None = None,
        sampling: str | None = "linear",
        default: int | None = None,
        parent_name: str | None = None,
        parent_values: object = None,
    ) -> Any:
        """Return a whole number from `min_value` to `max_value`, both included.

        `step` is added under sampling "linear", multiplied under "log" and "reverse_log".

            hp.Int("units", min_value=32, max_value=256, step=32)
            hp.Int("batch", 16, 256, step=2, sampling="log")      # 16, 32, 64, 128, 256
        """
        conditions = self._conditions_with(parent_name, parent_values)
        name = self._full(name)
        return self._declare(
            kinds.Int(name, min_value, max_value, step, sampling, default, conditions)
        )

    @_explains_keywords
    def Float(
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: float | None = None,
        sampling: str | None = "linear",
        default: float | None = None,
        parent_name: str | None = None,
        parent_values: object = None,
    ) -> Any:
        """Return a number from `min_value` to `max_value`.

        hp.Float("dropout", 0.0, 0.5, step=0.1)
        hp.Float("learning_rate", 1e-4, 1e-1, sampling="log")
        """
        conditions = self._conditions_with(parent_name, parent_values)
        name = self._full(name)
        return self._declare(
            kinds.Float(name, min_value, max_value, step, sampling, default, conditions)
        )

    @_explains_keywords
    def Choice(
        self,
        name: str,
        values: Iterable[object],
        ordered: bool | None = None,
        default: object = None,
        parent_name: str | None = None,
        parent_values: object = None,
    ) -> Any:
        """Return one of `values`, which may be anything: None, mixed types, functions, tuples.

            hp.Choice("activation", ["relu", "gelu", None])
            hp.Choice("layers", [(64,), (128, 64)])

        What JSON cannot hold is stored by a label: its name or its text.
        """
        conditions = self._conditions_with(parent_name, parent_values)
        listed = cast("Sequence[object]", values)  # Choice checks it
        return self._declare(kinds.Choice(self._full(name), listed, ordered, default, conditions))

    @_explains_keywords
    def Boolean(
        self,
        name: str,
        default: bool = False,
        parent_name: str | None = None,
        parent_values: object = None,
    ) -> Any:
        """Return False or True: `hp.Boolean("augment")`."""
        conditions = self._conditions_with(parent_name, parent_values)
        return self._declare(kinds.Boolean(self._full(name), default, conditions))

    @_explains_keywords
    def Fixed(
        self,
        name: str,
        value: object,
        parent_name: str | None = None,
        parent_values: object = None,
    ) -> Any:
        """Return `value`, whatever it is, and record it: `hp.Fixed("epochs", 20)`.

        Declared before the search, it holds a name of the model function at one value.
        """
        conditions = self._conditions_with(parent_name, parent_values)
        return self._declare(kinds.Fixed(self._full(name), value, conditions))

    # ---- scopes

    @contextmanager
    def name_scope(self, name: str) -> Iterator[None]:
        """Prefix every name that is declared or read inside with `name` and a slash."""
        if not isinstance(name, str) or not name:
            raise FatalTypeError(f"name_scope() needs a name, a string, not {name!r}")
        self._name_scopes.append(name)
        try:
            yield
        finally:
            self._name_scopes.pop()

    @contextmanager
    def conditional_scope(self, parent_name: str, parent_values: object) -> Iterator[None]:
        """Declare what is inside only for those values of `parent_name`; else it gives None.

        The parent may be declared in an outer scope. The code inside runs in either case.
        """
        condition = self._condition_on(parent_name, parent_values)
        self._conditions.append(condition)
        scopes = self.active_scopes if self._holds(self._conditions) else self.inactive_scopes
        if self._conditions not in scopes:
            scopes.append(list(self._conditions))
        try:
            yield
        finally:
            self._conditions.pop()

    # ---- reading

    @property
    def space(self) -> list[HyperParameter]:
        """Every known hyperparameter, active or not, in order of declaration."""
        return list(self._known.values())

    @property
    def declared(self) -> tuple[HyperParameter, ...]:
        """Those that the program declared on this object, active or not."""
        return tuple(self._known[identity] for identity in self._declared)

    @property
    def met(self) -> tuple[HyperParameter, ...]:
        """Those whose values the program asked for on this object, parents first."""
        return tuple(self._known[identity] for identity in self._met)

    def met_values(self) -> Values:
        """Return the values of those that the program met, as they are kept."""
        met = [each for each in self.met if each.name in self.values]
        return {each.name: _kept([each], self.values[each.name]) for each in met}

    @property
    def redeclared(self) -> tuple[tuple[HyperParameter, HyperParameter], ...]:
        """Pairs (as known, as declared here) of declarations that differ from what is known."""
        return tuple(self._redeclared.values())

    def get(self, name: str, default: Any = _NOT_GIVEN) -> Any:
        """Return the value of `name`, in the current name scope.

        `default`, if given, where the name does not exist or is inactive; else these raise KeyError and
        FatalValueError (a ValueError).
        """
        if default is not _NOT_GIVEN and name not in self:
            return default
        full = self._full(name)
        if full not in self._by_name:
            if full in self.values:
                return self.values[full]  # set by hand
            raise KeyError(self._unknown(full))
        owner = self._owner(full)
        if owner is None:
            raise FatalValueError(f"{full} is currently inactive.")
        return self._meet(owner)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        """Tell whether `get` gives a value."""
        if not isinstance(name, str):
            return False
        full = self._full(name)
        return self._is_live(full)

    def is_active(self, hyperparameter: str | HyperParameter) -> bool:
        """Tell whether its conditions hold; for a name, those of any declaration of it."""
        if isinstance(hyperparameter, HyperParameter):
            return self._holds(hyperparameter.conditions)
        return self._owner(self._full(hyperparameter)) is not None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.values})"

    # ---- whole

    def copy(self) -> HyperParameters:
        """Return the same space and values in a new object, on which nothing is declared yet."""
        return HyperParameters(self.space, dict(self.values), self._fill)

    def merge(
        self, hps: HyperParameters | Iterable[HyperParameter], overwrite: bool = True
    ) -> None:
        """Take in every hyperparameter of `hps`; `overwrite`: also known ones, with their values.

        The value is that of `hps`, if it has one, else the default.
        """
        given = hps.values if isinstance(hps, HyperParameters) else {}
        for each in hps.space if isinstance(hps, HyperParameters) else hps:
            if not overwrite and each.identity in self._known:
                continue
            self._learn(each)
            self._known[each.identity] = each
            if self._holds(each.conditions):
                value = given.get(each.name, each.default)
                self._owners[each.name] = each.identity
                self.values[each.name] = value if each.contains(value) else each.default

    def ensure_active_values(self) -> None:
        """Give every active name a value, from `fill` or its default, and drop inactive ones."""
        owners = [self._owner(name) for name in self.values]
        stale = {each.name for each in owners if each is not None and self._is_stale(each)}
        kept = {name: value for name, value in self.values.items() if name not in stale}
        point = Space(self.space).complete(self._new_value, kept)
        self.values.clear()
        self.values.update(point)

    def get_config(self) -> dict[str, Any]:
        """Return space and values in plain JSON values, laid out as KerasTuner's."""
        return {"space": [serialize(each) for each in self.space], "values": dict(self.values)}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Return what `get_config` described."""
        return cls([deserialize(each) for each in config["space"]], dict(config["values"]))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_fill": None}  # it belongs to this process

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        twin = object.__new__(type(self))
        memo[id(self)] = twin
        twin.__dict__.update({name: copy(each) for name, each in self.__dict__.items()})
        return twin

    # ---- within

    def _declare(self, declared: HyperParameter) -> Any:
        """Note a declaration; return its value, or None if it is inactive."""
        known = self._learn(declared)
        first = self._declared.setdefault(declared.identity, declared)
        is_active = self._holds(declared.conditions)
        owner = (self._owner(declared.name) if is_active else None) or known
        bound = self._known[owner.identity] = owner.bound_to(declared)
        if not declared.has_range_of(owner):
            self._note_redeclared(owner, declared, first)
        return self._meet(bound) if is_active else None

    def _learn(self, hyperparameter: HyperParameter) -> HyperParameter:
        """Return what is known under the same identity; what is new becomes known."""
        identity = hyperparameter.identity
        if identity not in self._known:
            self._known[identity] = hyperparameter
            name = hyperparameter.name
            self._by_name[name] = (*self._by_name.get(name, ()), identity)
        return self._known[identity]

    def _note_redeclared(
        self, owner: HyperParameter, declared: HyperParameter, first: HyperParameter
    ) -> None:
        """Record a declaration that is overruled, and warn if the program contradicts itself.

        A space given beforehand overrules on purpose: that is how names are held or narrowed.
        """
        self._redeclared.setdefault(declared.identity, (owner, declared))
        is_own = owner.identity in self._declared and owner.identity != declared.identity
        if (is_own or not declared.has_range_of(first)) and declared.name not in self._warned:
            self._warned.add(declared.name)
            warnings.warn(
                f"{declared.name} is declared as {owner} and again as {declared}: the first one "
                f"holds. Give the second one a name of its own.",
                stacklevel=5,  # the line in the program
            )

    def _meet(self, hyperparameter: HyperParameter) -> Any:
        """Note that the program reads a hyperparameter, and so its parents; return its value."""
        if hyperparameter.identity not in self._met:
            for condition in hyperparameter.conditions:
                parent = self._owner(condition.name)
                if parent is not None:
                    self._meet(parent)
            self._met[hyperparameter.identity] = None
        return hyperparameter.value_of(self._scalar(hyperparameter))

    def _scalar(self, hyperparameter: HyperParameter) -> Scalar:
        """Return the value of an active hyperparameter as kept; without one it gets one here."""
        name = hyperparameter.name
        if name not in self.values or self._is_stale(hyperparameter):
            self.values[name] = self._new_value(hyperparameter)
        self._owners[name] = hyperparameter.identity
        try:
            scalar = hyperparameter.label_of(self.values[name])
        except FatalValueError as error:
            raise FatalValueError(
                f"{name} has the value {self.values[name]!r}, which is not in {hyperparameter}: "
                f"the search space has changed. Restore the old range, or start a new project."
            ) from error
        self.values[name] = scalar
        return scalar

    def _is_stale(self, owner: HyperParameter) -> bool:
        """Tell whether the value of `owner` dates from another declaration of its name."""
        before = self._owners.get(owner.name, owner.identity)
        return before != owner.identity and not owner.contains(self.values[owner.name])

    def _new_value(self, hyperparameter: HyperParameter) -> Scalar:
        return hyperparameter.default if self._fill is None else self._fill(hyperparameter)

    def _owner(self, name: str) -> HyperParameter | None:
        """Return the active declaration of `name`.

        Of several, the one that was read before, else the first whose range has the present value.
        """
        known = [self._known[identity] for identity in self._by_name.get(name, ())]
        active = [each for each in known if self._holds(each.conditions)]
        if len(active) < 2:
            return active[0] if active else None
        for each in active:
            if each.identity == self._owners.get(name):
                return each
        value = self.values.get(name)
        fitting = [each for each in active if each.contains(value)]
        return fitting[0] if fitting else active[0]

    def _holds(self, conditions: Iterable[Condition], below: frozenset[str] = frozenset()) -> bool:
        """Tell whether the conditions hold and their parents are active themselves."""
        return all(
            each.holds(self.values) and each.name not in below and self._is_live(each.name, below)
            for each in conditions
        )

    def _is_live(self, name: str, below: frozenset[str] = frozenset()) -> bool:
        """Tell whether `name` is active, or set by hand only. `below`: the names that ask."""
        identities = self._by_name.get(name)
        if identities is None:
            return name in self.values
        below |= {name}
        return any(self._holds(self._known[each].conditions, below) for each in identities)

    def _full(self, name: str) -> str:
        if not isinstance(name, str) or not name:
            raise FatalTypeError(f"a hyperparameter needs a name, a string, not {name!r}")
        return "/".join([*self._name_scopes, name])

    def _conditions_with(
        self, parent_name: str | None, parent_values: object
    ) -> tuple[Condition, ...]:
        """Return the conditions of the open scopes and, if given, the one of the arguments."""
        if parent_name is None and parent_values is None:
            return tuple(self._conditions)
        if parent_name is None or parent_values is None:
            raise FatalValueError("parent_name and parent_values go together: give both or neither")
        return (*self._conditions, self._condition_on(parent_name, parent_values))

    def _condition_on(self, parent_name: str, parent_values: object) -> Condition:
        """Return the condition that a known parent has one of the values, one or a list."""
        full = self._parent(parent_name)
        declarations = [self._known[identity] for identity in self._by_name[full]]
        parent = self._owner(full)
        if parent is not None:
            self._meet(parent)
        listed = parent_values if isinstance(parent_values, list | tuple) else (parent_values,)
        return Condition(full, tuple(_kept(declarations, value) for value in listed))

    def _parent(self, name: str) -> str:
        """Return the full name of a parent: in this name scope, else in the nearest outer one.

        Of several, one that this program declared comes before one that has a value, and that before
        one that is only known from elsewhere.
        """
        self._full(name)
        depths = range(len(self._name_scopes), -1, -1)
        candidates = ["/".join([*self._name_scopes[:depth], name]) for depth in depths]
        known = [each for each in candidates if each in self._by_name]
        if not known:
            raise FatalValueError(
                f"{self._unknown(candidates[0])} Declare a parent before its children."
            )
        declared = [each for each in known if any(i in self._declared for i in self._by_name[each])]
        live = [each for each in known if self._is_live(each)]
        return (declared or live or known)[0]

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._by_name, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        return f"{name} does not exist.{hint}"


def _kept(declarations: Iterable[HyperParameter], value: object) -> Scalar:
    """Return the scalar by which one of them keeps `value`, or would if it had it."""
    for each in declarations:
        try:
            return each.label_of(value)
        except FatalValueError:
            continue
    scalar = plain(value)
    return scalar if is_scalar(scalar) else label_of(scalar)
