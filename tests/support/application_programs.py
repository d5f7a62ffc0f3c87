"""What test_applications does where Keras is: each function gets an empty directory and returns JSON values."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aiotune.applications import (
    HyperEfficientNet,
    HyperImageAugment,
    HyperResNet,
    HyperXception,
)
from aiotune.errors import FatalRuntimeError
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters

Json = Any
Array = Any

SMALL_XCEPTION = {"conv2d_num_filters": 32, "sep_num_filters": 128, "num_residual_blocks": 2}
SMALL_IMAGE = (8, 8, 3)
SOME_AUGMENTATION = {"augment_layers": 2, "factor_rotate": 0.1, "factor_contrast": 0.2}


class Augmented(HyperModel):
    """Augmentation, then a network: both tuned."""

    def __init__(self, network: HyperModel, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.augment = HyperImageAugment(input_shape=shape)
        self.network = network
        self.shape = shape

    def build(self, hp: HyperParameters) -> Any:
        import keras

        network = self.network.build(hp)
        inputs = keras.Input(self.shape)
        model = keras.Model(inputs, network(self.augment.build(hp)(inputs)))
        model.compile("sgd", "categorical_crossentropy", metrics=["accuracy"])
        return model


def images(shape: tuple[int, ...], number: int = 2, classes: int = 2) -> tuple[Array, Array]:
    """Return images with values from 0 to 1, and one-hot labels."""
    x = np.random.default_rng(1).random((number, *shape), dtype=np.float32)
    return x, np.eye(classes, dtype=np.float32)[np.arange(number) % classes]


def built(hypermodel: HyperModel, **values: Any) -> Any:
    return hypermodel.build(HyperParameters(values=values))


def loss_of_a_step(model: Any, shape: tuple[int, ...], *, eagerly: bool = True) -> float:
    """Train on one batch. Eagerly: compiling a network of 50 layers takes longer than a step."""
    model.run_eagerly = eagerly
    x, y = images(shape, classes=model.output_shape[-1])
    return float(model.fit(x, y, verbose=0).history["loss"][0])


def settings(model: Any) -> Json:
    """Return what the model was compiled with."""
    config = model.optimizer.get_config()
    return {
        "model": model.name,
        "optimizer": type(model.optimizer).__name__,
        "learning_rate": round(float(config["learning_rate"]), 9),
        "momentum": config.get("momentum"),
        "loss": model.loss,
        "last": model.layers[-1].name,
        "classes": model.output_shape[-1],
    }


# HyperResNet


def resnet_weights(directory: Path) -> Json:
    """Compare the weights, in order, with those of Keras's networks."""
    import keras

    hypermodel = HyperResNet(input_shape=(32, 32, 3), classes=1000)
    peers = {"v1": keras.applications.ResNet50, "v2": keras.applications.ResNet50V2}
    result = {}
    for version, peer in peers.items():
        ours = built(hypermodel, version=version)
        theirs = peer(weights=None, input_shape=(32, 32, 3))
        shapes = [[tuple(each.shape) for each in model.weights] for model in (ours, theirs)]
        ours.set_weights(theirs.get_weights())
        x, _ = images((32, 32, 3), number=1)
        difference = np.abs(np.asarray(ours(x)) - np.asarray(theirs(x))).max()
        result[version] = {
            "is_same": shapes[0] == shapes[1],
            "count": ours.count_params(),
            "difference": float(difference),
        }
    return result


def resnext(directory: Path) -> Json:
    model = built(HyperResNet(input_shape=(32, 32, 3), classes=1000), version="next")
    kernels = {
        each.name: tuple(each.kernel.shape) for each in model.layers if "2_conv" in each.name
    }
    return {"count": model.count_params(), "kernels": kernels}


def resnet_depths(directory: Path) -> Json:
    hypermodel = HyperResNet(include_top=False, input_shape=(32, 32, 3))
    hp = HyperParameters(values={"version": "v1", "conv3_depth": 8, "conv4_depth": 6})
    model = hypermodel.build(hp)
    blocks = [each.name for each in model.layers if each.name.endswith("_out")]
    return {
        "blocks": [
            sum(name.startswith(f"conv{stage}_") for name in blocks) for stage in range(2, 6)
        ],
        "output": model.output_shape,
        "is_compiled": bool(model.compiled),
        "names": [each.name for each in hp.space],
    }


