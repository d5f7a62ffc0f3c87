from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from aiotune.changing import changed, is_plain_record, maker_of
from aiotune.trial import TrialState
from tests.support.records import trial


@dataclass(frozen=True, slots=True)
class Point:
    x: int
    y: int = 0


def test_copy_is_what_replace_makes() -> None:
    one = trial(number=3, state=TrialState.RUNNING, score=0.5)
    copy = changed(one, score=0.25, state=TrialState.COMPLETED)
    assert copy == replace(one, score=0.25, state=TrialState.COMPLETED)
    assert one.score == 0.5


def test_copy_is_as_frozen_as_the_record() -> None:
    copy = changed(Point(1, 2), y=3)
    assert (copy, type(copy)) == (Point(1, 3), Point)
    with pytest.raises(FrozenInstanceError):
        copy.x = 5  # type: ignore[misc]


def test_unknown_field_is_refused() -> None:
    with pytest.raises(TypeError, match="Point has no field 'z'"):
        changed(Point(1), z=1)


@dataclass(frozen=True, slots=True)
class Named:
    """With fields that are called as things are in the function that makes it."""

    kind: str
    values: tuple[int, ...]
    record: int


def test_a_record_is_made_of_checked_values_in_their_order() -> None:
    make = maker_of(Named, {"kind": str.upper, "values": tuple, "record": int})
    made = make(iter(["a", [1, 2], "3"]))
    assert made == Named("A", (1, 2), 3)
    assert changed(made, kind="b") == Named("b", (1, 2), 3)
    with pytest.raises(FrozenInstanceError):
        made.record = 4  # type: ignore[misc]


def test_what_a_check_raises_is_passed_on_and_every_value_is_needed() -> None:
    make = maker_of(Point, {"x": int, "y": int})
    for values in (["1", "no number"], [1], [1, 2, 3]):
        with pytest.raises(ValueError, match=r"invalid literal|values to unpack"):
            make(values)


def test_a_record_is_plain_if_its_init_does_nothing_but_set_slots() -> None:
    @dataclass
    class WithoutSlots:
        x: int

    @dataclass(frozen=True, slots=True)
    class Checked:
        x: int

        def __post_init__(self) -> None:
            pass

    @dataclass(frozen=True, slots=True)
    class Inherited(Point):
        z: int = 0

    assert is_plain_record(Point)
    assert not any(map(is_plain_record, (WithoutSlots, Checked, Inherited, int)))
