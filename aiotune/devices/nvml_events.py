"""Xid errors: what the driver reports of a card at the moment when it happens."""

from __future__ import annotations

import ctypes
from typing import Any

from aiotune.devices.nvml import Asker, Handle, code, text

__all__ = ["XidEvents"]

_XID = 8  # nvmlEventTypeXidCriticalError
_TIMEOUT = 10  # NVML_ERROR_TIMEOUT
_NO_INSTANCE = 0xFFFFFFFF  # the event concerns the card as a whole
_MOST_EVENTS = 100  # in one call: a card that breaks can report faster than it is read

# Errors of the program, or news that come by another way: the card is as good as before. NVIDIA's plugin
# for Kubernetes passes over the same.
_HARMLESS = {
    13: "a fault in the program's kernel",
    31: "a program's access to memory that is not its own",
    43: "a program's channel was stopped",
    45: "cleaning up after a program that ended",
    68: "a fault in the program's video decoding",
    109: "a program's context switch took too long",
    154: "the driver has a new recovery action, which readings tell",
}
_WORDS = {
    48: "memory error that could not be corrected",
    62: "microcontroller halted",
    63: "memory row or page taken out of use",
    64: "memory row or page could not be taken out of use",
    74: "NVLink error",
    79: "fallen off the bus",
    94: "memory error, contained",
    95: "memory error, not contained",
    119: "system processor does not answer",
    120: "system processor failed",
}


class XidEvents:
    """Follows cards for as long as a session of NVML lasts. It raises nothing: readings tell what is broken."""

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self._set: Any = None
        self._cards: dict[str, int | None] = {}  # followed: UUID -> address of the handle
        self._devices: dict[str, tuple[str, int | None]] = {}  # UUID -> its card, its GPU instance

    def follow(self, uuid: str, handle: Handle, card: Handle) -> None:
        """Begin to follow a device, unless that is so; card: its parent if it is a MIG instance."""
        if uuid in self._devices:
            return
        asker, nvml = self._asker, self._asker.nvml
        try:
            parent = text(nvml.nvmlDeviceGetUUID(card))
            instance = None
            if handle is not card:
                instance = asker.optional(nvml.nvmlDeviceGetGpuInstanceId, handle)
            if parent not in self._cards:
                self._register(card)
                self._cards[parent] = _address(card)
        except asker.errors:
            return
        self._devices[uuid] = (parent, instance)

    def wait(self, timeout: float) -> dict[str, str]:
        """Return what has come, by the UUIDs of the devices, after waiting for it up to `timeout` seconds.

        It does not wait if nothing is followed.
        """
        found: dict[str, str] = {}
        milliseconds = max(0, round(timeout * 1000))
        for _ in range(_MOST_EVENTS):
            event = self._next(milliseconds)
            if event is None:
                break
            found |= self._blamed(event)
            milliseconds = 0
        return found

    def close(self) -> None:
        """Stop following. Another `follow` begins anew."""
        events, self._set = self._set, None
        self._cards.clear()
        self._devices.clear()
        if events is not None:
            try:
                self._asker.nvml.nvmlEventSetFree(events)
            except self._asker.errors:
                return  # the session ends, or has ended: it frees what it holds

    def _register(self, card: Handle) -> None:
        nvml = self._asker.nvml
        if self._set is None:
            self._set = nvml.nvmlEventSetCreate()
        nvml.nvmlDeviceRegisterEvents(card, _XID, self._set)

    def _next(self, milliseconds: int) -> Any:
        if not self._devices:
            return None
        try:
            return self._asker.nvml.nvmlEventSetWait_v2(self._set, milliseconds)
        except self._asker.errors as error:
            if code(error) != _TIMEOUT:
                self.close()  # so that the next reading follows the cards anew
            return None

    def _blamed(self, event: Any) -> dict[str, str]:
        """Return the devices that an event speaks against, with the words for it."""
        number = int(event.eventData)
        if event.eventType != _XID or number in _HARMLESS:
            return {}
        card = self._card_of(event)
        words = f"Xid {number} ({_WORDS[number]})" if number in _WORDS else f"Xid {number}"
        return {
            uuid: words
            for uuid, (parent, instance) in self._devices.items()
            if card in (None, parent)
            and (instance is None or event.gpuInstanceId in (_NO_INSTANCE, instance))
        }

    def _card_of(self, event: Any) -> str | None:
        """Return the UUID of an event's card; None if it cannot be told: it may be any.

        A lost card does not tell its UUID any more, but its handle is the one that it had before.
        """
        address = _address(event.device)
        for uuid, known in self._cards.items():
            if address is not None and known == address:
                return uuid
        try:
            return text(self._asker.nvml.nvmlDeviceGetUUID(event.device))
        except self._asker.errors:
            return None


def _address(handle: Handle) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
