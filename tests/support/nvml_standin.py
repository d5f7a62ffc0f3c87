"""A machine with GPUs that a test describes, below the real `pynvml`: the library is `nvml/standin.c`.

    machine = Machine(folder, library, cards=equal_cards(4))     # fixture `machine`: without cards
    with load(machine):                                          # the library below pynvml, in this process
        machine.change(uuid, is_lost=True)                       # any time
    subprocess.run(..., env={**os.environ, **environment(machine)})

A stand-in framework, in whatever process has `environment(machine)`, takes memory of a card by `allocate`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, TypeVar

__all__ = [
    "VARIABLE",
    "Allocations",
    "Card",
    "Instance",
    "Link",
    "Machine",
    "OnCard",
    "allocate",
    "build",
    "environment",
    "equal_cards",
    "load",
]

GIB = 2**30
VARIABLE = "NVML_STANDIN"  # names the script, to the library and to `allocate`
SOURCE = Path(__file__).parent / "nvml" / "standin.c"
# What the library exports, where the binding calls it otherwise.
EXPORTED = {
    "nvmlInit": "nvmlInitWithFlags",
    "nvmlDeviceGetCount": "nvmlDeviceGetCount_v2",
    "nvmlDeviceGetHandleByIndex": "nvmlDeviceGetHandleByIndex_v2",
}


@dataclass(frozen=True, kw_only=True)
class Card:
    """A GPU. A figure that is None is not supported by it."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    total: int = 80 * GIB
    reserved: int = GIB // 2
    used: int = 0  # by what no process in the list holds
    memory: Literal["v2", "v1", "none"] = "v2"
    mig: Literal["on", "off"] | None = "off"
    is_lost: bool = False
    percent: int | None = 0  # utilisation
    milliwatts: int | None = 70_000
    millijoules: int | None = 1_000_000
    ecc: int | None = 0  # errors that could not be corrected
    remap: int | None = 0  # 1: rows could not be replaced
    recovery: int | None = 0  # NVML_GPU_RECOVERY_ACTION_*
    has_events: bool = True


@dataclass(frozen=True, kw_only=True)
class Instance:
    """A MIG instance on a card with mig="on". gi: its GPU instance id."""

    uuid: str
    card: str
    place: int = 0
    gi: int = 1
    name: str = "NVIDIA H100 80GB HBM3 MIG 1g.10gb"
    total: int = 10 * GIB
    reserved: int = 0
    used: int = 0


T = TypeVar("T", Card, Instance)


@dataclass(frozen=True, kw_only=True)
class OnCard:
    """A process on a device. memory None: the driver does not tell it.

    is_bound: it is a process of this machine, and is gone from the device when that is dead, after its device's
    memory was asked for `lag` times.
    """

    device: str
    pid: int
    memory: int | None = GIB
    is_graphics: bool = False
    is_bound: bool = False
    lag: int = 0


@dataclass(frozen=True, kw_only=True)
class Link:
    """What joins two cards: a level of NVML's topology."""

    a: str
    b: str
    level: int = 50
    has_nvlink: bool = False


@dataclass(frozen=True, kw_only=True)
class Allocations:
    """How what `allocate` took is told. pids: is added to each process id, as in a container. lag: as above."""

    pids: int = 0
    lag: int = 0


