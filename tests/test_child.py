"""The child's end of the facts socket, in forks of the run that user code makes. The rest: test_process.py."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator

import pytest

from aiotune.executors.base import Observed
from aiotune.executors.child import ChildChannel
from aiotune.executors.wire import FrameDecoder, encode_frame, event_from_frame

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def ends() -> Iterator[tuple[socket.socket, ChildChannel]]:
    """The caller's end, and the child's."""
    caller, child = socket.socketpair()
    with caller, child:
        yield caller, ChildChannel(child)


def holds_in_fork(check: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            code = 0 if check() else 1
        finally:
            os._exit(code)
    return os.waitpid(pid, 0)[1] == 0


def test_a_fork_that_looks_takes_the_request_to_stop_from_nobody(
    ends: tuple[socket.socket, ChildChannel],
) -> None:
    caller, channel = ends
    caller.sendall(encode_frame({"stop": "pruned"}))

    for _ in range(2):
        assert holds_in_fork(lambda: channel.stop_reason == "pruned")
    assert channel.stop_reason == "pruned"


def test_a_fork_hears_only_half_a_request_without_harm(
    ends: tuple[socket.socket, ChildChannel],
) -> None:
    caller, channel = ends
    request = encode_frame({"stop": "pruned"})
    caller.sendall(request[:7])

    assert channel.stop_reason is None
    caller.sendall(request[7:])
    assert holds_in_fork(lambda: channel.stop_reason == "pruned")
    assert channel.stop_reason == "pruned"


def test_what_a_fork_reports_counts(ends: tuple[socket.socket, ChildChannel]) -> None:
    caller, channel = ends

    assert holds_in_fork(lambda: channel.emit(Observed(0, {"loss": 1.0})) is None)  # type: ignore[func-returns-value]
    frames = FrameDecoder().feed(caller.recv(2**16))

    assert Observed(0, {"loss": 1.0}) in map(event_from_frame, frames)
