"""What is measured of a Keras model itself: only when it is asked for, once, and before it is trained."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import aiotune
from aiotune import AtMost, Objective
from aiotune.errors import FatalRuntimeError, InfeasibleTrialError
from aiotune.executors.launch import Server
from aiotune.frameworks.keras_build import ModelOptions
from aiotune.frameworks.keras_measures import Measures
from aiotune.objective import create_objective
from aiotune.trial import FailureKind, TrialState
from tests.support import keras_search

LOSS = Objective("val_loss", "min")


@dataclass
class Weight:
    shape: tuple[int, ...]


@dataclass
class Input:
    shape: tuple[int | None, ...]
    dtype: str = "float32"


@dataclass
class Model:
    """As much of a model as is measured."""

    inputs: list[Input] = field(default_factory=lambda: [Input((None, 4))])
    trainable_weights: list[Weight] = field(default_factory=lambda: [Weight((4, 3)), Weight((3,))])
    seen: list[Any] = field(default_factory=list)

    def predict_on_batch(self, x: Any) -> None:
        self.seen.append(x)


def measured(objective: object, *bounds: AtMost, model: Model | None = None) -> dict[str, float]:
    measures = Measures(ModelOptions(create_objective(objective), bounds=bounds))
    measures.take(model or Model())
    return measures.metrics


def test_nothing_is_measured_that_nobody_asks_for() -> None:
    model = Model()
    assert measured(LOSS, AtMost("val_loss", 3), model=model) == {}
    assert not model.seen


def test_objective_and_bounds_ask_for_it() -> None:
    assert measured(Objective("model_size", "min")) == {"model_size": 15.0}
    assert set(measured([LOSS, Objective("latency", "min")])) == {"latency"}
    both = measured(LOSS, AtMost("latency", 10), AtMost("model_size", 20))
    assert set(both) == {"model_size", "latency"}
    assert both["latency"] >= 0.0


def test_latency_is_that_of_one_sample_after_a_warm_up() -> None:
    model = Model([Input((None, 4)), Input((None, 2, 2), "int32")])
    measured(Objective("latency", "min"), model=model)
    assert len(model.seen) >= 8
    one, other = model.seen[0]
    assert (one.shape, one.dtype) == ((1, 4), np.float32)
    assert (other.shape, other.dtype) == ((1, 2, 2), np.int32)


def test_a_model_beyond_a_bound_is_infeasible_at_once() -> None:
    with pytest.raises(InfeasibleTrialError, match="model_size = 15, but at most 14 is allowed"):
        measured(LOSS, AtMost("model_size", 14))


def test_it_is_measured_once() -> None:
    measures = Measures(ModelOptions(Objective("model_size", "min")))
    measures.take(Model())
    measures.take(Model(trainable_weights=[Weight((9,))]))
    assert measures.metrics == {"model_size": 15.0}


def test_what_a_fit_of_ones_own_returns_gets_them_too() -> None:
    measures = Measures(ModelOptions(LOSS, bounds=(AtMost("model_size", 20),)))
    assert measures.added_to({"val_loss": 1.0}) == {"val_loss": 1.0}
    measures.take(Model())
    assert measures.added_to({"val_loss": 1.0}) == {"val_loss": 1.0, "model_size": 15.0}
    assert measures.added_to({"model_size": 1.0}) == {"model_size": 1.0}
    assert measures.added_to(0.5) == 0.5


async def test_a_search_of_keras_models_measures_them(tmp_path: Path, keras_server: Server) -> None:
    x, y, xv, yv = keras_search.data()
    tuner = aiotune.GridSearch(
        keras_search.build, "val_loss", max_trials=4, directory=tmp_path, seed=1,
        constraint=[AtMost("model_size", 60), AtMost("latency", 60)],
    )  # fmt: skip
    tuner.enqueue({"layers": 1, "units_0": 4}, {"layers": 1, "units_0": 16})
    result = await tuner.search(x, y, validation_data=(xv, yv), epochs=1, verbose=0)
    small, large = result.trials[:2]
    assert small.state is TrialState.COMPLETED
    assert small.final_metrics["model_size"] == 6 * 4 + 4 + 4 * 2 + 2
    assert small.final_metrics["latency"] > 0
    assert large.state is TrialState.INFEASIBLE
    assert large.failure is FailureKind.INFEASIBLE
    assert "model_size = 146, but at most 60 is allowed" in (large.message or "")
    assert not any(run.observations for run in large.runs)


async def test_a_bound_on_a_metric_that_no_epoch_has_ends_the_search(
    tmp_path: Path, keras_server: Server
) -> None:
    x, y, xv, yv = keras_search.data()
    tuner = aiotune.RandomSearch(
        keras_search.build, "val_loss", max_trials=1, directory=tmp_path,
        constraint=AtMost("val_acuracy", 60),
    )  # fmt: skip
    with pytest.raises((FatalRuntimeError, ValueError), match="Did you mean 'val_accuracy'"):
        await tuner.search(x, y, validation_data=(xv, yv), epochs=1, verbose=0)
