"""The wire between the caller and a child: length-prefixed JSON frames on a socket.

A frame is 4 bytes of length, most significant first, and so many bytes of strict JSON that hold an object.
JSON has no NaN and no infinity: such a number travels as `{"float": "nan"}`. Both ends are of one version.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Mapping, Sized
from dataclasses import asdict
from functools import partial
from typing import Any, TypeVar, assert_never

from aiotune.decoding import (
    Check,
    a_count,
    a_flag,
    a_number,
    a_text,
    optional,
    parse_json,
    record_of,
    space_of,
    values_of,
)
from aiotune.executors.base import (
    Assignment,
    Failed,
    Finished,
    GpuMeasured,
    Measured,
    Met,
    Noted,
    Observed,
    Progressed,
    RunEvent,
    Started,
)
from aiotune.printable import printable
from aiotune.space import HyperParameter, Scalar, deserialize, serialize
from aiotune.trial import Budget, FailureKind

__all__ = [
    "MAX_EVENT_BYTES",
    "MAX_REPORT_BYTES",
    "MOST_STEPS",
    "Frame",
    "FrameDecoder",
    "WireError",
    "assignment_from_frame",
    "assignment_to_frame",
    "encode_frame",
    "event_from_frame",
    "event_to_frame",
]

Frame = Mapping[str, Any]

_LENGTH = struct.Struct("!I")
MAX_FRAME_BYTES = 2**26  # more is no frame: somebody else wrote to the socket
MAX_EVENT_BYTES = 2**22  # of what a child tells: the caller's loop reads it in tens of milliseconds
MAX_REPORT_BYTES = 2**20  # of a report, and of what a run returns
MOST_STEPS = 2**53
_MOST_METRICS = 10_000  # in a report
_MOST_NAMES = 100_000  # in a space
_LONGEST_NAME = 10_000  # characters
_LONGEST_MESSAGE = 10_000
_LONGEST_TRACEBACK = 50_000
_NOTE = 50  # characters of the note that a text was cut: enough

_Sized = TypeVar("_Sized", bound=Sized)


class WireError(Exception):
    """The bytes are no frames."""


def encode_frame(frame: Frame, most_bytes: int = MAX_FRAME_BYTES) -> bytes:
    """Return the frame's bytes. ValueError for too many, and for a NaN or infinity that is not wrapped."""
    body = json.dumps(frame, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > most_bytes:
        raise ValueError(
            f"{len(body):,} bytes are too much to be told at a time, {most_bytes:,} may be: report numbers, "
            "and write what is large into a file in trial.directory"
        )
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Turns bytes, in whatever pieces they arrive, back into frames, each of `most_bytes` at most."""

    def __init__(self, most_bytes: int = MAX_FRAME_BYTES) -> None:
        self._most_bytes = most_bytes
        self._rest = bytearray()

    def feed(self, data: bytes) -> list[Frame]:
        """Return the frames that `data` completes, in order. WireError if the bytes are no frames."""
        self._rest += data
        frames = []
        position = 0
        while (end := self._end_of_frame(position)) is not None:
            frames.append(_parse(self._rest[position + _LENGTH.size : end]))
            position = end
        del self._rest[:position]
        return frames

    def _end_of_frame(self, position: int) -> int | None:
        """Return where the frame at `position` ends, or None while its end has not arrived."""
        if len(self._rest) < position + _LENGTH.size:
            return None
        (length,) = _LENGTH.unpack_from(self._rest, position)
        if length > self._most_bytes:
            raise WireError(f"a frame of {length} bytes was announced")
        end = position + _LENGTH.size + int(length)
        return end if end <= len(self._rest) else None


def _parse(body: bytearray) -> Frame:
    try:
        frame = parse_json(body.decode())
    except ValueError as error:
        raise WireError(f"a frame is no JSON: {error}") from error
    if not isinstance(frame, dict):
        raise WireError("a frame is no JSON object")
    return frame


def event_to_frame(event: RunEvent) -> Frame:
    """Return the event as a frame. ValueError for a metric that is not a number, and for what is too much.

    Texts that are too long lose their middle.
    """
    match event:
        case Started():
            fields: dict[str, Any] = {"at": event.at}
        case Met():
            fields = {
                "space": _configs(event.space),
                "values": _wrapped(event.values),
                "added": _configs(event.added),
                "redeclared": [_configs(pair) for pair in event.redeclared],
                "is_complete": event.is_complete,
            }
        case Observed():
            fields = {"step": _step(int(event.step)), "metrics": _metrics(event.metrics)}
        case Progressed():
            fields = {}
        case Noted():
            fields = {"message": _clipped(event.message, _LONGEST_MESSAGE)}
        case Measured():
            fields = {"memory_bytes": event.memory_bytes}
        case GpuMeasured():
            fields = {"peak_bytes": event.peak_bytes}
        case Finished():
            fields = {
                "metrics": _metrics(event.metrics),
                "best_step": None if event.best_step is None else _step(int(event.best_step)),
                "is_stopped": event.is_stopped,
            }
        case Failed():
            fields = {
                "kind": event.kind.value,
                "message": _clipped(event.message, _LONGEST_MESSAGE),
                "traceback": event.traceback and _clipped(event.traceback, _LONGEST_TRACEBACK),
                "is_fatal": event.is_fatal,
                "is_lost": event.is_lost,
                "may_retry": event.may_retry,
                "is_of_host": event.is_of_host,
            }
        case _:
            assert_never(event)
    return {"event": type(event).__name__, **fields}


def event_from_frame(frame: Frame) -> RunEvent:
    """Return the event that `event_to_frame` took apart. WireError if anything in it is not as that writes it.

    A child runs code of others: what comes from it has the types, and at most the sizes, that are allowed here.
    """
    fields = dict(frame)
    name = fields.pop("event", None)
    if type(name) is not str or name not in _EVENTS:
        raise WireError(f"there is no event {name!r:.100}")
    try:
        return record_of(*_EVENTS[name], fields)
    except (TypeError, ValueError) as error:
        raise WireError(f"{name}: {error}") from error


def assignment_to_frame(assignment: Assignment) -> Frame:
    """Return the assignment in plain JSON."""
    frame = {name: getattr(assignment, name) for name in _PLAIN}
    budget = assignment.budget
    return frame | {
        "values": _wrapped(assignment.values),
        "space": _configs(assignment.space),
        "gpus": list(assignment.gpus),
        "cores": list(assignment.cores),
        "interrupted": list(assignment.interrupted),
        "budget": None if budget is None else asdict(budget),
    }


def assignment_from_frame(frame: Frame) -> Assignment:
    """Return the assignment that `assignment_to_frame` took apart."""
    budget = frame["budget"]
    return Assignment(
        **{name: frame[name] for name in _PLAIN},
        values=_unwrapped(frame["values"]),
        space=_space(frame["space"]),
        gpus=tuple(frame["gpus"]),
        cores=tuple(frame["cores"]),
        interrupted=tuple(frame["interrupted"]),
        budget=None if budget is None else Budget(**budget),
    )


_PLAIN = tuple(
    name
    for name in Assignment.__dataclass_fields__
    if name not in {"values", "space", "gpus", "cores", "interrupted", "budget"}
)


def _configs(space: Iterable[HyperParameter]) -> list[Any]:
    configs = [serialize(each) for each in space]
    return _at_most(_MOST_NAMES, configs, "hyperparameters")


def _space(configs: list[Any]) -> tuple[HyperParameter, ...]:
    return tuple(deserialize(config) for config in configs)


def _metrics(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return metrics as JSON; NumPy's and other libraries' scalars become floats here."""
    wrapped = {_name(str(name)): _wrap(float(value)) for name, value in metrics.items()}
    return _at_most(_MOST_METRICS, wrapped, "metrics")


def _wrapped(values: Mapping[str, Scalar]) -> dict[str, Any]:
    return {name: _wrap(value) for name, value in values.items()}


def _unwrapped(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: float(value["float"]) if isinstance(value, dict) else value
        for name, value in values.items()
    }


def _wrap(value: Scalar) -> Any:
    is_special = isinstance(value, float) and not math.isfinite(value)
    return {"float": repr(value)} if is_special else value


def _clipped(text: str, most: int) -> str:
    """Return the text, its middle left out where it is longer than `most` characters."""
    if len(text) <= most:
        return text
    half = most // 2 - _NOTE
    return f"{text[:half]}\n... {len(text) - 2 * half} characters left out ...\n{text[-half:]}"


# --- what a child may send: see `event_from_frame` ---


def _at_most(most: int, sized: _Sized, what: str) -> _Sized:
    if len(sized) > most:
        raise ValueError(f"{len(sized)} {what} are too many: {most} may be told at a time")
    return sized


def _name(text: str) -> str:
    if len(text) > _LONGEST_NAME:
        raise ValueError(
            f"the name {text:.50}... has {len(text)} characters, more than {_LONGEST_NAME}"
        )
    return text


def _step(value: Any) -> int:
    """Return a step: a count that has room for those that an earlier run had."""
    if type(value) is not int or not 0 <= value <= MOST_STEPS:
        raise ValueError(f"{value!r:.100} is no step: a whole number from 0 to 2**53 is")
    return value


def _moment(value: Any) -> float:
    """Return a reading of a monotonic clock."""
    if type(value) not in (int, float) or not abs(value) < 2**53:
        raise ValueError(f"{value!r:.100} is no time")
    return float(value)


def _metrics_of(value: Any) -> dict[str, float]:
    if type(value) is not dict:
        raise ValueError(f"{value!r:.100} are no metrics")
    _at_most(_MOST_METRICS, value, "metrics")
    return {_name(name): _number_of(each) for name, each in value.items()}


def _number_of(value: Any) -> float:
    if type(value) is dict and len(value) == 1:
        value = value.get("float")
    return a_number(value)


def _values_of(value: Any) -> dict[str, Scalar]:
    return dict(zip(map(_name, values := values_of(value)), values.values(), strict=True))


def _space_of(value: Any) -> tuple[HyperParameter, ...]:
    space = _at_most(_MOST_NAMES, space_of(value), "hyperparameters")
    for each in space:
        _name(each.name)
    return space


def _pairs_of(value: Any) -> tuple[tuple[HyperParameter, HyperParameter], ...]:
    if type(value) is not list:
        raise ValueError(f"{value!r:.100} is no list of pairs")
    return tuple(map(_pair_of, _at_most(_MOST_NAMES, value, "hyperparameters")))


def _pair_of(value: Any) -> tuple[HyperParameter, HyperParameter]:
    known, declared = _space_of(value)
    return known, declared


def _text_of(most: int, value: Any) -> str:
    text = a_text(value)
    if len(text) > most:
        raise ValueError(f"a text of {len(text)} characters is longer than {most}")
    return printable(text)


_message_of = partial(_text_of, _LONGEST_MESSAGE)

_EVENTS: Mapping[str, tuple[type[RunEvent], Mapping[str, Check]]] = {
    "Started": (Started, {"at": _moment}),
    "Met": (
        Met,
        {
            "space": _space_of,
            "values": _values_of,
            "added": _space_of,
            "redeclared": _pairs_of,
            "is_complete": a_flag,
        },
    ),
    "Observed": (Observed, {"step": _step, "metrics": _metrics_of}),
    "Progressed": (Progressed, {}),
    "Noted": (Noted, {"message": _message_of}),
    "Measured": (Measured, {"memory_bytes": a_count}),
    "GpuMeasured": (GpuMeasured, {"peak_bytes": a_count}),
    "Finished": (
        Finished,
        {"metrics": _metrics_of, "best_step": optional(_step), "is_stopped": a_flag},
    ),
    "Failed": (
        Failed,
        {
            "kind": FailureKind,
            "message": _message_of,
            "traceback": optional(partial(_text_of, _LONGEST_TRACEBACK)),
            "is_fatal": a_flag,
            "is_lost": a_flag,
            "may_retry": a_flag,
            "is_of_host": a_flag,
        },
    ),
}
