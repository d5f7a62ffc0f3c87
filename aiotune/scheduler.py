"""The loop that joins oracle, store, devices and executor: vacancy, ask, lease, run, record, judge, tell.

One task dispatches, one task follows each run (see `Runner`); all are children of `Scheduler.run`. They share
the history, which only `Recorder.record` changes, and wake the dispatcher through `_changes`. Nothing here
waits on a timer, but for the limits that are times.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import assert_never

import anyio
import anyio.lowlevel
from anyio.abc import TaskGroup

from aiotune.adoption import adopt
from aiotune.asking import Asked, Asker
from aiotune.calling import error_text
from aiotune.clock import Clock
from aiotune.devices.base import Pool
from aiotune.devices.lease import Lease
from aiotune.discovery import check_range, discover
from aiotune.end_rules import Ending, EndRules
from aiotune.errors import DiskFull, FatalRuntimeError, StoreError
from aiotune.events import (
    CheckpointsDropped,
    DeviceChanged,
    EndReason,
    Event,
    Reported,
    RunStarted,
    SearchEnded,
    SpaceGrew,
    TrialCreated,
    TrialPromoted,
)
from aiotune.executors.base import Executor
from aiotune.hyperparameters import HyperParameters
from aiotune.inheritance import inherit
from aiotune.oracles.base import Exhausted, Oracle, Promote, Retire, Suggest, Wait
from aiotune.plan import Plan
from aiotune.private_files import require_directory
from aiotune.recorder import LONGEST_WRITE_SECONDS, Recorder
from aiotune.resources import Resources, check_answer
from aiotune.run_queue import RunQueue
from aiotune.runner import RunKey, Runner, Spawn, Task
from aiotune.settlement import Work, pending
from aiotune.tasks import Changes
from aiotune.trial import Budget, StopCause, Trial, TrialState, trial_id_of

__all__ = ["Scheduler"]

_NATURAL_ENDS = (EndReason.MAX_TRIALS, EndReason.EXHAUSTED)


class Scheduler:
    """Runs the trials of one search, once. `run` returns why it ended, or raises."""

    def __init__(
        self,
        *,
        oracle: Oracle,
        recorder: Recorder,
        pool: Pool,
        executor: Executor,
        plan: Plan,
        clock: Clock,
    ) -> None:
        self._oracle = oracle
        self._recorder = recorder
        self._history = recorder.history
        self._pool = pool
        self._executor = executor
        self._plan = plan
        self._clock = clock
        self._asker = Asker(oracle, self._history, clock, may_use_threads=not plan.is_simulated)
        self._queue = RunQueue(self._history, plan.policy)
        self._runner = Runner(
            oracle=oracle,
            asker=self._asker,
            history=self._history,
            record=self._record,
            executor=executor,
            pool=pool,
            plan=plan,
            clock=clock,
        )
        self._rules = EndRules(
            self._history,
            oracle.objective,
            plan.limits,
            oracle.max_consecutive_failed_trials,
            plan.policy.bounds,
        )
        self._changes = Changes()
        self._waiting: dict[str, Resources] = {}  # by trial: what it lacked when last looked at
        self._ending: Ending | None = None
        self._stop_cause: StopCause | None = None  # what runs in progress are asked to stop for
        self._error: Exception | None = None
        self._discovery = anyio.CancelScope()  # cancelled by whatever would stop a run
        self._hooking = anyio.CancelScope()  # a hook before something that will not come any more

    @property
    def waiting(self) -> Mapping[str, str]:
        """The trials that wait for a device, each with its reason."""
        why = {resources: self._pool.why(resources) for resources in {*self._waiting.values()}}
        return {
            trial_id: f"no device is free for {resources}: {why[resources]}"
            for trial_id, resources in self._waiting.items()
        }

    @property
    def running(self) -> frozenset[RunKey]:
        """The runs in progress: trial id and index of the run."""
        return self._runner.active

    def request_stop(self) -> None:
        """Start no further run, ask those in progress to stop; `run` then returns. Returns at once."""
        self._finish(Ending(EndReason.STOPPED), StopCause.USER)

    def forget_prepared(self) -> None:
        """Ask anew for the next trial: what the oracle would answer has been changed. Returns at once."""
        self._asker.forget_prepared()
        self._changes.tell()

    # --- the life of a search ---

    async def run(self) -> SearchEnded:
        """Return why the search ended. Raises what made it impossible to go on, after recording it."""
        loop = asyncio.get_running_loop()

        def wake() -> None:  # from whichever thread gave a device back
            loop.call_soon_threadsafe(self._changes.tell)

        def ask_anew() -> None:
            loop.call_soon_threadsafe(self.forget_prepared)

        unsubscribe = self._pool.subscribe(wake)
        self._plan.room.subscribe(self._changes.tell)
        self._oracle.watch_queue(ask_anew)
        try:
            async with anyio.create_task_group() as tasks:
                with self._catching(tasks):
                    await self._conduct(tasks)
                tasks.cancel_scope.cancel()  # what is left are timers, and an answer that nobody wants
        finally:
            self._oracle.watch_queue(None)
            unsubscribe()
            self._runner.release_left()
        if self._error is not None:
            with suppress(StoreError):  # it may be the store that failed
                await self._record_end(EndReason.FAILED, error_text(self._error))
            raise self._error
        assert self._ending is not None
        return await self._record_end(self._ending.reason, self._ending.message)

    async def _conduct(self, tasks: TaskGroup) -> None:
        spawn = self._spawner(tasks)
        spawn(self._stop_runs)
        spawn(self._pool.tend, self._note_device)
        await anyio.lowlevel.checkpoint()  # the watch stands before the first lease
        if self._plan.limits.max_time is not None:
            tasks.start_soon(self._end_after, self._plan.limits.max_time)
        await self._call(self._plan.hooks.on_search_begin)
        if self._rules.spending.is_limited:
            spawn(self._end_when_spent)
        await self._adopt_open_trials()
        if ending := self._rules.already():
            self._finish(ending)
        if self._needs_discovery():
            await self._discover()
        while True:
            changed = self._changes.next()
            if self._ending is not None and self._ending.error is not None:
                raise self._ending.error
            if await self._start_next(spawn):
                continue
            if self._ending is not None and not self._runner.count:
                await self._complete_paused_trials()
                return await self._plan.room.wait_settled()
            await changed.wait()

    async def _call(self, hook: Callable[[], Awaitable[None]]) -> None:
        """Call a hook of the user's, for as long as the search goes on."""
        if self._ending is None:
            with anyio.CancelScope() as self._hooking:
                await hook()

    async def _stop_runs(self) -> None:
        """Ask the runs in progress to stop once that is wished, also those that were being started just then.

        Whoever starts runs may be waiting for a hook or for the oracle.
        """
        while True:
            changed = self._changes.next()
            if self._stop_cause is not None:
                await self._runner.stop(self._runner.active, self._stop_cause)
            await changed.wait()

    @contextmanager
    def _catching(self, tasks: TaskGroup) -> Iterator[None]:
        """Keep the first error of any task, and end all tasks: no exception group reaches the user."""
        try:
            yield
        except Exception as error:
            if self._error is None:
                self._error = error
            tasks.cancel_scope.cancel()

    def _spawner(self, tasks: TaskGroup) -> Spawn:
        """Return what starts a task of the search: its error ends the search, as any other does."""

        async def guarded(function: Task, arguments: tuple[object, ...]) -> None:
            with self._catching(tasks):
                await function(*arguments)

        def spawn(function: Task, *arguments: object) -> None:
            tasks.start_soon(guarded, function, arguments)

        return spawn

    async def _record(self, *facts: Event, longest_seconds: float = LONGEST_WRITE_SECONDS) -> None:
        await self._recorder.record(*facts, longest_seconds=longest_seconds)
        for fact in facts:
            self._queue.note(fact)
            if ending := self._rules.after(fact):
                self._finish(ending, StopCause.LIMIT)
        if not isinstance(facts[-1], Reported):  # a report alone lets nothing new start
            self._changes.tell()

    async def _note_device(self, device: str, reason: str | None) -> None:
        await self._record(DeviceChanged(self._clock.now(), device, reason))

    async def _record_end(self, reason: EndReason, message: str | None) -> SearchEnded:
        end = SearchEnded(self._clock.now(), reason, message)
        await self._recorder.record(end)
        return end

    async def _end_after(self, seconds: float) -> None:
        await self._clock.sleep(seconds)
        self._finish(Ending(EndReason.TIME, f"max_time of {seconds:g} s is over"), StopCause.LIMIT)

    async def _end_when_spent(self) -> None:
        """End the search once GPU time or energy is used up, also in the middle of runs."""
        while True:
            changed = self._changes.next()
            running = self._runner.usages()
            if ending := self._rules.spent(running):
                return self._finish(ending, StopCause.LIMIT)
            seconds = self._rules.spending.next_look(running, len(self._runner.gpus))
            async with anyio.create_task_group() as waiting:
                if seconds is not None:
                    waiting.start_soon(self._cancel_after, seconds, waiting.cancel_scope)
                await changed.wait()
                waiting.cancel_scope.cancel()

    async def _cancel_after(self, seconds: float, scope: anyio.CancelScope) -> None:
        await self._clock.sleep(seconds)
        scope.cancel()

    def _finish(self, ending: Ending, cause: StopCause | None = None) -> None:
        """Let the search end; with a cause, what is in progress is asked to stop for it."""
        if self._ending is None:
            self._ending = ending
            self._hooking.cancel()
            self._asker.close()
        if cause is not None:
            self._stop_cause = self._stop_cause or cause
            self._discovery.cancel()
        self._changes.tell()

    # --- opening ---

    async def _adopt_open_trials(self) -> None:
        """End what an earlier process left in progress."""
        is_ending = self._rules.already() is not None
        await adopt(self._history, self._runner, self._record, self._clock, is_ending=is_ending)

    def _needs_discovery(self) -> bool:
        has_work = self._history.open_trials() or not self._is_full()
        return self._plan.has_discovery and bool(has_work) and self._ending is None

    async def _discover(self) -> None:
        """Meet the names of the space before the first trial, on the processor."""
        with self._discovery:
            resources, layout = self._plan.resources, self._plan.layout
            cpus = None if callable(resources) else resources.cpus
            found = await discover(
                self._oracle,
                layout,
                self._pool,
                self._executor,
                cpus,
                memory=None if callable(resources) else resources.memory,
                limits=self._plan.limits,
                clock=self._clock,
                makes_directory=not self._plan.is_simulated,
            )
            check_range(self._history, self._oracle, found.space, found.redeclared)
            added = tuple(each for each in found.space if each not in self._history.space)
            redeclared = found.redeclared - self._history.redeclared - self._oracle.given
            if added or redeclared:
                now = self._clock.now()
                await self._record(SpaceGrew(now, None, added, tuple(sorted(redeclared))))

    # --- dispatching ---

    async def _start_next(self, spawn: Spawn) -> bool:
        """Start one run or record one new trial; False if nothing can be done before something changes."""
        if self._ending is not None or not (self._plan.room.is_settled and self._has_disk()):
            return False
        if await self._start_pending(spawn):
            return True
        if len(self._waiting) >= self._pool.slots:
            return False
        if not self._has_vacancy():
            self._prepare(spawn)
            return False
        return await self._ask()

    def _has_disk(self) -> bool:
        """Tell whether the oldest run that waits has room for its checkpoints. DiskFull if it never will."""
        room, waiting = self._plan.room, next(iter(self._queue), None)
        if waiting is None or room.admits(waiting[1][0]):
            return True
        if room.is_settled and not self._runner.count:
            raise DiskFull(
                f"{room.lack}. Raise max_disk, or keep fewer checkpoints, then call search() again to go on: "
                "every result so far is kept"
            )
        return False

    async def _start_pending(self, spawn: Spawn) -> bool:
        """Start the oldest run that fits what is free; one that does not fit holds no other up."""
        self._waiting.clear()
        refused: set[Resources] = set()  # in this look, during which nothing is given back
        for trial, works in self._queue:
            resources = self._resources_of(trial)
            if works[0].alone:
                had = max((run.gpu_memory or 0 for run in trial.runs), default=0)
                resources = resources.alone(had)
            lease = None if resources in refused else self._pool.lease_nowait(resources)
            if lease is not None:
                await self._start(works[0], trial, lease, spawn)
                return True
            refused.add(resources)
            self._waiting[trial.trial_id] = resources
        return False

    def _resources_of(self, trial: Trial) -> Resources:
        resources = self._plan.resources
        if not callable(resources):
            return resources
        try:
            asked = resources(HyperParameters(self._history.space, dict(trial.values)))
        except Exception as error:
            raise FatalRuntimeError(
                f"resources() failed for trial {trial.trial_id} at {dict(trial.values)}: "
                f"{type(error).__name__}: {error}. A name that is not known before a trial runs must be "
                "declared in `hyperparameters`, or given a default there: hp.values.get(name, ...)"
            ) from error
        check_answer(asked)
        return asked

    def _has_vacancy(self) -> bool:
        """Tell whether the smallest request fits now. No device is held while the oracle thinks."""
        resources = self._plan.resources
        return self._pool.has_room(Resources(gpus=0, cpus=1) if callable(resources) else resources)

    async def _start(self, work: Work, trial: Trial, lease: Lease, spawn: Spawn) -> None:
        """Record the run's start, then follow it in a task of its own, which owns the lease."""
        layout = self._plan.layout
        log = layout.run_log(trial.trial_id, work.run) if self._executor.writes_logs else None
        try:
            if not self._plan.is_simulated:
                directory = layout.trial(trial.trial_id)
                await anyio.to_thread.run_sync(require_directory, directory)
            async with self._runner.turn(trial.trial_id):
                if work not in pending(self._history.trial(work.trial_id), self._plan.policy):
                    return lease.release()  # another run of the trial has ended it meanwhile
                await self._record(
                    RunStarted(
                        self._clock.now(),
                        trial.trial_id,
                        work.run,
                        work.repeat,
                        work.attempt,
                        lease.names,
                        None if log is None else str(log),
                        trial.budget,
                        work.continues,
                        lease.gpu_memory_bytes,
                        lease.gpu_fraction,
                    )
                )
                self._runner.adopt(trial.trial_id, work.run, lease)
        except BaseException:
            lease.release()
            raise
        return spawn(self._perform, (trial.trial_id, work.run), lease, spawn)

    async def _perform(self, key: RunKey, lease: Lease, spawn: Spawn) -> None:
        try:
            await self._runner.perform(key, lease, spawn)
        finally:
            self._changes.tell()

    # --- asking ---

    def _prepare(self, spawn: Spawn) -> None:
        """Let the next trial be asked for while others run. What waits for a device already comes before it."""
        if self._runner.count > 1 and not self._waiting and not self._is_full():
            self._asker.prepare(self._history.next_number, spawn)

    async def _ask(self) -> bool:
        """Ask the oracle once; True if it gave work."""
        if self._is_full() and not self._history.has_paused_trials:
            return self._end_if(not self._history.has_trials_in_flight, EndReason.MAX_TRIALS)
        await self._call(self._plan.hooks.pre_create_trial)
        if self._ending is not None:  # it took its time
            return False
        asked = await self._asker.ask(self._history.next_number)
        if asked is None or self._ending is not None:  # the oracle took its time
            return False
        return await self._follow(asked)

    async def _follow(self, asked: Asked) -> bool:
        """Do what the oracle has answered; True if it gave work."""
        match asked.answer:
            case Suggest() if self._is_full():
                return self._end_if(asked.was_idle, EndReason.MAX_TRIALS)
            case Suggest() as answer:
                await self._create(answer, asked)
                return True
            case Promote() as answer:
                await self._promote(answer)
                return True
            case Retire(trial_id):
                await self._runner.complete(self._paused(trial_id, "retires"))
                return True
            case Wait():
                if asked.was_idle:
                    raise FatalRuntimeError(
                        f"{type(self._oracle).__name__}.ask() waits with nothing in flight: it must propose "
                        "a trial or answer Exhausted()"
                    )
                return False
            case Exhausted(message):
                return self._end_if(asked.was_idle, EndReason.EXHAUSTED, message)
            case _:
                assert_never(asked.answer)

    async def _promote(self, answer: Promote) -> None:
        trial = self._paused(answer.trial_id, "promotes")
        if trial.budget == answer.budget:
            raise FatalRuntimeError(
                f"{type(self._oracle).__name__}.ask() promotes trial {trial.trial_id} to the budget that it "
                f"has: {answer.budget}"
            )
        await self._record(TrialPromoted(self._clock.now(), answer.trial_id, answer.budget))

    def _paused(self, trial_id: str, verb: str) -> Trial:
        """Return the trial. FatalRuntimeError unless it is paused."""
        trial = self._history.trial(trial_id)
        if trial.state is not TrialState.PAUSED:
            raise FatalRuntimeError(
                f"{type(self._oracle).__name__}.ask() {verb} trial {trial_id}, which is {trial.status}: it may "
                "do so to a paused trial only"
            )
        return trial

    async def _create(self, answer: Suggest, asked: Asked) -> None:
        trial_id = trial_id_of(asked.number)
        facts: list[Event] = []
        if answer.parent is not None:
            facts = await self._inherit(answer.parent, trial_id, answer.budget)
        created = TrialCreated(
            self._clock.now(),
            trial_id=trial_id,
            number=asked.number,
            stream=answer.stream,
            values=dict(answer.values),
            asked_after=asked.asked_after,
            budget=answer.budget,
            parent=answer.parent,
        )
        await self._record(created, *facts)

    async def _inherit(self, parent: str, child: str, budget: Budget | None) -> list[Event]:
        """Let a trial to come begin with the checkpoints of one that waits where its budget begins.

        Returns the fact of those that the parent has no longer, so that the trial begins anew.
        """
        trial = self._paused(parent, "derives a trial from")
        reached = None if trial.budget is None else trial.budget.epochs
        if budget is None or budget.initial_epoch != reached:
            raise FatalRuntimeError(
                f"{type(self._oracle).__name__}.ask() derives a trial with {budget} from trial {parent}, which "
                f"is paused after epoch {reached}: its budget must begin there"
            )
        if not self._plan.is_simulated:
            with self._plan.room.pinned(parent):
                await anyio.to_thread.run_sync(inherit, self._plan.layout, parent, child)
        lost = self._history.dropped_now(trial)
        return [CheckpointsDropped(self._clock.now(), child, lost)] if lost else []

    def _is_full(self) -> bool:
        most = self._oracle.max_trials
        return most is not None and self._history.counted() >= most

    def _end_if(self, is_idle: bool, reason: EndReason, message: str | None = None) -> bool:
        """Let the search end if nothing was in flight that could have changed that: a duplicate, a new name."""
        if is_idle:
            self._finish(Ending(reason, message))
        return False

    async def _complete_paused_trials(self) -> None:
        """End the trials that were not promoted, once no promotion can come."""
        if self._ending is None or self._ending.reason not in _NATURAL_ENDS:
            return
        for trial in self._history.open_trials():
            if trial.state is TrialState.PAUSED:
                await self._runner.complete(trial)
