"""ImageAugment: the layer that turns, moves and contrasts images while a model is trained.

Each image of a batch gets amounts of its own. Rotation and translation are one affine map of the coordinates,
whose parameters are 0 where an image is not to be turned or moved: nothing in the graph depends on what was
drawn, so that one graph serves every image, on every backend.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

from aiotune.frameworks.keras_build import require_keras

__all__ = ["TRANSFORMS", "image_augment_layer"]

TRANSFORMS = ("rotate", "translate_x", "translate_y", "contrast")

Array = Any


@functools.cache
def image_augment_layer() -> Any:
    """Return the class `ImageAugment`, which is made, and registered with Keras, at the first call."""
    keras = require_keras()

    class ImageAugment(keras.layers.Layer):  # type: ignore[misc, name-defined]
        """Draws amounts for each image, up to the factors. Without `training` it changes nothing.

        factors: by name of the transform: `rotate` in full turns, `translate_x` and `translate_y` in widths and
        heights, `contrast` as the part of it that is taken or added. picks_one: each image gets one of the
        transforms, each as likely as the others; else all of them.
        """

        def __init__(
            self,
            factors: Mapping[str, float],
            picks_one: bool = True,
            seed: int | None = None,
            **kwargs: Any,
        ) -> None:
            super().__init__(**kwargs)
            self.factors = {name: float(factor) for name, factor in factors.items()}
            self.picks_one = picks_one
            self.seed = seed
            self.seed_generator = keras.random.SeedGenerator(seed)
            # XLA has no kernel for TensorFlow's image maps.
            self.supports_jit = keras.config.backend() != "tensorflow"

        def call(self, images: Array, training: bool = False) -> Array:
            images = keras.ops.cast(images, self.compute_dtype)
            if not training or not any(self.factors.values()):
                return images
            number = keras.ops.shape(images)[0]
            amounts = _draw_amounts(number, self.factors, self.picks_one, self.seed_generator)
            # In full precision: half of it cannot tell the columns of a wide image apart.
            changed = _changed(keras.ops.cast(images, "float32"), self.factors, amounts)
            return keras.ops.cast(changed, self.compute_dtype)

        def compute_output_shape(self, input_shape: Any) -> Any:
            return input_shape

        def get_config(self) -> dict[str, Any]:
            own = {"factors": self.factors, "picks_one": self.picks_one, "seed": self.seed}
            return {**super().get_config(), **own}

    ImageAugment.__qualname__ = "ImageAugment"
    ImageAugment.__module__ = "aiotune.applications"  # where it is found again: pickle looks it up
    return keras.saving.register_keras_serializable(package="aiotune")(ImageAugment)


def _draw_amounts(
    number: Any, factors: Mapping[str, float], picks_one: bool, seed: Any
) -> dict[str, Array]:
    """Return the amount of each transform for each image: (number,), within its factor of 0."""
    keras = require_keras()
    amounts = {
        name: keras.random.uniform((number,), -factor, factor, dtype="float32", seed=seed)
        for name, factor in factors.items()
    }
    if not picks_one:
        return amounts
    picked = keras.random.randint((number,), 0, len(amounts), seed=seed)
    return {
        name: amount * keras.ops.cast(picked == place, "float32")
        for place, (name, amount) in enumerate(amounts.items())
    }


def _changed(images: Array, factors: Mapping[str, float], amounts: Mapping[str, Array]) -> Array:
    if any(factors.get(name) for name in ("rotate", "translate_x", "translate_y")):
        images = _moved(images, amounts)
    if factors.get("contrast"):
        images = _contrasted(images, amounts["contrast"])
    return images


def _moved(images: Array, amounts: Mapping[str, Array]) -> Array:
    """Turn each image about its centre, then shift it: (n, height, width, channels), or channels first.

    The edge is reflected into what comes in from outside.
    """
    keras = require_keras()
    ops = keras.ops
    rows, columns = _spatial_axes()
    shape = ops.shape(images)
    height, width = ops.cast(shape[rows], "float32"), ops.cast(shape[columns], "float32")
    none = ops.zeros((shape[0],), dtype="float32")
    angle = amounts.get("rotate", none) * (2 * math.pi)
    right = amounts.get("translate_x", none) * width
    down = amounts.get("translate_y", none) * height
    centre_x, centre_y = (width - 1) / 2, (height - 1) / 2
    # Keras maps output to input coordinates: in = R (out - shift - centre) + centre.
    cos, sin = ops.cos(angle), ops.sin(angle)
    x, y = -right - centre_x, -down - centre_y
    maps = ops.stack(
        [
            *(cos, -sin, cos * x - sin * y + centre_x),
            *(sin, cos, sin * x + cos * y + centre_y),
            *(none, none),
        ],
        axis=1,
    )
    return ops.image.affine_transform(images, maps, "bilinear", "reflect")


def _contrasted(images: Array, amount: Array) -> Array:
    """Stretch each channel of each image about its mean, by 1 + amount. Nothing is clipped."""
    ops = require_keras().ops
    means = ops.mean(images, axis=_spatial_axes(), keepdims=True)
    return means + (images - means) * (1 + ops.reshape(amount, (-1, 1, 1, 1)))


def _spatial_axes() -> tuple[int, int]:
    """Return the axes of height and width in a batch of images."""
    is_last = require_keras().config.image_data_format() == "channels_last"
    return (1, 2) if is_last else (2, 3)
