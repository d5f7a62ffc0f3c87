from __future__ import annotations

import gc
import pickle

import pytest

from aiotune.observations import Observations
from aiotune.trial import Observation

THREE = [Observation(step, {"loss": 1.0 / (step + 1)}) for step in range(3)]


def test_it_is_read_as_a_list() -> None:
    observations = Observations(THREE)
    assert (len(observations), list(observations), list(reversed(observations))) == (
        3,
        THREE,
        THREE[::-1],
    )
    assert (observations[0], observations[-1], observations[1:]) == (THREE[0], THREE[2], THREE[1:])
    assert (observations[-2:], observations[::-1]) == (THREE[-2:], THREE[::-1])
    assert THREE[1] in observations
    with pytest.raises(IndexError):
        observations[3]


def test_it_grows_at_its_end() -> None:
    observations = Observations()
    assert not observations
    observations.add(4, {"loss": 0.5})
    assert list(observations) == [Observation(4, {"loss": 0.5})]


def test_it_equals_whatever_sequence_holds_the_same() -> None:
    observations = Observations(THREE)
    assert observations == THREE == observations
    assert observations == Observations(THREE)
    assert observations != THREE[:2]
    assert observations != 3
    assert pickle.loads(pickle.dumps(observations)) == observations
    with pytest.raises(TypeError, match="unhashable"):
        hash(observations)
    assert repr(observations[:0]) == "[]"
    assert "step=2" in repr(observations)


def test_what_it_holds_is_nothing_to_the_garbage_collector() -> None:
    observations = Observations()
    gc.collect()
    before = len(gc.get_objects())
    for step in range(1000):
        observations.add(step, {"loss": float(step)})
    assert len(gc.get_objects()) - before < 100
