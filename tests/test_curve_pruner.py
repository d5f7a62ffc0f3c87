"""The rule that extrapolates learning curves."""

from __future__ import annotations

from aiotune import CurvePruner, MultiObjective, Objective
from tests.support.pruned import PrunedSearch, Report, losses


def power(level: float, size: float = 1.0, steps: int = 30) -> list[Report]:
    return losses(*(level + size / (step + 1) for step in range(steps)))


def test_a_slow_starter_with_a_chance_goes_on_and_one_without_is_ended() -> None:
    search = PrunedSearch(CurvePruner(n_startup_trials=2))
    search.run(power(0.3), power(0.35))
    assert search.run(power(0.0, size=3.0)) == [30]  # worse for ten steps, better in the end
    (steps,) = search.run(power(0.6))
    assert steps < 10


def test_it_compares_with_the_best_value_that_is_known_also_of_a_running_trial() -> None:
    def ended_after(slots: int) -> int:
        search = PrunedSearch(CurvePruner(n_startup_trials=1, n_warmup_steps=8), slots=slots)
        search.run(power(0.7))
        return search.run(power(0.5), power(0.0))[0]

    assert ended_after(slots=1) == 30  # the best so far
    assert ended_after(slots=2) < 30  # the other one is ahead


def test_the_end_is_that_of_the_longest_trial_or_what_is_said() -> None:
    def ended_after(steps: int | None) -> int:
        search = PrunedSearch(CurvePruner(steps=steps, n_startup_trials=1))
        search.run(power(0.1, steps=12))
        return search.run(power(0.1, size=1.5, steps=12))[0]

    assert ended_after(None) < 12
    assert ended_after(400) == 12


def test_nothing_is_judged_before_so_many_trials_are_over() -> None:
    search = PrunedSearch(CurvePruner(n_startup_trials=3))
    assert search.run(power(0.1), power(0.9), power(0.9)) == [30, 30, 30]
    assert search.run(power(0.9))[0] < 30


def test_nor_before_the_fourth_report_or_the_warm_up() -> None:
    for warmup, least in ((0, 4), (9, 10)):
        search = PrunedSearch(CurvePruner(n_startup_trials=1, n_warmup_steps=warmup))
        search.run(power(0.0))
        assert search.run(losses(*[5.0] * 20)) == [least]


def test_of_a_front_no_trial_must_be_out_of_reach_in_everything() -> None:
    front = MultiObjective([Objective("loss", "min"), Objective("size", "min")])
    search = PrunedSearch(CurvePruner(n_startup_trials=2), front)

    def curve(loss: float, size: float) -> list[Report]:
        return [{**each, "size": size} for each in power(loss)]

    search.run(curve(0.1, 5.0), curve(0.5, 1.0))
    assert search.run(curve(0.3, 3.0)) == [30]  # between both
    (steps,) = search.run(curve(0.7, 6.0))
    assert steps < 10
