"""The checks of an oracle's options."""

from __future__ import annotations

import math

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.oracles.options import number_above, whole_number


def test_what_is_right_comes_back() -> None:
    assert number_above(0, "gamma", 1, at_most=1) == 1.0
    assert isinstance(number_above(0, "gamma", 1), float)
    assert whole_number("num_trees", 3) == 3


@pytest.mark.parametrize("value", [0, -1.0, math.nan, math.inf, 1.5])
def test_a_number_out_of_range_is_refused(value: float) -> None:
    with pytest.raises(FatalValueError, match=r"gamma=.*: it must be above 0, and at most 1"):
        number_above(0, "gamma", value, at_most=1)


@pytest.mark.parametrize("value", [None, "1", True])
def test_what_is_no_number_is_refused(value: float) -> None:
    with pytest.raises(FatalTypeError, match="a number is needed"):
        number_above(0, "gamma", value)
    with pytest.raises(FatalTypeError, match="a whole number is needed"):
        whole_number("num_trees", value)


def test_too_few_are_refused() -> None:
    with pytest.raises(FatalValueError, match="population_size=1: it must be 2 or more"):
        whole_number("population_size", 1, at_least=2)
    with pytest.raises(FatalTypeError, match=r"num_trees=2.5"):
        whole_number("num_trees", 2.5)  # type: ignore[arg-type]
