"""The wire between the caller and a child: length-prefixed JSON frames on a socket.

A frame is 4 bytes of length, most significant first, and so many bytes of strict JSON that hold an object.
JSON has no NaN and no infinity: such a number travels as `{"float": "nan"}`. Both ends are of one version.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any, assert_never

from aiotune.executors.base import (
    Assignment,
    Failed,
    Finished,
    GpuMeasured,
    Measured,
    Met,
    Noted,
    Observed,
    RunEvent,
    Started,
)
from aiotune.space import HyperParameter, Scalar, deserialize, serialize
from aiotune.trial import Budget, FailureKind

__all__ = [
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
MAX_FRAME_BYTES = 2**30  # more is no frame: somebody else wrote to the socket


class WireError(Exception):
    """The bytes are no frames."""


def encode_frame(frame: Frame) -> bytes:
    """Return the frame's bytes. ValueError if it holds a NaN or an infinity that is not wrapped."""
    body = json.dumps(frame, allow_nan=False, separators=(",", ":")).encode()
    if len(body) > MAX_FRAME_BYTES:
        raise ValueError(f"{len(body)} bytes do not fit a frame of {MAX_FRAME_BYTES} bytes")
    return _LENGTH.pack(len(body)) + body


class FrameDecoder:
    """Turns bytes, in whatever pieces they arrive, back into frames."""

    def __init__(self) -> None:
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
        if length > MAX_FRAME_BYTES:
            raise WireError(f"a frame of {length} bytes was announced")
        end = position + _LENGTH.size + int(length)
        return end if end <= len(self._rest) else None


def _parse(body: bytearray) -> Frame:
    try:
        frame = json.loads(body)
    except ValueError as error:
        raise WireError(f"a frame is no JSON: {error}") from error
    if not isinstance(frame, dict):
        raise WireError("a frame is no JSON object")
    return frame


def event_to_frame(event: RunEvent) -> Frame:
    """Return the event as a frame. ValueError for a metric that is not a number."""
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
            fields = {"step": int(event.step), "metrics": _metrics(event.metrics)}
        case Noted():
            fields = {"message": event.message}
        case Measured():
            fields = {"memory_bytes": event.memory_bytes}
        case GpuMeasured():
            fields = {"peak_bytes": event.peak_bytes}
        case Finished():
            fields = {
                "metrics": _metrics(event.metrics),
                "best_step": None if event.best_step is None else int(event.best_step),
                "is_stopped": event.is_stopped,
            }
        case Failed():
            fields = {
                "failure": event.kind.value,
                "message": event.message,
                "traceback": event.traceback,
                "is_fatal": event.is_fatal,
                "is_lost": event.is_lost,
                "may_retry": event.may_retry,
            }
        case _:
            assert_never(event)
    return {"event": type(event).__name__, **fields}


def event_from_frame(frame: Frame) -> RunEvent:
    """Return the event that `event_to_frame` took apart. WireError if it is none."""
    fields = dict(frame)
    match fields.pop("event", None):
        case "Started":
            return Started(**fields)
        case "Met":
            return Met(
                space=_space(fields["space"]),
                values=_unwrapped(fields["values"]),
                added=_space(fields["added"]),
                redeclared=tuple((deserialize(a), deserialize(b)) for a, b in fields["redeclared"]),
                is_complete=fields["is_complete"],
            )
        case "Observed":
            return Observed(fields["step"], _unwrapped(fields["metrics"]))
        case "Noted":
            return Noted(**fields)
        case "Measured":
            return Measured(**fields)
        case "GpuMeasured":
            return GpuMeasured(**fields)
        case "Finished":
            return Finished(**fields | {"metrics": _unwrapped(fields["metrics"])})
        case "Failed":
            return Failed(FailureKind(fields.pop("failure")), **fields)
        case other:
            raise WireError(f"there is no event {other!r}")


def assignment_to_frame(assignment: Assignment) -> Frame:
    """Return the assignment in plain JSON."""
    frame = {name: getattr(assignment, name) for name in _PLAIN}
    budget = assignment.budget
    return frame | {
        "values": _wrapped(assignment.values),
        "space": _configs(assignment.space),
        "gpus": list(assignment.gpus),
        "cores": list(assignment.cores),
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
        budget=None if budget is None else Budget(**budget),
    )


_PLAIN = tuple(
    name
    for name in Assignment.__dataclass_fields__
    if name not in {"values", "space", "gpus", "cores", "budget"}
)


def _configs(space: tuple[HyperParameter, ...]) -> list[Any]:
    return [serialize(each) for each in space]


def _space(configs: list[Any]) -> tuple[HyperParameter, ...]:
    return tuple(deserialize(config) for config in configs)


def _metrics(metrics: Mapping[str, float]) -> dict[str, Any]:
    """Return metrics as JSON; NumPy's and other libraries' scalars become floats here."""
    return {str(name): _wrap(float(value)) for name, value in metrics.items()}


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
