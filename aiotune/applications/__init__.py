"""Hypermodels to tune as they are, under KerasTuner's names: they build on every Keras backend.

    hypermodel = aiotune.applications.HyperResNet(input_shape=(32, 32, 3), classes=10)
    tuner = aiotune.RandomSearch(hypermodel, "val_accuracy", max_trials=20)

`ImageAugment` is the layer of `HyperImageAugment`: importing it registers it with Keras, so that
`keras.models.load_model` knows it. Nothing else here imports Keras before a model is built.
"""

from __future__ import annotations

from typing import Any

from aiotune.applications.augment import HyperImageAugment
from aiotune.applications.efficientnet import HyperEfficientNet
from aiotune.applications.resnet import HyperResNet
from aiotune.applications.xception import HyperXception

__all__ = ["HyperEfficientNet", "HyperImageAugment", "HyperResNet", "HyperXception"]


def __getattr__(name: str) -> Any:
    if name == "ImageAugment":
        from aiotune.applications.image_augment import image_augment_layer

        return image_augment_layer()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
