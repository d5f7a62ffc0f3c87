"""What came from elsewhere, made sure of. Whole facts and frames: test_events, test_wire, and tests/chaos."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import pytest

from aiotune.decoding import (
    a_count,
    a_flag,
    a_moment,
    a_number,
    a_text,
    a_trial_id,
    a_whole,
    checks_of,
    metrics_of,
    optional,
    parse_json,
    record_of,
    space_of,
    texts_of,
    values_of,
)
from aiotune.space import Choice, Float, Int, serialize


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (a_text, ["", "a\0\ud800"], [None, 1, b"a", ["a"]]),
        (a_flag, [True, False], [1, 0, None, "true"]),
        (a_whole, [0, -(2**70)], [True, 1.0, "1", None]),
        (a_count, [0, 2**63 - 1], [-1, 2**63, True, 1.0, "1"]),
        (
            a_number,
            [0.5, -0.0, 5e-324, "nan", "inf", "-inf"],
            [True, None, "1", "NaN", [], 10**400],
        ),
        (a_moment, [0.0, 1.7e9], [-1.0, 1e12, math.nan, math.inf, "1", True]),
        (a_trial_id, ["0000", "a-B_9", "x" * 64], ["", "x" * 65, "a/b", "..", "a\n", "é", 7]),
        (texts_of, [], [["a", 1], "ab", None, {"a": "b"}]),
        (
            values_of,
            [{"a": None, "b": 1.5, "c": "d", "e": True}],
            [{"a": [1]}, {"a": math.inf}, []],
        ),
        (metrics_of, [{"a": 0.5}], [{"a": "low"}, {"a": None}, [], {"a": True}]),
        (optional(a_text), [None, "a"], [1]),
    ],
)
def test_what_has_the_right_type_passes_and_nothing_else(
    check: Any, good: list[Any], bad: list[Any]
) -> None:
    for value in good:
        again = check(value)
        assert repr(again) == repr(value) or isinstance(value, str)
    for value in bad:
        with pytest.raises(ValueError, match=r"."):
            check(value)


def test_whole_numbers_and_words_become_floats() -> None:
    assert repr(a_number(3)) == "3.0"
    assert math.isnan(a_number("nan"))
    assert metrics_of({"a": 1, "b": "-inf"}) == {"a": 1.0, "b": -math.inf}


def test_json_is_strict_and_not_too_deep() -> None:
    assert parse_json('{"a": [1, null]}') == {"a": [1, None]}
    for text in ("NaN", "-Infinity", "[" * 10**5, "", "{} {}", b"{}", None):
        with pytest.raises(ValueError, match=r"."):
            parse_json(text)


def test_a_space_comes_back_and_is_the_same_for_the_same_text() -> None:
    space = (
        Int("units", 1, 8),
        Float("rate", 1e-3, 1.0, sampling="log"),
        Choice("kind", ["a", None]),
    )
    again, once_more = (space_of([serialize(each) for each in space]) for _ in range(2))
    assert again == space
    assert all(one is other for one, other in zip(again, once_more, strict=True))


@pytest.mark.parametrize(
    "config",
    [
        None,
        {},
        {"class_name": "Int"},
        {"class_name": "os.system", "config": {"name": "x"}},
        {"class_name": "Int", "config": {"name": "x", "min_value": 0}},
        {"class_name": "Int", "config": {"name": "x", "min_value": 0, "max_value": 10**400}},
        {"class_name": "Int", "config": {"name": "x", "min_value": 0, "max_value": "a"}},
        {"class_name": "Choice", "config": {"name": "x", "values": [[1]]}},
        {"class_name": "Choice", "config": {"name": "x", "values": [{"a": 1}]}},
        {"class_name": "Fixed", "config": {"name": "x", "value": {"a": 1}}},
        {"class_name": "Fixed", "config": {"name": "x", "value": []}},
        {"class_name": "Fixed", "config": {"name": "x", "value": 1, "conditions": [{}]}},
        {"class_name": "Fixed", "config": {"name": "x", "value": 1, "conditions": "ab"}},
        {"class_name": "Fixed", "config": {"name": "x", "value": 1, "more": 1}},
        {"class_name": ["Fixed"], "config": {"name": "x", "value": 1}},
    ],
)
def test_what_describes_no_hyperparameter_is_refused(config: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        space_of([config])


@dataclass
class Point:
    x: int
    label: str | None = None


CHECKS = checks_of(Point, {"int": a_count, "str": a_text})


def test_a_record_has_its_fields_and_no_others() -> None:
    assert record_of(Point, CHECKS, {"x": 1}) == Point(1)
    assert record_of(Point, CHECKS, {"x": 1, "label": None}) == Point(1)
    for data in ({}, {"x": 1, "y": 2}):
        with pytest.raises(TypeError):
            record_of(Point, CHECKS, data)
    for wrong in ({"x": -1}, {"x": 1, "label": 2}, [], None):
        with pytest.raises(ValueError, match=r"x: |label: |no object"):
            record_of(Point, CHECKS, wrong)


def test_a_field_whose_type_has_no_check_is_found_at_once() -> None:
    with pytest.raises(KeyError):
        checks_of(Point, {"int": a_count})
