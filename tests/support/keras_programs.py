"""What the tests do where Keras is: each function gets an empty directory and returns JSON values."""

from __future__ import annotations

import itertools
import json
import shutil
import threading
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from aiotune.errors import AiotuneError
from aiotune.executors.base import Assignment, Met, Observed, Progressed, RunEvent
from aiotune.executors.context import RunContext, StopRun
from aiotune.frameworks.keras import (
    ModelOptions,
    TrainingHooks,
    build_and_fit,
    build_model,
    discover,
    load_model,
)
from aiotune.hypermodel import HyperModel, as_hypermodel
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import create_objective
from aiotune.trial import Budget

Json = Any
BATCHES = 4  # in an epoch


class Recorder:
    """A channel that keeps what it is given. Set `stop_reason` to ask the run to stop."""

    def __init__(self) -> None:
        self.events: list[RunEvent] = []
        self.stop_reason: str | None = None

    def emit(self, event: RunEvent) -> None:
        self.events.append(event)

    @property
    def observed(self) -> list[list[Any]]:
        return [[e.step, dict(e.metrics)] for e in self.events if isinstance(e, Observed)]

    @property
    def met(self) -> list[Met]:
        return [event for event in self.events if isinstance(event, Met)]


def make_run(directory: Path, **changes: Any) -> tuple[RunContext, Recorder]:
    assignment = Assignment(
        **{
            "trial_id": "0000",
            "number": 0,
            "stream": 0,
            "repeat": 0,
            "attempt": 0,
            "run": 0,
            "seed": 7,
            "values": {},
            "space": (),
            "draws_new_names": True,
            "allow_new_entries": True,
            "trial_directory": str(directory),
            "log": str(directory / "run-0.log"),
        }
        | changes
    )
    channel = Recorder()
    return RunContext(assignment, channel), channel


def options(objective: Any = "val_loss", **given: Any) -> ModelOptions:
    return ModelOptions(objective=create_objective(objective), **given)


def data() -> dict[str, Any]:
    """64 points to train on and 32 to validate, of 4 features and a binary label."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(96, 4)).astype("float32")
    y = (x.sum(axis=1) > 0).astype("float32")
    return {"x": x[:64], "y": y[:64], "validation_data": (x[64:], y[64:])}


def fit_arguments(**changes: Any) -> dict[str, Any]:
    return data() | {"epochs": 3, "batch_size": 64 // BATCHES, "verbose": 0} | changes


def compiled(model: Any, **changes: Any) -> Any:
    """Compile for eager execution: so few batches do not repay the tracing of a graph. On JAX they do."""
    import keras

    defaults = {"optimizer": "adam", "loss": "binary_crossentropy", "metrics": ["accuracy"]}
    is_eager = keras.backend.backend() != "jax"
    model.compile(**defaults | {"run_eagerly": is_eager} | changes)
    return model


def dense(hp: HyperParameters, **changes: Any) -> Any:
    import keras

    units = hp.Int("units", 2, 8)
    layers = [keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
    return compiled(keras.Sequential([keras.Input((4,)), *layers]), **changes)


def traced(hp: HyperParameters) -> Any:
    """The same model, compiled as most people's are."""
    return dense(hp, run_eagerly=False)


def hypermodel_of(build: Any) -> HyperModel:
    hypermodel = as_hypermodel(build)
    assert hypermodel is not None
    return hypermodel


def train(directory: Path, build: Any = dense, /, **changes: Any) -> tuple[Any, Recorder]:
    """Return what `fit` returned, and the events. `run`, `options` and `hooks` may be given."""
    run, channel = changes.pop("run", None) or make_run(directory)
    settings = changes.pop("options", options())
    hooks = changes.pop("hooks", TrainingHooks())
    args = changes.pop("args", ())
    kwargs = {key: value for key, value in fit_arguments(**changes).items() if value is not ...}
    return build_and_fit(hypermodel_of(build), run, args, kwargs, settings, hooks), channel


