"""Runs on shared cards, end to end: real children, a stand-in for the driver, stand-ins for the frameworks."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune.devices.ledger import Ledger
from aiotune.devices.nvml_readings import Sensor
from aiotune.devices.opening import open_pool
from aiotune.executors.base import Execution, Failed, Finished, GpuMeasured, Observed
from aiotune.executors.context import Program
from aiotune.executors.gpu_memory import CONTEXT_BYTES
from aiotune.executors.launch import acquire_server, release_server
from aiotune.executors.payload import Payload, Prelude
from aiotune.executors.process import ProcessExecutor
from aiotune.trial import FailureKind
from tests.support import gpu_framework, nvml_standin, programs
from tests.support.gpu_framework import CONTEXT, MIB, told
from tests.support.nvml_standin import Machine, equal_cards
from tests.support.processes import all_gone, descendants
from tests.support.runs import assign, collect, ending, of_kind, run_once
from tests.support.tuned import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")

GIB = 2**30
TOTAL = 80 * GIB
STEP = 256 * MIB  # as that much is taken at a time
FRAMEWORKS = ("tensorflow", "jax", "torch")
PRELOAD = ("standins",)

on_each_framework = pytest.mark.parametrize("name", FRAMEWORKS)


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory, nvml_library: Path) -> Iterator[Machine]:
    """Return a machine of four cards, for this process and those that it starts from now on."""
    machine = Machine(tmp_path_factory.mktemp("machine"), nvml_library, cards=equal_cards(4))
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(gpu_framework.FOLDER))
        for name, value in nvml_standin.environment(machine).items():
            patch.setenv(name, value)
        for name in ("CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", *JAX_VARIABLES):
            patch.delenv(name, raising=False)
        yield machine


JAX_VARIABLES = (
    *("XLA_PYTHON_CLIENT_MEM_FRACTION", "XLA_CLIENT_MEM_FRACTION"),
    "XLA_PYTHON_CLIENT_PREALLOCATE",
)


@pytest.fixture(scope="module", autouse=True)
def server(machine: Machine) -> Iterator[None]:
    """Keep one fork server alive that has the stand-ins loaded."""
    server = acquire_server(PRELOAD)
    yield
    release_server(server)


@pytest.fixture
def card(machine: Machine) -> str:
    return machine.cards[0].uuid


@asynccontextmanager
async def process(
    program: Program, *, setup: Prelude | None = None, **options: Any
) -> AsyncIterator[ProcessExecutor]:
    with Payload.create(program, prelude=setup) as payload:
        async with ProcessExecutor(payload, **{"preload": PRELOAD} | options) as executor:
            yield executor


def share(card: str, memory: int) -> dict[str, Any]:
    """Return what an assignment says of a part of a card."""
    return {"gpus": (card,), "gpu_memory": memory, "gpu_fraction": memory / TOTAL}


def used(machine: Machine, card: str) -> int:
    """Return what the driver says is in use."""
    with nvml_standin.load(machine), contextlib.closing(Sensor()) as sensor:
        bytes_in_use = sensor.read([card])[card].used_bytes
    assert bytes_in_use is not None
    return bytes_in_use


# --- what a run is shown


async def shown(directory: Path, **assignment: Any) -> dict[str, Any]:
    """Return what a run on these devices tells."""
    async with process(gpu_framework.tell) as executor:
        assert ending(await run_once(executor, directory, **assignment)) == Finished()
    return told(directory / "run.log")[-1]


async def test_cards_are_shown_by_uuid(machine: Machine, tmp_path: Path) -> None:
    cards = tuple(each.uuid for each in machine.cards[1:3])
    one = await shown(tmp_path, gpus=cards[:1])
    two = await shown(tmp_path, gpus=cards)
    part = await shown(tmp_path, **share(cards[0], GIB))
    none = await shown(tmp_path)
    places = [each["variables"]["CUDA_VISIBLE_DEVICES"] for each in (one, two, part, none)]
    assert places == [cards[0], ",".join(cards), cards[0], "-1"]


async def test_an_index_that_the_caller_has_reaches_no_run(
    card: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,0")
    facts = await shown(tmp_path, **share(card, GIB))
    assert facts["variables"]["CUDA_VISIBLE_DEVICES"] == card


async def test_the_fork_server_sees_the_cards_and_touches_none(card: str, tmp_path: Path) -> None:
    for assignment in (share(card, GIB), {"gpus": (card,)}, {}):
        facts = await shown(tmp_path, **assignment)
        assert facts["saw_gpu_at_import"] is True
        assert facts["is_awake"] is False
        assert "PYTORCH_NVML_BASED_CUDA_CHECK" not in facts["variables"]  # the run asks the driver


async def test_a_run_finds_the_drivers_library_closed(card: str, tmp_path: Path) -> None:
    uninitialized = 1
    assert (await shown(tmp_path, gpus=(card,)))["nvml"] == uninitialized


async def test_a_whole_card_is_used_as_the_user_has_set_it(card: str, tmp_path: Path) -> None:
    assert set((await shown(tmp_path, gpus=(card,)))["variables"]) == {
        *("CUDA_VISIBLE_DEVICES", "NVML_STANDIN")
    }


# --- limits


async def filled(
    directory: Path, name: str, *, setup: Prelude | None = None, **assignment: Any
) -> int:
    """Return how much a run can take before its framework says that memory is out."""
    program = functools.partial(gpu_framework.fill, name, STEP)
    async with process(program, setup=setup) as executor:
        last = ending(await run_once(executor, directory, **assignment))
    assert isinstance(last, Failed)
    assert last.kind is FailureKind.OUT_OF_MEMORY, last.text
    return int(told(directory / "run.log")[-1]["held"])


@on_each_framework
async def test_a_run_gets_its_share_and_no_more(card: str, name: str, tmp_path: Path) -> None:
    for memory in (2 * GIB, 20 * GIB):
        held = await filled(tmp_path, name, **share(card, memory))
        assert held + CONTEXT <= memory
        assert held > 0.95 * (memory - CONTEXT_BYTES) - STEP


@on_each_framework
async def test_who_has_the_card_alone_gets_all_of_it(card: str, name: str, tmp_path: Path) -> None:
    held = await filled(tmp_path, name, gpus=(card,))
    usual = {"tensorflow": 0.95, "jax": 0.7, "torch": 0.95}  # JAX takes three quarters
    assert held > usual[name] * TOTAL


@on_each_framework
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
async def test_a_framework_that_the_program_imports_is_limited_then(
    card: str, name: str, start_method: str, tmp_path: Path
) -> None:
    program = functools.partial(gpu_framework.fill, name, STEP)
    async with process(program, preload=(), start_method=start_method) as executor:
        events = await run_once(executor, tmp_path, **share(card, 4 * GIB))
    assert isinstance(last := ending(events), Failed)
    assert last.kind is FailureKind.OUT_OF_MEMORY
    (facts,) = told(tmp_path / "run.log")
    assert 3 * GIB < facts["held"] <= 4 * GIB - CONTEXT


def allow_growth() -> None:
    import tensorflow  # type: ignore[import-untyped, unused-ignore]

    for gpu in tensorflow.config.list_physical_devices("GPU"):
        tensorflow.config.experimental.set_memory_growth(gpu, True)


def configure_one_gibibyte() -> None:
    import tensorflow  # type: ignore[import-untyped, unused-ignore]

    for gpu in tensorflow.config.list_physical_devices("GPU"):
        own = tensorflow.config.LogicalDeviceConfiguration(memory_limit=1024)
        tensorflow.config.set_logical_device_configuration(gpu, [own])


async def test_growth_in_setup_is_growth_within_the_share(card: str, tmp_path: Path) -> None:
    memory = 4 * GIB
    held = await filled(tmp_path, "tensorflow", setup=allow_growth, **share(card, memory))
    assert 3 * GIB < held <= memory - CONTEXT


async def test_a_configuration_in_setup_wins(card: str, tmp_path: Path) -> None:
    memory = 4 * GIB
    held = await filled(tmp_path, "tensorflow", setup=configure_one_gibibyte, **share(card, memory))
    assert held == GIB


@pytest.mark.parametrize(
    ("name", "variable", "value"),
    [
        ("jax", "XLA_CLIENT_MEM_FRACTION", "0.5"),
        ("jax", "XLA_PYTHON_CLIENT_MEM_FRACTION", "0.5"),
        ("torch", "PYTORCH_CUDA_ALLOC_CONF", "per_process_memory_fraction:0.5"),
    ],
)
async def test_variables_of_the_user_win(
    card: str,
    name: str,
    variable: str,
    value: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(variable, value)
    held = await filled(tmp_path, name, **share(card, 4 * GIB))
    assert 0.45 * TOTAL < held < 0.5 * TOTAL


# --- what a run tells of its memory


async def measured(directory: Path, program: Program, **assignment: Any) -> list[int]:
    async with process(program) as executor:
        events = await run_once(executor, directory, **assignment)
    assert not isinstance(events[-1], GpuMeasured)
    return [each.peak_bytes for each in of_kind(events, GpuMeasured)]


@on_each_framework
async def test_a_run_tells_the_most_that_it_held(card: str, name: str, tmp_path: Path) -> None:
    program = functools.partial(gpu_framework.take, name, (GIB, 2 * GIB))
    for assignment in (share(card, 8 * GIB), {"gpus": (card,)}):
        peaks = await measured(tmp_path, program, **assignment)
        assert peaks[-1] == 3 * GIB + CONTEXT_BYTES
        assert peaks == sorted(peaks)


@on_each_framework
async def test_a_run_that_fails_tells_it_too(card: str, name: str, tmp_path: Path) -> None:
    program = functools.partial(gpu_framework.take, name, (GIB, 2 * TOTAL))
    assert (await measured(tmp_path, program, **share(card, 8 * GIB)))[-1] == GIB + CONTEXT_BYTES


async def test_a_run_that_touches_no_gpu_tells_nothing(card: str, tmp_path: Path) -> None:
    assert await measured(tmp_path, gpu_framework.tell, **share(card, 8 * GIB)) == []
    assert told(tmp_path / "run.log")[-1]["is_awake"] is False


# --- sharing


@asynccontextmanager
async def holding(
    executor: ProcessExecutor, directory: Path, **assignment: Any
) -> AsyncIterator[Execution]:
    """Have a run hold its memory for as long as the block lasts."""
    execution = await executor.start(assign(directory, **assignment))
    async with aclosing(execution.events()) as events:
        async for event in events:
            if isinstance(event, Observed):
                break
        else:
            pytest.fail("it ended")
        yield execution


async def test_runs_fill_a_card_without_a_failure(
    machine: Machine, card: str, tmp_path: Path
) -> None:
    """Four run at a time, each with a quarter of what is there and all that a quarter holds."""
    memory = (TOTAL - machine.cards[0].reserved) // 4
    program = functools.partial(
        gpu_framework.hold, "torch", memory - CONTEXT_BYTES - 256 * MIB, "stopped"
    )
    before = used(machine, card)
    async with (
        process(program) as executor,
        holding(executor, tmp_path / "a", **share(card, memory)),
        holding(executor, tmp_path / "b", **share(card, memory)),
        holding(executor, tmp_path / "c", **share(card, memory)),
        holding(executor, tmp_path / "d", **share(card, memory)),
    ):
        assert used(machine, card) > 0.9 * TOTAL
    assert used(machine, card) == before


async def test_sixty_models_of_two_gibibytes_fill_a_card(
    machine: Machine, card: str, tmp_path: Path
) -> None:
    program = functools.partial(
        gpu_framework.hold, "torch", 2 * GIB - CONTEXT_BYTES - MIB, "stopped"
    )
    resources = aiotune.Resources(gpus="shared", gpu_memory="2GiB")
    with nvml_standin.load(machine):
        pool = await open_pool(gpus=[card], max_concurrent=60, resources=resources, ledger=Ledger())
    most, left = 0, 60
    while left:
        async with AsyncExitStack() as stack:
            executor = await stack.enter_async_context(process(program))
            while left and (lease := pool.lease_nowait(resources)) is not None:
                stack.callback(lease.release)
                given = {"gpu_memory": lease.gpu_memory_bytes, "gpu_fraction": lease.gpu_fraction}
                directory = tmp_path / str(left)
                run = holding(executor, directory, gpus=lease.gpus, **given)
                await stack.enter_async_context(run)  # it holds its memory
                left -= 1
            most = max(most, used(machine, card))
    assert 0.9 * TOTAL < most <= TOTAL - machine.cards[0].reserved
    assert pool.free == pool.total


async def test_without_limits_the_second_would_find_nothing(
    machine: Machine, card: str, tmp_path: Path
) -> None:
    program = functools.partial(gpu_framework.hold, "tensorflow", GIB, "stopped")
    async with process(program) as executor, holding(executor, tmp_path / "a", gpus=(card,)):
        assert await filled(tmp_path, "tensorflow", gpus=(card,)) == 0


@on_each_framework
@pytest.mark.parametrize("end", ["killed", "exited", "stopped"])
async def test_the_memory_is_back_when_the_end_is_told(
    machine: Machine, card: str, name: str, end: str, tmp_path: Path
) -> None:
    program = functools.partial(gpu_framework.hold, name, GIB, end)
    before = used(machine, card)
    async with process(program) as executor:
        execution = await executor.start(assign(tmp_path, **share(card, 4 * GIB)))
        if end == "stopped":
            execution.request_stop("enough")
        last = (await collect(execution))[-1]
    assert isinstance(last, Finished if end == "stopped" else Failed)
    assert used(machine, card) == before


async def test_the_memory_of_a_run_that_is_cut_off_is_back(
    machine: Machine, card: str, tmp_path: Path
) -> None:
    before = used(machine, card)
    program = functools.partial(gpu_framework.hold, "jax", GIB, "stopped")
    async with process(program) as executor, holding(executor, tmp_path / "a", gpus=(card,)):
        assert used(machine, card) > before + GIB
    assert used(machine, card) == before


CALLER = """
    import asyncio, sys
    from contextlib import aclosing
    from functools import partial
    from pathlib import Path
    from aiotune.executors.payload import Payload
    from aiotune.executors.process import ProcessExecutor
    from tests.support import gpu_framework
    from tests.support.runs import assign

    async def main(directory, card):
        program = partial(gpu_framework.hold, "torch", 2**30, "stopped")
        with Payload.create(program) as payload:
            async with ProcessExecutor(payload, preload=("standins",)) as executor:
                execution = await executor.start(assign(Path(directory), gpus=(card,)))
                async with aclosing(execution.events()) as events:
                    async for event in events:
                        print(type(event).__name__, flush=True)

    sys.path.insert(0, str(gpu_framework.FOLDER))
    asyncio.run(main(*sys.argv[1:]))
