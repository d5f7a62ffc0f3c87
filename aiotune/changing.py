"""Frozen records made in a fraction of the time that `__init__` and `dataclasses.replace` take.

A search that is resumed makes some hundred thousand of them. A frozen dataclass looks each slot up by its name
to write it, and `replace` does so to read it, too. Here each slot is written by its descriptor, which no
`frozen` guards, in a function that is compiled for the kind of record: so `dataclasses` makes its `__init__`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

__all__ = ["changed", "is_plain_record", "maker_of"]

_Record = TypeVar("_Record")
_Check = Callable[[Any], Any]
_Setters = Mapping[str, Callable[[Any, Any], None]]

# What copies a record of each kind, and what writes each of its fields.
_known: dict[type[Any], tuple[Callable[[Any], Any], _Setters]] = {}


def is_plain_record(kind: type[Any]) -> bool:
    """Tell whether nothing is lost without `__init__`: a dataclass, its slots its own, no `__post_init__`."""
    if not is_dataclass(kind) or hasattr(kind, "__post_init__"):
        return False
    return {each.name for each in fields(kind)} <= set(vars(kind).get("__slots__", ()))


def changed(record: _Record, **changes: object) -> _Record:
    """Return the record, a plain one, with other values of these fields.

    TypeError for a name that it has not.
    """
    kind: type[_Record] = type(record)
    copied, setters = _known.get(kind) or _access(kind)
    copy: _Record = copied(record)
    for name, value in changes.items():
        if name not in setters:
            raise TypeError(f"{kind.__name__} has no field {name!r}")
        setters[name](copy, value)
    return copy


def maker_of(
    kind: type[_Record], checks: Mapping[str, _Check]
) -> Callable[[Iterable[Any]], _Record]:
    """Return what makes such a plain record of the values of all its fields, in their order.

    checks: by field. Each is given the value, and returns what is written, or raises.
    """
    setters = _setters(kind)
    unpacked = "".join(f"value_{name}, " for name in setters)
    lines = [f"{unpacked}= values", "record = new(kind)"]
    lines += [f"set_{name}(record, check_{name}(value_{name}))" for name in setters]
    scope = {f"check_{name}": check for name, check in checks.items()}
    return _compiled("values", lines, kind, setters, scope)


def _access(kind: type[Any]) -> tuple[Callable[[Any], Any], _Setters]:
    setters = _setters(kind)
    lines = ["record = new(kind)"]
    lines += [f"set_{name}(record, former.{name})" for name in setters]
    found = _known[kind] = _compiled("former", lines, kind, setters, {}), setters
    return found


def _setters(kind: type[Any]) -> _Setters:
    """Return what writes each field, in their order."""
    return {each.name: vars(kind)[each.name].__set__ for each in fields(kind)}


def _compiled(
    argument: str, lines: Iterable[str], kind: type[Any], setters: _Setters, scope: dict[str, Any]
) -> Callable[[Any], Any]:
    """Return the function of one argument that executes these lines and returns `record`.

    Of what is not written here it holds the names of fields alone, each with a prefix, and no word of others.
    """
    scope |= {"new": object.__new__, "kind": kind}
    scope |= {f"set_{name}": setter for name, setter in setters.items()}
    body = "\n".join(f"    {line}" for line in [*lines, "return record"])
    exec(f"def made({argument}):\n{body}", scope)
    made: Callable[[Any], Any] = scope["made"]
    return made
