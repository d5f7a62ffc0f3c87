"""The hypermodels that are ready to use: their spaces, their networks, what they refuse, on every backend."""

from __future__ import annotations

import functools
import pickle
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from aiotune import HyperModel, HyperParameters, RandomSearch, applications
from aiotune.applications import (
    HyperEfficientNet,
    HyperImageAugment,
    HyperResNet,
    HyperXception,
)
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.executors.launch import Server
from tests.support import application_programs as programs
from tests.support.programs import run_program as run_code
from tests.support.tuned import make
from tests.test_keras import keras_host, run_program

SHAPE = (32, 32, 3)
FACTORS = [
    "factor_rotate",
    "factor_translate_x",
    "factor_translate_y",
    "factor_contrast",
]

RunProgram = Callable[[str], Any]

# One small variant for the backends that are slow to compile, or to start.
on_every_backend = pytest.mark.parametrize("run", ["tensorflow", "jax", "torch"], indirect=True)
on_torch = pytest.mark.parametrize("run", ["torch"], indirect=True)


@pytest.fixture(scope="module", params=["tensorflow"])
def run(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunProgram]:
    """Call it with a program's name to get the program's result; each program runs once."""
    directory = tmp_path_factory.mktemp(request.param)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KERAS_HOME", str(directory / "keras"))
        patch.setenv("https_proxy", "http://127.0.0.1:9")  # nobody listens there
        patch.setenv("OMP_NUM_THREADS", "1")
        # What XLA compiles here runs once or twice.
        flags = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
        patch.setenv("XLA_FLAGS", flags)
        log = directory / "host.log"
        with keras_host(request.param, log, programs.__name__) as host:
            yield functools.cache(partial(run_program, host, directory))


# HyperResNet


def test_resnet_has_the_weights_of_keras_resnets_and_computes_the_same(run: RunProgram) -> None:
    got = run("resnet_weights")
    assert got["v1"]["count"] == 25_636_712
    assert got["v2"]["count"] == 25_613_800
    for version in ("v1", "v2"):
        assert got[version]["is_same"]
        assert got[version]["difference"] < 1e-5


def test_resnext_has_the_weights_of_its_paper(run: RunProgram) -> None:
    got = run("resnext")
    assert got["count"] == 25_097_128  # ResNeXt-50 (32 x 4d), with the moving averages
    assert got["kernels"]["conv2_block1_2_conv"] == [3, 3, 4, 128]
    assert got["kernels"]["conv5_block3_2_conv"] == [3, 3, 32, 1024]


def test_resnet_is_as_deep_as_its_hyperparameters_say(run: RunProgram) -> None:
    got = run("resnet_depths")
    assert got["blocks"] == [3, 8, 6, 3]


def test_a_resnet_without_its_top_gives_features(run: RunProgram) -> None:
    got = run("resnet_depths")
    assert got["output"] == [None, 2048]
    assert not got["is_compiled"]
    assert got["names"] == ["version", "conv3_depth", "conv4_depth", "pooling"]


def test_a_resnet_trains(run: RunProgram) -> None:
    got = run("resnet_trains")
    assert got["loss_of_step"] > 0
    assert got | {"loss_of_step": 0} == {
        "model": "ResNet",
        "optimizer": "SGD",
        "learning_rate": 0.01,
        "momentum": 0.0,
        "loss": "categorical_crossentropy",
        "last": "probs",
        "classes": 10,
        "loss_of_step": 0,
    }


def test_a_resnet_trains_behind_augmentation(run: RunProgram) -> None:
    got = run("augmented_resnet_trains")
    assert got["loss_of_step"] > 0
    resnet = ["version", "conv3_depth", "conv4_depth", "pooling", "optimizer", "learning_rate"]
    assert got["names"] == [*resnet, "augment_layers", *FACTORS]


@on_torch
def test_a_resnext_trains(run: RunProgram) -> None:
    assert run("resnext_trains")["loss_of_step"] > 0


# HyperXception


