"""Trainings that are cut up, beside the same ones in one piece. Each function returns JSON values."""

from __future__ import annotations

import contextlib
import hashlib
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from aiotune.executors.context import RunContext
from aiotune.frameworks.keras import TrainingHooks
from aiotune.frameworks.keras_order import DataOrder
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from aiotune.trial import Budget
from tests.support import keras_programs
from tests.support.keras_programs import Json, error_of, make_run, options, train

RUNGS = (2, 4, 7)
BATCH = {"batch_size": 32}  # two batches an epoch


def scheduled(hp: HyperParameters) -> Any:
    """Adam with a schedule, dropout and batch normalisation: chance and state of every kind."""
    import keras

    rate = keras.optimizers.schedules.ExponentialDecay(0.05, 3, 0.9)
    return _model(keras.optimizers.Adam(rate))


def plain(hp: HyperParameters) -> Any:
    """Adam with a rate that callbacks may change."""
    import keras

    return _model(keras.optimizers.Adam(hp.Float("rate", 0.01, 1.0, default=0.05)))


def _model(optimizer: Any) -> Any:
    import keras

    layers = [
        keras.layers.Dense(6, activation="relu"),
        keras.layers.BatchNormalization(),
        keras.layers.Dropout(0.3),
        keras.layers.Dense(1, activation="sigmoid"),
    ]
    return keras_programs.compiled(
        keras.Sequential([keras.Input((4,)), *layers]), optimizer=optimizer, metrics=[]
    )


def light(hp: HyperParameters) -> Any:
    """What shows the order of the data, and little else."""
    import keras

    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
    return keras_programs.compiled(model, optimizer="sgd", metrics=[])


def with_another_optimizer(hp: HyperParameters) -> Any:
    import keras

    model = light(hp)
    model.other = keras.optimizers.SGD()
    return model


