"""Hyperband's arithmetic, against the tables of KerasTuner."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.oracles.brackets import Bracket, BracketPlan, brackets_of, budgets_of

# max_epochs, factor: (size, epochs) of the rungs of each bracket; trials and epochs as KerasTuner counts them,
# which makes a trial of each promotion; points.
TABLES = {
    (100, 3): (
        [
            [(98, 2), (33, 4), (11, 12), (4, 34), (2, 100)],
            [(41, 4), (14, 12), (5, 34), (2, 100)],
            [(18, 12), (6, 34), (2, 100)],
            [(9, 34), (3, 100)],
            [(6, 100)],
        ],
        (254, 2672, 172),
    ),
    (9, 3): ([[(9, 1), (3, 3), (1, 9)], [(5, 3), (2, 9)], [(3, 9)]], (23, 75, 17)),
    (1, 2): ([[(1, 1)]], (1, 1, 1)),
}
TOTALS = {
    **{plan: totals for plan, (_, totals) in TABLES.items()},
    (81, 3): (211, 1767, 143),
    (27, 3): (70, 375, 49),
    (10, 3): (30, 120, 22),
    (8, 2): (36, 102, 22),
}

PLANS = st.builds(
    lambda low, more, factor: brackets_of(low + more, factor, low),
    st.integers(1, 20),
    st.integers(0, 400),
    st.integers(2, 7),
)


@pytest.mark.parametrize(("max_epochs", "factor"), TABLES)
def test_sizes_and_epochs(max_epochs: int, factor: int) -> None:
    brackets = brackets_of(max_epochs, factor)
    table = [[(rung.size, rung.epochs) for rung in each.rungs] for each in brackets]
    assert table == TABLES[max_epochs, factor][0]
    assert [each.number for each in brackets] == list(reversed(range(len(brackets))))


@pytest.mark.parametrize(("max_epochs", "factor"), TOTALS)
def test_the_totals_are_those_of_keras_tuner(max_epochs: int, factor: int) -> None:
    brackets = brackets_of(max_epochs, factor)
    promoted_too = sum(rung.size for each in brackets for rung in each.rungs)
    epochs = sum(each.epochs for each in brackets)
    points = sum(each.size for each in brackets)
    assert (promoted_too, epochs, points) == TOTALS[max_epochs, factor]


def test_a_promotion_trains_only_what_the_trial_lacks() -> None:
    first = brackets_of(9, 3)[0]
    assert [(rung.initial_epoch, rung.epochs) for rung in first.rungs] == [(0, 1), (1, 3), (3, 9)]
    assert first.epochs == 9 * 1 + 3 * 2 + 1 * 6


@given(PLANS, st.data())
def test_every_bracket_ends_at_the_last_epoch_and_narrows(
    brackets: tuple[Bracket, ...], data: st.DataObject
) -> None:
    max_epochs = brackets[-1].rungs[0].epochs
    for bracket in brackets:
        assert len(bracket.rungs) == bracket.number + 1
        assert bracket.rungs[-1].epochs == max_epochs
        for rung, above in pairwise(bracket.rungs):
            assert rung.size > above.size >= 1
            assert rung.initial_epoch < rung.epochs == above.initial_epoch < above.epochs
        size = data.draw(st.integers(1, bracket.size))
        sizes = bracket.sizes(size)
        assert sizes[0] == size
        assert sizes[-1] >= 1
        assert all(a >= b for a, b in pairwise(sizes))
        assert all(a <= rung.size for a, rung in zip(sizes, bracket.rungs, strict=True))


@pytest.mark.parametrize(
    ("max_epochs", "factor", "min_epochs", "table"),
    [
        (9, 3, 1, TABLES[9, 3][0]),
        (9, 3, 2, [[(5, 3), (2, 9)], [(3, 9)]]),  # log_3(9 / 2) is 1.4
        (27, 3, 3, [[(9, 3), (3, 9), (1, 27)], [(5, 9), (2, 27)], [(3, 27)]]),
        (9, 3, 9, [[(1, 9)]]),
    ],
)
def test_no_rung_ends_before_min_epochs(
    max_epochs: int, factor: int, min_epochs: int, table: list[list[tuple[int, int]]]
) -> None:
    brackets = brackets_of(max_epochs, factor, min_epochs)
    assert [[(rung.size, rung.epochs) for rung in each.rungs] for each in brackets] == table


def test_the_plan_shows_rungs_trials_and_epochs() -> None:
    plan = BracketPlan(brackets_of(9, 3))
    assert (plan.trials, plan.runs, plan.epochs) == (17, 23, 75)
    assert str(plan).splitlines() == [
        "Bracket  Rung  Trials  until epoch",
        "      2     0       9            1",
        "      2     1       3            3",
        "      2     2       1            9",
        "      1     0       5            3",
        "      1     1       2            9",
        "      0     0       3            9",
        "17 trials, 23 runs, 75 epochs",
    ]


def test_the_plan_of_shares_counts_what_is_trained_anew() -> None:
    plan = BracketPlan(brackets_of(3, 3), iterations=2, resource="data")
    assert plan.epochs == 2 * (3 * 1 + 1 * 3 + 2 * 3)
    assert str(plan).splitlines()[1:] == [
        "      1     0       3              33.3%",
        "      1     1       1             100.0%",
        "      0     0       2             100.0%",
        "10 trials, 12 runs, the cost of 8.0 trainings on all data, 2 times over",
    ]


def test_budgets_of_rungs() -> None:
    first = brackets_of(9, 3)[0]
    assert [(each.initial_epoch, each.epochs, each.is_last) for each in budgets_of(first)] == [
        (0, 1, False),
        (1, 3, False),
        (3, 9, True),
    ]
    of_data = budgets_of(first, iteration=2, resource="data")
    assert [(each.initial_epoch, each.share) for each in of_data] == [
        (0, 1 / 9),
        (0, 1 / 3),
        (0, 1.0),
    ]
    assert {(each.bracket, each.iteration) for each in of_data} == {(2, 2)}


def test_a_bracket_of_few_trials_still_halves() -> None:
    first = brackets_of(9, 3)[0]
    assert [first.sizes(size) for size in (9, 8, 6, 4, 2, 1)] == [
        (9, 3, 1),
        (8, 3, 1),
        (6, 2, 1),
        (4, 2, 1),
        (2, 1, 1),
        (1, 1, 1),
    ]


@pytest.mark.parametrize(
    ("max_epochs", "factor", "error", "text"),
    [
        (0, 3, FatalValueError, "max_epochs=0: it must be 1 or more"),
        (9, 1, FatalValueError, "factor=1: it must be 2 or more"),
        (9, 0, FatalValueError, "factor=0"),
        (9.0, 3, FatalTypeError, "max_epochs=9.0: a whole number is needed"),
        (9, 2.5, FatalTypeError, "factor=2.5: a whole number is needed"),
        (None, 3, FatalTypeError, "max_epochs=None"),
        (True, 3, FatalTypeError, "max_epochs=True"),
    ],
)
def test_what_makes_no_sense_is_refused(
    max_epochs: int, factor: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        brackets_of(max_epochs, factor)


@pytest.mark.parametrize(
    ("min_epochs", "error", "text"),
    [
        (0, FatalValueError, "min_epochs=0: it must be 1 or more"),
        (10, FatalValueError, "max_epochs=9 is less than min_epochs=10"),
        (1.5, FatalTypeError, "min_epochs=1.5: a whole number is needed"),
    ],
)
def test_min_epochs_out_of_range_are_refused(
    min_epochs: int, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        brackets_of(9, 3, min_epochs)