def resnet_trains(directory: Path) -> Json:
    shape = (28, 28, 1)
    model = built(HyperResNet(input_shape=shape, classes=10), version="v1", optimizer="sgd")
    return {**settings(model), "loss_of_step": loss_of_a_step(model, shape)}


def resnext_trains(directory: Path) -> Json:
    hypermodel = HyperResNet(input_shape=SMALL_IMAGE, classes=2)
    return {"loss_of_step": loss_of_a_step(built(hypermodel, version="next"), SMALL_IMAGE)}


def augmented_resnet_trains(directory: Path) -> Json:
    shape = (32, 32, 3)
    hp = HyperParameters(values=dict(SOME_AUGMENTATION))
    model = Augmented(HyperResNet(input_shape=shape, classes=3), shape).build(hp)
    return {"loss_of_step": loss_of_a_step(model, shape), "names": [each.name for each in hp.space]}


# HyperXception


def xception_trains(directory: Path) -> Json:
    """Each activation once."""
    result: dict[str, Json] = {}
    for activation in ("relu", "selu"):
        hp = HyperParameters(values={**SMALL_XCEPTION, "activation": activation})
        model = HyperXception(input_shape=SMALL_IMAGE, classes=5).build(hp)
        kinds = [type(each).__name__ for each in model.layers]
        result[activation] = {
            **settings(model),
            "names": [each.name for each in hp.space],
            "separable": kinds.count("SeparableConv2D"),
            "sums": kinds.count("Add"),
            "normalized": kinds.count("BatchNormalization"),
            "dropout": kinds[-2],
            "loss_of_step": loss_of_a_step(model, SMALL_IMAGE),
        }
    return result


def xception_features(directory: Path) -> Json:
    hypermodel = HyperXception(include_top=False, input_shape=(64, 32, 1))
    shapes = {}
    for pooling in ("avg", "max", "flatten"):
        model = built(hypermodel, **SMALL_XCEPTION, pooling=pooling)
        shapes[pooling] = model.output_shape[-1]
    return {"shapes": shapes, "is_compiled": bool(model.compiled)}


# HyperEfficientNet


class OwnCompile(HyperEfficientNet):
    """Compiles in its own way, as KerasTuner's users do."""

    def _compile(self, model: Any, hp: HyperParameters) -> None:
        model.compile("sgd", "mse")


def efficientnet_trains(directory: Path) -> Json:
    shape = (28, 28, 3)
    augment = HyperImageAugment(input_shape=shape)
    hypermodel = HyperEfficientNet(shape, classes=4, augmentation_model=augment, weights=None)
    hp = HyperParameters(values=dict(SOME_AUGMENTATION))
    model = hypermodel.build(hp)
    return {
        **settings(model),
        "names": [each.name for each in hp.space],
        "loss_of_step": loss_of_a_step(model, shape),
    }


def efficientnet_weights(directory: Path) -> Json:
    """Weights from a file, and on top of a Keras model that augments."""
    import keras

    keras.utils.set_random_seed(1)
    backbone = keras.applications.EfficientNetB0(include_top=False, weights=None)
    backbone.save_weights(directory / "b0.weights.h5")
    augment = keras.Sequential([keras.Input(SMALL_IMAGE), keras.layers.RandomFlip()])
    path = directory / "{version}.weights.h5"
    hypermodel = OwnCompile(SMALL_IMAGE, None, 2, augment, path)
    model = pickle.loads(pickle.dumps(hypermodel)).build(HyperParameters())
    (inner,) = [each for each in model.layers if each.name.startswith("efficientnetb0")]
    pairs = zip(inner.get_weights(), backbone.get_weights(), strict=True)
    try:
        built(hypermodel, version="B1")
    except FatalRuntimeError as error:
        missing = str(error)
    return {
        "is_same": all(np.array_equal(ours, theirs) for ours, theirs in pairs),
        "loss": model.loss,
        "missing": missing,
    }