def test_an_xception_trains_with_either_activation(run: RunProgram) -> None:
    got = run("xception_trains")
    for facts in got.values():
        assert facts["loss_of_step"] > 0
        assert facts["names"] == [
            "activation",
            "conv2d_num_filters",
            "kernel_size",
            "initial_strides",
            "sep_num_filters",
            "num_residual_blocks",
            "pooling",
            "num_dense_layers",
            "dropout_rate",
            "dense_use_bn",
            "learning_rate",
        ]
        assert (facts["model"], facts["optimizer"]) == ("Xception", "Adam")
        assert (facts["learning_rate"], facts["classes"]) == (0.001, 5)
        assert facts["separable"] == 2 * 3 + 2
        assert facts["sums"] == 2 + 1
    # Under relu: the convolution, the separable ones, two projections, the dense layer.
    assert got["relu"]["normalized"] == 1 + 8 + 2 + 1
    assert got["selu"]["normalized"] == 1
    assert (got["relu"]["dropout"], got["selu"]["dropout"]) == ("Dropout", "AlphaDropout")


def test_an_xception_without_its_top_gives_features(run: RunProgram) -> None:
    got = run("xception_features")
    assert got["shapes"] == {"avg": 256, "max": 256, "flatten": 16 * 8 * 256}
    assert not got["is_compiled"]


# HyperEfficientNet


def test_an_efficientnet_trains_behind_augmentation(run: RunProgram) -> None:
    got = run("efficientnet_trains")
    assert got["loss_of_step"] > 0
    own = ["version", "pooling", "top_dropout_rate", "learning_rate"]
    assert got["names"] == ["augment_layers", *FACTORS, *own]
    assert (got["model"], got["optimizer"]) == ("EfficientNet", "SGD")
    assert (got["learning_rate"], got["momentum"]) == (0.01, 0.1)
    assert (got["loss"], got["last"], got["classes"]) == ("categorical_crossentropy", "probs", 4)


def test_efficientnet_weights_come_from_a_file_for_each_version(run: RunProgram) -> None:
    got = run("efficientnet_weights")
    assert got["is_same"]
    assert "b1.weights.h5" in got["missing"]
    assert "hp.Fixed('version'" in got["missing"]


def test_a_subclass_may_compile_in_its_own_way(run: RunProgram) -> None:
    assert run("efficientnet_weights")["loss"] == "mse"


def test_a_failed_download_says_what_to_pass_instead(run: RunProgram) -> None:
    message = run("efficientnet_offline")
    assert "EfficientNetB0" in message
    assert "weights=None" in message
    assert "~/.keras/models" in message
    assert "a file of your own" in message


# HyperImageAugment


@on_every_backend
def test_augmentation_trains_inside_a_model(run: RunProgram) -> None:
    got = run("augment_in_a_model")
    assert got["augment"] == ["image_rand_augment", False, 1 + 2]
    assert got["loss_of_step"] > 0
    assert got["is_changed"]
    assert got["is_random"]


@on_every_backend
def test_augmentation_is_the_identity_in_inference(run: RunProgram) -> None:
    assert run("augment_in_a_model")["is_identity"]


@on_every_backend
def test_a_model_with_augmentation_is_saved_and_loaded(run: RunProgram) -> None:
    got = run("augment_in_a_model")
    assert got["is_predicted_again"]
    assert got["has_layer"] == 2


@on_every_backend
def test_each_transform_changes_what_it_says(run: RunProgram) -> None:
    got = run("augment_amounts")
    for low, high in (got["columns"], got["rows"]):  # a quarter of 16, to both sides
        assert -4.001 <= low < -2
        assert 2 < high <= 4.001
    assert got["sideways"] < 1e-3
    low, high = got["contrast"]
    assert 0.499 <= low < 0.8
    assert 1.2 < high <= 1.501
    assert got["mean"] < 1e-4
    low, high = got["cosines"]  # a quarter turn at most, to both sides
    assert -0.01 <= low < 0.5
    assert 0.8 < high <= 1.001


