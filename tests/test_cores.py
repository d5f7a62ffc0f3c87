from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.devices.cores import equal_shares, name_cores, pick_cores


@settings(deadline=None)
@given(st.data())
def test_shares_are_disjoint_contiguous_and_equal_within_one(data: st.DataObject) -> None:
    cores = sorted(data.draw(st.sets(st.integers(0, 255), min_size=1, max_size=64)))
    number = data.draw(st.integers(1, len(cores)))
    shares = equal_shares(cores, number)
    assert [core for share in shares for core in share] == cores
    assert len(shares) == number
    sizes = {len(share) for share in shares}
    assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize(
    ("free", "number", "picked"),
    [
        ([0, 1, 2, 3], 2, (0, 1)),
        ([0, 1, 2, 4, 5], 2, (4, 5)),  # the shortest run that holds them
        ([0, 2, 4], 2, (0, 2)),
        ([7], 1, (7,)),
    ],
)
def test_pick(free: list[int], number: int, picked: tuple[int, ...]) -> None:
    assert pick_cores(free, number) == picked


@pytest.mark.parametrize(
    ("cores", "name"),
    [((0, 1, 2, 3), "cpu:0-3"), ((5,), "cpu:5"), ((0, 1, 4, 6, 7), "cpu:0-1,4,6-7")],
)
def test_names(cores: tuple[int, ...], name: str) -> None:
    assert name_cores(cores) == name