def signs_of_progress(directory: Path) -> Json:
    """Return how many a training of 3 epochs shows: with validation, without it, and where nobody asks."""

    def count(number: int, **changes: Any) -> int:
        place = directory / str(number)
        place.mkdir()
        limit = changes.pop("stall_seconds", 1e-9)
        _, channel = train(place, run=make_run(place, stall_seconds=limit), **changes)
        return sum(isinstance(event, Progressed) for event in channel.events)

    alone = {"validation_data": ..., "options": options("loss")}
    return [count(0), count(1, **alone), count(2, stall_seconds=None)]


def best_of(directory: Path) -> Json:
    return json.loads((directory / "repeat-0" / "best.json").read_text())


def error_of(action: Any) -> list[str]:
    """Return the type and text of the error that `action` raises."""
    try:
        action()
    except (AiotuneError, StopRun, TypeError) as error:
        return [type(error).__name__, str(error)]
    return ["none", ""]


def reloaded_score(
    directory: Path, build: Any, run_values: Any, objective: str = "val_loss"
) -> float:
    """Return the validation loss of the model that is loaded from the directory's checkpoint."""
    hp = HyperParameters(values=dict(run_values))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_model(hypermodel_of(build), hp, directory / "repeat-0", options(objective))
    return float(model.evaluate(*data()["validation_data"], verbose=0, return_dict=True)["loss"])


# Training


def reports(directory: Path) -> Json:
    history, channel = train(directory, traced)
    return {
        "observed": channel.observed,
        "history": history.history,
        "epochs": history.epoch,
        "complete": [met.is_complete for met in channel.met],
        "names": [each.name for each in channel.met[-1].space],
        "files": sorted(path.name for path in (directory / "repeat-0").iterdir()),
    }


def best_epoch(directory: Path) -> Json:
    import keras

    class Spoil(keras.callbacks.Callback):
        """Makes the model worse after the third epoch, so that the best one is not the last."""

        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            if epoch == 3:
                self.model.set_weights([10 * weight for weight in self.model.get_weights()])

    run, channel = make_run(directory)
    train(directory, traced, run=(run, channel), epochs=5, callbacks=[Spoil()])
    return {
        "scores": [metrics["val_loss"] for _, metrics in channel.observed],
        "best": best_of(directory),
        "reloaded": reloaded_score(directory, dense, run.hyperparameters.values),
    }


def optimizer_state(directory: Path) -> Json:
    run, channel = make_run(directory)
    train(directory, run=(run, channel), epochs=1)
    hp = HyperParameters(values=dict(run.hyperparameters.values))
    model = load_model(hypermodel_of(dense), hp, directory / "repeat-0", options())
    slots = [np.abs(np.asarray(each)).max() for each in model.optimizer.variables]
    return {
        "iterations": int(np.asarray(model.optimizer.iterations)),
        "is_used": bool(max(slots) > 0),
    }


