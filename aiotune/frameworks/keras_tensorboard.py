"""TensorBoard: a run's logs in a directory of its own, and the hyperparameters for the HParams tab.

    {log_dir of keras.callbacks.TensorBoard}/
        events.out.tfevents.0000000000.aiotune     the experiment: each name with its domain, each metric
        0007/execution0/
            events.out.tfevents.<...>.aiotune      the session: the run's values, its best metrics, how it ended
            train/, validation/                    what Keras writes

The session and the experiment are written with the package `tensorboard` alone, whatever Keras's backend is.
Keras's own callback needs TensorFlow, too. Nothing here ever fails a run: what cannot be written is noted.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiotune.clock import SystemClock
from aiotune.executors.context import RunContext, StopRun
from aiotune.frameworks.keras_build import require_keras
from aiotune.space import Boolean, Choice, Fixed, Float, HyperParameter, Int, Scalar

__all__ = ["hparams_session", "place_logs"]

_EXPERIMENT = "events.out.tfevents.0000000000.aiotune"
_MOST_DISCRETE = 100  # values of a domain that are listed; a range with more of them is an interval

Metrics = Mapping[str, float]


def place_logs(callbacks: list[Any], run: RunContext) -> list[Any]:
    """Send the logs of each TensorBoard callback to the run's own directory; return the callbacks.

    Less those that cannot write here: without TensorFlow and tensorboard Keras's callback would break the run.
    """
    boards = _boards(callbacks)
    for each in callbacks:
        if each in boards or type(each).__name__ == "TensorBoard":  # one of the user's own
            each.log_dir = f"{each.log_dir}/{run.trial_id}/execution{run.assignment.repeat}"
    missing = [name for name in ("tensorflow", "tensorboard") if not _is_installed(name)]
    if not boards or not missing:
        return callbacks
    run.note(
        f"keras.callbacks.TensorBoard needs {' and '.join(missing)} and writes nothing; run: "
        f'pip install "aiotune[{",".join(missing)}]"'
    )
    return [_silent_class()(each.log_dir) if each in boards else each for each in callbacks]


@contextmanager
def hparams_session(
    callbacks: Iterable[Any], run: RunContext, objective: str, best: Callable[[], Metrics]
) -> Iterator[list[Any]]:
    """Write the run's hyperparameters beside the logs of its TensorBoard callbacks while it trains.

    Yields callbacks to train with: names that `fit` declares are known when training begins. `best` returns the
    metrics of the best epoch so far.
    """
    logs = _log_dirs(callbacks)
    if not logs or not _is_installed("tensorboard"):
        yield []
        return
    sessions = [_Session(log, run, objective) for log in logs]
    succeeded = False
    try:
        yield [_begin_callback(sessions)]
        succeeded = True
    except StopRun:
        succeeded = True
        raise
    finally:
        for session in sessions:
            session.end(best(), succeeded=succeeded)


@functools.cache
def _silent_class() -> Any:
    class SilentTensorBoard(require_keras().callbacks.Callback):  # type: ignore[misc]
        """Stands for a TensorBoard callback that cannot work: it says where the logs would be."""

        def __init__(self, log_dir: str) -> None:
            super().__init__()
            self.log_dir = log_dir

    return SilentTensorBoard


def _boards(callbacks: Iterable[Any]) -> list[Any]:
    kind = require_keras().callbacks.TensorBoard
    return [each for each in callbacks if isinstance(each, kind)]


def _log_dirs(callbacks: Iterable[Any]) -> list[Path]:
    """Return the directories of the run's logs, those on this machine."""
    kinds = (require_keras().callbacks.TensorBoard, _silent_class())
    found = [str(each.log_dir) for each in callbacks if isinstance(each, kinds)]
    return [Path(each) for each in dict.fromkeys(found) if "://" not in each]


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _begin_callback(sessions: list[_Session]) -> Any:
    class BeginSessions(require_keras().callbacks.Callback):  # type: ignore[misc]
        """Begins each session when training does."""

        def on_train_begin(self, logs: Any = None) -> None:
            for session in sessions:
                session.begin()

    return BeginSessions()


# --- what is written ---


