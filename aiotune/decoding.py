"""What came from a file or another process, made sure of: a function returns the value or raises ValueError.

The facts of a store and the frames of a child are JSON, which may hold anything. Whatever passes here has the
exact type that is asked for, so that nobody further up has to look again. Made for hundreds of thousands of
facts: each check of a field is a fraction of a microsecond.
"""

from __future__ import annotations

import json
import marshal
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import partial
from typing import Any, NoReturn, TypeVar

from aiotune.changing import is_plain_record, maker_of
from aiotune.labels import Scalar, is_scalar
from aiotune.space import HyperParameter, deserialize

__all__ = [
    "Check",
    "a_count",
    "a_flag",
    "a_moment",
    "a_number",
    "a_text",
    "a_trial_id",
    "a_whole",
    "checks_of",
    "listed",
    "metrics_of",
    "optional",
    "parse_json",
    "reader_of",
    "record_of",
    "space_of",
    "texts_of",
    "values_of",
]

Check = Callable[[Any], Any]
_Record = TypeVar("_Record")

# It becomes the name of a directory: nothing that a path or a file system takes for anything else.
_TRIAL_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
_MOST_COUNTED = 2**63  # what SQLite holds
_LAST_MOMENT = 253_402_214_400.0  # seconds since 1970 to the end of 9999, in whatever time zone
_SPECIAL = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}  # which JSON has no numbers for
_MOST_KNOWN = 10_000  # hyperparameters that are kept
_MOST_SPACES = 100
_LONGEST_KEY = 10_000  # characters of one that is kept
_BROKEN = (TypeError, KeyError, AttributeError, ArithmeticError, RecursionError)


def _no_constant(token: str) -> NoReturn:
    raise ValueError(f"{token} is no JSON")


_STRICT = json.JSONDecoder(parse_constant=_no_constant)


def parse_json(text: object) -> Any:
    """Return what strict JSON text holds. ValueError also for NaN and Infinity, and for too deep a nesting."""
    if type(text) is not str:
        raise ValueError(f"text is needed, not {type(text).__name__}")
    try:
        return _STRICT.decode(text)
    except RecursionError:
        raise ValueError("it is nested too deep") from None


# --- single values ---


def a_text(value: Any) -> str:
    """Return text."""
    if type(value) is not str:
        raise ValueError(f"{value!r:.100} is no text")
    return value


def a_flag(value: Any) -> bool:
    """Return true or false."""
    if type(value) is not bool:
        raise ValueError(f"{value!r:.100} is neither true nor false")
    return value


def a_whole(value: Any) -> int:
    """Return a whole number of any size."""
    if type(value) is not int:
        raise ValueError(f"{value!r:.100} is no whole number")
    return value


def a_count(value: Any) -> int:
    """Return a whole number from 0 on, that a database holds."""
    if type(value) is not int or not 0 <= value < _MOST_COUNTED:
        raise ValueError(f"{value!r:.100} is no count")
    return value


def a_number(value: Any) -> float:
    """Return a number; the texts "nan", "inf" and "-inf" stand for what JSON lacks."""
    if type(value) is float and value - value == 0.0:  # finite
        return value
    if type(value) is int:
        try:
            return float(value)
        except OverflowError:
            raise ValueError("the number is too large") from None
    if type(value) is str and value in _SPECIAL:
        return _SPECIAL[value]
    raise ValueError(f"{value!r:.100} is no number")


def a_moment(value: Any) -> float:
    """Return seconds since 1970, of a year that a calendar has."""
    if type(value) is not float and type(value) is not int:
        raise ValueError(f"{value!r:.100} is no time")
    if not 0 <= value <= _LAST_MOMENT:
        raise ValueError(f"{value!r:.100} is no time of this world")
    return float(value)


def a_trial_id(value: Any) -> str:
    """Return the id of a trial: a plain name, which may become that of a directory."""
    if type(value) is not str or not _TRIAL_ID.fullmatch(value):
        raise ValueError(f"{value!r:.100} is no id of a trial")
    return value


def optional(check: Check) -> Check:
    """Return the check that takes None as well."""
    return lambda value: None if value is None else check(value)


# --- collections ---


def texts_of(value: Any) -> tuple[str, ...]:
    """Return texts, of a list."""
    if type(value) is not list:
        raise ValueError(f"{value!r:.100} is no list")
    return tuple(map(a_text, value))


def listed(check: Check) -> Check:
    """Return the check of a list whose items pass `check`."""

    def check_all(value: Any) -> tuple[Any, ...]:
        if type(value) is not list:
            raise ValueError(f"{value!r:.100} is no list")
        return tuple(map(check, value))

    return check_all


