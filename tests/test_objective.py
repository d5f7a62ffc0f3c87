import ast
import importlib.util
import json
import math
import pickle
import re
from pathlib import Path

import pytest

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.objective import (
    DefaultObjective,
    MultiObjective,
    Objective,
    create_objective,
    infer_direction,
)

LOSS = Objective("val_loss", "min")
ACCURACY = Objective("val_accuracy", "max")


# ---- which is better


def test_better_is_strict_and_knows_nan():
    assert LOSS.better_than(1, 2)
    assert not LOSS.better_than(2, 2)
    assert ACCURACY.better_than(2, 1)
    for objective in (LOSS, ACCURACY):
        assert objective.better_than(5, math.nan)
        assert not objective.better_than(math.nan, 5)
        assert not objective.better_than(math.nan, math.nan)
        assert objective.better_than(0, objective.worst)


@pytest.mark.parametrize(
    ("objective", "values", "index"),
    [
        (LOSS, [3, 1, 2, 1], 1),
        (ACCURACY, [3, 1, 3], 0),
        (LOSS, [math.nan, 2, 1], 2),
        (LOSS, [math.nan, math.nan], 0),
        (ACCURACY, [math.nan, -math.inf], 1),
    ],
)
def test_best_is_the_first_best_number(objective, values, index):
    assert objective.best(values) == index


def test_best_of_nothing_is_an_error():
    with pytest.raises(FatalValueError, match="no value"):
        LOSS.best([])


# ---- values in logs


def test_value_in_logs():
    assert LOSS.has_value({"val_loss": 1})
    assert LOSS.get_value({"val_loss": 1}) == 1.0
    with pytest.raises(
        FatalValueError, match=r"'val_loss' is not among .*: acc, val_los. Did you mean 'val_los'\?"
    ):
        LOSS.get_value({"val_los": 1, "acc": 2})
    with pytest.raises(FatalValueError, match="there are none"):
        LOSS.get_value({})


def test_several_objectives_are_a_signed_sum():
    both = create_objective(["val_loss", ACCURACY])
    assert both == MultiObjective([LOSS, ACCURACY], by="sum")
    assert not both.seeks_front
    assert (both.name, both.direction) == ("multi_objective", "min")
    logs = {"val_loss": 0.5, "val_accuracy": 0.75}
    assert both.has_value(logs)
    assert both.get_value(logs) == -0.25
    assert not both.has_value({"val_loss": 0.5})
    assert both.get_value({"multi_objective": 3}) == 3.0
    with pytest.raises(FatalValueError, match="val_accuracy"):
        both.get_value({"val_loss": 0.5})


def test_the_config_of_a_list_is_the_one_of_older_projects():
    assert create_objective([LOSS, ACCURACY]).get_config() == {
        "name": "multi_objective",
        "direction": "min",
        "objectives": [LOSS.get_config(), ACCURACY.get_config()],
    }
    assert MultiObjective([LOSS, ACCURACY], by="sum", weights=[1, 1]) == create_objective(
        [LOSS, ACCURACY]
    )


# ---- a front


def test_a_front_is_sought_with_a_weighted_sum_as_the_score():
    both = MultiObjective(["val_loss", ACCURACY], weights=[2, 0.5])
    assert both.seeks_front
    assert both.parts == (LOSS, ACCURACY)
    assert both.get_value({"val_loss": 0.5, "val_accuracy": 0.75}) == 1.0 - 0.375
    assert both.minimised([1.0, 2.0]) == (1.0, -2.0)
    assert both != MultiObjective([LOSS, ACCURACY])
    assert MultiObjective([LOSS, ACCURACY]) != create_objective([LOSS, ACCURACY])


def test_a_front_needs_each_objective_not_their_sum():
    both = MultiObjective([LOSS, ACCURACY])
    assert not both.has_value({"multi_objective": 1.0})
    assert not both.has_value({"multi_objective": 1.0, "val_loss": 1.0})
    with pytest.raises(FatalValueError, match="val_loss"):
        both.get_value({"multi_objective": 1.0})


def test_a_single_objective_is_its_own_part():
    assert ACCURACY.parts == (ACCURACY,)
    assert ACCURACY.minimised([0.5]) == (-0.5,)
    assert not ACCURACY.seeks_front


