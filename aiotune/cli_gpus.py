"""`aiotune gpus`: the GPUs of this machine as a search that begins now would see them, and why one is not used.

    device          name                memory          use   power  state
    GPU-1a2b3c4d    NVIDIA H100 80GB    61.2 / 80 GiB   97 %  612 W  held by process 4711 (train.py, ann)
    GPU-5e6f7a8b    NVIDIA A100-40GB    0.1 / 40 GiB    -     52 W   split by MIG: its instances are leased
      MIG-9c0d1e2f  NVIDIA A100 1g.5gb  0 / 4.75 GiB    -     -      free
    Processor: 64 cores, 412 GiB of memory available: 64 slots for searches without GPUs

What is shown was looked at once: a search watches its cards all the time, and remembers failures and faults.
"""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeVar, assert_never

from aiotune.devices.condition import Condition, Rules
from aiotune.devices.device import Device, Reading
from aiotune.devices.host import Host, read_host
from aiotune.devices.locks import open_locks
from aiotune.devices.nvml import Nvml
from aiotune.devices.nvml_discovery import Inventory, take_inventory
from aiotune.devices.nvml_readings import Sensor
from aiotune.devices.offer import gibibytes
from aiotune.devices.run_memory import RunMemory
from aiotune.devices.visible import VARIABLE, visible
from aiotune.printable import printable

__all__ = ["Holders", "Machine", "Row", "gpus_record", "gpus_text", "look", "show_gpus"]

# A driver that sleeps takes some seconds to wake up; one that hangs never answers.
_LONGEST_SECONDS = 10.0
_SHORTEST_NAME = len("GPU-00000000")
_SPLIT = "its instances are leased"

T = TypeVar("T")
State = Literal["free", "held", "busy", "hidden", "fault", "split"]


class Holders(Protocol):
    """Who has the locks of the cards."""

    def holder(self, uuid: str) -> str | None:
        """Return in words who has the lock; None: nobody."""
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """One GPU or MIG instance, how it is, and whether a search would lease it now.

    reason: in words, why not, or who holds it. A card that MIG splits is no device, but has a row.
    """

    device: Device
    reading: Reading
    state: State
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Machine:
    """What there is. `problems`: what is wrong with GPUs, or why there are none, a line each."""

    rows: tuple[Row, ...]
    problems: tuple[str, ...]
    host: Host


def show_gpus(*, as_json: bool) -> None:
    """Look at this machine and print what there is."""
    machine = look(os.environ, open_locks(os.environ))
    if as_json:
        print(json.dumps(gpus_record(machine), allow_nan=False))
        return
    for line in gpus_text(machine):
        print(printable(line))


# --- looking ---


def look(
    environment: Mapping[str, str],
    holders: Holders,
    *,
    nvml: Nvml | None = None,
    root: Path = Path("/"),
    seconds: float = _LONGEST_SECONDS,
) -> Machine:
    """Return what there is; it blocks for `seconds` at most, and raises nothing for what a driver does.

    environment: whose CUDA_VISIBLE_DEVICES holds. nvml, root: stand-ins for the driver and the file system.
    """
    host = read_host(root)
    try:
        inventory, readings = _within(seconds, lambda: _ask(nvml, root))
    except TimeoutError:
        silent = f"the NVIDIA driver did not answer within {seconds:g} s: see what `nvidia-smi` and `dmesg` say"
        return Machine((), (silent,), host)
    found = visible(inventory.cards, environment)
    hiding = _hiding(environment, found.problem, is_empty=not found.devices)
    rows = []
    for card in inventory.cards:
        if card.uuid is not None and card.uuid not in {each.uuid for each in card.devices}:
            rows.append(_card_row(card.uuid, card.name, card.fault, readings, bool(card.devices)))
        for device in card.devices:
            hidden = None if device in found.devices else hiding
            rows.append(_device_row(device, readings[device.uuid], hidden, holders))
    return Machine(tuple(rows), _problems(inventory, found.problem), host)


def _ask(nvml: Nvml | None, root: Path) -> tuple[Inventory, dict[str, Reading]]:
    """Return the cards and a reading of each device, and of each card that is none; it may block for long."""
    inventory = take_inventory(nvml=nvml, root=root)
    uuids = [card.uuid for card in inventory.cards if card.uuid is not None]
    uuids += [each.uuid for card in inventory.cards for each in card.devices]
    if not uuids:
        return inventory, {}
    sensor = Sensor(nvml, root=root)
    sensor.open()
    try:
        return inventory, sensor.read(tuple(dict.fromkeys(uuids)))
    finally:
        sensor.close()


