"""A program with TensorFlow in the caller: its datasets travel to the trials. Run as a script by test_data.py.

It searches once for each case, and writes as JSON what came of it: how the trials ended, or the error.
"""

from __future__ import annotations

import asyncio
import json
import sys
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import jax
import keras
import numpy as np
import pandas as pd
import tensorflow as tf
import torch
from PIL import Image

import aiotune
from aiotune.executors.launch import acquire_server, release_server
from aiotune.executors.payload import Payload, load
from aiotune.frameworks.data import REDUCERS
from aiotune.frameworks.tf_data import captured_devices
from aiotune.processes import OWN_MODULES

PRELOAD = (*OWN_MODULES, "keras", "torch")
CHANCE = np.random.default_rng(0)
X = CHANCE.normal(size=(48, 6)).astype("float32")
Y = (X.sum(axis=1) > 0).astype("int32")


def rows() -> Iterator[tuple[Any, Any]]:
    yield from zip(X, Y, strict=True)


def from_generator() -> Any:
    signature = (tf.TensorSpec((6,), tf.float32), tf.TensorSpec((), tf.int32))
    return tf.data.Dataset.from_generator(rows, output_signature=signature)


def slices() -> Any:
    return tf.data.Dataset.from_tensor_slices((X, Y))


class Batches(keras.utils.PyDataset):  # type: ignore[misc]  # its base is Any to a type checker
    """Defined in `__main__`, as most are."""

    def __init__(self, size: int, **options: Any) -> None:
        super().__init__(**options)
        self.size = size

    def __len__(self) -> int:
        return len(X) // self.size

    def __getitem__(self, place: int) -> tuple[Any, Any]:
        rows = slice(place * self.size, (place + 1) * self.size)
        return X[rows], Y[rows]


class Broken(Batches):
    def __getitem__(self, place: int) -> tuple[Any, Any]:
        raise LookupError("the database is out of reach")


def build(hp: aiotune.HyperParameters) -> Any:
    model = keras.Sequential(
        [keras.layers.Flatten(), keras.layers.Dense(hp.Int("units", 2, 4), activation="softmax")]
    )
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def images(directory: Path) -> Any:
    for name in ("cat", "dog"):
        (directory / name).mkdir(parents=True)
        for number in range(6):
            pixels = CHANCE.integers(0, 255, (8, 8, 3), dtype="uint8")
            Image.fromarray(pixels).save(directory / name / f"{number}.png")
    return keras.utils.image_dataset_from_directory(
        directory, image_size=(8, 8), batch_size=4, seed=1, verbose=False
    )


def augmented(dataset: Any) -> Any:
    """Map the images as Keras's guides do: with layers, which have variables, and with tf.image."""
    normalize = keras.layers.Normalization()
    normalize.adapt(dataset.map(lambda image, label: image))
    layers = keras.Sequential(
        [
            keras.layers.Rescaling(1 / 255),
            keras.layers.RandomFlip(),
            keras.layers.RandomRotation(0.1),
        ]
    )
    return (
        dataset.map(lambda image, label: (normalize(image), label))
        .map(lambda image, label: (layers(image, training=True), label), num_parallel_calls=2)
        .map(lambda image, label: (tf.image.random_brightness(image, 0.1), label))
        .prefetch(1)
    )


def loader(size: int, **options: Any) -> Any:
    dataset = torch.utils.data.TensorDataset(torch.from_numpy(X), torch.from_numpy(Y))
    return torch.utils.data.DataLoader(dataset, batch_size=size, **options)


# Each of these trains: (arguments, keyword arguments) of search().