"""


def test_the_memory_is_back_when_the_caller_was_killed(
    machine: Machine, card: str, tmp_path: Path
) -> None:
    before = used(machine, card)
    with programs.program(CALLER, tmp_path, card) as caller:
        while programs.line_of(caller) != "Observed":
            pass
        assert used(machine, card) > before + GIB
        theirs = descendants(caller.pid)
        caller.kill()
        assert all_gone(theirs, programs.DEADLINE_SECONDS)
    assert len(theirs) == 3  # guardian, fork server, run
    assert used(machine, card) == before


# --- a search


async def search(machine: Machine, directory: Path, **options: Any) -> aiotune.SearchResult:
    tuner = make(gpu_framework.Taking, directory, max_trials=6, preload=PRELOAD, **options)
    with nvml_standin.load(machine):
        result = await tuner.search()
    assert [trial.status for trial in result.trials] == ["COMPLETED"] * 6
    return result


def fractions(directory: Path) -> list[float | None]:
    """Return the part of its card that each completed run was told; None: all of it."""
    facts = [each for log in sorted(directory.rglob("run*.log")) for each in told(log)]
    parts = [each["variables"].get("XLA_PYTHON_CLIENT_MEM_FRACTION") for each in facts]
    return [None if each is None else float(each) for each in parts]


async def test_trials_share_cards_and_keep_to_their_parts(machine: Machine, tmp_path: Path) -> None:
    resources = aiotune.Resources(gpus=0.25)
    result = await search(machine, tmp_path, gpus="auto", resources=resources)
    parts = fractions(tmp_path)
    assert len(parts) == 6
    assert all(part is not None and 0.2 < part < 0.25 - CONTEXT / TOTAL for part in parts)
    uuids = {card.uuid for card in machine.cards}
    assert all(set(run.gpus) <= uuids for trial in result.trials for run in trial.runs)


async def test_what_the_first_trial_took_is_the_part_of_the_others(
    machine: Machine, card: str, tmp_path: Path
) -> None:
    """Those that want more are out of memory there, and have the card for themselves then."""
    resources = aiotune.Resources(gpus="shared")
    result = await search(machine, tmp_path, gpus=[card], resources=resources, seed=2)
    parts = fractions(tmp_path)
    assert len(parts) == 6
    assert None in parts  # the first
    assert any(part is not None and part < 0.1 for part in parts)
    failures = [run.failure for trial in result.trials for run in trial.runs if run.failure]
    assert set(failures) == {FailureKind.OUT_OF_MEMORY}


def test_this_process_has_none_of_the_stand_ins() -> None:
    folder = str(gpu_framework.FOLDER)
    files = [getattr(module, "__file__", None) or "" for module in list(sys.modules.values())]
    assert not [each for each in files if each.startswith(folder + os.sep)]