@dataclass
class Machine:
    """The script of the library. What changes it writes it; after changes by hand: `write()`."""

    folder: Path
    library: Path  # its folder is for LD_LIBRARY_PATH
    cards: list[Card] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)
    processes: list[OnCard] = field(default_factory=list)
    links: list[Link] = field(default_factory=list)
    allocations: Allocations = Allocations()
    errors: dict[tuple[str, str | None], int] = field(
        default_factory=dict
    )  # (function, device) -> code
    delays: dict[str, int] = field(default_factory=dict)  # function -> milliseconds
    events: list[tuple[str, int, int | None]] = field(
        default_factory=list
    )  # card, Xid, GPU instance

    def __post_init__(self) -> None:
        (self.folder / "allocations").mkdir(parents=True, exist_ok=True)
        self.write()

    @property
    def script(self) -> Path:
        return self.folder / "machine"

    @property
    def has_driver(self) -> bool:
        return self.script.exists()

    @property
    def calls(self) -> list[tuple[str, str]]:
        """What was called, by whatever process: the function, and the UUID, or ""."""
        log = self.folder / "calls"
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return [(name, uuid) for name, _, uuid in (line.partition("\t") for line in lines)]

    def change(self, uuid: str, **figures: object) -> None:
        """Give a card or an instance other figures."""
        self.cards = [_changed(card, uuid, figures) for card in self.cards]
        self.instances = [_changed(instance, uuid, figures) for instance in self.instances]
        self.write()

    def remove(self, uuid: str) -> None:
        """Take a card or an instance away."""
        self.cards = [card for card in self.cards if card.uuid != uuid]
        self.instances = [instance for instance in self.instances if instance.uuid != uuid]
        self.write()

    def put(self, *things: Card | Instance | OnCard | Link) -> None:
        """Add cards, instances, processes, links."""
        for thing in things:
            match thing:
                case Card():
                    self.cards.append(thing)
                case Instance():
                    self.instances.append(thing)
                case OnCard():
                    self.processes.append(thing)
                case Link():
                    self.links.append(thing)
        self.write()

    def end(self, pid: int) -> None:
        """Take a process away from all devices."""
        self.processes = [each for each in self.processes if each.pid != pid]
        self.write()

    def fail(self, function: str, code: int, device: str | None = None) -> None:
        """Let a function answer with an error, of one device or of all. Code 0: no longer."""
        key = (EXPORTED.get(function, function), device)
        self.errors = {known: each for known, each in self.errors.items() if known != key}
        if code:
            self.errors[key] = code
        self.write()

    def delay(self, function: str, milliseconds: int) -> None:
        self.delays[EXPORTED.get(function, function)] = milliseconds
        self.write()

    def xid(self, card: str, number: int, gpu_instance: int | None = None) -> None:
        """Let the driver report an error of a card, or of one instance on it."""
        self.events.append((card, number, gpu_instance))
        self.write()

    def unload(self) -> None:
        """Take the driver away. `write` brings it back."""
        self.script.unlink(missing_ok=True)

    def write(self) -> None:
        """Write the script, at once for whoever reads it."""
        lines = ["\t".join((kind, *_fields(values))) for kind, values in self._things()]
        draft = self.folder / f"machine.{os.getpid()}"
        draft.write_bytes("".join(f"{line}\n" for line in lines).encode(errors="surrogateescape"))
        draft.replace(self.script)

    def _things(self) -> Iterator[tuple[str, dict[str, object]]]:
        yield "log", {"path": self.folder / "calls"}
        yield from (("card", _card(card)) for card in self.cards)
        yield from (("instance", dict(vars(instance))) for instance in self.instances)
        yield from (("process", _process(process)) for process in self.processes)
        for link in self.links:
            yield (
                "link",
                {"a": link.a, "b": link.b, "level": link.level, "nvlink": int(link.has_nvlink)},
            )
        for (function, device), code in self.errors.items():
            yield "error", {"fn": function, "device": device, "code": code}
        yield from (("delay", {"fn": name, "ms": time}) for name, time in self.delays.items())
        yield from (
            ("event", {"card": card, "xid": number, "gi": gi}) for card, number, gi in self.events
        )
        yield "allocations", {"path": self.folder / "allocations", **vars(self.allocations)}


def equal_cards(number: int, **figures: object) -> list[Card]:
    """Return cards with UUIDs of the real form, GPU-00000000-... to GPU-0000000f-...: 16 at most."""
    first = Card(uuid="")
    return [
        replace(first, uuid=f"GPU-{place:08x}-1111-2222-3333-444444444444", **figures)  # type: ignore[arg-type]
        for place in range(number)
    ]