class StopAt:
    """Makes a callback that asks for a stop at one batch of an epoch, and counts what comes after."""

    def __init__(self, channel: Recorder, epoch: int, batch: int, *, is_validation: bool) -> None:
        import keras

        seen = self.seen = {"train": 0, "test": 0, "validations": 0}
        current = {"epoch": -1}

        def stop_if(is_here: bool) -> None:
            if is_here and current["epoch"] == epoch:
                channel.stop_reason = "pruned"

        class Callback(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                current["epoch"] = epoch

            def on_test_begin(self, logs: Any = None) -> None:
                seen["validations"] += 1

            def on_train_batch_begin(self, number: int, logs: Any = None) -> None:
                seen["train"] += 1
                stop_if(not is_validation and number == batch)

            def on_test_batch_begin(self, number: int, logs: Any = None) -> None:
                seen["test"] += 1
                stop_if(is_validation and number == batch)

        self.make = lambda: [Callback()]


def _stopped(directory: Path, batch: int, *, is_validation: bool) -> Json:
    run, channel = make_run(directory)
    stop = StopAt(channel, 1, batch, is_validation=is_validation)
    error = error_of(
        lambda: train(
            directory,
            traced,
            run=(run, channel),
            epochs=9,
            callbacks=stop.make,
            validation_batch_size=8,
        )
    )
    return {
        "error": error,
        "steps": [step for step, _ in channel.observed],
        "score": channel.observed[0][1]["val_loss"],
        "seen": stop.seen,
        "best": best_of(directory),
        "reloaded": reloaded_score(directory, dense, run.hyperparameters.values),
        "files": sorted(path.name for path in (directory / "repeat-0").iterdir()),
    }


def stop_in_training(directory: Path) -> Json:
    return _stopped(directory, 2, is_validation=False)


def stop_in_validation(directory: Path) -> Json:
    return _stopped(directory, 1, is_validation=True)


def stop_before_training(directory: Path) -> Json:
    run, channel = make_run(directory)
    channel.stop_reason = "duplicate"
    error = error_of(lambda: train(directory, run=(run, channel)))
    return {"error": error, "observed": channel.observed, "met": len(channel.met)}


def stop_after_report(directory: Path) -> Json:
    run, channel = make_run(directory)
    emit = channel.emit

    def stop_when_observed(event: RunEvent) -> None:
        emit(event)
        if isinstance(event, Observed):
            channel.stop_reason = "pruned"

    channel.emit = stop_when_observed  # type: ignore[method-assign]
    error = error_of(lambda: train(directory, run=(run, channel), epochs=5))
    return {"error": error, "steps": [s for s, _ in channel.observed], "best": best_of(directory)}


def nan_first(directory: Path) -> Json:
    import keras

    class Nan(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            if epoch == 0:
                logs["val_loss"] = float("nan")

    _, channel = train(directory, callbacks=[Nan()], epochs=2)
    return {"best": best_of(directory), "steps": [step for step, _ in channel.observed]}


def validation_every_second_epoch(directory: Path) -> Json:
    _, channel = train(directory, epochs=4, validation_freq=2)
    return {
        "validated": [step for step, metrics in channel.observed if "val_loss" in metrics],
        "steps": [step for step, _ in channel.observed],
        "best": best_of(directory),
        "scores": {s: metrics.get("val_loss") for s, metrics in channel.observed},
    }


def budgets(directory: Path) -> Json:
    """Train to epoch 2, then go on to epoch 4: twice, and once from a checkpoint that is gone."""
    first, heard = make_run(directory, budget=Budget(2))
    train(directory, run=(first, heard), epochs=99)
    values = dict(first.hyperparameters.values)
    before = best_of(directory)
    given: dict[str, Any] = {"values": values, "budget": Budget(4, 2), "continues": True}
    second, continued = make_run(directory, **given)
    start: list[float] = []

    def evaluate(run: RunContext, model: Any, epoch: int, logs: Any = None) -> None:
        if epoch == 2:
            start.append(model.evaluate(*data()["validation_data"], verbose=0)[0])

    hooks = TrainingHooks(on_epoch_begin=evaluate)
    train(directory, run=(second, continued), epochs=99, hooks=hooks)
    after = best_of(directory)
    train(directory, run=make_run(directory, **given), epochs=99, hooks=hooks)
    same = best_of(directory) == after
    shutil.rmtree(directory / "repeat-0")
    third, restarted = make_run(directory, **given)
    train(directory, run=(third, restarted), epochs=99)
    return {
        "steps": [[s for s, _ in each.observed] for each in (heard, continued, restarted)],
        "before": before["score"],
        "start": start,
        "is_better": after["score"] < before["score"],
        "same": same,
    }


def positional_arguments(directory: Path) -> Json:
    given = data()
    kwargs = {"x": ..., "y": ..., "epochs": ..., "batch_size": ...}
    args = (given["x"], given["y"], 16, 9)
    run = make_run(directory, budget=Budget(2))
    _, channel = train(directory, run=run, args=args, **kwargs)
    twice = error_of(lambda: train(directory, args=args, **(kwargs | {"epochs": 3})))
    return {"steps": [step for step, _ in channel.observed], "twice": twice}


def restart_forgets(directory: Path) -> Json:
    """A second attempt begins anew: the first one's better score and weights do not count."""
    train(directory)
    path = directory / "repeat-0" / "best.json"
    path.write_text(json.dumps({"epoch": 77, "score": -1.0}))
    train(directory, epochs=1)
    return best_of(directory)


def two_fits(directory: Path) -> Json:
    class Twice(HyperModel):
        def build(self, hp: HyperParameters) -> Any:
            return dense(hp)

        def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
            model.fit(*args, **kwargs)
            return model.fit(*args, **kwargs)

    _, channel = train(directory, Twice(), epochs=2)
    return [step for step, _ in channel.observed]


def hooks(directory: Path) -> Json:
    calls: list[list[Any]] = []

    class Base:
        def on_epoch_begin(self, run: Any, model: Any, epoch: int, logs: Any = None) -> None: ...
        def on_epoch_end(self, run: Any, model: Any, epoch: int, logs: Any = None) -> None: ...

    class Mine(Base):
        def on_epoch_end(self, run: Any, model: Any, epoch: int, logs: Any = None) -> None:
            calls.append(["epoch", run.trial_id, epoch, "val_loss" in logs, model.built])
            logs["extra"] = 0.5

    class WithBatches(Mine):
        def on_batch_begin(self, run: Any, model: Any, batch: int, logs: Any) -> None:
            calls.append(["begin", batch])

        def on_batch_end(self, run: Any, model: Any, batch: int, logs: Any = None) -> None:
            calls.append(["end", batch, "loss" in logs])

    _, channel = train(directory, hooks=TrainingHooks.overridden(Mine(), Base), epochs=2)
    epochs = calls.copy()
    calls.clear()
    train(directory, hooks=TrainingHooks.overridden(WithBatches(), Base), epochs=1)
    extras = [metrics["extra"] for _, metrics in channel.observed]
    return {"epochs": epochs, "extras": extras, "batches": calls}


def vector_metric(directory: Path) -> Json:
    import keras

    def build(hp: HyperParameters) -> Any:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, activation="softmax")])
        f1 = keras.metrics.F1Score(average=None, name="f1")
        return compiled(model, loss="categorical_crossentropy", metrics=[f1, "accuracy"])

    given = data()
    labels = np.eye(2)[given["y"].astype(int)]
    _, channel = train(directory, build, y=labels, validation_data=..., options=options("loss"))
    return sorted(channel.observed[0][1])