class Diary:
    """Notes what there is at the end of each epoch: every bit of the model, and what callbacks remember."""

    def __init__(self, make_callbacks: Any) -> None:
        self._make_callbacks = make_callbacks
        self._callbacks: list[Any] = []
        self.epochs: list[list[Any]] = []

    def callbacks(self) -> list[Any]:
        self._callbacks = self._make_callbacks()
        return self._callbacks

    def note(self, run: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        remembered = [
            {name: repr(value) for name, value in vars(each).items() if name in MEMORIES}
            for each in self._callbacks
        ]
        states = [digest(model.variables), digest(model.optimizer.variables)]
        self.epochs.append([epoch, *states, dict(logs), remembered])


MEMORIES = ("wait", "best", "best_epoch", "best_weights", "cooldown_counter", "drawn", "_seen")


def digest(variables: Any) -> str:
    content = b"".join(np.asarray(each.numpy()).tobytes() for each in variables)
    return hashlib.sha256(content).hexdigest()[:16]


def pieces(
    directory: Path, build: Any, make_callbacks: Any, rungs: Any = RUNGS, **changes: Any
) -> Json:
    """Return the diary and the result of a training that is paused at each rung."""
    diary = Diary(make_callbacks)
    begin, results, notes = 0, [], []
    for number, epochs in enumerate(rungs):
        budget = Budget(epochs, begin, is_last=epochs == rungs[-1])
        run, channel = make_run(directory, budget=budget, continues=number > 0)
        hooks = TrainingHooks(on_epoch_end=diary.note)
        given = BATCH | {"epochs": 99, "callbacks": diary.callbacks, "hooks": hooks} | changes
        history, _ = train(directory, build, run=(run, channel), **given)
        results.append([history.epoch, history.history])
        notes += [each.message for each in channel.events if hasattr(each, "message")]
        begin = epochs
    best = (directory / "repeat-0" / "best.state").read_bytes()
    return {
        "diary": diary.epochs,
        "results": results,
        "notes": notes,
        "best": [keras_programs.best_of(directory), hashlib.sha256(best).hexdigest()],
    }


def both(directory: Path, build: Any, make_callbacks: Any = list, **changes: Any) -> Json:
    whole, cut = directory / "whole", directory / "cut"
    return {
        "whole": pieces(whole, build, make_callbacks, RUNGS[-1:], **changes),
        "cut": pieces(cut, build, make_callbacks, **changes),
    }


def promoted_with_schedule(directory: Path) -> Json:
    import keras

    def callbacks() -> list[Any]:
        return [keras.callbacks.EarlyStopping("val_loss", patience=30, restore_best_weights=True)]

    return both(directory, scheduled, callbacks)


def promoted_with_plateau(directory: Path) -> Json:
    import keras

    class Drawing(keras.callbacks.Callback):
        """One of a program's own, which draws numbers."""

        def __init__(self) -> None:
            super().__init__()
            self.drawn = np.zeros(0)

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.drawn = np.append(self.drawn, np.random.random())

    class Counting(keras.callbacks.EarlyStopping):
        """One of Keras's with a private attribute more."""

        _seen = 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            super().on_epoch_end(epoch, logs)
            self._seen += 1

    def callbacks() -> list[Any]:
        # What they wait for never comes: the rate falls, and the training ends, in the middle of a rung.
        plateau = keras.callbacks.ReduceLROnPlateau(
            "val_loss", patience=2, min_delta=9.0, factor=0.5
        )
        stopping = Counting("val_loss", patience=5, min_delta=9.0)
        return [plateau, stopping, Drawing()]

    return both(directory, plain, callbacks, validation_data=..., validation_split=0.25)


def stopped_early(directory: Path) -> Json:
    """EarlyStopping ends the training in the first rung: what is promoted then trains no more."""
    import keras

    def callbacks() -> list[Any]:
        return [keras.callbacks.EarlyStopping("val_loss", patience=1, min_delta=9.0)]

    return both(directory, plain, callbacks)


class Killed(BaseException):
    """Ends a training as a signal would: nothing is cleaned up."""


def interrupted(directory: Path) -> Json:
    """A run without a budget is killed in the middle of an epoch; the next one goes on."""
    import keras

    whole, cut, first = directory / "whole", directory / "cut", directory / "first"

    class Kill(keras.callbacks.Callback):
        def __init__(self, epoch: int) -> None:
            super().__init__()
            self.epoch, self.current = epoch, -1

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.current = epoch

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if (self.current, batch) == (self.epoch, 1):
                raise Killed

    def perform(place: Path, kill_at: int, **changes: Any) -> Json:
        diary = Diary(lambda: [Kill(kill_at), keras.callbacks.EarlyStopping(patience=30)])
        run, channel = make_run(place, **changes)
        hooks = TrainingHooks(on_epoch_end=diary.note)
        given = BATCH | {"epochs": 5, "callbacks": diary.callbacks, "hooks": hooks}
        try:
            history, _ = train(
                place, scheduled, run=(run, channel), options=options(checkpoint_every=0), **given
            )
        except Killed:
            return {"diary": diary.epochs, "result": None}
        return {"diary": diary.epochs, "result": [history.epoch, history.history]}

    got = {"whole": perform(whole, -1), "killed": perform(cut, 3)}
    got["continued"] = perform(cut, -1, continues=True, attempt=1, run=1)
    got["killed_first"] = perform(first, 0)
    got["begun_anew"] = perform(first, -1, continues=True, attempt=1, run=1)
    return got


def interrupted_in_a_budget(directory: Path) -> Json:
    """A promoted run is killed, then breaks: it goes on from its last epoch, then from its budget's first."""
    place = directory / "cut"
    diary = Diary(list)
    ends: list[Any] = []

    def perform(budget: Budget, end_at: Any = None, end: Any = None, **changes: Any) -> None:
        def note(run: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
            diary.note(run, model, epoch, logs)

        def begin(run: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
            if epoch == end_at:
                raise end

        hooks = TrainingHooks(on_epoch_end=note, on_epoch_begin=begin)
        run = make_run(place, budget=budget, **changes)
        try:
            settings = BATCH | {"options": options(checkpoint_every=0)}
            train(place, plain, run=run, hooks=hooks, **settings)
        except (Killed, RuntimeError) as error:
            ends.append(type(error).__name__)

    perform(Budget(2, is_last=False))
    perform(Budget(6, 2), 4, Killed(), continues=True)
    perform(Budget(6, 2), 5, RuntimeError(), continues=True)
    perform(Budget(6, 2), continues=True)
    whole = pieces(directory / "whole", plain, list, (6,))
    return {"diary": diary.epochs, "ends": ends, "whole": whole["diary"]}


# Ways to give data


def data_of_every_kind(directory: Path) -> Json:
    """Return for each way to give data, whether two pieces are as good as one."""
    import keras

    x, y, validation = (keras_programs.data()[name] for name in ("x", "y", "validation_data"))
    weight = np.linspace(0.5, 1.5, len(x)).astype("float32")

    class Batches(keras.utils.PyDataset):
        def __len__(self) -> int:
            return 2

        def __getitem__(self, number: int) -> Any:
            rows = slice(32 * number, 32 * number + 32)
            return x[rows], y[rows]

    def two_inputs(hp: HyperParameters) -> Any:
        left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
        joined = keras.layers.concatenate([left, right])
        top = keras.layers.Dense(1, activation="sigmoid")(joined)
        model = keras.Model({"left": left, "right": right}, top)
        return keras_programs.compiled(model, optimizer="sgd", metrics=[])

    halves = {"left": x[:, :2], "right": x[:, 2:]}
    held_out = {"left": validation[0][:, :2], "right": validation[0][:, 2:]}, validation[1]
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "weights": (light, {"sample_weight": weight, "validation_split": 0.3, "batch_size": 20}),
        "classes": (light, {"class_weight": {0: 0.5}, "batch_size": None}),
        "doubles": (light, {"x": x.astype("float64"), "y": y.astype("int64")[:, None]}),
        "dict": (two_inputs, {"x": halves, "validation_data": held_out}),
        "in order": (light, {"shuffle": False}),
        "PyDataset": (light, {"x": Batches(), "y": ..., "batch_size": None}),
    }
    try:
        import pandas as pd

        frame, series = pd.DataFrame(x, columns=list("abcd")), pd.Series(y)
        kinds["pandas"] = (light, {"x": frame, "y": series})
    except ImportError:
        pass
    got = {}
    for name, (build, changes) in kinds.items():
        if "validation_split" in changes:
            changes = {"validation_data": ..., **changes}
        whole = pieces(directory / name / "whole", build, list, (2,), **changes)
        cut = pieces(directory / name / "cut", build, list, (1, 2), **changes)
        got[name] = [whole["diary"] == cut["diary"], len(cut["diary"]), cut["notes"]]
    return got


def data_left_to_keras(directory: Path) -> Json:
    """What aiotune leaves to Keras trains as well, and the run that goes on says that it is not exact."""
    x = keras_programs.data()["x"]
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "batch": (light, {"shuffle": "batch"}),
        "steps": (light, {"steps_per_epoch": 2}),
        "optimizers": (with_another_optimizer, {}),
    }
    got = {}
    for name, (build, changes) in kinds.items():
        cut = pieces(directory / name, build, list, (1, 2), **changes)
        got[name] = [len(cut["diary"]), cut["notes"]]
    wrong = error_or_value(lambda: pieces(directory / "wrong", light, list, (1,), y=x[:3]))
    return got | {"unequal": wrong}


def error_or_value(action: Any) -> str:
    try:
        return str(action())
    except ValueError as error:
        return f"ValueError: {error}"


UNWEIGHTED = {"sample_weight": None}


def _dataset(given: Any) -> Any:
    order = DataOrder(5)
    applied = order.applied(given)
    order.begin_epoch(0)
    return applied["x"]


def _first_batch(given: Any) -> Any:
    return next(iter(_dataset(given).as_numpy_iterator()))


def orders(directory: Path) -> Json:
    """Return what is in the batches of three epochs, the second one twice, and what is left to Keras."""
    x = np.arange(10, dtype="float64")
    given: dict[str, Any] = {
        "x": {"left": x, "right": [x + 100]},
        "y": x[:, None],
        "sample_weight": x,
        "batch_size": 4,
        "validation_split": 0.2,
    }
    order = DataOrder(5)
    applied = order.applied(given)

    def epoch(number: int) -> Json:
        order.begin_epoch(number)
        return [
            [np.ravel(each).tolist() for each in (x["left"], x["right"][0], y, weight)]
            for x, y, weight in applied["x"].as_numpy_iterator()
        ]

    held_out, *_ = applied["validation_data"]
    again = DataOrder(5)
    import scipy.sparse
    import tensorflow as tf

    pair = {"y": [x, x]}
    others: dict[str, Any] = {
        "in order": {"shuffle": False},
        "not shuffled": {"shuffle": 0},
        "matrix": {"x": scipy.sparse.coo_matrix(x[:, None])},
        "sparse": {"x": tf.sparse.from_dense(x[:, None])},
        "wide weight": pair | {"sample_weight": np.ones((10, 3))},
        "one weight of two": pair | {"sample_weight": [x]},
        "several classes a row": {"y": x.reshape(10, 1, 1), "class_weight": {0: 2.0}} | UNWEIGHTED,
        "one row": {"x": x[:1], "y": x[:1], "sample_weight": None},
        "ragged": {"y": x[:3]},
        "text": {"y": np.array(["a"] * 10)},
    }
    left = {name: DataOrder(5).applied(given | changes) for name, changes in others.items()}
    classes = np.arange(10) % 3
    weighed = {
        name: _first_batch(given | UNWEIGHTED | {"y": y, "class_weight": {0: 2, 2: 0.5}})
        for name, y in {
            "numbers": classes,
            "column": classes[:, None],
            "one-hot": np.eye(3)[classes],
            "tensor": tf.constant(classes),
            "booleans": classes == 2,
        }.items()
    }
    missing = _first_batch(given | UNWEIGHTED | {"y": {"there": x, "not": None}})
    draws = []
    for number in (0, 1, 1):
        again.begin_epoch(number)
        draws.append([random.random(), float(np.random.random())])
    return {
        "epochs": [epoch(number) for number in (0, 1, 2, 1)],
        "shapes": [
            tuple(_dataset(given | {"batch_size": size}).element_spec[1].shape) for size in (4, 3)
        ],
        "weights": {
            name: [[int(row), float(weight)] for row, weight in rows]
            for name, rows in (
                (name, zip(np.ravel(batch[0]["left"]), batch[2], strict=True))
                for name, batch in weighed.items()
            )
        },
        "missing": [sorted(missing[1]), missing[1]["not"] is None],
        "batches": int(applied["x"].cardinality()),
        "held_out": held_out["left"].tolist(),
        "kind": str(applied["x"].element_spec[1].dtype),
        "left": {name: each == given | others[name] for name, each in left.items()},
        "draws": draws,
    }


# Programs


class Fit(HyperModel):
    """A `fit` of its own, with a callback and a size of batches of its own."""

    def build(self, hp: HyperParameters) -> Any:
        return plain(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        import keras

        stopping = keras.callbacks.EarlyStopping("val_loss", patience=3, min_delta=9.0)
        callbacks = [*kwargs.pop("callbacks"), stopping]
        return model.fit(*args, callbacks=callbacks, **(kwargs | {"batch_size": 24}))


class FromZero(Fit):
    """It trains from the first epoch on, whatever it is told."""

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("initial_epoch", None)
        return model.fit(*args, **kwargs)


class TwoPhases(Fit):
    """It trains twice."""

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        model.fit(*args, **kwargs)
        return model.fit(*args, **kwargs)


def fits_of_ones_own(directory: Path) -> Json:
    got = both(directory, Fit())
    got["wrong"] = error_of(lambda: pieces(directory / "wrong", FromZero(), list, (1, 3)))
    two = pieces(directory / "two", TwoPhases(), list, (1, 2))
    got["two"] = [two["notes"], [entry[0] for entry in two["diary"]]]
    for name, kind in (("zero", FromZero), ("phases", TwoPhases)):
        got[name] = _interrupted_fit(directory / name, kind)
    return got


def _interrupted_fit(directory: Path, kind: Any) -> Json:
    """Return the steps that are reported after an interruption, where there is no budget."""
    settings = {"epochs": 3, "options": options(checkpoint_every=0)}

    def end(run: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            raise Killed

    with contextlib.suppress(Killed):
        train(directory, kind(), hooks=TrainingHooks(on_epoch_begin=end), **settings)
    run = make_run(directory, continues=True)
    _, channel = train(directory, kind(), run=run, **settings)
    return [step for step, _ in channel.observed]


def nan_scores(directory: Path) -> Json:
    """A score that is never a number is not gone on with."""
    import keras

    class Nan(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            logs["val_loss"] = float("nan")

    run = make_run(directory, budget=Budget(2, is_last=False))
    train(directory, plain, run=run, callbacks=[Nan()])
    return (directory / "repeat-0" / "last.state").exists()


def missing_files(directory: Path) -> Json:
    """Return the notes, and the epochs that are reported, where the state is gone, and where all is."""
    got = {}
    for name, files in (
        ("state", ["last.state"]),
        ("all", ["last.state", "best.state", "best.json"]),
    ):
        place = directory / name
        train(place, plain, run=make_run(place, budget=Budget(2, is_last=False)))
        for file in files:
            (place / "repeat-0" / file).unlink()
        run, channel = make_run(place, budget=Budget(4, 2), continues=True)
        train(place, plain, run=(run, channel))
        notes = [each.message for each in channel.events if hasattr(each, "message")]
        got[name] = [notes, [step for step, _ in channel.observed]]
    return got


def from_a_parent(directory: Path) -> Json:
    """A trial goes on from another one's state with its own rate; one of another shape cannot."""
    parent, child, other = directory / "parent", directory / "child", directory / "other"
    rates: list[float] = []
    counts: list[int] = []

    def look(run: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        rates.append(round(float(np.asarray(model.optimizer.learning_rate)), 4))
        counts.append(int(np.asarray(model.optimizer.iterations)))

    def wide(hp: HyperParameters) -> Any:
        import keras

        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, activation="sigmoid")])
        return keras_programs.compiled(model, optimizer="adam")

    hooks = TrainingHooks(on_epoch_begin=look)
    run = make_run(parent, budget=Budget(2, is_last=False), values={"rate": 0.1})
    train(parent, plain, run=run, hooks=hooks)
    weights = digest_of_file(parent)
    for place in (child, other):
        shutil.copytree(parent, place)
    given: dict[str, Any] = {"budget": Budget(3, 2), "continues": True, "trial_id": "0001"}
    run = make_run(child, values={"rate": 0.5}, **given)
    history, _ = train(child, plain, run=run, hooks=hooks)
    best = keras_programs.best_of(child)
    error = error_of(lambda: train(other, wide, run=make_run(other, **given)))
    return {
        "rates": rates,
        "counts": counts,
        "epochs": history.epoch,
        "best": best["epoch"],
        "error": error,
        "same": weights == digest_of_file(child / "repeat-0" / "before-2", ""),
    }


def digest_of_file(directory: Path, below: str = "repeat-0") -> str:
    return hashlib.sha256((directory / below / "last.state").read_bytes()).hexdigest()


def traces(directory: Path) -> Json:
    """Return how often the training step is traced, and what is trained, without and with our help."""
    import keras
    import tensorflow as tf

    from aiotune.frameworks.keras_tracing import build_before_tracing

    traced: list[str] = []

    class Telling(keras.optimizers.Adam):  # type: ignore[misc]
        def apply(self, *args: Any, **kwargs: Any) -> Any:
            traced.append("apply")
            return super().apply(*args, **kwargs)

    class OwnStep(keras.Model):  # type: ignore[misc]
        def train_step(self, data: Any) -> Any:
            traced.append("train_step")
            return super().train_step(data)

    x = np.random.default_rng(0).random((6, 3)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, x[:, 0])).batch(4)

    def trained(*, is_helped: bool, kind: Any = keras.Model) -> Json:
        keras.utils.set_random_seed(1)
        inputs = keras.Input((3,))
        hidden = keras.layers.Dropout(0.5)(keras.layers.Dense(4)(inputs))
        model = kind(inputs, keras.layers.Dense(1)(hidden))
        model.compile(Telling(), "mse", metrics=["mae"], jit_compile=False)
        traced.clear()
        if is_helped:
            build_before_tracing(model, data)
        built = model.optimizer.built
        history = model.fit(data, epochs=2, verbose=0).history
        weights = [each.tolist() for each in model.get_weights()]
        return {"count": traced.count("apply"), "built": built, "trained": [history, weights]}

    return {
        "alone": trained(is_helped=False),
        "helped": trained(is_helped=True),
        "own": trained(is_helped=True, kind=OwnStep)["built"],
    }