def _within(seconds: float, work: Callable[[], T]) -> T:
    """Return what `work` returns. TimeoutError if it does not in time: its thread is left to itself."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="aiotune-gpus", daemon=True).start()
    return future.result(seconds)


def _hiding(environment: Mapping[str, str], problem: str | None, *, is_empty: bool) -> str:
    """Return why devices are hidden that are."""
    if is_empty and problem is not None:
        return problem
    return f"{VARIABLE}={environment.get(VARIABLE)!r} does not name it"


def _problems(inventory: Inventory, hiding: str | None) -> tuple[str, ...]:
    """Return what no row says."""
    with_row = tuple(f"{card.uuid} " for card in inventory.cards if card.fault is not None)
    problems = [each for each in inventory.problems if not each.startswith(with_row)]
    return (*problems, *([hiding] if hiding and inventory.cards else []))


def _card_row(
    uuid: str, name: str, fault: str | None, readings: Mapping[str, Reading], is_split: bool
) -> Row:
    """Return the row of a card that is no device."""
    device = Device(uuid, name, readings[uuid].total_bytes)
    if is_split:
        return Row(device, readings[uuid], "split", _SPLIT)
    return Row(device, readings[uuid], "fault", fault or "MIG is on, and no instance can be used")


def _device_row(device: Device, reading: Reading, hidden: str | None, holders: Holders) -> Row:
    """Return the row of a device; the first thing that speaks against it counts."""
    if hidden is not None:
        return Row(device, reading, "hidden", hidden)
    if reading.fault is not None:
        return Row(device, reading, "fault", reading.fault)
    holder = holders.holder(device.uuid)
    if holder is not None:
        return Row(device, reading, "held", holder)
    # What a search's watch makes of the first reading of a card.
    condition = Condition(waits_since=0.0).read(0.0, reading, Rules(), leases=0, read_in=0)
    verdict = condition.verdict(0.0)
    if verdict is not None:
        return Row(device, reading, "busy", verdict.reason)
    return Row(device, reading, "free")


# --- text ---


def gpus_text(machine: Machine) -> Iterator[str]:
    """Yield the table of devices, what is wrong, and what the processor offers."""
    if machine.rows:
        yield from _table(machine.rows)
    else:
        yield f"No GPU: {'; '.join(machine.problems)}"
    if machine.rows:
        yield from (f"Note: {problem}" for problem in machine.problems)
    yield _host_text(machine.host)


def _table(rows: Sequence[Row]) -> Iterator[str]:
    names = _short_names([row.device.uuid for row in rows])
    table = [("device", "name", "memory", "use", "power", "state")]
    table += [_cells(row, name) for row, name in zip(rows, names, strict=True)]
    widths = [max(len(cells[column]) for cells in table) for column in range(5)]
    for cells in table:
        aligned = [cell.ljust(width) for cell, width in zip(cells[:5], widths, strict=True)]
        yield "  ".join([*aligned, cells[5]]).rstrip()


def _cells(row: Row, name: str) -> tuple[str, str, str, str, str, str]:
    device, reading = row.device, row.reading
    return (
        f"  {name}" if device.parent is not None else name,
        device.name,
        _memory_text(reading, reading.total_bytes or device.memory_bytes),
        "-" if reading.utilisation is None else f"{reading.utilisation:.0%}",
        "-" if reading.power_watts is None else f"{reading.power_watts:.0f} W",
        _state_text(row),
    )


def _state_text(row: Row) -> str:
    match row.state:
        case "free":
            return "free"
        case "held":
            return f"held by {row.reason}"
        case "split":
            return f"split by MIG: {row.reason}"
        case "busy" | "hidden" | "fault":
            return f"{row.state}: {row.reason}"
        case _:
            assert_never(row.state)


def _memory_text(reading: Reading, total: int | None) -> str:
    """Return what programs use of how much: as `nvidia-smi`, without what the driver has for itself."""
    used = reading.used_bytes
    if used is None and total is None:
        return "-"
    programs = None if used is None else used - (reading.reserved_bytes or 0)
    return f"{_gibibytes(programs)} / {_gibibytes(total)} GiB"


def _gibibytes(size: int | None) -> str:
    return "?" if size is None else f"{size / 2**30:.3g}"


def _short_names(uuids: Sequence[str]) -> list[str]:
    """Return the beginnings of the UUIDs that only one of them has: `gpus=[...]` takes them."""
    return [_short_name(uuid, uuids) for uuid in uuids]


def _short_name(uuid: str, uuids: Sequence[str]) -> str:
    others = [each for each in uuids if each != uuid]
    for length in range(_SHORTEST_NAME, len(uuid)):
        if not any(other.startswith(uuid[:length]) for other in others):
            return uuid[:length]
    return uuid


def _host_text(host: Host) -> str:
    parts = ["1 core" if len(host.cores) == 1 else f"{len(host.cores)} cores"]
    if host.quota_cores is not None:
        parts.append(f"a CPU quota of {host.quota_cores:g} cores")
    if host.memory_bytes is not None:
        parts.append(f"{gibibytes(host.memory_bytes)} of memory available")
    slots = _host_slots(host)
    number = "1 slot" if slots == 1 else f"{slots} slots"
    return f"Processor: {', '.join(parts)}: {number} for searches without GPUs"


def _host_slots(host: Host) -> int:
    """Return how many runs a search without GPUs begins with, before it has measured any."""
    if host.memory_bytes is None:
        return host.slots
    return min(host.slots, RunMemory(host.memory_bytes).runs)


# --- JSON ---


def gpus_record(machine: Machine) -> dict[str, Any]:
    """Return the same as data: sizes in bytes, power in watts, energy in joules, use as a part of 1."""
    return {
        "devices": [_row_record(row) for row in machine.rows],
        "problems": list(machine.problems),
        "host": {**asdict(machine.host), "slots": _host_slots(machine.host)},
    }


def _row_record(row: Row) -> dict[str, Any]:
    reading = asdict(row.reading)
    del reading["fault"]  # it is the reason
    return {
        "uuid": row.device.uuid,
        "name": row.device.name,
        "kind": row.device.kind,
        "parent": row.device.parent,
        "state": row.state,
        "reason": row.reason,
        **reading,
        "total_bytes": row.reading.total_bytes or row.device.memory_bytes,
    }