# Ways to write a model


def reload_architectures(directory: Path) -> Json:
    """Return for each architecture the best score, and that of the model loaded again."""
    import keras

    class Subclassed(keras.Model):
        def __init__(self, units: int) -> None:
            super().__init__()
            self.hidden = keras.layers.Dense(units, activation="relu")
            self.block = keras.Sequential([keras.layers.Dense(3), keras.layers.Dropout(0.3)])
            self.out = keras.layers.Dense(1, activation="sigmoid")

        def call(self, inputs: Any, training: bool = False) -> Any:
            return self.out(self.block(self.hidden(inputs), training=training))

    class TwoInputs(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.left = keras.layers.Dense(3)
            self.right = keras.layers.Dense(3)
            self.out = keras.layers.Dense(1, activation="sigmoid")

        def call(self, inputs: Any) -> Any:
            return self.out(self.left(inputs["a"]) * self.right(inputs["b"]))

    def lazy(hp: HyperParameters) -> Any:
        return compiled(
            keras.Sequential([keras.layers.Dense(hp.Int("n", 2, 9)), keras.layers.Dense(1)])
        )

    def subclassed(hp: HyperParameters) -> Any:
        return compiled(Subclassed(hp.Int("n", 2, 9)))

    def batch_norm(hp: HyperParameters) -> Any:
        layers = [keras.layers.Dense(4), keras.layers.BatchNormalization(), keras.layers.Dense(1)]
        return compiled(keras.Sequential(layers), loss="mse")

    def functional(hp: HyperParameters) -> Any:
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(1)(keras.layers.Dense(hp.Int("n", 2, 9))(inputs))
        return compiled(keras.Model(inputs, outputs), loss="mse")

    def two_inputs(hp: HyperParameters) -> Any:
        return compiled(TwoInputs())

    scores = {}
    for build in (lazy, subclassed, batch_norm, functional, two_inputs):
        place = directory / build.__name__
        place.mkdir()
        run, channel = make_run(place)
        given = data()
        if build is two_inputs:
            x, (xv, yv) = given["x"], given["validation_data"]
            given["x"] = {"a": x[:, :2], "b": x[:, 2:]}
            given["validation_data"] = ({"a": xv[:, :2], "b": xv[:, 2:]}, yv)
        train(place, build, run=(run, channel), **given)
        hp = HyperParameters(values=dict(run.hyperparameters.values))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            model = load_model(hypermodel_of(build), hp, place / "repeat-0", options())
        again = model.evaluate(*given["validation_data"], verbose=0, return_dict=True)["loss"]
        scores[build.__name__] = [best_of(place)["score"], again]
    return scores


def reload_errors(directory: Path) -> Json:
    import keras

    def other(hp: HyperParameters) -> Any:
        return compiled(keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)]))

    train(directory)
    hp = HyperParameters(values={"units": 3})
    changed = error_of(
        lambda: load_model(hypermodel_of(other), hp, directory / "repeat-0", options())
    )
    missing = error_of(lambda: load_model(hypermodel_of(dense), hp, directory, options()))
    return {"changed": changed, "missing": missing}