def efficientnet_offline(directory: Path) -> Json:
    """The test sees to it that nothing can be downloaded."""
    try:
        built(HyperEfficientNet((28, 28, 3), classes=2))
    except FatalRuntimeError as error:
        return str(error)
    return None


# HyperImageAugment


def augment_in_a_model(directory: Path) -> Json:
    """Augmentation below a network, by its tensor: it trains, predicts, travels and is loaded again."""
    import keras

    augment = built(HyperImageAugment(input_shape=SMALL_IMAGE), **SOME_AUGMENTATION)
    x, _ = images(SMALL_IMAGE)
    hypermodel = HyperXception(input_tensor=augment.output, classes=2)
    small = {**SMALL_XCEPTION, "activation": "selu", "learning_rate": 1e-5}
    built(hypermodel, **small)  # one that was used travels, too
    travelled = pickle.loads(pickle.dumps(hypermodel))
    model = built(travelled, **small)
    loss = loss_of_a_step(model, SMALL_IMAGE, eagerly=False)
    # Many draws: one of few images may leave them as they are.
    first, *others = (np.asarray(augment(x, training=True)) for _ in range(12))
    predicted = model.predict(x, verbose=0)
    model.save(directory / "model.keras")
    loaded = keras.models.load_model(directory / "model.keras")
    return {
        "backend": keras.config.backend(),
        "augment": [augment.name, bool(augment.compiled), len(augment.layers)],
        "loss_of_step": loss,
        "is_identity": bool(np.array_equal(augment.predict(x, verbose=0), x)),
        "is_changed": any(not np.allclose(each, x) for each in (first, *others)),
        "is_random": any(not np.allclose(first, each) for each in others),
        "is_predicted_again": bool(np.array_equal(loaded.predict(x, verbose=0), predicted)),
        "has_layer": sum(type(each).__name__ == "ImageAugment" for each in loaded.layers),
    }


def augment_amounts(directory: Path) -> Json:
    """What each transform does to a picture on which that can be read off."""
    from aiotune.applications import ImageAugment

    ramp = np.tile(np.arange(16, dtype=np.float32)[None, None, :, None], (64, 16, 1, 1))

    def changed(x: Array, picks_one: bool = False, **factors: float) -> Array:
        return np.asarray(ImageAugment(factors, picks_one=picks_one, seed=3)(x, training=True))

    shifted = changed(ramp, translate_x=0.25)[:, 8, 8, 0] - 8  # columns
    sideways = changed(np.swapaxes(ramp, 1, 2), translate_x=0.25)
    down = changed(np.swapaxes(ramp, 1, 2), translate_y=0.25)[:, 8, 8, 0] - 8
    contrast = np.ptp(changed(ramp, contrast=0.5), axis=(1, 2, 3)) / 15
    turned = changed(ramp, rotate=0.25)
    gradient = turned[:, 8, 8, 0] - turned[:, 8, 7, 0]  # the cosine of the angle
    one_of_two = changed(ramp, picks_one=True, contrast=0.5, translate_x=0.25)
    moved = np.abs(np.ptp(one_of_two[:, 8, 6:10, 0], axis=1) - 3) < 1e-3
    is_still = np.abs(one_of_two[:, 8, 7:9, 0].mean(axis=1) - 7.5) < 1e-3
    return {
        "columns": [float(shifted.min()), float(shifted.max())],
        "rows": [float(down.min()), float(down.max())],
        "sideways": float(np.abs(sideways - np.swapaxes(ramp, 1, 2)).max()),
        "contrast": [float(contrast.min()), float(contrast.max())],
        "mean": float(np.abs(changed(ramp, contrast=0.5).mean(axis=(1, 2, 3)) - 7.5).max()),
        "cosines": [float(gradient.min()), float(gradient.max())],
        "either": [int(moved.sum()), int(is_still.sum()), int((moved & is_still).sum())],
    }


