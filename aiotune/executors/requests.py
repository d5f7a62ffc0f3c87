"""What the caller asks of the fork server, as bytes on the control socket.

A request is a head of fixed size, with the descriptors of a new run attached, and the terms of that run.
"""

from __future__ import annotations

import json
import socket
import struct
from dataclasses import asdict, dataclass
from typing import Self

__all__ = ["END", "NO_TERMS", "RUN", "Request", "Terms", "receive_request"]

_HEAD = struct.Struct("!BQII")  # what, which run, how many, bytes of terms that follow
RUN = 1  # with so many descriptors: status (by which it can be refused if no more arrive), facts, payload, held
END = 2  # SIGTERM after so many milliseconds, SIGKILL a little later; 0: SIGKILL now

_MOST_DESCRIPTORS = 253  # that the system takes in one request


@dataclass(frozen=True, slots=True)
class Terms:
    """What the fork server holds a run to. memory_bytes: None: no limit. log: its full path; None: no log."""

    memory_bytes: int | None = None
    log: str | None = None

    def to_bytes(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        return cls(**json.loads(data))


NO_TERMS = Terms()


@dataclass(frozen=True, slots=True)
class Request:
    """`amount`: descriptors of a run that were sent, or milliseconds. `descriptors`: those that arrived."""

    what: int
    number: int
    amount: int
    terms: Terms = NO_TERMS
    descriptors: tuple[int, ...] = ()

    def to_bytes(self) -> bytes:
        terms = self.terms.to_bytes() if self.what == RUN else b""
        return _HEAD.pack(self.what, self.number, self.amount, len(terms)) + terms


def receive_request(control: socket.socket) -> Request | None:
    """Return the next request, which has arrived; None if the last user let go."""
    try:
        head, fds, _, _ = socket.recv_fds(control, _HEAD.size, _MOST_DESCRIPTORS)
        if len(head) != _HEAD.size:
            return None
        what, number, amount, size = _HEAD.unpack(head)
        # A request is sent at once, so that the rest of it is here.
        terms = control.recv(size, socket.MSG_WAITALL) if size else b""
    except ConnectionError:
        return None
    if len(terms) != size:
        return None
    return Request(what, number, amount, Terms.from_bytes(terms) if size else NO_TERMS, tuple(fds))
