"""What the tests of TensorBoard do where Keras is: each function gets a directory and returns JSON values."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

from aiotune.executors.base import Noted
from aiotune.executors.context import StopRun
from aiotune.frameworks.keras import build_and_fit
from aiotune.hypermodel import HyperModel
from aiotune.hyperparameters import HyperParameters
from tests.support.keras_programs import Recorder, compiled, fit_arguments, make_run, options

Json = Any


class Every(HyperModel):
    """Every kind of name, one of them inactive, one declared in `fit`."""

    def build(self, hp: HyperParameters) -> Any:
        import keras

        units = hp.Int("units", 2, 8)
        hp.Int("width", 8, 32, step=8)
        hp.Float("rate", 1e-4, 1e-1, sampling="log")
        hp.Float("drop", 0.0, 0.5, step=0.25)
        hp.Choice("mixed", ["relu", None, 3])
        hp.Fixed("fixed", 7)
        hp.Boolean("deep")
        with hp.conditional_scope("deep", [True]):
            hp.Int("depth", 2, 3)
        with hp.conditional_scope("deep", [False]):
            hp.Choice("one name", [1, 2])
        with hp.conditional_scope("deep", [True]):
            hp.Choice("one name", [3, 4])
        layers = [keras.layers.Dense(units), keras.layers.Dense(1, activation="sigmoid")]
        return compiled(keras.Sequential([keras.Input((4,)), *layers]))

    def fit(self, hp: HyperParameters, model: Any, *args: Any, **kwargs: Any) -> Any:
        batch_size = hp.Choice("batch", [16, 32])
        return model.fit(*args, **{**kwargs, "batch_size": batch_size})


def train(directory: Path, trial_id: str = "0007", **changes: Any) -> Recorder:
    import keras

    trial_directory = directory / f"trial_{trial_id}"
    trial_directory.mkdir()
    run, channel = make_run(trial_directory, trial_id=trial_id, repeat=1, values={"deep": False})
    board = keras.callbacks.TensorBoard(directory / "logs", write_graph=False)
    arguments = fit_arguments(callbacks=[board], epochs=2) | changes
    build_and_fit(Every(), run, (), arguments, options())
    return channel


def accumulated(directory: Path) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(directory)).Reload()


def plugin_data(directory: Path) -> dict[str, Any]:
    """Return what the HParams plugin reads there, by kind."""
    from google.protobuf.json_format import MessageToDict
    from tensorboard.plugins.hparams import plugin_data_pb2

    found = accumulated(directory).SummaryMetadata
    tags = {
        "experiment": "_hparams_/experiment",
        "session_start_info": "_hparams_/session_start_info",
        "session_end_info": "_hparams_/session_end_info",
    }
    data = {}
    for kind, tag in tags.items():
        try:
            content = found(tag).plugin_data.content
        except KeyError:
            continue
        message = plugin_data_pb2.HParamsPluginData.FromString(content)
        data[kind] = MessageToDict(getattr(message, kind), preserving_proto_field_name=True)
    return data


def searched(directory: Path) -> Json:
    channel = train(directory)
    place = directory / "logs" / "0007" / "execution1"
    scalars = accumulated(place)
    return {
        "plugin": {**plugin_data(directory / "logs"), **plugin_data(place)},
        "scalars": {
            tag: [e.value for e in scalars.Scalars(tag)] for tag in scalars.Tags()["scalars"]
        },
        "observed": channel.observed,
        "epochs": sorted(path.name for path in place.iterdir() if path.is_dir()),
        "notes": notes(channel),
    }


def notes(channel: Recorder) -> list[str]:
    return [event.message for event in channel.events if isinstance(event, Noted)]


def two_trials(directory: Path) -> Json:
    """The experiment has the names of both, whatever either of them knows."""
    import aiotune.frameworks.keras_tensorboard as board
    from aiotune.space import Choice, Int

    first, _ = make_run(directory, trial_id="0000", space=(Int("a", 1, 9),), values={"a": 2})
    second, _ = make_run(
        directory, trial_id="0001", space=(Choice("b", ["x", "y"]),), values={"b": "x"}
    )
    for run in (first, second):
        session = board._Session(directory / "logs" / run.trial_id / "execution0", run, "loss")
        session.end({"loss": 0.5}, succeeded=True)
    return plugin_data(directory / "logs")["experiment"]


def without_tensorboard(directory: Path) -> Json:
    sys.modules["tensorboard"] = None  # type: ignore[assignment]
    channel = train(directory)
    return {
        "observed": len(channel.observed),
        "notes": notes(channel),
        "logs": (directory / "logs").exists(),
    }


def without_tensorflow(directory: Path) -> Json:
    """As on JAX and PyTorch where TensorFlow is not installed."""
    sys.modules["tensorflow"] = None  # type: ignore[assignment]
    channel = train(directory)
    place = directory / "logs" / "0007" / "execution1"
    return {
        "plugin": sorted(plugin_data(place)),
        "notes": notes(channel),
        "epochs": len(channel.observed),
    }


def unwritable(directory: Path) -> Json:
    sys.modules["tensorflow"] = None  # type: ignore[assignment]  # Keras's own callback would fail
    (directory / "logs").write_text("a file is in the way")
    channel = train(directory)
    return {"observed": len(channel.observed), "notes": notes(channel)}


def stopped(directory: Path) -> Json:
    import keras

    run, channel = make_run(directory, trial_id="0007", values={"deep": False})

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            channel.stop_reason = "enough"

    board = keras.callbacks.TensorBoard(directory / "logs", write_graph=False)
    with contextlib.suppress(StopRun):
        build_and_fit(Every(), run, (), fit_arguments(callbacks=[board, Stop()]), options())
    return _end(directory)


def broken(directory: Path) -> Json:
    import keras

    run, _ = make_run(directory, trial_id="0007", values={"deep": False})

    class Break(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            raise ZeroDivisionError

    board = keras.callbacks.TensorBoard(directory / "logs", write_graph=False)
    with contextlib.suppress(ZeroDivisionError):
        build_and_fit(Every(), run, (), fit_arguments(callbacks=[board, Break()]), options())
    return _end(directory)


def _end(directory: Path) -> Json:
    return plugin_data(directory / "logs" / "0007" / "execution0")["session_end_info"]["status"]