def build(folder: Path, *sources: Path) -> Path | None:
    """Compile the library, or what else is to stand for it, and return it; None: there is no compiler."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    library = folder / "libnvidia-ml.so.1"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror", "-pthread"]
    command = [compiler, *flags, "-o", str(library), *map(str, sources or (SOURCE,))]
    subprocess.run(command, check=True, capture_output=True)
    return library


def environment(machine: Machine) -> dict[str, str]:
    """Return the variables with which another process finds the library, and the machine."""
    path = os.pathsep.join(
        filter(None, (str(machine.library.parent), os.environ.get("LD_LIBRARY_PATH")))
    )
    return {"LD_LIBRARY_PATH": path, VARIABLE: str(machine.script)}


@contextlib.contextmanager
def load(machine: Machine, library: Path | None = None) -> Iterator[None]:
    """Put the library below the real `pynvml` of this process; `library`: another one than the machine's."""
    import ctypes

    import pynvml

    before = pynvml.nvmlLib, dict(pynvml._nvmlGetFunctionPointer_cache), pynvml._nvmlLib_refcount
    script = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = str(machine.script)
    pynvml._nvmlGetFunctionPointer_cache.clear()
    pynvml.nvmlLib, pynvml._nvmlLib_refcount = ctypes.CDLL(str(library or machine.library)), 0
    if library is None:  # it stays in the process, with what an earlier test left open
        pynvml.nvmlLib.standin_reset()
    try:
        yield
    finally:
        pynvml._nvmlGetFunctionPointer_cache.clear()
        pynvml.nvmlLib, cache, pynvml._nvmlLib_refcount = before
        pynvml._nvmlGetFunctionPointer_cache.update(cache)
        os.environ.pop(VARIABLE)
        if script is not None:
            os.environ[VARIABLE] = script


def allocate(device: str, memory_bytes: int) -> None:
    """Hold so much of a device's memory in this process, until it says otherwise or ends.

    The machine is that of the environment. MemoryError: there is not so much left.
    """
    script = Path(os.environ[VARIABLE])
    folder = script.parent / "allocations"
    with (script.parent / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        own = folder / f"{device}@{os.getpid()}"
        others = sum(_held(path) for path in folder.glob(f"{device}@*") if path != own)
        left = _room(script, device) - others
        if memory_bytes > left:
            raise MemoryError(
                f"out of memory: {memory_bytes} bytes wanted of {device}, {left} are left"
            )
        draft = script.parent / f"draft.{os.getpid()}"
        draft.write_text(str(memory_bytes))
        draft.replace(own)


def _held(path: Path) -> int:
    """Return what the process of an allocation holds. Zombies hold nothing."""
    try:
        state = (
            Path(f"/proc/{path.name.rpartition('@')[2]}/stat")
            .read_text()
            .rpartition(")")[2]
            .split()[0]
        )
    except OSError:
        return 0
    return 0 if state in "ZX" else int(path.read_text())


def _room(script: Path, device: str) -> int:
    """Return what the script leaves of a device to those that allocate."""
    room = 0
    for line in script.read_text(errors="replace").splitlines():
        kind, *pairs = line.split("\t")
        values = dict(pair.split("=", 1) for pair in pairs)
        if kind in ("card", "instance") and values["uuid"] == device:
            room += int(values["total"]) - int(values["reserved"]) - int(values["used"])
        elif kind == "process" and values["device"] == device:
            room -= int(values.get("memory", 0))
    return room


def _changed(thing: T, uuid: str, figures: dict[str, object]) -> T:
    return replace(thing, **figures) if thing.uuid == uuid else thing  # type: ignore[arg-type]


def _fields(values: dict[str, object]) -> Sequence[str]:
    return [f"{key}={value}" for key, value in values.items() if value is not None]


def _card(card: Card) -> dict[str, object]:
    return {
        "uuid": card.uuid,
        "name": card.name,
        "total": card.total,
        "reserved": card.reserved,
        "used": card.used,
        "memory": card.memory,
        "mig": card.mig,
        "lost": int(card.is_lost),
        "util": card.percent,
        "power": card.milliwatts,
        "energy": card.millijoules,
        "ecc": card.ecc,
        "remap": card.remap,
        "recovery": card.recovery,
        "events": int(card.has_events),
    }


def _process(process: OnCard) -> dict[str, object]:
    return {
        "device": process.device,
        "pid": process.pid,
        "memory": process.memory,
        "graphics": int(process.is_graphics),
        "bound": int(process.is_bound),
        "lag": process.lag,
    }