TRAINS: dict[str, Callable[[Path], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "infinite": lambda path: (
        (slices().shuffle(48).repeat().batch(8),),
        {"steps_per_epoch": 6, "validation_data": slices().batch(8)},
    ),
    "images": lambda path: (
        (augmented(images(path / "images")),),
        {"validation_data": images(path / "others")},
    ),
    "py_dataset": lambda path: (
        (Batches(8, workers=2, use_multiprocessing=True),),
        {"validation_data": Batches(16)},
    ),
    "data_loader": lambda path: (
        (loader(8, shuffle=True, generator=torch.Generator().manual_seed(1), num_workers=2),),
        {"validation_data": loader(16)},
    ),
    "data_frame": lambda path: (
        (pd.DataFrame(X), pd.Series(Y)),
        {"validation_data": (pd.DataFrame(X)[::2], pd.Series(Y)[::2])},
    ),
    "lazy": lambda path: (
        (aiotune.Lazy(lambda size: from_generator().batch(size), 8),),
        {"validation_data": (aiotune.Lazy(lambda: X), aiotune.Lazy(lambda: Y))},
    ),
}


def python_in_a_nested_function() -> Any:
    def numbers(row: Any) -> Any:
        one = tf.data.Dataset.from_tensors(row)
        return one.map(lambda each: tf.numpy_function(np.sin, [each], tf.float32))

    return tf.data.Dataset.from_tensor_slices(X).interleave(numbers)


def missing_file(path: Path) -> Any:
    return tf.data.TextLineDataset(str(path / "missing.csv"))


# Each of these ends the search before its first trial.

ENDS: dict[str, Callable[[Path], tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "from_generator": lambda path: ((from_generator(),), {}),
    "validation": lambda path: ((X, Y), {"validation_data": from_generator().batch(8)}),
    "nested": lambda path: ((python_in_a_nested_function(),), {}),
    "py_function": lambda path: (
        (slices().map(lambda x, y: (tf.py_function(abs, [x], tf.float32), y)),),
        {},
    ),
    "captured": lambda path: ((aiotune.Lazy(partial(list, from_generator())),), {}),
    "iterator": lambda path: ((iter(slices()),), {}),
    "numpy_iterator": lambda path: ((slices().as_numpy_iterator(),), {}),
    "generator": lambda path: ((rows(),), {}),
    "enumerate": lambda path: ((X, Y), {"validation_data": enumerate([1, 2])}),
    "lock": lambda path: ((X, threading.Lock()), {}),
    "missing": lambda path: ((X, Y), {"validation_data": missing_file(path)}),
    "broken": lambda path: ((Broken(8),), {}),
    "misspelt": lambda path: ((X, Y), {"validaton_data": (X, Y)}),
}


async def train(path: Path, name: str) -> Any:
    args, kwargs = TRAINS[name](path)
    tuner = make(aiotune.RandomSearch, path, name, hypermodel=build)
    result = await tuner.search(*args, epochs=1, verbose=0, **kwargs)
    return [(trial.status, trial.message, trial.score) for trial in result.trials]


async def end(path: Path, name: str) -> Any:
    args, kwargs = ENDS[name](path)
    tuner = make(aiotune.RandomSearch, path, name, hypermodel=build)
    try:
        await tuner.search(*args, epochs=1, verbose=0, **kwargs)
    except aiotune.errors.FatalError as error:
        return {"error": type(error).__name__, "text": str(error), "trials": len(tuner.trials)}
    return {"error": None}


# Many kinds of datasets in one run, which looks at them.


def several(path: Path) -> dict[str, Any]:
    numbers = tf.data.Dataset.range(6)
    table = tf.lookup.StaticHashTable(
        tf.lookup.KeyValueTensorInitializer(["a", "b"], tf.constant([1, 2], tf.int64)), -1
    )
    factor = tf.Variable(3, dtype=tf.int64)
    options = tf.data.Options()
    options.deterministic = False
    return {
        "zip": tf.data.Dataset.zip((numbers, numbers)).concatenate(
            tf.data.Dataset.zip((numbers, numbers))
        ),
        "cache": numbers.cache().prefetch(2).batch(4),
        "dict": tf.data.Dataset.from_tensor_slices({"x": X[:4, 0], "y": Y[:4]}),
        "ragged": tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3]])),
        "shuffled": numbers.shuffle(6, seed=1, reshuffle_each_iteration=False),
        "variable": numbers.map(lambda each: each * factor),
        "table": tf.data.Dataset.from_tensor_slices(["a", "c"]).map(table.lookup),
        "lookup": tf.data.Dataset.from_tensor_slices(["a", "c"]).map(
            keras.layers.StringLookup(vocabulary=["a", "b"])
        ),
        "windows": numbers.window(4).map(lambda each: each.cardinality()),
        "options": numbers.with_options(options),
        "large": tf.data.Dataset.from_tensors(np.arange(100_000)).map(tf.reduce_sum),
    }


def content(dataset: Any) -> str:
    """Return the elements as text that is the same in every process."""

    def plain(element: Any) -> Any:
        match element:
            case dict():
                return {key: plain(each) for key, each in element.items()}
            case tuple():
                return [plain(each) for each in element]
            case tf.RaggedTensor():
                return element.to_list()
            case _:
                return element.numpy().tolist()

    return json.dumps([plain(element) for element in dataset])