@on_every_backend
def test_each_image_gets_one_of_the_transforms(run: RunProgram) -> None:
    contrasted, still, untouched = run("augment_amounts")["either"]
    assert contrasted + still >= 64 - untouched
    assert 0 < contrasted < 64
    assert 0 < still < 64


def test_fixed_augmentation_applies_all_transforms(run: RunProgram) -> None:
    got = run("augment_fixed")
    assert got["name"] == "image_augment"
    assert got["names"] == ["factor_rotate", "factor_translate_x", "factor_contrast"]
    assert got["is_changed"]
    assert got["is_identity"]
    assert got["left_out"] == ["image_augment", 1]


def test_augmentation_works_in_a_dataset(run: RunProgram) -> None:
    assert run("augment_a_dataset") == {
        "shape": [6, 8, 8, 3],
        "is_changed": True,
        "is_random": True,
    }


def test_importing_the_layer_makes_a_saved_model_loadable(run: RunProgram) -> None:
    run("augment_in_a_model")
    got = run("load_in_another_process")
    assert "ImageAugment" in got["unknown"]
    assert got["has_layer"] == 2


# What they share


def test_models_built_on_a_tensor_share_no_weights(run: RunProgram) -> None:
    got = run("builds_share_nothing")
    assert got["begins_with"] == [True, True]
    assert got["is_own"]
    assert got["loss_of_step"] > 0


def test_mixed_precision_ends_in_full_precision(run: RunProgram) -> None:
    got = run("mixed_precision")
    assert (got["augment"], got["convolution"]) == ("bfloat16", "bfloat16")
    assert got["probabilities"] == "float32"
    assert got["loss_of_step"] > 0


def test_a_wrong_tensor_is_refused(run: RunProgram) -> None:
    got = run("wrong_tensors")
    assert got["flat"][0] == "FatalValueError"
    assert "four axes" in got["flat"][1]
    assert got["array"][0] == "FatalTypeError"
    assert "keras.Input" in got["array"][1]
    assert got["other"][0] == "FatalValueError"
    assert "drop input_shape" in got["other"][1]


def test_making_and_pickling_them_loads_no_framework() -> None:
    loaded = run_code(
        """
        import pickle, sys
        from aiotune.applications import *
        for each in (HyperResNet, HyperXception, HyperEfficientNet):
            pickle.loads(pickle.dumps(each(input_shape=(8, 8, 3), classes=2)))
        augment = HyperImageAugment(input_shape=(8, 8, 3))
        pickle.dumps(HyperEfficientNet((8, 8, 3), classes=2, augmentation_model=augment))
        print(*sorted({"keras", "tensorflow", "torch", "jax"} & set(sys.modules)), "none")
        """
    )
    assert loaded.strip() == "none"


@pytest.mark.parametrize(
    "make_one",
    [
        partial(HyperResNet, input_shape=SHAPE, classes=2),
        partial(HyperXception, input_shape=SHAPE, classes=2),
        partial(HyperEfficientNet, input_shape=SHAPE, classes=2),
        partial(HyperImageAugment, input_shape=SHAPE),
    ],
)
def test_name_and_tunable_are_those_of_a_hypermodel(make_one: Callable[..., HyperModel]) -> None:
    hypermodel = make_one(name="mine", tunable=False)
    again = pickle.loads(pickle.dumps(hypermodel))
    assert (again.name, again.tunable) == ("mine", False)
    with pytest.raises(TypeError, match="clases"):
        make_one(clases=2)


