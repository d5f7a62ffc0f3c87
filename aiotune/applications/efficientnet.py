"""HyperEfficientNet: Keras's EfficientNets (Tan & Le 2019), B0 to B7, with a head and augmentation to tune."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiotune.applications.images import (
    ImageClassifier,
    channel_axis,
    global_pooling,
    probabilities,
)
from aiotune.errors import FatalRuntimeError, FatalTypeError, FatalValueError
from aiotune.frameworks.keras_build import require_keras
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.private_files import open_file

__all__ = ["HyperEfficientNet"]

# Tan & Le 2019: height and width that each version was designed for.
SIZES = {
    "B0": 224,
    "B1": 240,
    "B2": 260,
    "B3": 300,
    "B4": 380,
    "B5": 456,
    "B6": 528,
    "B7": 600,
}
IMAGENET_CHANNELS = 3
PLACEHOLDER = "{version}"


class HyperEfficientNet(ImageClassifier):
    """An EfficientNet with a new head. Images have values from 0 to 255, and any size: they are resized.

    input_shape: height, width and channels; or input_tensor: a symbolic tensor to build on.
    augmentation_model: a Keras model, or a HyperModel such as `HyperImageAugment`, that the images pass first.
    weights: "imagenet", which Keras downloads once for each version, to `~/.keras/models`; None: train from
    scratch; or a file that `keras.applications.EfficientNetB0(include_top=False, weights=None).save_weights`
    wrote, where "{version}" in its path stands for b0 to b7. `name` and `tunable` are those of `HyperModel`.
    """

    def __init__(
        self,
        input_shape: Sequence[int | None] | None = None,
        input_tensor: Any = None,
        classes: int | None = None,
        augmentation_model: Any = None,
        weights: str | os.PathLike[str] | None = "imagenet",
        **kwargs: Any,
    ) -> None:
        super().__init__(True, input_shape, input_tensor, classes, **kwargs)
        self.augmentation_model = _checked_augmentation(augmentation_model)
        self.weights = _checked_weights(weights)
        if weights == "imagenet":
            self._require_colours()

    def build(self, hp: HyperParameters) -> Any:
        """Return a new model. FatalRuntimeError if its weights cannot be downloaded or read."""
        layers = require_keras().layers
        inputs, x = self.open_input()
        x = self._augmented(x, hp)
        version = hp.Choice("version", [*SIZES], default="B0")
        pooling = hp.Choice("pooling", ["avg", "max"], default="avg")
        rate = hp.Float("top_dropout_rate", 0.2, 0.8, step=0.2, default=0.2)
        x = layers.Resizing(SIZES[version], SIZES[version])(x)
        x = _backbone(version, x.shape[channel_axis()], self.weights)(x)
        x = global_pooling(x, pooling)
        x = layers.Dropout(rate, name="top_dropout")(x)
        x = probabilities(x, self.classes)
        return self.finished(inputs, x, "EfficientNet", hp)

    def compile(self, model: Any, hp: HyperParameters) -> None:
        """Compile the model, for labels that are one-hot. A subclass may do it in another way."""
        self._compile(model, hp)

    def _compile(self, model: Any, hp: HyperParameters) -> None:
        """What KerasTuner's users override."""
        learning_rate = hp.Choice("learning_rate", [0.1, 0.01, 0.001], default=0.01)
        model.compile(
            optimizer=require_keras().optimizers.SGD(learning_rate=learning_rate, momentum=0.1),
            loss="categorical_crossentropy",
            metrics=["accuracy"],
        )

    def _augmented(self, x: Any, hp: HyperParameters) -> Any:
        model = self.augmentation_model
        if isinstance(model, HyperModel):
            model = model.build(hp)
        return x if model is None else model(x)

    def _require_colours(self) -> None:
        channels = {self.image_shape[0], self.image_shape[-1]}  # first or last, as Keras is set
        if not channels & {IMAGENET_CHANNELS, None}:
            raise FatalValueError(
                f"weights='imagenet' are for images with {IMAGENET_CHANNELS} channels, not "
                f"{self.image_shape}: pass weights=None, or repeat the channel"
            )


def _backbone(version: str, channels: int, weights: str | None) -> Any:
    """Return Keras's EfficientNet without its top, as a model of its own."""
    keras = require_keras()
    network = getattr(keras.applications, f"EfficientNet{version}")
    size = SIZES[version]
    is_last = keras.config.image_data_format() == "channels_last"
    shape = (size, size, channels) if is_last else (channels, size, size)
    if weights is None:
        return network(include_top=False, weights=None, input_shape=shape)
    if weights != "imagenet":
        weights = _file_of(weights, version)
        return network(include_top=False, weights=weights, input_shape=shape)
    try:
        with _one_download_at_a_time():
            return network(include_top=False, weights="imagenet", input_shape=shape)
    except Exception as error:
        if not _is_of_a_download(error):
            raise
        raise FatalRuntimeError(
            f"the ImageNet weights of EfficientNet{version} cannot be had ({error}): pass weights=None to "
            "train from scratch, or put that file into ~/.keras/models, or pass a file of your own weights"
        ) from error


def _is_of_a_download(error: Exception) -> bool:
    """Keras raises a bare Exception where a download fails, and ValueError where half a file arrived."""
    return type(error) is Exception or isinstance(error, OSError | ValueError)


def _file_of(weights: str, version: str) -> str:
    path = weights.replace(PLACEHOLDER, version.lower())
    if not Path(path).is_file():
        raise FatalRuntimeError(
            f"there are no weights of EfficientNet{version} at {path}: put them there, or hold `version` at "
            "one that you have: hp.Fixed('version', 'B0') in hyperparameters="
        )
    return path


@contextmanager
def _one_download_at_a_time() -> Iterator[None]:
    """Wait while another run may be writing the file of weights: Keras would read half of it."""
    import fcntl

    path = Path(tempfile.gettempdir()) / f"aiotune-download-{os.getuid()}.lock"
    with os.fdopen(open_file(path, os.O_RDWR | os.O_CREAT), "a") as file:
        fcntl.flock(
            file, fcntl.LOCK_EX
        )  # the system lifts it when the file is closed, in whatever way
        yield


def _checked_augmentation(model: object) -> Any:
    keras: Any = sys.modules.get("keras")  # not loaded: then it is no Keras model
    if model is None or isinstance(model, HyperModel):
        return model
    if keras is not None and isinstance(model, keras.Model):
        return model
    if isinstance(model, type):
        remedy = f"it is a class; pass an instance: {model.__name__}(...)"
    else:
        remedy = f"it is a {type(model).__name__}"
    raise FatalValueError(
        f"give augmentation_model a keras.Model or a HyperModel, such as HyperImageAugment(...): {remedy}"
    )


def _checked_weights(weights: object) -> str | None:
    if weights is None:
        return None
    if not isinstance(weights, str | os.PathLike):
        raise FatalTypeError(f"weights={weights!r}: give 'imagenet', None, or the path of a file")
    path = os.fspath(weights)
    if path != "imagenet" and PLACEHOLDER not in path and not Path(path).is_file():
        raise FatalValueError(
            f"weights={path!r}: there is no such file; give 'imagenet', None, or the path of a file"
        )
    return path
