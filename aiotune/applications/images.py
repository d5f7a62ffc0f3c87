"""What the hypermodels of images share: their input, and the head of a classifier."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.frameworks.keras_build import require_keras
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters

__all__ = ["ImageClassifier", "ImageHyperModel", "channel_axis", "global_pooling", "probabilities"]

Shape = tuple[int | None, ...]


class ImageHyperModel(HyperModel):
    """A hypermodel of images: with an input of its own, or on top of a tensor of another model.

    input_shape: height, width and channels, of one image; None where it may be any. input_tensor: a symbolic
    tensor of Keras, such as `keras.Input(...)` or another model's `output`. FatalValueError for neither.
    """

    def __init__(
        self, input_shape: Sequence[int | None] | None, input_tensor: Any, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        if input_shape is None and input_tensor is None:
            raise FatalValueError(
                f"{type(self).__name__} needs `input_shape` or `input_tensor`: give the shape of one image, "
                f"such as {type(self).__name__}(input_shape=(32, 32, 3), ...)"
            )
        self.input_shape = _checked_shape(input_shape)
        self.input_tensor = input_tensor
        self.image_shape: Shape  # of one image, whichever way it is given
        if input_tensor is None:
            self.image_shape = self.input_shape or ()
        else:
            self.image_shape = _shape_of(input_tensor)
            _require_same(self.input_shape, self.image_shape)

    def open_input(self) -> tuple[Any, Any]:
        """Return the inputs of a new model, and the tensor of its images.

        What lies below `input_tensor` is copied with its weights: models that are built share none.
        """
        keras = require_keras()
        if self.input_tensor is None:
            inputs = keras.Input(self.image_shape)
            return inputs, inputs
        below = _model_below(self.input_tensor)
        copied = keras.models.clone_model(below)
        copied.set_weights(below.get_weights())
        inputs = copied.inputs
        return inputs[0] if len(inputs) == 1 else inputs, copied.output

    def __getstate__(self) -> dict[str, Any]:
        """A tensor travels as the model below it, which Keras can describe."""
        state = dict(self.__dict__)
        if self.input_tensor is not None:
            state["input_tensor"] = _model_below(self.input_tensor)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if self.input_tensor is not None:
            self.input_tensor = self.input_tensor.output


class ImageClassifier(ImageHyperModel):
    """A hypermodel that tells images of `classes` kinds apart; without its top it gives features."""

    def __init__(
        self,
        include_top: bool,
        input_shape: Sequence[int | None] | None,
        input_tensor: Any,
        classes: int | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_shape, input_tensor, **kwargs)
        self.include_top = include_top
        self.classes = _checked_classes(classes, include_top, type(self).__name__)

    def compile(self, model: Any, hp: HyperParameters) -> None:
        """Compile the model, for labels that are one-hot. A subclass may do it in another way."""
        raise NotImplementedError(f"{type(self).__name__} must define compile(self, model, hp)")

    def finished(self, inputs: Any, outputs: Any, name: str, hp: HyperParameters) -> Any:
        """Return the model, compiled if it has its top."""
        model = require_keras().Model(inputs, outputs, name=name)
        if self.include_top:
            self.compile(model, hp)
        return model


def channel_axis() -> int:
    """Return the axis of the channels in a batch of images, by Keras's `image_data_format`."""
    return -1 if require_keras().config.image_data_format() == "channels_last" else 1


def global_pooling(x: Any, pooling: str) -> Any:
    """Return one vector for each image: "avg", "max" or "flatten"."""
    layers = require_keras().layers
    kinds = {
        "avg": layers.GlobalAveragePooling2D,
        "max": layers.GlobalMaxPooling2D,
        "flatten": layers.Flatten,
    }
    return kinds[pooling]()(x)


def probabilities(x: Any, classes: int | None) -> Any:
    """Return the softmax over `classes`, in full precision also where the layers below compute in half."""
    keras = require_keras()
    dense = keras.layers.Dense(
        classes, activation="softmax", dtype=keras.config.floatx(), name="probs"
    )
    return dense(x)


def _checked_shape(shape: object) -> Shape | None:
    if shape is None:
        return None
    try:
        checked = tuple(
            None if each is None else operator.index(each)
            for each in shape  # type: ignore[attr-defined]  # else TypeError
        )
    except TypeError:
        raise FatalTypeError(f"input_shape={shape!r}: {_SHAPE_HINT}") from None
    if len(checked) != 3 or any(each is not None and each < 1 for each in checked):
        raise FatalValueError(f"input_shape={shape!r}: {_SHAPE_HINT}")
    return checked


_SHAPE_HINT = "give height, width and channels of one image, without the batch, such as (32, 32, 3)"


def _checked_classes(classes: object, include_top: bool, owner: str) -> int | None:
    if classes is None:
        if include_top:
            raise FatalValueError(
                f"{owner} needs `classes`, the number of classes to tell apart"
                + ("" if owner == "HyperEfficientNet" else "; for features only: include_top=False")
            )
        return None
    try:
        count = operator.index(classes)  # type: ignore[arg-type]  # else TypeError
    except TypeError:
        raise FatalTypeError(f"classes={classes!r}: give a whole number") from None
    if count < 1:
        raise FatalValueError(f"classes={classes!r}: give a whole number of at least 1")
    return count


def _shape_of(tensor: Any) -> Shape:
    """Return the shape of one image of a symbolic tensor."""
    shape = getattr(tensor, "shape", None)
    if shape is None or not hasattr(tensor, "_keras_history"):
        raise FatalTypeError(
            f"input_tensor is a {type(tensor).__name__}; pass a symbolic tensor, such as "
            "keras.Input((32, 32, 3)) or model.output"
        )
    if len(shape) != 4:
        raise FatalValueError(
            f"input_tensor has the shape {tuple(shape)}; images have four axes: batch, height, width, channels"
        )
    return tuple(shape[1:])


def _require_same(given: Shape | None, actual: Shape) -> None:
    if given is not None and given != actual:
        raise FatalValueError(
            f"input_shape={given} contradicts input_tensor, whose images are {actual}: drop input_shape"
        )


def _model_below(tensor: Any) -> Any:
    keras = require_keras()
    return keras.Model(keras.utils.get_source_inputs(tensor), tensor)
