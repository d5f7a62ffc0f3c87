"""Discovery: which GPUs and MIG instances there are, and which of them may be used.

Whatever NVML does, discovery ends with the devices that can be used and a line that says what is
missing; a broken driver must not stop a search that could use the processor. This is the only file
that names a card by its index.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from aiotune.devices.device import Card, Device, Discovery
from aiotune.devices.nvml import Asker, Handle, Nvml, code, load, reason, session, text
from aiotune.devices.nvml_figures import card_fault, read_memory
from aiotune.devices.nvml_topology import with_neighbours
from aiotune.devices.visible import visible

__all__ = ["Inventory", "discover", "take_inventory"]


def discover(
    environment: Mapping[str, str], *, nvml: Nvml | None = None, root: Path = Path("/")
) -> Discovery:
    """Return the devices that the caller may use.

    It blocks, for seconds if the driver sleeps: call it in a thread.

    environment: the caller's; its CUDA_VISIBLE_DEVICES is obeyed. nvml: the module, unless a test
    has its own. root: where `proc` is found.
    """
    inventory = take_inventory(nvml=nvml, root=root)
    found = visible(inventory.cards, environment) if inventory.cards else Discovery(())
    problems = [*inventory.problems, *([found.problem] if found.problem else [])]
    return Discovery(found.devices, "; ".join(problems) or None)


@dataclass(frozen=True, slots=True)
class Inventory:
    """The cards of the machine, in the order of the PCI bus, and what is wrong with some or all of them."""

    cards: tuple[Card, ...]
    problems: tuple[str, ...]  # there is one if there are no cards


def take_inventory(*, nvml: Nvml | None = None, root: Path = Path("/")) -> Inventory:
    """Return the cards, whatever CUDA_VISIBLE_DEVICES says. For the rest as `discover`."""
    try:
        nvml = nvml or load()
    except ImportError as error:
        return Inventory((), (f"the package nvidia-ml-py cannot be imported: {error}",))
    reader = _Reader(nvml, root)
    try:
        with session(nvml):
            cards = tuple(reader.cards())
    except reader.errors as error:
        return Inventory((), (f"NVML: {reason(error)}",))
    problems = tuple(reader.problems)
    return Inventory(
        cards, problems if cards or problems else ("NVML finds no GPU on this machine",)
    )


class _Reader:
    """Reads cards one by one; what is wrong with one is noted and does not touch the others."""

    def __init__(self, nvml: Nvml, root: Path) -> None:
        self._nvml = nvml
        self._root = root
        self._asker = Asker(nvml)
        self._whole: dict[str, Handle] = {}  # the cards that are devices themselves, by UUID
        self.errors = self._asker.errors
        self.problems: list[str] = []

    def cards(self) -> list[Card]:
        """Return the cards in NVML's order, which is that of the PCI bus."""
        found = (self._card(index) for index in range(self._nvml.nvmlDeviceGetCount()))
        cards = [card for card in found if card is not None]
        return with_neighbours(self._asker, cards, self._whole)

    def _card(self, index: int) -> Card | None:
        """Return the card, or None if it is somebody else's, so that CUDA does not count it either.

        So it is in a job whose cgroup holds some of the machine's cards, as Slurm makes them.
        """
        nvml = self._nvml
        try:
            handle = nvml.nvmlDeviceGetHandleByIndex(index)
        except self.errors as error:
            self._note(f"GPU {index} of nvidia-smi", reason(error))
            if code(error) == nvml.NVML_ERROR_NO_PERMISSION:
                return None
            return Card(None, "unknown", ())
        try:
            return self._readable(handle)
        except self.errors as error:
            self._note(f"GPU {index} of nvidia-smi", reason(error))
            return Card(None, "unknown", ())

    def _readable(self, handle: Handle) -> Card:
        uuid = text(self._nvml.nvmlDeviceGetUUID(handle))
        name = self._name(handle)
        fault = card_fault(self._asker, handle)
        if fault is not None:
            self._note(uuid, fault)
            return Card(uuid, name, (), fault)
        if self._is_split(handle):
            return Card(uuid, name, self._instances(handle, uuid))
        self._whole[uuid] = handle
        return Card(uuid, name, (Device(uuid, name, self._memory(handle)),))

    def _is_split(self, handle: Handle) -> bool:
        """Return whether MIG is on: then the card itself is no device, its instances are."""
        mode = self._asker.known(self._nvml.nvmlDeviceGetMigMode, handle)
        return mode is not None and mode[0] == 1  # NVML_DEVICE_MIG_ENABLE

    def _instances(self, card: Handle, uuid: str) -> tuple[Device, ...]:
        places = range(self._nvml.nvmlDeviceGetMaxMigDeviceCount(card))
        found = (self._instance(card, place, uuid) for place in places)
        instances = tuple(device for device in found if device is not None)
        if not instances:
            self.problems.append(f"{uuid} has MIG on, but no instance: create one, or turn MIG off")
        return instances

    def _instance(self, card: Handle, place: int, uuid: str) -> Device | None:
        """Return the instance, or None if the place is empty, as most are, or cannot be read."""
        nvml = self._nvml
        try:
            handle = self._asker.known(nvml.nvmlDeviceGetMigDeviceHandleByIndex, card, place)
            if handle is None:
                return None
            own = text(nvml.nvmlDeviceGetUUID(handle))
            return Device(own, self._name(handle), self._memory(handle), "mig", parent=uuid)
        except self.errors as error:
            self._note(f"a MIG instance of {uuid}", reason(error))
            return None

    def _name(self, handle: Handle) -> str:
        name = self._asker.optional(self._nvml.nvmlDeviceGetName, handle)
        return "unknown" if name is None else text(name)

    def _memory(self, handle: Handle) -> int | None:
        return read_memory(self._asker, handle, self._root).total_bytes

    def _note(self, what: str, why: str) -> None:
        self.problems.append(f"{what} cannot be used: {why}")
