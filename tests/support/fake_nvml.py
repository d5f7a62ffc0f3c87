"""A stand-in for the module `pynvml`: cards that a test describes, faults that it scripts.

It knows what discovery asks; for all else there is `nvml_standin`, a library below the real binding.
Errors are the real binding's, so that their codes, texts and classes are the real ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pynvml

__all__ = ["CODES", "QUERIES", "FakeCard", "FakeInstance", "FakeMemory", "FakeNvml", "fake_cards"]

# Every nvmlReturn_t but success, and one that this binding does not know yet.
CODES = (
    *(
        value
        for name, value in vars(pynvml).items()
        if name.startswith("NVML_ERROR_") and isinstance(value, int)
    ),
    4242,
)

QUERIES = (
    "nvmlInit",
    "nvmlShutdown",
    "nvmlDeviceGetCount",
    "nvmlDeviceGetHandleByIndex",
    "nvmlDeviceGetUUID",
    "nvmlDeviceGetName",
    "nvmlDeviceGetMemoryInfo",
    "nvmlDeviceGetTotalEccErrors",
    "nvmlDeviceGetRemappedRows",
    "nvmlDeviceGetFieldValues",
    "nvmlDeviceGetMigMode",
    "nvmlDeviceGetMaxMigDeviceCount",
    "nvmlDeviceGetMigDeviceHandleByIndex",
    "nvmlDeviceGetTopologyCommonAncestor",
    "nvmlDeviceGetP2PStatus",
)


@dataclass(frozen=True)
class FakeMemory:
    total: int
    free: int
    used: int
    reserved: int = 0


@dataclass(frozen=True)
class _FakeField:
    """A field that this driver does not know."""

    nvmlReturn: int = pynvml.NVML_ERROR_NOT_SUPPORTED  # noqa: N815


@dataclass(frozen=True)
class FakeInstance:
    """A MIG instance; `place` is its index on the card."""

    uuid: str
    place: int = 0
    memory_bytes: int | None = 10 * 2**30
    name: str = "NVIDIA H100 MIG 1g.10gb"


@dataclass(frozen=True)
class FakeCard:
    """A GPU. `memory_bytes` None: the question has no answer. `instances` None: MIG is off."""

    uuid: str
    name: str = "NVIDIA H100"
    memory_bytes: int | None = 80 * 2**30
    has_mig: bool = False  # is the card able to
    instances: tuple[FakeInstance, ...] | None = None


@dataclass
class FakeNvml:
    """`faults` maps a query, or a query and its card's place, to the code that it raises."""

    cards: Sequence[FakeCard] = ()
    faults: Mapping[str | tuple[str, int], int] = field(default_factory=dict)
    is_bytes: bool = False  # as old bindings answered
    sessions: int = 0  # open ones
    calls: Counter[str] = field(default_factory=Counter)

    NVMLError = pynvml.NVMLError
    NVML_ERROR_NO_PERMISSION = pynvml.NVML_ERROR_NO_PERMISSION
    NVML_ERROR_NOT_SUPPORTED = pynvml.NVML_ERROR_NOT_SUPPORTED
    NVML_ERROR_NOT_FOUND = pynvml.NVML_ERROR_NOT_FOUND
    NVML_ERROR_FUNCTION_NOT_FOUND = pynvml.NVML_ERROR_FUNCTION_NOT_FOUND
    nvmlMemory_v2 = pynvml.nvmlMemory_v2  # noqa: N815

    def nvmlInit(self) -> None:  # noqa: N802
        self._enter("nvmlInit", needs_session=False)
        self.sessions += 1

    def nvmlShutdown(self) -> None:  # noqa: N802
        self._enter("nvmlShutdown")
        self.sessions -= 1

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        self._enter("nvmlDeviceGetCount")
        return len(self.cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> FakeCard:  # noqa: N802
        self._enter("nvmlDeviceGetHandleByIndex", self.cards[index])
        return self.cards[index]

    def nvmlDeviceGetUUID(self, handle: Any) -> str | bytes:  # noqa: N802
        self._enter("nvmlDeviceGetUUID", handle)
        return self._text(handle.uuid)

    def nvmlDeviceGetName(self, handle: Any) -> str | bytes:  # noqa: N802
        self._enter("nvmlDeviceGetName", handle)
        return self._text(handle.name)

    def nvmlDeviceGetMemoryInfo(  # noqa: N802
        self, handle: Any, version: int | None = None
    ) -> FakeMemory:
        self._enter("nvmlDeviceGetMemoryInfo", handle)
        if handle.memory_bytes is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_FUNCTION_NOT_FOUND)
        return FakeMemory(handle.memory_bytes, handle.memory_bytes, 0)

    def nvmlDeviceGetTotalEccErrors(  # noqa: N802
        self, handle: Any, kind: int, counter: int
    ) -> int:
        self._enter("nvmlDeviceGetTotalEccErrors", handle)
        return 0

    def nvmlDeviceGetRemappedRows(self, handle: Any) -> tuple[int, int, int, int]:  # noqa: N802
        self._enter("nvmlDeviceGetRemappedRows", handle)
        return 0, 0, 0, 0

    def nvmlDeviceGetFieldValues(self, handle: Any, fields: list[int]) -> list[Any]:  # noqa: N802
        self._enter("nvmlDeviceGetFieldValues", handle)
        return [_FakeField() for _ in fields]

    def nvmlDeviceGetMigMode(self, handle: FakeCard) -> list[int]:  # noqa: N802
        self._enter("nvmlDeviceGetMigMode", handle)
        if not handle.has_mig and handle.instances is None:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return [int(handle.instances is not None)] * 2

    def nvmlDeviceGetMaxMigDeviceCount(self, handle: FakeCard) -> int:  # noqa: N802
        self._enter("nvmlDeviceGetMaxMigDeviceCount", handle)
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(  # noqa: N802
        self, handle: FakeCard, index: int
    ) -> FakeInstance:
        self._enter("nvmlDeviceGetMigDeviceHandleByIndex", handle)
        for instance in handle.instances or ():
            if instance.place == index:
                return instance
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)

    def nvmlDeviceGetP2PStatus(  # noqa: N802
        self, one: FakeCard, other: FakeCard, capability: int
    ) -> int:
        self._enter("nvmlDeviceGetP2PStatus", one)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def nvmlDeviceGetTopologyCommonAncestor(  # noqa: N802
        self, one: FakeCard, other: FakeCard
    ) -> int:
        self._enter("nvmlDeviceGetTopologyCommonAncestor", one)
        raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)

    def _enter(
        self,
        query: str,
        handle: FakeCard | FakeInstance | None = None,
        *,
        needs_session: bool = True,
    ) -> None:
        self.calls[query] += 1
        if needs_session and not self.sessions:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_UNINITIALIZED)
        code = self.faults.get(query)
        if code is None and isinstance(handle, FakeCard):
            code = self.faults.get((query, list(self.cards).index(handle)))
        if code is not None:
            raise pynvml.NVMLError(code)

    def _text(self, text: str) -> str | bytes:
        return text.encode() if self.is_bytes else text


def fake_cards(number: int, *, memory_bytes: int | None = 80 * 2**30) -> tuple[FakeCard, ...]:
    """Return equal cards with the UUIDs GPU-a000..., GPU-b000..., and so on: 26 at most."""
    letters = "abcdefghijklmnopqrstuvwxyz"[:number]
    return tuple(
        FakeCard(f"GPU-{letter}0000000-0000-0000-0000-000000000000", memory_bytes=memory_bytes)
        for letter in letters
    )
