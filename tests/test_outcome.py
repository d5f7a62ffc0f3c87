import math
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.objective import DefaultObjective, MultiObjective, Objective
from aiotune.outcome import Outcome, outcome_of, score_of
from aiotune.trial import Observation

DEFAULT = DefaultObjective()
LOSS = Objective("val_loss", "min")
ACCURACY = Objective("val_accuracy", "max")
BOTH = MultiObjective([LOSS, ACCURACY], by="sum")


@dataclass
class History:
    """What Keras's History has."""

    history: dict
    epoch: list = field(default_factory=list)


@pytest.mark.parametrize(
    "result",
    [0.5, np.float32(0.5), np.float64(0.5), np.array(0.5), np.array([0.5]), Decimal("0.5")],
)
def test_a_number_is_the_objective(result):
    outcome = outcome_of(result, LOSS)
    assert outcome == Outcome({"val_loss": 0.5})
    assert type(outcome.metrics["val_loss"]) is float


def test_whole_numbers_and_defaults():
    assert outcome_of(np.int64(3), DEFAULT).metrics == {"default_objective": 3.0}
    assert outcome_of({"default_objective": 2, "time": np.float32(1)}, DEFAULT).metrics == {
        "default_objective": 2.0,
        "time": 1.0,
    }


def test_a_bool_among_metrics_is_0_or_1() -> None:
    outcome = outcome_of({"val_loss": 0.5, "ok": True, "bad": np.bool_(False)}, LOSS)
    assert outcome.metrics == {"val_loss": 0.5, "ok": 1.0, "bad": 0.0}


@pytest.mark.parametrize(
    ("result", "error", "message"),
    [
        (None, FatalTypeError, "Did you forget to return"),
        ([0.1, None], FatalTypeError, "Did you forget to return"),
        (True, FatalTypeError, "returned bool"),
        (np.bool_(True), FatalTypeError, "bool"),
        ("0.5", FatalTypeError, "returned str"),
        (np.zeros(3), FatalTypeError, "returned ndarray"),
        (object(), FatalTypeError, "returned object"),
        ([], FatalValueError, "empty list"),
        (
            {"loss": 1},
            FatalValueError,
            "'val_loss' is not among the metrics: loss. Did you mean 'loss'",
        ),
        ({"val_loss": "low"}, FatalTypeError, "'val_loss': 'low': metrics are numbers"),
        ({"val_loss": 1, 3: 1}, FatalTypeError, "metrics are numbers by name"),
        (History({"loss": [1]}, [0]), FatalValueError, "'val_loss' is not among the metrics: loss"),
        (History({}, []), FatalValueError, "there are none"),
    ],
)
def test_what_cannot_be_scored_says_so(result, error, message):
    with pytest.raises(error, match=message):
        outcome_of(result, LOSS)


def test_a_history_needs_a_named_objective():
    with pytest.raises(FatalTypeError, match='objective="val_loss"'):
        outcome_of(History({"loss": [1]}, [0]), DEFAULT)


# ---- histories


def test_the_first_best_epoch_of_a_history_counts():
    history = History({"val_loss": [3, 1, 2, 1], "acc": [0.1, 0.2, 0.3, 0.4]}, [0, 1, 2, 3])
    assert outcome_of(history, LOSS) == Outcome({"val_loss": 1.0, "acc": 0.2}, best_step=1)


def test_epochs_are_numbered_as_keras_does():
    assert outcome_of(History({"val_loss": [3, 1]}, [4, 5]), LOSS).best_step == 5
    assert outcome_of(History({"val_loss": [3, 1]}), LOSS).best_step == 1


def test_nan_epochs_are_passed_over():
    nan = math.nan
    assert outcome_of(History({"val_loss": [nan, 2, nan, 1]}, [0, 1, 2, 3]), LOSS).best_step == 3
    broken = outcome_of(History({"val_loss": [nan, nan]}, [0, 1]), LOSS)
    assert math.isnan(broken.metrics["val_loss"])
    assert broken.best_step == 0


@pytest.mark.parametrize(
    ("epochs", "values", "best_step", "loss"),
    [
        (range(6), [3, 2, 1], 5, 0.6),  # every 2nd
        (range(5), [3, 1], 3, 0.4),  # every 2nd; the last epoch has none
        (range(5), [1], 4, 0.5),  # every 5th
        (range(3, 8), [3, 1], 7, 0.5),  # every 4th, begun at epoch 3
        (range(4, 8), [3, 1], 7, 0.4),  # every 2nd
        (range(5), [4, 3, 2, 1], 4, 0.5),  # no period gives that: the last ones
    ],
)
def test_validation_at_some_epochs_only(epochs, values, best_step, loss):
    losses = [0.1 * (index + 1) for index in range(len(epochs))]
    outcome = outcome_of(History({"loss": losses, "val_loss": values}, list(epochs)), LOSS)
    assert outcome.best_step == best_step
    assert outcome.metrics == {"val_loss": 1.0, "loss": pytest.approx(loss)}


def test_metrics_that_the_best_epoch_lacks_are_left_out():
    history = History({"loss": [3, 2, 1, 4], "val_loss": [5, 6]}, [0, 1, 2, 3])
    assert outcome_of(history, Objective("loss", "min")) == Outcome({"loss": 1.0}, best_step=2)


def test_several_objectives():
    history = History({"val_loss": [1, 0.5], "val_accuracy": [0.9, 0.2]}, [0, 1])
    outcome = outcome_of(history, BOTH)
    assert outcome.best_step == 0
    assert outcome.metrics["multi_objective"] == pytest.approx(0.1)
    assert outcome_of({"val_loss": 1, "val_accuracy": 0.5}, BOTH).metrics["multi_objective"] == 0.5
    with pytest.raises(FatalValueError, match="val_accuracy"):
        outcome_of(History({"val_loss": [1]}, [0]), BOTH)


def test_a_front_needs_a_dict():
    front = MultiObjective([LOSS, ACCURACY])
    outcome = outcome_of({"val_loss": 1, "val_accuracy": 0.5}, front)
    assert outcome.metrics == {"val_loss": 1.0, "val_accuracy": 0.5, "multi_objective": 0.5}
    with pytest.raises(FatalTypeError, match="return a dict that holds 'val_loss', 'val_accuracy'"):
        outcome_of(0.5, front)
    with pytest.raises(FatalValueError, match="val_accuracy"):
        outcome_of({"val_loss": 1.0, "multi_objective": 1.0}, front)


# ---- several executions


def test_executions_are_averaged_metric_by_metric():
    first = History({"val_loss": [2, 1], "acc": [0.5, 0.6]}, [0, 1])
    second = History({"val_loss": [3, 4], "lr": [1, 1]}, [3, 4])
    outcome = outcome_of([first, second], LOSS)
    assert outcome.metrics == {"val_loss": 2.0, "acc": 0.6, "lr": 1.0}
    assert outcome.best_step == 2
    assert outcome_of([0.5, {"val_loss": 1.5}], LOSS) == Outcome({"val_loss": 1.0})


# ---- reports


def test_score_of_reports_is_the_best_so_far():
    reports = [
        Observation(0, {"loss": 1}),
        Observation(2, {"val_loss": math.nan}),
        Observation(4, {"val_loss": 2}),
        Observation(6, {"val_loss": 2}),
    ]
    assert score_of(reports, LOSS) == (2.0, 4)
    assert score_of(reports[:1], LOSS) is None
    assert score_of([], LOSS) is None
    assert math.isnan(score_of(reports[:2], LOSS)[0])
