"""A search made of fakes: memory store, fake executor, virtual clock, real scheduler."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.lowlevel
import anyio.to_thread

from aiotune.devices.base import Watcher
from aiotune.devices.device import Device
from aiotune.devices.ledger import Ledger
from aiotune.devices.meter import Meter
from aiotune.devices.pool import DevicePool
from aiotune.events import Event, SearchEnded, SearchOpened
from aiotune.executors.base import Executor
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.oracles.base import Oracle
from aiotune.plan import Hooks, Plan
from aiotune.pruners.base import Pruner
from aiotune.recorder import Recorder
from aiotune.resources import Limits, Resources
from aiotune.room import Room, Unlimited
from aiotune.scheduler import Scheduler
from aiotune.settlement import Policy
from aiotune.store.memory import MemoryStore
from tests.support.virtual_clock import VirtualClock


async def all_wait() -> None:
    """Return once every task waits, and for nothing that a thread is about to bring."""
    threads = anyio.to_thread.current_default_thread_limiter()
    await anyio.wait_all_tasks_blocked()
    while threads.borrowed_tokens:
        await anyio.lowlevel.checkpoint()
        await anyio.wait_all_tasks_blocked()


@dataclass
class SearchOfFakes:
    """Everything that one scheduler joins. `facts` is what the store has.

    Two with one `ledger` lease the same cores, if they have as many: the first ones of the machine.
    """

    oracle: Oracle
    executor: Executor
    root: Path
    slots: int = 1
    policy: Policy = field(default_factory=Policy)
    limits: Limits = field(default_factory=Limits)
    resources: Resources = field(default_factory=Resources)
    hooks: Hooks = field(default_factory=Hooks)
    pruner: Pruner | None = None
    room: Room = field(default_factory=Unlimited)
    has_discovery: bool = False
    store: MemoryStore = field(default_factory=MemoryStore)
    clock: VirtualClock = field(default_factory=VirtualClock)
    earlier: Sequence[Event] = ()
    ledger: Ledger | None = None
    cores: int | None = None  # None: one for each slot
    devices: Sequence[Device] = ()
    meter: Meter | None = None
    shared_slots: int | None = None
    watch: Watcher | None = None

    def __post_init__(self) -> None:
        if self.oracle.seed is None:
            self.oracle.seed = 1
        self.history = History(self.earlier)
        cores = range(self.cores or self.slots)
        self.pool = DevicePool(
            self.devices,
            cores=cores,
            slots=self.slots,
            shared_slots=self.shared_slots,
            ledger=self.ledger,
            meter=self.meter,
            watch=self.watch,
        )
        self.scheduler = Scheduler(
            oracle=self.oracle,
            recorder=Recorder(self.store, self.history),
            pool=self.pool,
            executor=self.executor,
            plan=Plan(
                layout=Layout(self.root, "search"),
                policy=self.policy,
                limits=self.limits,
                resources=self.resources,
                pruner=self.pruner,
                room=self.room,
                has_discovery=self.has_discovery,
                hooks=self.hooks,
            ),
            clock=self.clock,
        )

    async def run(self) -> SearchEnded:
        """Run the search from the facts so far."""
        for fact in self.earlier:
            await self.store.append(fact)
        if not self.earlier:
            objective = self.oracle.objective.get_config()
            opened = SearchOpened(self.clock.now(), objective, 1, "Fake", "0")
            await self.store.append(opened)
            self.history.apply(opened)
        return await self.scheduler.run()

    def again(
        self, oracle: Oracle, facts: Sequence[Event] | None = None, **changes: object
    ) -> SearchOfFakes:
        """Return the search that a new process would open on the same facts, or on `facts`."""
        given: dict[str, object] = {
            "executor": self.executor,
            "root": self.root,
            "slots": self.slots,
            "policy": self.policy,
            "limits": self.limits,
            "pruner": self.pruner,
            "resources": self.resources,
            "devices": self.devices,
        }
        given |= changes
        return SearchOfFakes(
            oracle=oracle, earlier=self.store.facts if facts is None else facts, **given
        )  # type: ignore[arg-type]

    async def resumed_at_every_cut(
        self, oracle: Callable[[], Oracle], **changes: object
    ) -> AsyncIterator[tuple[int, History]]:
        """Cut the log after each fact in turn and resume there; yield the cut and the history at the end."""
        facts = self.store.facts
        for cut in range(1, len(facts)):
            resumed = self.again(oracle(), facts=facts[:cut], **changes)
            await resumed.run()
            yield cut, resumed.history