def augment_fixed(directory: Path) -> Json:
    hp = HyperParameters(values={"factor_rotate": 0.1, "factor_contrast": 0.2})
    hypermodel = HyperImageAugment(
        input_shape=SMALL_IMAGE, rotate=[0.1, 0.3], translate_y=None, augment_layers=0
    )
    model = hypermodel.build(hp)
    x, _ = images(SMALL_IMAGE)
    nothing = HyperImageAugment(SMALL_IMAGE, None, None, None, None, None, 0)
    return {
        "name": model.name,
        "names": [each.name for each in hp.space],
        "is_changed": not np.allclose(model(x, training=True), x),
        "is_identity": bool(np.array_equal(model.predict(x, verbose=0), x)),
        "left_out": [built(nothing).name, len(built(nothing).layers)],
    }


def augment_a_dataset(directory: Path) -> Json:
    import tensorflow as tf

    model = built(HyperImageAugment(input_shape=SMALL_IMAGE), **SOME_AUGMENTATION)
    x = (images(SMALL_IMAGE, number=6)[0] * 255).astype(np.uint8)
    data = tf.data.Dataset.from_tensor_slices(x).batch(4)
    augmented = data.map(lambda batch: model(batch, training=True), num_parallel_calls=2)
    first, again = (np.concatenate([*augmented.as_numpy_iterator()]) for _ in range(2))
    return {
        "shape": first.shape,
        "is_changed": not np.allclose(first, x),
        "is_random": not np.allclose(first, again),
    }


def load_in_another_process(directory: Path) -> Json:
    """Load what `augment_in_a_model` saved, where the layer was never made."""
    import keras

    path = directory.parent / "augment_in_a_model" / "model.keras"
    try:
        keras.models.load_model(path)
    except TypeError as error:
        unknown = str(error)
    from aiotune.applications import ImageAugment

    model = keras.models.load_model(path)
    return {
        "unknown": unknown,
        "has_layer": sum(isinstance(each, ImageAugment) for each in model.layers),
    }


# Models of one hypermodel


def builds_share_nothing(directory: Path) -> Json:
    """A stem with weights, below a tensor: each model that is built has a copy."""
    import keras

    inputs = keras.Input(SMALL_IMAGE)
    stem = keras.layers.Conv2D(4, 3, name="stem")
    hypermodel = HyperXception(input_tensor=stem(inputs), classes=2)
    first, second = (built(hypermodel, **SMALL_XCEPTION) for _ in range(2))
    before = [np.asarray(each.get_layer("stem").kernel) for each in (first, second)]
    first.get_layer("stem").kernel.assign(np.zeros_like(before[0]))
    return {
        "begins_with": [bool(np.array_equal(each, stem.kernel)) for each in before],
        "is_own": bool(np.array_equal(second.get_layer("stem").kernel, before[1])),
        "loss_of_step": loss_of_a_step(second, SMALL_IMAGE),
    }


def wrong_tensors(directory: Path) -> Json:
    import keras

    given: Mapping[str, dict[str, Any]] = {
        "flat": {"input_tensor": keras.Input((8,))},
        "array": {"input_tensor": np.zeros((1, 8, 8, 3))},
        "other": {"input_tensor": keras.Input(SMALL_IMAGE), "input_shape": (9, 9, 3)},
    }
    errors = {}
    for name, arguments in given.items():
        try:
            HyperResNet(classes=2, **arguments)
        except (ValueError, TypeError) as error:
            errors[name] = [type(error).__name__, str(error)]
    return errors


def mixed_precision(directory: Path) -> Json:
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    augment = built(HyperImageAugment(input_shape=SMALL_IMAGE), **SOME_AUGMENTATION)
    model = built(HyperXception(input_tensor=augment.output, classes=2), **SMALL_XCEPTION)
    kinds = {type(each).__name__: each.compute_dtype for each in model.layers}
    return {
        "augment": kinds["ImageAugment"],
        "convolution": kinds["SeparableConv2D"],
        "probabilities": model.layers[-1].compute_dtype,
        "loss_of_step": loss_of_a_step(model, SMALL_IMAGE),
    }
