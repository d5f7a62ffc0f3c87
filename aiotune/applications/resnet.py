"""HyperResNet: residual networks (He et al. 2015, 2016) and their grouped kind (Xie et al. 2017)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from aiotune.applications.images import (
    ImageClassifier,
    channel_axis,
    global_pooling,
    probabilities,
)
from aiotune.frameworks.keras_build import require_keras
from aiotune.hyperparameters import HyperParameters

__all__ = ["HyperResNet"]

GROUPS = 32  # Xie et al. 2017: the cardinality
EPSILON = 1.001e-5  # of batch normalization, as in Keras's own residual networks

Block = Callable[..., Any]


class HyperResNet(ImageClassifier):
    """A residual network of 50, 101 or 152 layers, or one between: with `version` v1, v2 or next (ResNeXt).

    include_top: end with a softmax over `classes`, compiled; else with the pooled features, not compiled.
    input_shape: height, width and channels; or input_tensor: a symbolic tensor to build on. `name` and
    `tunable` are those of `HyperModel`.

    With its defaults and version v1 or v2 it has the weights of Keras's ResNet50 or ResNet50V2, shape by shape.
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
        version = hp.Choice("version", ["v1", "v2", "next"], default="v2")
        depths = (
            3,
            hp.Choice("conv3_depth", [4, 8], default=4),
            hp.Choice("conv4_depth", [6, 23, 36], default=6),
            3,
        )
        pooling = hp.Choice("pooling", ["avg", "max"], default="avg")
        inputs, x = self.open_input()
        x = _residual_stages(_stem(x, version), version, depths)
        if version == "v2":
            x = _norm_relu(x, "post")  # its blocks end with a sum
        x = global_pooling(x, pooling)
        if self.include_top:
            x = probabilities(x, self.classes)
        return self.finished(inputs, x, "ResNet", hp)

    def compile(self, model: Any, hp: HyperParameters) -> None:
        """Compile the model, for labels that are one-hot. A subclass may do it in another way."""
        optimizers = require_keras().optimizers
        kinds = {"adam": optimizers.Adam, "rmsprop": optimizers.RMSprop, "sgd": optimizers.SGD}
        optimizer = kinds[hp.Choice("optimizer", [*kinds], default="adam")]
        learning_rate = hp.Choice("learning_rate", [0.1, 0.01, 0.001], default=0.01)
        model.compile(
            optimizer=optimizer(learning_rate=learning_rate),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        )


def _stem(x: Any, version: str) -> Any:
    """Return a quarter of the height and width, with 64 channels."""
    layers = require_keras().layers
    x = layers.ZeroPadding2D(3)(x)
    x = _conv(x, 64, 7, "conv1", strides=2, use_bias=version != "next")
    if version != "v2":
        x = _norm_relu(x, "conv1")
    x = layers.ZeroPadding2D(1)(x)
    return layers.MaxPooling2D(3, strides=2, name="pool1_pool")(x)


def _residual_stages(x: Any, version: str, depths: Sequence[int]) -> Any:
    """Return what the four stages make of x; `depths`: the number of blocks in each.

    The stages double the channels and halve height and width: v1 and next in the first block of each stage
    but the first one, v2 in the last block of each but the last one (He et al. 2016).
    """
    widths = (128, 256, 512, 1024) if version == "next" else (64, 128, 256, 512)
    blocks: dict[str, Block] = {"v1": _block_v1, "v2": _block_v2, "next": _block_next}
    halving = (2, 2, 2, 1) if version == "v2" else (1, 2, 2, 2)
    for stage, (depth, width, strides) in enumerate(zip(depths, widths, halving, strict=True)):
        strided = depth if version == "v2" else 1
        for number in range(1, depth + 1):
            name = f"conv{stage + 2}_block{number}"
            by = strides if number == strided else 1
            x = blocks[version](x, width, by, name, projects=number == 1)
    return x


def _block_v1(x: Any, width: int, strides: int, name: str, *, projects: bool) -> Any:
    """Bottleneck of He et al. 2015, fig. 5: normalization after each convolution, ReLU after the sum."""
    shortcut = x
    if projects:
        shortcut = _norm(_conv(x, 4 * width, 1, f"{name}_0", strides=strides), f"{name}_0")
    x = _norm_relu(_conv(x, width, 1, f"{name}_1", strides=strides), f"{name}_1")
    x = _norm_relu(_conv(x, width, 3, f"{name}_2", padding="same"), f"{name}_2")
    x = _norm(_conv(x, 4 * width, 1, f"{name}_3"), f"{name}_3")
    return _sum_relu(shortcut, x, name)


def _block_v2(x: Any, width: int, strides: int, name: str, *, projects: bool) -> Any:
    """Bottleneck of He et al. 2016, fig. 4e: normalization and ReLU before each convolution."""
    layers = require_keras().layers
    before = _norm_relu(x, f"{name}_preact")
    if projects:
        shortcut = _conv(before, 4 * width, 1, f"{name}_0", strides=strides)
    else:
        shortcut = layers.MaxPooling2D(1, strides=strides)(x) if strides > 1 else x
    y = _norm_relu(_conv(before, width, 1, f"{name}_1", use_bias=False), f"{name}_1")
    y = layers.ZeroPadding2D(1)(y)
    y = _norm_relu(_conv(y, width, 3, f"{name}_2", strides=strides, use_bias=False), f"{name}_2")
    y = _conv(y, 4 * width, 1, f"{name}_3")
    return layers.Add(name=f"{name}_out")([shortcut, y])


def _block_next(x: Any, width: int, strides: int, name: str, *, projects: bool) -> Any:
    """Bottleneck of Xie et al. 2017, fig. 3c: the convolution in the middle is grouped."""
    layers = require_keras().layers
    shortcut = x
    if projects:
        shortcut = _conv(x, 2 * width, 1, f"{name}_0", strides=strides, use_bias=False)
        shortcut = _norm(shortcut, f"{name}_0")
    x = _norm_relu(_conv(x, width, 1, f"{name}_1", use_bias=False), f"{name}_1")
    x = layers.ZeroPadding2D(1)(x)
    x = _conv(x, width, 3, f"{name}_2", strides=strides, use_bias=False, groups=GROUPS)
    x = _norm_relu(x, f"{name}_2")
    x = _norm(_conv(x, 2 * width, 1, f"{name}_3", use_bias=False), f"{name}_3")
    return _sum_relu(shortcut, x, name)


def _conv(x: Any, filters: int, size: int, name: str, **options: Any) -> Any:
    return require_keras().layers.Conv2D(filters, size, name=f"{name}_conv", **options)(x)


def _norm(x: Any, name: str) -> Any:
    layers = require_keras().layers
    return layers.BatchNormalization(axis=channel_axis(), epsilon=EPSILON, name=f"{name}_bn")(x)


def _norm_relu(x: Any, name: str) -> Any:
    return require_keras().layers.ReLU(name=f"{name}_relu")(_norm(x, name))


def _sum_relu(shortcut: Any, x: Any, name: str) -> Any:
    layers = require_keras().layers
    return layers.ReLU(name=f"{name}_out")(layers.Add(name=f"{name}_add")([shortcut, x]))