class Look(aiotune.RandomSearch):
    """Says for each dataset whether it is as it was in the caller."""

    endless: Callable[[], Any]
    flipped: Callable[[], Any]

    def run_trial(self, trial: Any, datasets: Any, facts: Any, folder: Any, tensors: Any) -> Any:
        is_same = {
            name: float((content(each), int(each.cardinality())) == facts[name])
            for name, each in datasets.items()
        }
        is_same["augmentation is random"] = float(
            content(self.flipped()) != content(self.flipped())
        )
        is_same["option kept"] = float(datasets["options"].options().deterministic is False)
        is_same["infinite"] = float(
            self.endless().cardinality().numpy() == tf.data.INFINITE_CARDINALITY
        )
        is_same["class names"] = float(folder.class_names == ["cat", "dog"])
        is_same["file paths"] = float(len(folder.file_paths) == 12)
        is_same["tensor"] = float(np.array_equal(tensors[0].numpy(), X))
        is_same["half"] = float(tensors[1].dtype == tf.bfloat16 and tensors[1].shape == (200, 300))
        is_same["parameter"] = float(isinstance(tensors[2].weight, torch.nn.Parameter))
        return is_same | {"loss": 0.0}


async def look(path: Path) -> Any:
    datasets = several(path)
    facts = {name: (content(each), int(each.cardinality())) for name, each in datasets.items()}
    tuner = make(Look, path, "look")
    endless = tf.data.Dataset.range(3).repeat()
    tuner.endless = lambda: endless
    flip = keras.layers.RandomFlip()
    flipped = tf.data.Dataset.from_tensors(CHANCE.normal(size=(20, 4, 4, 1)).astype("float32")).map(
        flip
    )
    tuner.flipped = lambda: flipped
    tensors = tf.constant(X), tf.cast(tf.zeros((200, 300)), tf.bfloat16), torch.nn.Linear(200, 200)
    result = await tuner.search(datasets, facts, images(path / "look"), tensors=tensors, verbose=0)
    if not any("CPU" in device for device in captured_devices(flipped.batch(2))):
        raise AssertionError("TensorFlow hides what a pipeline captures")
    return [(trial.message, dict(trial.metrics)) for trial in result.trials]


def make(kind: Any, path: Path, name: str, **options: Any) -> Any:
    objective = "val_loss" if options else aiotune.Objective("loss", "min")
    return kind(
        objective=objective,
        max_trials=1,
        directory=path,
        project_name=name,
        preload=PRELOAD,
        max_concurrent_trials=1,
        **options,
    )


# Tensors of other frameworks.


def round_trip(thing: Any) -> tuple[Any, int]:
    """Return what a child would get, and the bytes of the pickle."""
    with Payload.create(lambda run: thing, reducers=REDUCERS) as payload:
        return load(payload.fd)(None), payload.pickle_bytes  # type: ignore[arg-type]


def tensors() -> dict[str, Any]:
    matrix = torch.arange(300_000.0).reshape(1000, 300)
    layer = torch.nn.Linear(300, 300)
    shared, shared_bytes = round_trip([matrix, matrix[5:], matrix])
    shared[0][5, 0] = -1.0
    parameter, parameter_bytes = round_trip(layer)
    trained, _ = round_trip(matrix.clone().requires_grad_())
    half, half_bytes = round_trip(jax.numpy.asarray(matrix.numpy(), "bfloat16"))
    other = {
        "transposed": matrix.T,
        "bfloat16": matrix.to(torch.bfloat16),
        "bool": matrix > 3,
        "complex": torch.complex(matrix, matrix).conj(),
        "scalar": torch.tensor(3.0),
        "empty": torch.empty(0, 3),
    }
    return {
        **{name: _is_equal(each, round_trip(each)[0]) for name, each in other.items()},
        "memory is shared": shared[1][0, 0].item() == -1.0 and shared[0] is shared[2],
        "and private": matrix[5, 0].item() == 1500.0,
        "parameter": type(parameter.weight) is torch.nn.Parameter
        and _is_equal(parameter.weight, layer.weight),
        "requires_grad": trained.requires_grad,
        "jax": isinstance(half, jax.Array)
        and bool((half[9] == jax.numpy.asarray(matrix.numpy()[9], "bfloat16")).all()),
        "sizes": max(shared_bytes, parameter_bytes, half_bytes),
    }


def _is_equal(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and one.stride() == other.stride() and torch.equal(one, other)


async def main(path: Path) -> None:
    found, trains, ends = await asyncio.gather(
        look(path),
        in_turn(train, path, TRAINS),
        in_turn(end, path, ENDS),
    )
    report = {"look": found, "trains": trains, "ends": ends, "tensors": tensors()}
    (path / "found.json").write_text(json.dumps(report))


async def in_turn(case: Callable[[Path, str], Any], path: Path, names: Any) -> dict[str, Any]:
    return {name: await case(path, name) for name in names}


if __name__ == "__main__":
    server = acquire_server(PRELOAD)
    try:
        asyncio.run(main(Path(sys.argv[1])))
    finally:
        release_server(server)
