"""What every oracle that learns does: subclass it as `Test...` and say how one is made."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from functools import cache
from statistics import median

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiotune.events import TrialCreated
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Oracle, Suggest
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.space import point_key
from tests.support.landscapes import SmallSpace, bowl, conditional, mixed, wide
from tests.support.simulated import Program, Simulation

__all__ = ["SCORE", "ModelBasedContract"]

SCORE = Objective("score", "min")
SLOTS = (1, 3, 8)

# Inherited tests are run by several classes, which does no harm: without chance there is no database.
small = settings(
    max_examples=8,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors],
)
small_spaces = st.builds(
    SmallSpace,
    sizes=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    depends=st.lists(st.booleans(), min_size=3, max_size=3),
    has_scopes=st.booleans(),
)


class ModelBasedContract:
    """Each test makes its oracles by `make`.

    learns: whether scores decide about what comes next. budget: the trials after which it is compared.
    """

    learns = True
    budget = 40

    def make(self, max_trials: int | None, seed: int = 0, initial: int | None = None) -> Oracle:
        raise NotImplementedError

    # --- what it finds ---

    @pytest.mark.parametrize("program", [bowl, mixed, conditional])
    def test_it_finds_more_than_random_search(self, program: Program) -> None:
        if not self.learns:
            pytest.skip("it does not look at scores")
        trials = self.budget
        found = [Simulation(self.make(trials, seed), program).run(trials) for seed in range(3)]
        assert median(each.best for each in found) < _drawn(program, trials)

    def test_a_maximum_is_found_as_well(self) -> None:
        """Of two programs that are each other's mirror image the points are the same."""
        lowest = Simulation(self.make(20), bowl).run(20)
        mirrored = self.make(20)
        mirrored.objective = Objective("score", "max")
        highest = Simulation(mirrored, lambda hp: -bowl(hp)).run(20)
        assert highest.points == lowest.points

    # --- the space ---

    @small
    @given(small_spaces, st.sampled_from(SLOTS), st.integers(0, 9))
    def test_a_finite_space_is_exhausted_without_a_repeat(
        self, space: SmallSpace, slots: int, seed: int
    ) -> None:
        search = Simulation(self.make(None, seed, 2), space, slots, pick=_by_chance(seed))
        search.run(space.count + 8)
        assert search.is_exhausted
        assert _distinct(search) == len(search.points) == space.count

    @small
    @given(small_spaces, st.sampled_from(SLOTS), st.integers(0, 9), st.integers(1, 4))
    def test_nor_where_trials_fail(
        self, space: SmallSpace, slots: int, seed: int, failing: int
    ) -> None:
        broken = SmallSpace(space.sizes, space.depends, has_scopes=True, failing=failing)
        search = Simulation(self.make(None, seed, 2), broken, slots, pick=_by_chance(seed))
        search.run(broken.count + 8)
        assert search.is_exhausted
        assert _distinct(search) == len(search.points) == broken.count
        assert _proposals_lie_in_the_space(search)

    @pytest.mark.parametrize("slots", SLOTS)
    def test_every_suggestion_lies_in_the_space(self, slots: int) -> None:
        def program(hp: HyperParameters) -> float:
            kind = hp.Choice("kind", ["a", "b"])
            with hp.conditional_scope("kind", ["b"]):
                units = hp.Int("units", 16, 256, step=16) or 0
                rate = hp.Float("rate", 1e-3, 1.0, step=10, sampling="log") or 0.0
            return (kind == "a") + units / 256 + rate + hp.Float("x", -1, 1, step=0.25)  # type: ignore[no-any-return]

        search = Simulation(self.make(30, 1), program, slots, pick=_by_chance(1)).run(30)
        assert _proposals_lie_in_the_space(search)
        assert _distinct(search) == 30

    def test_a_name_that_is_met_late_is_proposed_from_then_on(self) -> None:
        def late(hp: HyperParameters) -> float:
            x = hp.Float("x", 0, 1)
            calls.append(x)
            return (x - 0.5) ** 2 + (hp.Float("y", 0, 1) if len(calls) > 8 else 0.0)  # type: ignore[no-any-return]

        calls: list[float] = []
        search = Simulation(self.make(16, initial=3), late, slots=2).run(16)
        proposed = [fact.values for fact in search.facts if isinstance(fact, TrialCreated)]
        assert all(set(values) == {"x"} for values in proposed[:6])
        assert all(set(values) == {"x", "y"} for values in proposed[-4:])

    def test_of_two_hundred_names_some_of_them_conditional(self) -> None:
        search = Simulation(self.make(13, initial=9), wide).run(13)
        assert _distinct(search) == 13
        assert _proposals_lie_in_the_space(search)

    def test_an_empty_space_and_one_of_a_single_point(self) -> None:
        for program in (lambda hp: 1.0, lambda hp: float(hp.Fixed("a", 1))):
            search = Simulation(self.make(9, initial=1), program).run(9)
            assert len(search.points) == 1
            assert search.is_exhausted

    # --- what trials may end with ---

    @pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf, 3.0, 1.7e308])
    def test_scores_that_say_nothing_do_not_end_it(self, score: float) -> None:
        def mute(hp: HyperParameters) -> float:
            hp.Choice("c", ["a", "b"])
            hp.Float("x", 0, 1)
            return score

        search = Simulation(self.make(14, initial=3), mute, slots=2).run(14)
        assert _distinct(search) == 14

    def test_infinities_among_scores(self) -> None:
        def spiky(hp: HyperParameters) -> float:
            x, k = hp.Float("x", 0, 1), hp.Int("k", 0, 9)
            return (x - 0.5, math.inf, -math.inf, 1e300, -1e300)[k % 5] * 1.0  # type: ignore[no-any-return]

        search = Simulation(self.make(20, initial=4), spiky, slots=2).run(20)
        assert _distinct(search) == 20

    def test_nothing_ever_succeeds(self) -> None:
        def broken(hp: HyperParameters) -> float:
            hp.Float("x", 0, 1)
            raise MemoryError

        assert _distinct(Simulation(self.make(12, initial=3), broken).run(12)) == 12

    def test_where_trials_fail_it_stays_away(self) -> None:
        """It gets better toward where trials fail: at random, 60 % of them do."""
        if not self.learns:
            pytest.skip("it does not look at scores")

        def hollow(hp: HyperParameters) -> float:
            x, y = hp.Float("x", 0, 1), hp.Float("y", 0, 1)
            if x > 0.4:
                raise MemoryError
            return (x - 0.3) ** 2 + (y - 0.4) ** 2  # type: ignore[no-any-return]

        failed = []
        for seed in range(3):
            search = Simulation(self.make(30, seed, 10), hollow).run(30)
            failed.append(sum(trial.score is None for trial in search.trials[10:]))
        assert median(failed) <= 8  # of 20

    # --- trials side by side ---

    def test_eight_at_a_time_are_distinct_and_apart(self) -> None:
        search = Simulation(self.make(None, 3, 12), bowl, slots=12).run(12)
        search.slots = 8
        search.ask(20)
        points = [
            [each.to_unit(trial.values[each.name]) for each in search.history.space]
            for trial in search.history.trials_in_flight()
        ]
        assert len(points) == 8
        apart = [math.dist(one, other) for one in points for other in points if one is not other]
        assert min(apart) > 1e-3

    # --- the same facts, the same answers ---

    @pytest.mark.parametrize(("program", "slots"), [(conditional, 3), (mixed, 1), (bowl, 8)])
    def test_what_it_proposes_follows_from_the_facts_alone(
        self, program: Program, slots: int
    ) -> None:
        """Asked at any time, an oracle that is new answers as the one that was there from the start."""
        search = Simulation(self.make(None, 0, 5), program, slots, pick=_by_chance(0)).run(22)
        for index, fact in enumerate(search.facts):
            if isinstance(fact, TrialCreated) and fact.number % 4 == 1:
                answer = self.make(None, 0, 5).ask(History(search.facts[:index]), fact.number)
                assert answer == Suggest(fact.values, stream=fact.stream)

    def test_another_seed_is_another_search(self) -> None:
        one, other = (Simulation(self.make(12, seed, 5), bowl).run(12).points for seed in (0, 1))
        assert all(a != b for a, b in zip(one, other, strict=True))


@cache
def _drawn(program: Program, trials: int) -> float:
    """Return what random search finds: the median over more seeds."""
    oracles = [RandomSearchOracle(SCORE, trials, seed=seed) for seed in range(15)]
    return median(Simulation(each, program).run(trials).best for each in oracles)


def _by_chance(seed: int) -> Callable[[list[str]], int]:
    """Return which of the trials in flight ends next: any, as the seed says."""
    chance = random.Random(seed)
    return lambda in_flight: chance.randrange(len(in_flight))


def _distinct(search: Simulation) -> int:
    return len({point_key(point) for point in search.points})


def _proposals_lie_in_the_space(search: Simulation) -> bool:
    """Tell whether each proposal has a value in range for every active name of the space, and no other."""
    space = search.history.space
    proposed = [fact.values for fact in search.facts if isinstance(fact, TrialCreated)]
    return all(
        {each.name for each in space.active(values)} == set(values)
        and all(each.contains(values[each.name]) for each in space.active(values))
        for values in proposed
    )