class _Returning(HyperModel):
    """Tunes training, too; `result` says what `fit` returns."""

    def __init__(self, result: Any) -> None:
        self.result = result  # does not call super().__init__()

    def build(self, hp: HyperParameters) -> Any:
        return dense(hp)

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs["batch_size"] = hp.Choice("batch_size", [16, 32])
        history = model.fit(*args, **kwargs)
        return self.result(history)


def own_fit(directory: Path) -> Json:
    number, channel = train(
        directory,
        _Returning(lambda history: history.history["val_loss"][-1]),
        options=options(None),
    )
    last = best_of(directory)
    table, _ = train(directory, _Returning(lambda history: {"score": 1.5}), options=options("loss"))
    return {
        "number": number,
        "last": channel.observed[-1][1]["val_loss"],
        "best": last,
        "table": table,
        "complete": [met.is_complete for met in channel.met],
        "names": [[each.name for each in met.space] for met in channel.met],
    }


def fit_without_callbacks(directory: Path) -> Json:
    class Silent(HyperModel):
        def build(self, hp: HyperParameters) -> Any:
            return dense(hp)

        def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
            kwargs["callbacks"] = None
            return {"val_loss": model.fit(*args, **kwargs).history["val_loss"][-1]}

    run, channel = make_run(directory)
    result, _ = train(directory, Silent(), run=(run, channel))
    reloaded = reloaded_score(directory, dense, run.hyperparameters.values)
    return {"observed": channel.observed, "score": result["val_loss"], "reloaded": reloaded}


def own_loop(directory: Path) -> Json:
    """A training loop as in Keras's guide: it calls `set_model` and `on_epoch_end` of the callbacks itself."""

    class Loop(HyperModel):
        def build(self, hp: HyperParameters) -> Any:
            return dense(hp)

        def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
            for callback in kwargs["callbacks"]:
                callback.set_model(model)
            best = np.inf
            for epoch in range(3):
                for _ in range(BATCHES):
                    model.train_on_batch(kwargs["x"], kwargs["y"])
                loss = np.float32(1.0 / (epoch + 1))
                for callback in kwargs["callbacks"]:
                    callback.on_epoch_end(epoch, logs={"my_loss": loss})
                best = min(best, loss)
            return float(best)

    objective = options(create_objective("loss"))
    result, channel = train(directory, Loop(), options=objective)
    return {"observed": channel.observed, "result": result, "best": best_of(directory)}


# Options


def callbacks(directory: Path) -> Json:
    import keras

    class Counter(keras.callbacks.Callback):
        count = 0

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            self.count += 1
            used.append(self)

    class TensorBoard(Counter):
        log_dir = "logs"

    class Locked(Counter):
        def __init__(self) -> None:
            super().__init__()
            self.lock = threading.Lock()

    used: list[Any] = []
    mine = Counter()
    train(directory, callbacks=None, epochs=1)
    train(directory, callbacks=[mine], epochs=2)
    train(directory, callbacks=mine, epochs=1)
    copies = [mine.count, len(used), mine in used]
    used.clear()
    train(directory, callbacks=lambda: [Locked(), TensorBoard()], epochs=1)
    return {
        "copies": copies,
        "from_factory": [type(each).__name__ for each in used],
        "log_dir": used[1].log_dir,
        "uncopyable": error_of(lambda: train(directory, callbacks=[Counter(), Locked()])),
        "class": error_of(lambda: train(directory, callbacks=[Counter])),
        "wrong": error_of(lambda: train(directory, callbacks=["early"])),
    }


