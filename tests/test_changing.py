from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass, replace

import pytest

from aiotune.changing import changed
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