def test_the_directions_of_the_parts_are_declared():
    both = MultiObjective([Objective("size", "max"), LOSS])
    assert both.direction_of("size") == "max"
    assert both.direction_of("multi_objective") == "min"
    assert both.direction_of("accuracy") is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"by": "front"}, 'by=\'front\': it must be "hypervolume" or "sum"'),
        ({"weights": [1.0]}, "weights has 1 values for 2 objectives: val_loss, val_accuracy"),
        ({"weights": [1.0, 0.0]}, "each must be above 0"),
        ({"weights": [1.0, -1.0]}, "each must be above 0"),
        ({"weights": [1.0, math.nan]}, "each must be finite"),
        ({"reference": [1.0, math.inf]}, "each must be finite"),
        ({"reference": [1.0, 2.0, 3.0]}, "reference has 3 values for 2 objectives"),
        ({"reference": [1.0, 2.0], "by": "sum"}, "reference has no effect on a sum"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(FatalValueError, match=message):
        MultiObjective([LOSS, ACCURACY], **options)


@pytest.mark.parametrize("name", ["weights", "reference"])
@pytest.mark.parametrize("value", [3, "12", ["1", 2], [True, 2], {"val_loss": 1, "acc": 2}])
def test_options_that_are_no_numbers_are_refused(name, value):
    with pytest.raises(FatalTypeError, match=f"{name}="):
        MultiObjective([LOSS, ACCURACY], **{name: value})


@pytest.mark.parametrize(
    ("objectives", "message"),
    [
        ([], "at least one"),
        ([LOSS], "pass objective='val_loss' itself"),
        ([LOSS, "val_loss"], "given twice"),
        ([MultiObjective([LOSS, ACCURACY]), "loss"], "list all of them side by side"),
        (["val_loss", "size"], r'aiotune.Objective\("size", direction="max"\)'),
    ],
)
def test_objectives_that_make_no_front_are_refused(objectives, message):
    with pytest.raises(FatalValueError, match=message):
        MultiObjective(objectives)


def test_a_name_is_no_list_of_objectives():
    with pytest.raises(FatalTypeError, match="a list of objectives, or names, is needed"):
        MultiObjective("val_loss")


# ---- making one


def test_create_objective():
    assert create_objective(None) == DefaultObjective()
    assert create_objective("val_accuracy") == ACCURACY
    assert create_objective(LOSS) is LOSS
    with pytest.raises(FatalValueError, match=r'aiotune.Objective\("score", direction="max"\)'):
        create_objective("score")
    for bad in (3, {"a": 1}, len):
        with pytest.raises(FatalTypeError, match="is not understood"):
            create_objective(bad)
    with pytest.raises(FatalValueError, match="at least one"):
        create_objective([])


def test_bad_objectives_are_refused():
    with pytest.raises(FatalValueError, match='"min" or "max", not \'maximize\''):
        Objective("acc", "maximize")
    with pytest.raises(FatalTypeError, match="needs a name"):
        Objective(None, "min")


@pytest.mark.parametrize(
    "objective",
    [
        LOSS,
        DefaultObjective(),
        create_objective([LOSS, ACCURACY]),
        MultiObjective([LOSS, ACCURACY], by="sum", weights=[1, 2]),
        MultiObjective([LOSS, ACCURACY]),
        MultiObjective([LOSS, ACCURACY], reference=(1, 0.5), weights=(3, 0.5)),
    ],
)
def test_config_and_pickle_lead_back(objective):
    again = Objective.from_config(json.loads(json.dumps(objective.get_config())))
    assert again == objective == pickle.loads(pickle.dumps(objective))
    assert type(again) is type(objective)
    assert hash(again) == hash(objective)
    assert str(again) == str(objective)


def test_text_and_equality():
    assert str(LOSS) == 'Objective(name="val_loss", direction="min")'
    assert Objective("val_loss", "max") != LOSS
    assert create_objective([LOSS]) != create_objective([ACCURACY])
    assert str(create_objective([LOSS, ACCURACY])) == f"MultiObjective({LOSS}, {ACCURACY})"
    assert (
        str(MultiObjective([LOSS, ACCURACY], reference=[2, 0]))
        == f'MultiObjective({LOSS}, {ACCURACY}, by="hypervolume", reference=[2.0, 0.0])'
    )


# ---- directions

MAXIMISED_NAMES = """
    acc accuracy val_acc weighted_acc val_weighted_accuracy binary_accuracy
    top_k_categorical_accuracy auc auc_1 val_auc_12 precision precision_at_recall recall
    recall_at_precision sensitivity_at_specificity specificity_at_sensitivity f1_score
    fbeta_score r2_score io_u iou mean_io_u mean_iou binary_io_u one_hot_io_u one_hot_mean_io_u
    BinaryIoU pearson_correlation concordance_correlation cosine_similarity true_positives
    true_negatives F1Score R2Score
"""


MINIMISED_NAMES = """
    loss val_loss ce crossentropy mse MSE mae rmse root_mean_squared_error mean_squared_error_3
    kld huber log_cosh logcosh dice tversky ctc circle false_positives val_false_negatives_1
    perplexity binary_focal_crossentropy
"""


@pytest.mark.parametrize(
    "name",
    MAXIMISED_NAMES.split(),
)
def test_maximised(name):
    assert infer_direction(name) == "max"


@pytest.mark.parametrize(
    "name",
    MINIMISED_NAMES.split(),
)
def test_minimised(name):
    assert infer_direction(name) == "min"


@pytest.mark.parametrize(
    "name", ["score", "mean", "sum", "my_metric", "", "val_", "default_objective", "accuracy_of"]
)
def test_unknown(name):
    assert infer_direction(name) is None


WITHOUT_DIRECTION = {
    "Metric",
    "Mean",
    "Sum",
    "MeanMetricWrapper",
    "Loss",
    "LossFunctionWrapper",
    "Reduction",
}
MAXIMISED = re.compile(
    r"accuracy|iou|score|correlation|auc|precision|recall|true|sensitivity|cosine", re.IGNORECASE
)


def keras_names(package: str) -> set[str]:
    """Return the classes, functions and aliases of `keras.metrics` or `keras.losses`, from the source text."""
    spec = importlib.util.find_spec("keras")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    root = Path(spec.submodule_search_locations[0])
    tree = ast.parse((root / "src" / package / "__init__.py").read_text())
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Assign(targets=[ast.Name(id="ALL_OBJECTS")], value=ast.Set(elts=elements)):
                names.update(each.id for each in elements if isinstance(each, ast.Name))
            case ast.Dict(keys=keys):
                names.update(each.value for each in keys if isinstance(each, ast.Constant))
    return names


@pytest.mark.skipif(importlib.util.find_spec("keras") is None, reason="keras is not installed")
@pytest.mark.parametrize("package", ["metrics", "losses"])
def test_every_name_of_keras_has_its_direction(package):
    names = keras_names(package) - WITHOUT_DIRECTION
    assert len(names) > 25
    snakes = {re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower() for name in names}
    found = {name: infer_direction(name) for name in names | snakes}
    assert found == {
        name: "max" if MAXIMISED.search(name.replace("_", "")) else "min" for name in found
    }