class _Session:
    """One run in the HParams tab. Runs of one trial form a group there."""

    def __init__(self, log_dir: Path, run: RunContext, objective: str) -> None:
        self._log_dir = log_dir
        self._run = run
        self._objective = objective
        self._is_begun = False
        pid, host = os.getpid(), socket.gethostname()
        name = f"events.out.tfevents.{int(SystemClock().now()):010d}.{host}.{pid}.aiotune"
        self._path = log_dir / name

    def begin(self) -> None:
        """Write the values, once."""
        if not self._is_begun:
            self._is_begun = True
            with _harmless(self._run):
                self._begin()

    def end(self, metrics: Metrics, *, succeeded: bool) -> None:
        """Write the metrics and how the run ended."""
        self.begin()
        with _harmless(self._run):
            self._end(metrics, succeeded=succeeded)

    def _begin(self) -> None:
        from tensorboard.plugins.hparams import plugin_data_pb2

        start = plugin_data_pb2.SessionStartInfo(
            group_name=self._run.trial_id, start_time_secs=SystemClock().now()
        )
        infos = _infos(self._run.hyperparameters.space)
        for name, value in self._run.hyperparameters.met_values().items():
            _set_value(start.hparams[name], value, infos[name].type)
        self._log_dir.mkdir(parents=True, exist_ok=True)
        data = plugin_data_pb2.HParamsPluginData(session_start_info=start)
        _append(self._path, [_plugin_event("_hparams_/session_start_info", data)])
        _merge_experiment(self._log_dir.parent.parent, infos.values(), ())

    def _end(self, metrics: Metrics, *, succeeded: bool) -> None:
        from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

        status = api_pb2.STATUS_SUCCESS if succeeded else api_pb2.STATUS_FAILURE
        info = plugin_data_pb2.SessionEndInfo(status=status, end_time_secs=SystemClock().now())
        data = plugin_data_pb2.HParamsPluginData(session_end_info=info)
        scalars = [_scalar_event(name, value) for name, value in metrics.items()]
        _append(self._path, [*scalars, _plugin_event("_hparams_/session_end_info", data)])
        infos = _infos(self._run.hyperparameters.space).values()
        ordered = sorted(metrics, key=lambda name: name != self._objective)
        _merge_experiment(self._log_dir.parent.parent, infos, ordered)


@contextmanager
def _harmless(run: RunContext) -> Iterator[None]:
    """Note an error instead of raising it: a display must not fail a run."""
    try:
        yield
    except Exception as error:
        run.note(f"TensorBoard's HParams tab lacks a run: {type(error).__name__}: {error}")


def _merge_experiment(root: Path, infos: Iterable[Any], metrics: Iterable[str]) -> None:
    """Let the experiment have these names and metrics besides those that other runs wrote.

    TensorBoard shows what the experiment names and nothing else. The file is replaced as a whole: of runs that
    do so at once, the later one may drop a name that the other had just met, until the next run ends.
    """
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    path = root / _EXPERIMENT
    known = _read_experiment(path)
    names = {each.name: each for each in known.hparam_infos} | {each.name: each for each in infos}
    tags = dict.fromkeys([*metrics, *(each.name.tag for each in known.metric_infos)])
    merged = api_pb2.Experiment(
        hparam_infos=names.values(),
        metric_infos=[api_pb2.MetricInfo(name=api_pb2.MetricName(tag=tag)) for tag in tags],
    )
    if merged == known:
        return
    draft = root / f"writing.{os.getpid()}"
    draft.unlink(missing_ok=True)
    data = plugin_data_pb2.HParamsPluginData(experiment=merged)
    _append(draft, [_plugin_event("_hparams_/experiment", data)])
    os.replace(draft, path)


