"""What every pruner that looks at reports does: subclass it as `Test...` and say how one is made."""

from __future__ import annotations

import copy
import math

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aiotune.errors import FatalValueError
from aiotune.events import Reported, TrialCreated
from aiotune.history import History
from aiotune.objective import DefaultObjective, MultiObjective, Objective
from aiotune.pruners.base import Pruner
from tests.support.pruned import SCORE, PrunedSearch, losses, started

__all__ = ["PrunerContract"]

FRONT = MultiObjective(["loss", Objective("size", "min")])

# Inherited tests are run by several classes, which does no harm: without chance there is no database.
small = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.differing_executors],
)
values = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, 2.0, math.nan, math.inf])
curves = st.lists(st.lists(values, min_size=1, max_size=8), min_size=1, max_size=12)


class PrunerContract:
    """Each test makes its rules by `make`.

    compares: whether a trial is judged by the others, so that the best one is never ended. fronts: whether it
    takes several objectives.
    """

    compares = True
    fronts = True

    def make(self) -> Pruner:
        raise NotImplementedError

    def hopeless(self) -> PrunedSearch:
        """Return a search after six good trials; a bad one is then ended by the rule."""
        search = PrunedSearch(self.make())
        search.run(
            *[losses(*(0.5 - 0.01 * step - 0.001 * n for step in range(8))) for n in range(6)]
        )
        return search

    BAD = losses(9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0)

    def test_a_hopeless_trial_is_ended(self) -> None:
        (steps,) = self.hopeless().run(self.BAD)
        assert steps < len(self.BAD)

    def test_the_reason_is_told_in_words(self) -> None:
        search = self.hopeless()
        search.run(self.BAD)
        reason = next(each for each in search.answers.values() if each)
        assert len(reason) > 10
        assert "step" in reason or "reports" in reason

    def test_what_is_larger_can_be_better(self) -> None:
        """Of two searches that are each other's mirror image the answers are the same."""
        search, mirrored = self.hopeless(), PrunedSearch(self.make(), Objective("loss", "max"))
        search.run(self.BAD)
        if self.compares:
            for trial in search.history.trials.values():
                reports = trial.runs[0].observations
                mirrored.run([{"loss": -each.metrics["loss"]} for each in reports])
            assert [a is None for a in mirrored.answers.values()] == [
                a is None for a in search.answers.values()
            ]

    @pytest.mark.parametrize("metrics", [{"other": 9.0}, {"loss": math.nan}], ids=["absent", "nan"])
    def test_without_the_objective_nothing_is_judged(self, metrics: dict[str, float]) -> None:
        if not self.compares and "loss" in metrics:
            pytest.skip("what is not a number is no gain")
        search = self.hopeless()
        assert search.run([metrics] * 8) == [8]

    def test_only_the_first_repeat_is_judged(self) -> None:
        search = self.hopeless()
        number = search.next
        name = f"{number:04d}"
        search.record(TrialCreated(0.0, name, number, number, {}, 0), started(name, repeat=1))
        assert [search.report(number, step, each) for step, each in enumerate(self.BAD)] == [
            None
        ] * 8

    @small
    @given(curves, st.sampled_from([1, 3]))
    def test_a_resumed_search_gets_the_same_answers(
        self, reports: list[list[float]], slots: int
    ) -> None:
        """A new pruner that is given the facts so far answers as the one that has seen them come."""
        search = PrunedSearch(self.make(), slots=slots)
        search.run(*(losses(*each) for each in reports))
        history = History()
        for fact in search.facts:
            history.apply(fact)
            if isinstance(fact, Reported):
                trial = history.trial(fact.trial_id)
                answer = self.make().judge(history, trial, trial.runs[fact.run])
                assert answer == search.answers[trial.number, fact.step]

    @small
    @given(curves, st.sampled_from([1, 3]))
    def test_the_best_at_a_step_is_never_ended(
        self, reports: list[list[float]], slots: int
    ) -> None:
        if not self.compares:
            pytest.skip("it looks at one trial alone")
        search = PrunedSearch(self.make(), slots=slots)
        search.run(*(losses(*each) for each in reports))
        best = math.inf
        for fact in search.facts:
            if isinstance(fact, Reported):
                value = fact.metrics["loss"]
                if value <= best:
                    best = value
                    assert search.answers[int(fact.trial_id), fact.step] is None

    def test_it_serves_one_search_after_the_other(self) -> None:
        first = self.hopeless()
        second = PrunedSearch(first.pruner)
        if self.compares:
            assert second.run(self.BAD) == [len(self.BAD)]
        (steps,) = first.run(self.BAD)
        assert steps < len(self.BAD)

    def test_a_copy_begins_anew_or_goes_on(self) -> None:
        search = self.hopeless()
        other = self.hopeless()
        other.pruner = copy.deepcopy(search.pruner)
        assert other.run(self.BAD) == search.run(self.BAD)

    def test_a_search_without_a_named_objective_is_refused(self) -> None:
        with pytest.raises(FatalValueError, match=r'objective="val_loss"'):
            self.make().check(DefaultObjective(), repeats=1)
        self.make().check(SCORE, repeats=1)

    def test_of_several_objectives_each_counts(self) -> None:
        """A trial that is best in one objective stays, whatever it is in the other."""
        if not self.fronts:
            with pytest.raises(FatalValueError, match="several objectives"):
                self.make().check(FRONT, repeats=1)
            return
        search = PrunedSearch(self.make(), FRONT)
        middling = [{"loss": 1.0 - 0.01 * k, "size": 1.0} for k in range(8)]
        search.run(*[middling] * 6)
        extreme = [{"loss": 9.0 - 0.01 * k, "size": 0.1 - 0.01 * k} for k in range(8)]
        bad = [{"loss": 9.0, "size": 9.0}] * 8
        steps = search.run(extreme, bad)
        assert steps[0] == 8
        assert steps[1] < 8

    def test_a_run_that_is_tried_again_begins_anew(self) -> None:
        """What a broken run reported is not held against the next attempt."""
        search = self.hopeless()
        number = search.next
        name = f"{number:04d}"
        search.record(TrialCreated(0.0, name, number, number, {}, 0), started(name))
        for step, each in enumerate(self.BAD[:2]):
            search.report(number, step, each)
        search.record(started(name, run=1))
        good = losses(*(0.1 - 0.01 * k for k in range(8)))
        answers = [search.report(number, step, each, run=1) for step, each in enumerate(good)]
        assert answers == [None] * 8
