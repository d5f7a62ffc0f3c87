"""HyperImageAugment: random changes of images, their strength tuned (RandAugment, Cubuk et al. 2020)."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from numbers import Real
from typing import Any

from aiotune.applications.image_augment import TRANSFORMS, image_augment_layer
from aiotune.applications.images import ImageHyperModel
from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.frameworks.keras_build import require_keras
from aiotune.hyperparameters import HyperParameters

__all__ = ["HyperImageAugment"]

FIXED_STEP = 0.05

Factor = float | Sequence[float] | None


class HyperImageAugment(ImageHyperModel):
    """A model that augments images in training, and passes them on unchanged in inference.

    rotate, in full turns; translate_x and translate_y, in widths and heights; contrast: the largest factor,
    or a range (low, high) to search; None or 0 leaves the transform out. A factor f draws from -f to f, anew
    for each image. augment_layers: how often each image gets one of the transforms by chance, as the most or
    as a range; None or 0: each image gets all of them, once.

    input_shape: height, width and channels; or input_tensor: a symbolic tensor to build on. `name` and
    `tunable` are those of `HyperModel`. The model is not compiled: it comes before another one.
    """

    def __init__(
        self,
        input_shape: Sequence[int | None] | None = None,
        input_tensor: Any = None,
        rotate: Factor = 0.5,
        translate_x: Factor = 0.4,
        translate_y: Factor = 0.4,
        contrast: Factor = 0.3,
        augment_layers: int | Sequence[int] | None = 3,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_shape, input_tensor, **kwargs)
        given = (rotate, translate_x, translate_y, contrast)
        ranges = {
            name: _factor_range(name, each) for name, each in zip(TRANSFORMS, given, strict=True)
        }
        self.ranges = {name: range_ for name, range_ in ranges.items() if range_[1] > 0}
        self.augment_layers = _layer_range(augment_layers)

    def build(self, hp: HyperParameters) -> Any:
        """Return a new model. It is not compiled."""
        inputs, x = self.open_input()
        is_random = self.augment_layers[1] > 0
        if self.ranges:
            x = self._randomly_augmented(x, hp) if is_random else self._augmented(x, hp)
        name = "image_rand_augment" if is_random else "image_augment"
        return require_keras().Model(inputs, x, name=name)

    def _randomly_augmented(self, x: Any, hp: HyperParameters) -> Any:
        """Apply so many layers, each with one transform for each image."""
        low, high = self.augment_layers
        count = hp.Int("augment_layers", low, high, default=low)
        factors = self._factors(hp, step=None)
        for _ in range(count):
            x = image_augment_layer()(factors, picks_one=True)(x)
        return x

    def _augmented(self, x: Any, hp: HyperParameters) -> Any:
        """Apply all transforms to each image."""
        factors = self._factors(hp, step=FIXED_STEP)
        return image_augment_layer()(factors, picks_one=False)(x)

    def _factors(self, hp: HyperParameters, step: float | None) -> dict[str, float]:
        return {
            name: hp.Float(f"factor_{name}", low, high, step=step, default=low)
            for name, (low, high) in self.ranges.items()
        }


def _factor_range(name: str, factor: object) -> tuple[float, float]:
    """Return the range of a factor: a number is the upper end, None and 0 are no range."""
    low, high = _pair(name, factor, "a number from 0 to 1, or a range such as (0.1, 0.3)")
    for each in (low, high):
        if isinstance(each, bool) or not isinstance(each, Real):
            raise FatalTypeError(f"{name}={factor!r}: give an int or a float, or a pair of them")
    if not 0 <= low <= high <= 1:
        raise FatalValueError(
            f"{name}={factor!r}: give factors from 0 to 1, the lower one first; None leaves it out"
        )
    return float(low), float(high)


def _layer_range(layers: object) -> tuple[int, int]:
    """Return the range of `augment_layers`: a number is its upper end, None and 0 are (0, 0)."""
    low, high = _pair("augment_layers", layers, "a whole number, or a range such as (1, 3)", low=1)
    try:
        lowest, highest = operator.index(low), operator.index(high)
    except TypeError:
        raise FatalTypeError(f"augment_layers={layers!r}: give an int, or a pair of them") from None
    if not 0 <= lowest <= highest:
        raise FatalValueError(
            f"augment_layers={layers!r}: give numbers of at least 0, the lower one first; None or 0 applies "
            "all transforms to each image"
        )
    return lowest, highest


def _pair(name: str, value: object, hint: str, low: int = 0) -> tuple[Any, Any]:
    """Return the two ends of a range, whose types are not checked yet."""
    if value is None or value == 0:
        return 0, 0
    if not isinstance(value, Sequence) or isinstance(value, str):
        return min(low, value) if isinstance(value, Real) else low, value
    if len(value) > 2:
        raise FatalValueError(f"{name}={value!r}: too many values; give {hint}")
    if len(value) < 2:
        raise FatalValueError(f"{name}={value!r}: a range has two ends; give {hint}")
    return value[0], value[1]
