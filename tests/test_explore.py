from __future__ import annotations

import pytest

from aiotune.errors import FatalValueError
from aiotune.oracles.explore import Exploration, perturbed
from aiotune.space import (
    Boolean,
    Choice,
    Condition,
    Fixed,
    Float,
    HyperParameter,
    Int,
    Scalar,
    Space,
    unit_draw,
)

RATE = Float("rate", 1e-4, 1.0, sampling="log")
KIND = Choice("kind", ["a", "b"])
DEPTH = Int("depth", 1, 9, conditions=(Condition("kind", ("b",)),))
SPACE = Space([RATE, KIND, DEPTH])


@pytest.mark.parametrize(
    ("declared", "value", "factor", "expected"),
    [
        (RATE, 0.01, 1.2, 0.012),
        (RATE, 0.9, 1.2, 1.0),
        (RATE, 1e-4, 0.8, 1e-4),
        (Float("x", -1.0, 1.0), -0.5, 1.2, -0.6),
        (Float("x", 0.0, 1.0), 0.0, 1.2, 0.0),
        (Float("x", 0.0, 1.0, step=0.25), 0.5, 1.2, 0.75),
        (Float("x", 0.0, 1.0, step=0.25), 1.0, 1.2, 1.0),
        (Int("n", 16, 256, step=16), 160, 1.2, 192),
        (Int("n", 1, 4), 2, 0.8, 1),
        (Int("n", 0, 4), 0, 1.2, 1),
        (Int("n", -9, 9), -5, 1.2, -6),
        (Int("n", 16, 256, step=2, sampling="log"), 64, 1.2, 128),
        (Int("n", 16, 256, step=2, sampling="log"), 64, 0.8, 32),
        (Int("n", 1, 1000, sampling="reverse_log"), 500, 1.2, 600),
        (Int("n", 1, 1000), 500, 1e300, 1000),
        (Choice("c", [32, 8, 16]), 16, 1.2, 32),
        (Choice("c", [32, 8, 16]), 16, 0.8, 8),
        (Choice("c", [32, 8, 16]), 8, 0.8, 8),
        (KIND, "a", 1.2, "a"),
        (Choice("c", [1, 2, 3], ordered=False), 2, 1.2, 2),
        (Boolean("flag"), True, 0.8, True),
        (Fixed("epochs", 5), 5, 1.2, 5),
        (Int("n", 1, 4), 2, 1.0, 2),
    ],
    ids=str,
)
def test_a_value_goes_to_its_multiple_or_at_least_to_its_neighbour(
    declared: HyperParameter, value: Scalar, factor: float, expected: Scalar
) -> None:
    found = perturbed(declared, value, factor)
    assert declared.contains(found)
    assert found == (pytest.approx(expected) if isinstance(expected, float) else expected)


def near(exploration: Exploration, values: dict[str, Scalar], seed: int = 0) -> dict[str, Scalar]:
    return exploration.near(
        SPACE,
        values,
        lambda each: each.from_unit(unit_draw(seed, "drawn", each.name)),
        lambda purpose, name: unit_draw(seed, purpose, name),
    )


def test_every_name_is_drawn_anew_or_multiplied_by_itself() -> None:
    exploration = Exploration(0.5, (0.5, 2.0))
    found = [near(exploration, {"rate": 0.01, "kind": "b", "depth": 4}, seed) for seed in range(99)]
    multiplied = [each["rate"] in (pytest.approx(0.005), pytest.approx(0.02)) for each in found]
    assert 30 < sum(multiplied) < 70
    moved = [each["depth"] in (2, 8) for each in found if "depth" in each]
    assert set(zip(multiplied, moved, strict=False)) == {
        (one, other) for one in (True, False) for other in (True, False)
    }


def test_a_changed_parent_changes_which_names_there_are() -> None:
    exploration = Exploration(1.0, (0.8, 1.2))
    values = [near(exploration, {"rate": 0.1, "kind": "a"}, seed) for seed in range(20)]
    assert {each["kind"] for each in values} == {"a", "b"}
    assert all(("depth" in each) == (each["kind"] == "b") for each in values)


def test_other_names_keep_their_values_also_those_beyond_the_space() -> None:
    exploration = Exploration(1.0, (0.8, 1.2), frozenset({"rate"}))
    found = near(exploration, {"rate": 0.1, "kind": "b", "depth": 4, "further": "x"})
    assert found["rate"] != 0.1
    assert {**found, "rate": 0.1} == {"rate": 0.1, "kind": "b", "depth": 4, "further": "x"}


def test_a_value_that_the_declaration_does_not_have_is_drawn() -> None:
    """As where one name has two ranges, under different conditions."""
    found = near(Exploration(0.0, (2.0,), frozenset()), {"rate": 5.0, "kind": "a"})
    assert found["rate"] == RATE.from_unit(unit_draw(0, "drawn", "rate"))


def test_an_unknown_name_is_refused_with_a_hint() -> None:
    exploration = Exploration(0.5, (2.0,), frozenset({"rate", "deepth"}))
    with pytest.raises(FatalValueError, match=r"'deepth' is not among .* did you mean 'depth'"):
        exploration.check(SPACE)