def objective_missing(directory: Path) -> Json:
    def attempt(objective: Any, **changes: Any) -> list[Any]:
        run, channel = make_run(directory)
        error = error_of(
            lambda: train(directory, run=(run, channel), options=options(objective), **changes)
        )
        return [*error, len(channel.observed)]

    return {
        "no_validation": attempt("val_accuracy", validation_data=...),
        "misspelt": attempt("val_acc"),
        "unset": attempt(None),
        "several": attempt(["val_loss", "auc"]),
        "validated_later": attempt("val_acc", validation_freq=2),
        "validated_at": attempt("val_acc", validation_freq=[3]),
    }


def bad_builds(directory: Path) -> Json:
    import keras

    def no_return(hp: HyperParameters) -> None:
        dense(hp)

    def not_compiled(hp: HyperParameters) -> Any:
        return keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])

    def broken(hp: HyperParameters) -> Any:
        raise TypeError("my own bug")

    return {
        "none": error_of(lambda: train(directory, no_return)),
        "layer": error_of(lambda: train(directory, lambda hp: keras.layers.Dense(1))),
        "not_compiled": error_of(lambda: train(directory, not_compiled)),
        "discovered": error_of(
            lambda: discover(hypermodel_of(no_return), make_run(directory)[0], options())
        ),
        "broken": error_of(
            lambda: discover(hypermodel_of(broken), make_run(directory)[0], options())
        ),
        "compiled_by_tuner": error_of(
            lambda: train(directory, not_compiled, options=options(optimizer="sgd", loss="mse"))
        ),
    }


def size_limit(directory: Path) -> Json:
    import keras

    def big(hp: HyperParameters) -> Any:
        return compiled(
            keras.Sequential([keras.Input((4,)), keras.layers.Dense(20), keras.layers.Dense(1)])
        )

    def big_later(hp: HyperParameters) -> Any:
        return compiled(keras.Sequential([keras.layers.Dense(20), keras.layers.Dense(1)]))

    def attempt(build: Any, limit: int) -> list[str]:
        return error_of(lambda: train(directory, build, options=options(max_model_size=limit)))

    return {
        "big": attempt(big, 120),
        "big_later": attempt(big_later, 120),
        "fits": attempt(big, 121),
        "fits_later": attempt(big_later, 121),
    }


def overrides(directory: Path) -> Json:
    import keras

    def absolute(y_true: Any, y_pred: Any) -> Any:
        return keras.ops.mean(keras.ops.abs(y_true - y_pred))

    def build(hp: HyperParameters) -> Any:
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
        kept = {"loss_weights": [0.5], "weighted_metrics": [absolute], "jit_compile": False}
        return compiled(model, loss=absolute, run_eagerly=True, **kept)

    def summary(**given: Any) -> Json:
        model = build_model(hypermodel_of(build), HyperParameters(), options(**given))
        x, y = data()["x"], data()["y"][:, None]
        model.fit(x, y, verbose=0)
        metrics = model.evaluate(x, y, verbose=0, return_dict=True)
        return {
            "optimizer": type(model.optimizer).__name__,
            "is_given": model.optimizer is given.get("optimizer"),
            "rate": round(float(np.asarray(model.optimizer.learning_rate)), 6),
            "loss": getattr(model.loss, "__name__", model.loss),
            "metrics": sorted(metrics),
            "run_eagerly": model.run_eagerly,
            "is_halved": bool(np.isclose(metrics["loss"], 0.5 * metrics["absolute"])),
        }

    optimizer = keras.optimizers.SGD(0.25)
    return {
        "none": summary(),
        "optimizer": summary(optimizer=optimizer),
        "again": summary(optimizer=optimizer),
        "loss": summary(loss="mse"),
        "metrics": summary(metrics=["mae"]),
    }