REFUSED = [
    (lambda: HyperResNet(classes=2), FatalValueError, "needs `input_shape` or `input_tensor`"),
    (lambda: HyperXception(classes=2), FatalValueError, "needs `input_shape` or `input_tensor`"),
    (lambda: HyperEfficientNet(classes=2), FatalValueError, "needs `input_shape`"),
    (lambda: HyperImageAugment(), FatalValueError, "needs `input_shape` or `input_tensor`"),
    (lambda: HyperResNet(input_shape=SHAPE), FatalValueError, "include_top=False"),
    (lambda: HyperXception(input_shape=SHAPE), FatalValueError, "include_top=False"),
    (lambda: HyperEfficientNet(input_shape=SHAPE), FatalValueError, "needs `classes`"),
    (lambda: HyperResNet(input_shape=SHAPE, classes=0), FatalValueError, "at least 1"),
    (lambda: HyperResNet(input_shape=SHAPE, classes="2"), FatalTypeError, "whole number"),
    (lambda: HyperResNet(input_shape=(32, 32), classes=2), FatalValueError, "without the batch"),
    (lambda: HyperResNet(input_shape=32, classes=2), FatalTypeError, "without the batch"),
    (lambda: HyperResNet(input_shape=(0, 8, 3), classes=2), FatalValueError, "such as"),
    (
        lambda: HyperEfficientNet(SHAPE, classes=2, augmentation_model=len),
        FatalValueError,
        "keras.Model or a HyperModel",
    ),
    (
        lambda: HyperEfficientNet(SHAPE, classes=2, augmentation_model=HyperImageAugment),
        FatalValueError,
        r"HyperImageAugment\(\.\.\.\)",
    ),
    (
        lambda: HyperEfficientNet((28, 28, 1), classes=2),
        FatalValueError,
        "weights=None",
    ),
    (
        lambda: HyperEfficientNet(SHAPE, classes=2, weights="nowhere.h5"),
        FatalValueError,
        "no such file",
    ),
    (lambda: HyperEfficientNet(SHAPE, classes=2, weights=3), FatalTypeError, "path of a file"),
    (lambda: HyperImageAugment(SHAPE, rotate=[0, 0.1, 0.2]), FatalValueError, "too many values"),
    (lambda: HyperImageAugment(SHAPE, rotate=[0.1]), FatalValueError, "two ends"),
    (lambda: HyperImageAugment(SHAPE, rotate="a"), FatalTypeError, "give an int or a float"),
    (lambda: HyperImageAugment(SHAPE, contrast=[0, "a"]), FatalTypeError, "give an int or a float"),
    (lambda: HyperImageAugment(SHAPE, contrast=True), FatalTypeError, "give an int or a float"),
    (lambda: HyperImageAugment(SHAPE, contrast=2), FatalValueError, "from 0 to 1"),
    (lambda: HyperImageAugment(SHAPE, translate_x=-0.1), FatalValueError, "from 0 to 1"),
    (lambda: HyperImageAugment(SHAPE, translate_y=(0.3, 0.1)), FatalValueError, "lower one first"),
    (lambda: HyperImageAugment(SHAPE, augment_layers=2.5), FatalTypeError, "give an int"),
    (lambda: HyperImageAugment(SHAPE, augment_layers=-1), FatalValueError, "at least 0"),
    (
        lambda: HyperImageAugment(SHAPE, augment_layers=[1, 2, 3]),
        FatalValueError,
        "too many values",
    ),
]


@pytest.mark.parametrize(("make_one", "kind", "text"), REFUSED)
def test_bad_arguments_say_what_to_do(
    make_one: Callable[[], HyperModel], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        make_one()


def test_a_path_that_is_not_there_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="HyperVgg"):
        applications.HyperVgg  # noqa: B018


async def test_augmentation_and_network_are_searched_in_children(
    keras_server: Server, tmp_path: Path
) -> None:
    held = HyperParameters()
    for name, value in programs.SMALL_XCEPTION.items():
        held.Fixed(name, value)
    network = HyperXception(input_shape=programs.SMALL_IMAGE, classes=2)
    hypermodel = programs.Augmented(network, programs.SMALL_IMAGE)
    tuner = make(
        RandomSearch,
        tmp_path,
        hypermodel=hypermodel,
        objective="accuracy",
        max_trials=1,
        hyperparameters=held,
    )
    x, y = programs.images(programs.SMALL_IMAGE)
    result = await tuner.search(x, y, epochs=1, verbose=0)
    (trial,) = result.trials
    assert trial.status == "COMPLETED"
    assert {*programs.SMALL_XCEPTION, "augment_layers", *FACTORS} <= set(trial.values)
    assert trial.values["sep_num_filters"] == 128
