from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aiotune.executors.base import (
    Failed,
    Finished,
    GpuMeasured,
    Met,
    Observed,
    Progressed,
    RunEvent,
    Started,
)
from aiotune.executors.wire import (
    FrameDecoder,
    WireError,
    assignment_from_frame,
    assignment_to_frame,
    encode_frame,
    event_from_frame,
    event_to_frame,
)
from aiotune.space import Boolean, Choice, Float, Int
from aiotune.trial import Budget, FailureKind
from tests.support.runs import assign

RATE = Float("rate", 1e-4, 1.0, sampling="log")
UNITS = Int("units", 1, 64)
KIND = Choice("kind", ["a", None, 3])

frames = st.lists(
    st.dictionaries(st.text(), st.integers() | st.text() | st.none() | st.booleans(), max_size=4),
    max_size=5,
)


@settings(deadline=None)
@given(frames, st.integers(1, 40))
def test_frames_arrive_whole_in_whatever_pieces(sent: list[dict[str, Any]], size: int) -> None:
    stream = b"".join(map(encode_frame, sent))
    decoder = FrameDecoder()
    pieces = (stream[start : start + size] for start in range(0, len(stream), size))
    received = [frame for piece in pieces for frame in decoder.feed(piece)]
    assert received == sent


def test_large_frame_arrives() -> None:
    frame = {"text": "x" * 10_000_000}
    decoder = FrameDecoder()
    data = encode_frame(frame)
    assert decoder.feed(data[:5_000_000]) == []
    assert decoder.feed(data[5_000_000:]) == [frame]


@pytest.mark.parametrize(
    "data",
    [
        b"hello, world",  # somebody printed to the socket
        struct.pack("!I", 3) + b"{,}",
        struct.pack("!I", 2) + b"[]",
        struct.pack("!I", 1) + b"\xff",
    ],
)
def test_other_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(WireError):
        FrameDecoder().feed(data)


def test_encoding_is_strict_json() -> None:
    with pytest.raises(ValueError, match="JSON"):
        encode_frame({"loss": math.nan})


@pytest.mark.parametrize(
    "event",
    [
        Started(12.5),
        Met((RATE, KIND), {"rate": 0.5, "kind": None}, (KIND,), ((UNITS, UNITS),), True),
        Met((), {}, (), (), False),
        Observed(3, {"loss": math.inf, "gain": -math.inf, "accuracy": 0.1}),
        Progressed(),
        GpuMeasured(3 * 2**30),
        Finished({"loss": 0.1}, best_step=4, is_stopped=True),
        Finished(),
        Failed(FailureKind.OUT_OF_MEMORY, "no memory", "Traceback ...", True, True, False),
        Failed(FailureKind.CRASH, "killed by SIGSEGV"),
    ],
)
def test_event_survives(event: RunEvent) -> None:
    (frame,) = FrameDecoder().feed(encode_frame(event_to_frame(event)))
    assert event_from_frame(frame) == event


@settings(deadline=None)
@given(st.dictionaries(st.text(), st.floats()))
def test_metrics_survive_bit_for_bit(metrics: dict[str, float]) -> None:
    (frame,) = FrameDecoder().feed(encode_frame(event_to_frame(Observed(0, metrics))))
    received = event_from_frame(frame)
    assert isinstance(received, Observed)
    assert {k: repr(v) for k, v in received.metrics.items()} == {
        k: repr(v) for k, v in metrics.items()
    }


def test_scalars_of_numpy_become_numbers() -> None:
    numpy = pytest.importorskip("numpy")
    frame = event_to_frame(Finished({"loss": numpy.float32(0.5)}, best_step=numpy.int64(3)))
    assert event_from_frame(json.loads(json.dumps(frame))) == Finished({"loss": 0.5}, best_step=3)


def test_metric_that_is_no_number_is_refused() -> None:
    with pytest.raises((TypeError, ValueError)):
        event_to_frame(Finished({"loss": "low"}))  # type: ignore[dict-item]


def test_unknown_event_is_refused() -> None:
    with pytest.raises(WireError, match="Rumour"):
        event_from_frame({"event": "Rumour"})


def test_assignment_survives(tmp_path: Path) -> None:
    full = assign(
        tmp_path,
        values={"rate": math.inf, "kind": None, "units": 3, "bias": True},
        space=(RATE, UNITS, KIND, Boolean("bias")),
        gpus=("GPU-1",),
        gpu_memory=2**33,
        gpu_fraction=0.25,
        cores=(0, 3),
        budget=Budget(9, 3, bracket=2, rung=1, iteration=1, is_last=False),
        is_discovery=True,
        stall_seconds=2.5,
    )
    for assignment in (full, assign(tmp_path)):
        (frame,) = FrameDecoder().feed(encode_frame(assignment_to_frame(assignment)))
        assert assignment_from_frame(frame) == assignment