def sessions(directory: Path) -> Json:
    """Settings survive a build, names begin anew, and weights follow from the run's seed."""
    import keras

    keras.config.set_dtype_policy("mixed_bfloat16")
    hypermodel = hypermodel_of(dense)
    weights, names = [], []
    for seed in (1, 2, 1):
        model = build_model(hypermodel, HyperParameters(), options(), seed=seed)
        weights.append(np.asarray(model.get_weights()[0]).tolist())
        names.append([layer.name for layer in model.layers])
    return {
        "policy": keras.config.dtype_policy().name,
        "same": weights[0] == weights[2],
        "different": weights[0] != weights[1],
        "names": names,
    }


# Discovery


def _discovered(directory: Path, build: Any, **given: Any) -> Json:
    run, channel = make_run(directory, draws_new_names=False, **given)
    builds = itertools.count()

    def counted(hp: HyperParameters) -> Any:
        next(builds)
        build(hp)
        return dense(hp)

    error = error_of(lambda: discover(hypermodel_of(counted), run, options()))
    found = {}
    for met in channel.met:
        found |= {f"{each.name} {len(each.conditions)}": None for each in met.space}
    return {"found": sorted(found), "builds": next(builds), "error": error}


def discovery_scopes(directory: Path) -> Json:
    def scopes(hp: HyperParameters) -> None:
        hp.Choice("kind", ["a", "b", "c"])
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("depth", 1, 3)
            with hp.conditional_scope("depth", [3]):
                hp.Float("deep", 0, 1)
        with hp.conditional_scope("kind", ["c"]):
            hp.Boolean("flag", parent_name="kind", parent_values=["c"])

    return _discovered(directory, scopes)


def discovery_many(directory: Path) -> Json:
    def many(hp: HyperParameters) -> None:
        kinds = [f"k{i}" for i in range(10)]
        hp.Choice("kind", kinds)
        for kind in kinds:
            with hp.conditional_scope("kind", [kind]):
                hp.Int(f"of_{kind}", 0, 5)

    return _discovered(directory, many)


def discovery_ifs(directory: Path) -> Json:
    def with_if(hp: HyperParameters) -> None:
        kind = hp.Choice("kind", ["a", "b"])
        if kind == "a":
            hp.Int("of_a", 0, 5)
        with hp.conditional_scope("kind", ["b"]):
            if kind == "b":
                hp.Int("of_b", 0, 5)
        if hp.Boolean("never"):
            with hp.conditional_scope("never", [True]):
                hp.Int("of_never", 0, 5)

    return _discovered(directory, with_if)


def discovery_impossible(directory: Path) -> Json:
    """A scope that no values can enter, and branches that break: all of it ends."""

    def impossible(hp: HyperParameters) -> None:
        hp.Choice("kind", ["a", "b", "c"])
        with hp.conditional_scope("kind", ["a"]), hp.conditional_scope("kind", ["b"]):
            hp.Int("nowhere", 0, 5)
        with hp.conditional_scope("kind", ["b"]):
            hp.Int("of_b", 0, 5)
        with hp.conditional_scope("kind", ["c"]):
            hp.Int("of_c", 0, 5)
        if hp.get("kind") == "b":
            raise TypeError("this combination is not supported")

    return _discovered(directory, impossible)


def discovery_oversized(directory: Path) -> Json:
    run, channel = make_run(directory, draws_new_names=False)
    discover(hypermodel_of(dense), run, options(max_model_size=1))
    return [each.name for each in channel.met[-1].space]


def discovery_declared(directory: Path) -> Json:
    class Declaring(HyperModel):
        def declare_hyperparameters(self, hp: HyperParameters) -> None:
            hp.Int("declared", 0, 5)

        def build(self, hp: HyperParameters) -> Any:
            return dense(hp)

    class Rigid(HyperModel):
        def build(self, hp: HyperParameters) -> Any:
            return dense(hp)

    run, channel = make_run(directory, draws_new_names=False)
    discover(Declaring(), run, options())
    rigid, rigid_channel = make_run(directory / "rigid")
    discover(Rigid(tunable=False), rigid, options())
    return {
        "declared": [each.name for each in channel.met[-1].space],
        "rigid": [each.name for met in rigid_channel.met for each in met.space],
    }
