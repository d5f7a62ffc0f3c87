"""How the devices are, again and again: `Sensor` keeps NVML open and reads devices by UUID."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path

from aiotune.devices.device import Process, Reading
from aiotune.devices.nvml import Asker, Handle, Nvml, code, load, reason
from aiotune.devices.nvml_events import XidEvents
from aiotune.devices.nvml_figures import (
    Memory,
    card_fault,
    energy,
    power,
    processes,
    read_memory,
    utilisation,
)

__all__ = ["Sensor"]

_UNINITIALIZED = 1  # NVML_ERROR_UNINITIALIZED
_NOT_FOUND = 6  # NVML_ERROR_NOT_FOUND
# NVML looks for cards when it is opened, and only then, and a card is not reset while somebody has it
# open. So while something is at fault NVML is closed after each of so many reads, then after one of so
# many: for a card to come back it must be closed everywhere in the process at a moment.
_EAGER_READS = 8


class Sensor:
    """Reads devices. It blocks, for seconds if the driver sleeps: call it in a thread, one at a time.

    nvml: the module, unless a test has its own. root: where `proc` is found.
    """

    def __init__(self, nvml: Nvml | None = None, *, root: Path = Path("/")) -> None:
        self._nvml = nvml
        self._root = root
        self._session: _Session | None = None
        self._faulty_reads: dict[str, int] = {}  # in a row, of each device
        self._reported: dict[str, str] = {}  # by sessions that are closed, and not asked for yet

    def open(self) -> None:
        """Open NVML, if that is possible; `read` tries again. It raises nothing."""
        self._opened()

    def close(self) -> None:
        """Close NVML. A later `read` opens it again."""
        session, self._session = self._session, None
        if session is not None:
            session.close()

    def read(self, uuids: Iterable[str]) -> dict[str, Reading]:
        """Return a reading of each device. What cannot be read is a reading with a fault."""
        wanted = tuple(uuids)
        readings, error = self._read(wanted)
        if code(error) == _UNINITIALIZED:  # other code of this process closed NVML once too often
            self.close()
            readings, _ = self._read(wanted)
        if self._shall_close(readings):
            self._reported = self.faults(0)
            self.close()
        return readings

    def _shall_close(self, readings: Mapping[str, Reading]) -> bool:
        """Count the faults, and return whether NVML is to be closed for one of them."""
        counts = self._faulty_reads
        for uuid, reading in readings.items():
            counts[uuid] = 0 if reading.fault is None else counts.get(uuid, 0) + 1
        return any(
            counts[uuid] and (counts[uuid] <= _EAGER_READS or counts[uuid] % _EAGER_READS == 0)
            for uuid in readings
        )

    def faults(self, timeout: float) -> dict[str, str]:
        """Return which devices reported an error (Xid) since the last call, by UUID, in words.

        Of those that `read` has read; errors of a program are none. It waits up to `timeout` seconds
        for the first; not at all where the driver does not tell.
        """
        reported, self._reported = self._reported, {}
        if self._session is None:
            return reported
        return reported | self._session.events.wait(0 if reported else timeout)

    def _read(self, uuids: Iterable[str]) -> tuple[dict[str, Reading], Exception | None]:
        """Return the readings, and an error that kept one from being read."""
        session = self._opened()
        if not isinstance(session, _Session):
            return dict.fromkeys(uuids, Reading(fault=_why_closed(session))), session
        readings: dict[str, Reading] = {}
        failure: Exception | None = None
        for uuid in uuids:
            try:
                readings[uuid] = session.read(uuid)
            except session.asker.errors as error:
                readings[uuid], failure = Reading(fault=_why_unread(error)), error
        return readings, failure

    def _opened(self) -> _Session | Exception:
        """Return the session, opened if need be, or why there is none."""
        if self._session is None:
            try:
                asker = Asker(self._nvml or load())
            except ImportError as error:
                return error
            try:
                asker.nvml.nvmlInit()
            except asker.errors as error:
                return error
            self._session = _Session(asker, self._root)
        return self._session


class _Session:
    """NVML, opened, and the events that it collects meanwhile."""

    def __init__(self, asker: Asker, root: Path) -> None:
        self.asker = asker
        self.events = XidEvents(asker)
        self._root = root

    def close(self) -> None:
        self.events.close()
        with contextlib.suppress(*self.asker.errors):
            self.asker.nvml.nvmlShutdown()

    def read(self, uuid: str) -> Reading:
        """It raises what `asker.errors` names if the device cannot be read."""
        asker = self.asker
        handle = asker.nvml.nvmlDeviceGetHandleByUUID(uuid)
        card = self._card(uuid, handle)
        if card is not None:
            self.events.follow(uuid, handle, card)
        memory, present = read_memory(asker, handle, self._root), processes(asker, handle)
        return Reading(
            total_bytes=memory.total_bytes,
            used_bytes=_used_bytes(memory, present),
            reserved_bytes=memory.reserved_bytes,
            processes=present,
            utilisation=utilisation(asker, handle),
            power_watts=power(asker, handle),
            energy_joules=energy(asker, handle),
            fault=None if card is None else card_fault(asker, card),
        )

    def _card(self, uuid: str, handle: Handle) -> Handle | None:
        """Return the card itself, or the one that an instance is on; None: that is not known."""
        if not uuid.startswith("MIG-"):
            return handle
        return self.asker.optional(
            self.asker.nvml.nvmlDeviceGetDeviceHandleFromMigDeviceHandle, handle
        )


def _used_bytes(memory: Memory, present: Iterable[Process]) -> int | None:
    if not memory.is_unified:
        return memory.used_bytes
    known = [process.memory_bytes for process in present]
    return None if None in known else sum(each for each in known if each is not None)


def _why_closed(error: Exception) -> str:
    if isinstance(error, ImportError):
        return f"the package nvidia-ml-py cannot be imported: {error}"
    return f"NVML: {reason(error)}"


def _why_unread(error: Exception) -> str:
    # Only the search for the device itself ends so: what else is not found is not known, and no error.
    if code(error) == _NOT_FOUND:
        return "it is gone: the driver does not know it"
    return f"it cannot be read: {reason(error)}"