def _read_experiment(path: Path) -> Any:
    """Return the experiment that `_merge_experiment` wrote; an empty one if there is none."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.plugins.hparams import api_pb2, plugin_data_pb2

    experiment = api_pb2.Experiment()
    for record in _records(path):
        for value in event_pb2.Event.FromString(record).summary.value:
            content = value.metadata.plugin_data.content
            experiment = plugin_data_pb2.HParamsPluginData.FromString(content).experiment
    return experiment


# --- names and domains ---


def _infos(space: Iterable[HyperParameter]) -> dict[str, Any]:
    """Return an HParamInfo by name. A name that is declared with several ranges has no domain."""
    infos: dict[str, Any] = {}
    for each in space:
        info = _info(each)
        known = infos.setdefault(each.name, info)
        if known != info:
            infos[each.name] = _without_domain(known, info)
    return infos


def _info(declared: HyperParameter) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    info = api_pb2.HParamInfo(name=declared.name, type=_type_of(declared))
    interval = _interval(declared)
    if interval is not None:
        info.domain_interval.min_value, info.domain_interval.max_value = interval
    else:
        for value in declared.all_values():
            _set_value(info.domain_discrete.values.add(), value, info.type)
    return info


def _without_domain(one: Any, other: Any) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    kind = one.type if one.type == other.type else api_pb2.DATA_TYPE_STRING
    return api_pb2.HParamInfo(name=one.name, type=kind)


def _interval(declared: HyperParameter) -> tuple[float, float] | None:
    """Return the ends of a range that is not listed; None for values that are."""
    match declared:
        case Float(size=None) | Int(step=1 | None):
            return declared.min_value, declared.max_value
        case Float() | Int() if declared.finite_size() > _MOST_DISCRETE:
            return declared.min_value, declared.max_value
        case _:
            return None


def _type_of(declared: HyperParameter) -> Any:
    from tensorboard.plugins.hparams import api_pb2

    match declared:
        case Int() | Float():
            return api_pb2.DATA_TYPE_FLOAT64
        case Boolean():
            return api_pb2.DATA_TYPE_BOOL
        case Choice() | Fixed():
            kinds = {type(value) for value in declared.all_values()}
            if kinds == {bool}:
                return api_pb2.DATA_TYPE_BOOL
            return api_pb2.DATA_TYPE_FLOAT64 if kinds <= {int, float} else api_pb2.DATA_TYPE_STRING
        case _:
            return api_pb2.DATA_TYPE_STRING


def _set_value(target: Any, value: Scalar, kind: Any) -> None:
    """Set a google.protobuf.Value to a hyperparameter's value, as its type wants it."""
    from tensorboard.plugins.hparams import api_pb2

    if kind == api_pb2.DATA_TYPE_BOOL:
        target.bool_value = bool(value)
    elif kind == api_pb2.DATA_TYPE_FLOAT64 and isinstance(value, int | float):
        target.number_value = value
    else:
        target.string_value = str(value)


# --- event files ---


def _plugin_event(tag: str, data: Any) -> Any:
    """Return a summary without a value, whose meta data are the plugin's."""
    from tensorboard.compat.proto import summary_pb2
    from tensorboard.plugins.hparams import metadata

    value = summary_pb2.Summary.Value(
        tag=tag, metadata=metadata.create_summary_metadata(data), tensor=metadata.NULL_TENSOR
    )
    return summary_pb2.Summary(value=[value])


def _scalar_event(name: str, number: float) -> Any:
    from tensorboard.compat.proto import summary_pb2

    return summary_pb2.Summary(value=[summary_pb2.Summary.Value(tag=name, simple_value=number)])


def _append(path: Path, summaries: Iterable[Any]) -> None:
    """Write the summaries to the end of an event file, which begins here if it is not there."""
    from tensorboard.compat.proto import event_pb2
    from tensorboard.summary.writer.record_writer import RecordWriter

    now = SystemClock().now()
    is_new = not path.exists()
    with path.open("ab") as file:
        writer = RecordWriter(file)
        if is_new:
            head = event_pb2.Event(wall_time=now, file_version="brain.Event:2")
            writer.write(head.SerializeToString())
        for summary in summaries:
            event = event_pb2.Event(wall_time=now, summary=summary)
            writer.write(event.SerializeToString())
        writer.flush()


def _records(path: Path) -> Iterator[bytes]:
    """Yield the records of an event file: each stands between its length, that one's sum, and its own sum."""
    data = path.read_bytes() if path.exists() else b""
    at = 0
    while at < len(data):
        (length,) = struct.unpack_from("<Q", data, at)
        yield data[at + 12 : at + 12 + length]
        at += 12 + length + 4
