"""HyperXception: separable convolutions in residual blocks (Chollet 2017), of any depth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from aiotune.applications.images import (
    ImageClassifier,
    channel_axis,
    global_pooling,
    probabilities,
)
from aiotune.frameworks.keras_build import require_keras
from aiotune.hyperparameters import HyperParameters

__all__ = ["HyperXception"]

# Klambauer et al. 2017: these weights keep SELU's activations at mean 0 and variance 1, without normalization.
SELU_WEIGHTS = "lecun_normal"


class HyperXception(ImageClassifier):
    """An Xception-like network: a convolution, residual blocks of separable convolutions, dense layers.

    include_top: end with a softmax over `classes`, compiled; else with the pooled features, not compiled.
    input_shape: height, width and channels; or input_tensor: a symbolic tensor to build on. `name` and
    `tunable` are those of `HyperModel`.

    Under the activation "relu" each layer is normalized; "selu" normalizes itself.
    """

    def __init__(
        self,
        include_top: bool = True,
        input_shape: Sequence[int | None] | None = None,
        input_tensor: Any = None,
        classes: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(include_top, input_shape, input_tensor, classes, **kwargs)

    def build(self, hp: HyperParameters) -> Any:
        """Return a new model."""
        activation = hp.Choice("activation", ["relu", "selu"])
        filters = hp.Choice("conv2d_num_filters", [32, 64, 128], default=64)
        kernel_size = hp.Choice("kernel_size", [3, 5])
        strides = hp.Choice("initial_strides", [2])
        sep_filters = hp.Int("sep_num_filters", 128, 768, step=128, default=256)
        num_blocks = hp.Int("num_residual_blocks", 2, 8, default=4)
        pooling = hp.Choice("pooling", ["avg", "flatten", "max"])

        inputs, x = self.open_input()
        x = _convolution(x, filters, kernel_size, strides, activation)
        for _ in range(num_blocks):
            x = _residual(x, sep_filters, activation)
        x = _pooled_residual(x, 2 * sep_filters, activation)
        x = global_pooling(x, pooling)
        if self.include_top:
            x = probabilities(_dense_layers(x, self.classes, activation, hp), self.classes)
        return self.finished(inputs, x, "Xception", hp)

    def compile(self, model: Any, hp: HyperParameters) -> None:
        """Compile the model, for labels that are one-hot. A subclass may do it in another way."""
        learning_rate = hp.Choice("learning_rate", [1e-3, 1e-4, 1e-5])
        model.compile(
            optimizer=require_keras().optimizers.Adam(learning_rate=learning_rate),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        )


def _convolution(x: Any, filters: int, size: int, strides: int, activation: str) -> Any:
    options = _weights(activation, "kernel_initializer")
    x = require_keras().layers.Conv2D(filters, size, strides=strides, padding="same", **options)(x)
    return _activated(x, activation)


def _residual(x: Any, filters: int, activation: str) -> Any:
    """The middle of Chollet 2017, fig. 5: three separable convolutions beside a shortcut.

    The shortcut is projected where the number of channels changes.
    """
    layers = require_keras().layers
    shortcut = x
    if x.shape[channel_axis()] != filters:
        shortcut = _projected(x, filters, 1, activation)
    for _ in range(3):
        x = _separable(x, filters, activation)
    return layers.Add()([shortcut, x])


def _pooled_residual(x: Any, filters: int, activation: str) -> Any:
    """The block of Chollet 2017, fig. 5, that halves height and width."""
    layers = require_keras().layers
    shortcut = _projected(x, filters, 2, activation)
    for _ in range(2):
        x = _separable(x, filters, activation)
    x = layers.MaxPooling2D(3, strides=2, padding="same")(x)
    return layers.Add()([shortcut, x])


def _separable(x: Any, filters: int, activation: str) -> Any:
    options = _weights(activation, "depthwise_initializer", "pointwise_initializer")
    x = require_keras().layers.SeparableConv2D(filters, 3, padding="same", **options)(x)
    return _activated(x, activation)


def _projected(x: Any, filters: int, strides: int, activation: str) -> Any:
    layers = require_keras().layers
    options = _weights(activation, "kernel_initializer")
    x = layers.Conv2D(filters, 1, strides=strides, padding="same", **options)(x)
    return x if activation == "selu" else layers.BatchNormalization(axis=channel_axis())(x)


def _dense_layers(x: Any, units: int | None, activation: str, hp: HyperParameters) -> Any:
    layers = require_keras().layers
    count = hp.Int("num_dense_layers", 1, 3)
    rate = hp.Float("dropout_rate", 0.0, 0.6, step=0.1, default=0.5)
    is_normalized = hp.Choice("dense_use_bn", [True, False])
    dropout = layers.AlphaDropout if activation == "selu" else layers.Dropout
    initial = {"kernel_initializer": SELU_WEIGHTS} if activation == "selu" else {}
    for _ in range(count):
        x = layers.Dense(units, use_bias=not is_normalized, **initial)(x)
        if is_normalized:
            x = layers.BatchNormalization()(x)
        x = dropout(rate)(layers.Activation(activation)(x))
    return x


def _weights(activation: str, *initializers: str) -> dict[str, Any]:
    """Return the options of a convolution for its activation. A bias before normalization has no effect."""
    if activation == "selu":
        return dict.fromkeys(initializers, SELU_WEIGHTS)
    return {"use_bias": False}


def _activated(x: Any, activation: str) -> Any:
    layers = require_keras().layers
    if activation != "selu":
        x = layers.BatchNormalization(axis=channel_axis())(x)
    return layers.Activation(activation)(x)