def values_of(value: Any) -> dict[str, Scalar]:
    """Return values of hyperparameters by name."""
    for name, each in _an_object(value).items():
        if not is_scalar(each):
            raise ValueError(f"{name:.100}={each!r:.100} is no value of a hyperparameter")
    return value  # type: ignore[no-any-return]


def metrics_of(value: Any) -> dict[str, float]:
    """Return metrics by name."""
    if _is_plain_metrics(value):
        return value  # type: ignore[no-any-return]
    return {name: a_number(each) for name, each in _an_object(value).items()}


def _is_plain_metrics(value: Any) -> bool:
    """Tell whether these are finite floats by name, as nearly all metrics are: nothing is made of them."""
    if type(value) is not dict:
        return False
    for each in value.values():  # noqa: SIM110  # a generator takes longer for the few that there are
        if type(each) is not float or each - each != 0.0:  # nan, inf
            return False
    return True


def space_of(value: Any) -> tuple[HyperParameter, ...]:
    """Return hyperparameters, as `serialize` described them."""
    if type(value) is not list:
        raise ValueError(f"{value!r:.100} is no list of hyperparameters")
    # The same bytes only for the same JSON: of version 2, which knows True from 1 and has no references.
    key = marshal.dumps(value, 2)
    space = _spaces.get(key)
    if space is None:
        space = tuple(map(_hyperparameter, value))
        if len(key) <= _LONGEST_KEY:
            if len(_spaces) >= _MOST_SPACES:
                _spaces.clear()
            _spaces[key] = space
    return space


_spaces: dict[bytes, tuple[HyperParameter, ...]] = {}  # nearly all trials of a search meet the same
_known: dict[str, HyperParameter] = {}


def _hyperparameter(config: Any) -> HyperParameter:
    """Return what `serialize` described; the same one for the same text, for thousands of trials have it."""
    try:
        key = repr(config)
        found = _known.get(key)
        if found is None:
            _require_plain(config)
            found = deserialize(config)
            if len(key) <= _LONGEST_KEY:
                _keep(key, found)
    except _BROKEN as error:
        raise ValueError(f"a hyperparameter is not as it is written: {error!r:.300}") from error
    return found


def _keep(key: str, found: HyperParameter) -> None:
    if len(_known) >= _MOST_KNOWN:
        _known.clear()
    _known[key] = found


def _require_plain(config: Any) -> None:
    """Raise ValueError for a config with other things in it than scalars, lists of them, and conditions."""
    for name, value in _an_object(_an_object(config)["config"]).items():
        if name == "conditions":
            for each in value or ():
                list(map(_require_scalar, each["config"]["values"]))
        elif name == "values" and type(value) is list:
            list(map(_require_scalar, value))
        else:
            _require_scalar(value)


def _require_scalar(value: Any) -> None:
    if not is_scalar(value):
        raise ValueError(f"{value!r:.100} is no value of a hyperparameter")


def _an_object(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise ValueError(f"{value!r:.100} is no object")
    return value


# --- records ---


def checks_of(
    record: type[Any], by_type: Mapping[str, Check], **by_name: Check
) -> dict[str, Check]:
    """Return the check of each field of a dataclass: by its name, else by its type as it is written."""
    found = {}
    for each in fields(record):
        kind = str(each.type)
        plain = kind.removesuffix(" | None")
        check = by_name.get(each.name) or by_type[plain]
        found[each.name] = check if plain == kind else optional(check)
    return found


def reader_of(record: type[_Record], checks: Mapping[str, Check]) -> Callable[[Any], _Record]:
    """Return what makes a record of its fields, as `record_of`; in less time if all are there, in order.

    checks: of every field, in the order of the fields.
    """
    slowly = partial(record_of, record, checks)
    if not is_plain_record(record):
        return slowly
    make, names = maker_of(record, checks), tuple(checks)

    def read(data: Any) -> _Record:
        if type(data) is dict and tuple(data) == names:
            try:
                return make(data.values())
            except (TypeError, ValueError):
                pass  # what follows says which field is wrong
        return slowly(data)

    return read


def record_of(record: type[_Record], checks: Mapping[str, Check], data: Any) -> _Record:
    """Return the record. ValueError for a wrong value, TypeError for a wrong or missing name."""
    checked = {}
    name = ""
    try:
        for name, value in _an_object(data).items():
            checked[name] = checks[name](value)
    except KeyError:
        raise TypeError(f"{record.__name__} has no {name:.100}") from None
    except ValueError as error:
        raise ValueError(f"{name:.100}: {error}" if name else str(error)) from error
    return record(**checked)
