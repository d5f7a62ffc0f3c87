"""What says at which points: the samplers of Hyperband and ASHA, and what they are told."""

from __future__ import annotations

import math
from typing import Any

import pytest

from aiotune.constraints import as_constraint
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Oracle
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.oracles.population import PopulationBasedTrainingOracle
from aiotune.oracles.quasi_random import QuasiRandomOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.oracles.samplers import SAMPLERS
from aiotune.oracles.stopping import AshaStoppingOracle
from aiotune.oracles.tpe import TPEOracle
from aiotune.trial import Trial
from tests.support.rungs import Rungs

SCORE = Objective("score", "min")


def two_names(hp: HyperParameters) -> None:
    hp.Float("x", 0, 1)
    hp.Choice("kind", ["a", "b"])


def bowl(trial: Trial, epoch: int) -> float:
    x = trial.values["x"]
    assert isinstance(x, float)
    return (x - 0.3) ** 2 + (0.2 if trial.values["kind"] == "a" else 0.0) + 1 / (epoch + 1)


def searched(oracle: Oracle, **options: Any) -> Rungs:
    return Rungs(oracle, slots=2, score=bowl, declare=two_names, **options).run()


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_every_sampler_leads_a_search(name: str) -> None:
    """To its end, with the brackets of any other, and again in the same way."""
    first, again = (searched(HyperbandOracle(SCORE, 9, 3, seed=2, sampler=name)) for _ in range(2))
    assert [len(trial.runs) for trial in first.trials] == [len(t.runs) for t in again.trials]
    assert len(first.trials) == 17
    assert first.facts == again.facts
    points = {(trial.values["x"], trial.values["kind"]) for trial in first.trials}
    assert len(points) == 17


@pytest.mark.parametrize(
    ("kind", "name"),
    [("hyperband", "tpe"), ("asha", "tpe"), ("stop", "tpe"), ("hyperband", "bayesian")],
)
def test_a_sampler_that_learns_goes_where_it_is_good(kind: str, name: str) -> None:
    """Scores of different epochs are not mixed: more epochs make any point better here."""

    def oracle(sampler: str, seed: int) -> Oracle:
        if kind == "hyperband":
            return HyperbandOracle(SCORE, 9, 3, 2, seed=seed, sampler=sampler)
        made = AshaStoppingOracle if kind == "stop" else AshaOracle
        return made(SCORE, 9, 3, max_trials=34, seed=seed, sampler=sampler)

    def distance(sampler: str) -> float:
        """Of the second half of the trials, from the best point."""
        searches = [searched(oracle(sampler, seed), by_epoch=kind == "stop") for seed in (0, 1)]
        return sum(bowl(trial, 0) - 1 for search in searches for trial in search.trials[17:]) / 34

    assert distance(name) < 0.75 * distance("random")


def test_random_is_the_default_and_draws_as_random_search() -> None:
    hyperband = searched(HyperbandOracle(SCORE, 9, 3, seed=4))
    alone = searched_random()
    assert [trial.values["x"] for trial in hyperband.trials] == alone


def searched_random() -> list[object]:
    oracle = AshaOracle(
        SCORE, 1, max_trials=17, seed=4, sampler=RandomSearchOracle(max_trials=None)
    )
    return [trial.values["x"] for trial in searched(oracle).trials]


def test_asking_goes_to_a_thread_where_the_sampler_thinks() -> None:
    assert HyperbandOracle(SCORE, sampler="bayesian").asks_in_thread
    assert not HyperbandOracle(SCORE).asks_in_thread
    assert not HyperbandOracle(SCORE, sampler=QuasiRandomOracle()).asks_in_thread


def test_the_sampler_is_told_what_its_owner_knows() -> None:
    oracle = HyperbandOracle(SCORE, 9, 3, seed=1, sampler=TPEOracle(num_initial_points=3))
    oracle.constraint, oracle.bounds = as_constraint(lambda hp: hp.get("x") < 0.5)
    oracle.enqueue({"x": 0.125})
    search = searched(oracle)
    xs = [trial.values["x"] for trial in search.trials]
    assert xs[0] == 0.125
    assert max(float(str(x)) for x in xs) < 0.5
    assert all(trial.budget is not None for trial in search.trials)
    sampler = oracle.sampler
    assert (sampler.objective, sampler.seed) == (SCORE, 1)
    assert sampler.hyperparameters is oracle.hyperparameters


@pytest.mark.parametrize(
    ("sampler", "error", "text"),
    [
        (TPEOracle, FatalTypeError, "not a class"),
        (3, FatalTypeError, "one of 'random'"),
        ("grid", FatalValueError, "'grid' is not known"),
        (HyperbandOracle(), FatalTypeError, "it gives trials budgets, too"),
        (PopulationBasedTrainingOracle(), FatalTypeError, "it gives trials budgets, too"),
        (TPEOracle("val_loss"), FatalValueError, "objective= was given to the sampler"),
        (TPEOracle(seed=3), FatalValueError, "seed= was given to the sampler"),
    ],
)
def test_samplers_that_make_no_sense_are_refused(
    sampler: Any, error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        HyperbandOracle(SCORE, sampler=sampler)


def test_a_sampler_with_the_same_objective_is_fine() -> None:
    oracle = HyperbandOracle(SCORE, sampler=BayesianOptimizationOracle(SCORE, beta=2.0))
    assert isinstance(oracle.sampler, BayesianOptimizationOracle)
    assert oracle.sampler.beta == 2.0
    assert math.isclose(oracle.sampler.alpha, 1e-6)
