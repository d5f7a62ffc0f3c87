"""Search: one search in progress. It owns every resource, and gives each back whatever happens."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import anyio
from anyio.abc import TaskGroup

from aiotune.arguments import in_lines, takes_keyword
from aiotune.calling import called
from aiotune.checkpoints import Keep
from aiotune.clock import Clock, SystemClock
from aiotune.devices.opening import open_pool
from aiotune.devices.pool import DevicePool
from aiotune.errors import FatalRuntimeError, FatalValueError, StoreMismatch
from aiotune.event_log import EventLog, EventStream
from aiotune.events import Event, SearchOpened, SpaceGrew
from aiotune.executors.base import Executor
from aiotune.executors.inline import InlineExecutor
from aiotune.executors.world import World
from aiotune.history import History
from aiotune.hypermodel import defines_fit
from aiotune.notebook import is_in_kernel, stay_interruptible
from aiotune.observers.progress import Verbose, make_progress
from aiotune.oracles.base import Oracle
from aiotune.plan import Hooks, Plan
from aiotune.processes import open_trial_processes
from aiotune.program import AsyncTunerProgram, Tunable, TunerProgram
from aiotune.project import Project
from aiotune.recorder import Observer, Recorder
from aiotune.resources import Resources
from aiotune.results import SearchResult, SearchStatus, optuna_study
from aiotune.retention import Janitor
from aiotune.room import Room
from aiotune.scheduler import Scheduler
from aiotune.settlement import Policy
from aiotune.space import Space
from aiotune.spending import warn_without_gpus
from aiotune.store.lock import hold_lock
from aiotune.store.sqlite import open_store
from aiotune.tasks import in_thread, made_in_thread, undisturbed
from aiotune.version import __version__

if TYPE_CHECKING:
    from aiotune.optuna_study import BaseStorage, Study

__all__ = ["Search"]


class Search:
    """A search in progress: `async with tuner.start(...) as search`.

    Its work is done by one background task, which never raises: `result()` does. Leaving the block cancels the
    task and waits until every child has ended and every fact is written. `display` is the `verbose` of a search
    that is given none. It may be made outside of the loop that it is then used in; the world of its children is
    this process's as it is when it is made.
    """

    def __init__(
        self,
        tuner: Tunable,
        project: Project,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        display: Verbose = 0,
        clock: Clock | None = None,
    ) -> None:
        self._tuner = tuner
        self._project = project
        self._args = args
        self._kwargs = dict(kwargs)
        self._folds = tuner.count_folds(args, kwargs)
        if project.settings.pruner is not None:
            repeats = tuner.executions_per_trial * self._folds
            project.settings.pruner.check(tuner.objective, repeats)
        self._verbose: Verbose = kwargs.get("verbose", display)
        self._clock = clock or SystemClock()
        self._world = World.current()
        self._log = EventLog()
        self._scheduler: Scheduler | None = None
        self._is_begun = False
        self._is_stop_requested = False
        self._outcome: SearchResult | Exception | None = None
        self._done: anyio.Event  # what follows belongs to a loop, and so begins with it
        self._tasks: TaskGroup
        self._keeper: asyncio.Task[None]

    async def __aenter__(self) -> Self:
        if self._is_begun:
            raise FatalRuntimeError(
                "a Search runs once: call tuner.start(...) again for another one, which goes on from there"
            )
        self._is_begun = True
        self._done = anyio.Event()
        self._tasks = anyio.create_task_group()
        # The group has a task of its own, for another task may leave the block than the one that entered it:
        # where a fixture or an abandoned generator has it.
        self._keeper = asyncio.create_task(self._keep(), name="aiotune search")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks.cancel_scope.cancel()
        await undisturbed(self._keeper)

    # --- for its owner ---

    def events(self) -> EventStream:
        """Return an async iterator over the search's events, from the first one to the last."""
        self._require_begun()
        return EventStream(self._log)

    async def result(self) -> SearchResult:
        """Wait for the end and return what was found; raises the error that ended the search."""
        self._require_begun()
        await self._done.wait()
        if isinstance(self._outcome, SearchResult):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome

    def request_stop(self) -> None:
        """Start no further run and ask those in progress to stop at their next batch. Returns at once.

        Their trials are not lost: a later search of the project runs them again.
        """
        self._is_stop_requested = True
        if self._scheduler is not None:
            self._scheduler.request_stop()

    def status(self) -> SearchStatus:
        """Return how the search stands, from memory."""
        history = self._project.known
        scheduler = self._scheduler
        running = {trial_id for trial_id, _ in scheduler.running} if scheduler else set()
        best = history.best_trials(self._tuner.objective, 1)
        return SearchStatus(
            counts=history.counts(),
            running=tuple(sorted(running)),
            waiting=scheduler.waiting if scheduler else {},
            best=best[0] if best else None,
            ended=history.ended.reason if self._outcome is not None and history.ended else None,
        )

    def to_optuna(
        self, study_name: str | None = None, storage: str | BaseStorage | None = None
    ) -> Study:
        """Return the trials so far, also those in progress, as a study of Optuna; see `SearchResult.to_optuna`.

        study_name: by default that of the project. A storage blocks while it writes, and may be written to from
        a thread: `await asyncio.to_thread(search.to_optuna, storage="sqlite:///study.db")`.
        """
        name = study_name or self._project.layout.project_name
        trials = tuple(self._project.known.trials.values())
        return optuna_study(trials, self._tuner.objective, name, storage)

    def _require_begun(self) -> None:
        if not self._is_begun:
            raise FatalRuntimeError(
                "the search has not begun: write `async with tuner.start(...) as search:`"
            )

    # --- its life ---

    async def _keep(self) -> None:
        """Be the parent of all tasks of the search."""
        with suppress(
            asyncio.CancelledError
        ):  # by a stranger: the search has ended then, as `result` tells
            async with self._tasks:
                self._tasks.start_soon(self._drive)
                if is_in_kernel():
                    self._tasks.start_soon(stay_interruptible)

    async def _drive(self) -> None:
        try:
            self._outcome = await self._run()
        except Exception as error:
            self._outcome = error
        finally:
            if self._outcome is None:
                self._outcome = FatalRuntimeError("the search was cancelled")
            self._log.close()
            self._done.set()

    async def _run(self) -> SearchResult:
        project, settings, oracle = self._project, self._project.settings, self._project.oracle
        async with AsyncExitStack() as stack:
            lock = hold_lock(project.layout.lock)
            await made_in_thread(partial(stack.enter_context, lock))
            executor = await self._open_executor(stack)
            store = await stack.enter_async_context(
                open_store(project.layout.store, durability=settings.durability)
            )
            history = await anyio.to_thread.run_sync(History, await store.load())
            check_objective(history, self._tuner, oracle)
            check_folds(history, self._tuner, self._folds)
            pool = await open_pool(
                gpus=self._gpus(),
                max_concurrent=self._most_runs(),
                resources=None if callable(settings.resources) else settings.resources,
                priority=settings.priority,
                busy_gpus=settings.busy_gpus,
                in_caller=isinstance(executor, InlineExecutor),
                clock=self._clock,
            )
            check_resources(pool, settings.resources)
            if not pool.devices:
                warn_without_gpus(settings.limits)
            project.hold(history)
            janitor = self._make_janitor()
            observers: list[Observer] = [*self._open_progress(stack, executor), janitor]
            recorder = Recorder(store, history, [self._log, *settings.observers, *observers])
            await self._open_study(recorder)
            self._tasks.start_soon(janitor.work, recorder)
            stack.push_async_callback(janitor.close)
            scheduler = Scheduler(
                oracle=oracle,
                recorder=recorder,
                pool=pool,
                executor=executor,
                plan=self._plan(janitor),
                clock=self._clock,
            )
            return await self._conduct(scheduler, history)

    async def _conduct(self, scheduler: Scheduler, history: History) -> SearchResult:
        self._scheduler = scheduler
        if self._is_stop_requested:
            scheduler.request_stop()
        end = await scheduler.run()
        await called(self._tuner.on_search_end)
        trials = tuple(history.trials.values())
        return SearchResult(end.reason, end.message, trials, self._tuner.objective)

    async def _open_study(self, recorder: Recorder) -> None:
        """Fix the seed, and record that this process opened the search and what the user declared."""
        oracle, history = self._project.oracle, recorder.history
        if oracle.seed is None:
            oracle.seed = history.opened.seed if history.opened else secrets.randbits(32)
        given = tuple(each for each in oracle.hyperparameters.space if each not in history.space)
        now = self._clock.now()
        facts: list[Event] = [
            SearchOpened(
                now,
                self._tuner.objective.get_config(),
                oracle.seed,
                type(oracle).__name__,
                __version__,
                self._folds,
            )
        ]
        if given:
            facts.append(SpaceGrew(now, None, given))
        await recorder.record(*facts)

    async def _open_executor(self, stack: AsyncExitStack) -> Executor:
        choice = self._project.settings.executor
        is_async = self._tuner.has_async_trials
        idle = self._project.settings.for_children
        if idle and (is_async or isinstance(choice, Executor)):
            where = "an `async def run_trial`" if is_async else "an executor of your own"
            raise FatalValueError(
                f"{idle[0]} is for the child processes of aiotune and has no effect with {where}: drop it"
            )
        if isinstance(choice, Executor):
            return await stack.enter_async_context(choice)
        if is_async and choice == "process":
            raise FatalValueError(
                'an `async def run_trial` runs in the caller\'s event loop; with executor="process" write '
                "`def run_trial`"
            )
        kwargs, grace = self._fit_kwargs(), self._project.settings.grace_seconds
        if is_async:
            program = AsyncTunerProgram(self._tuner, self._args, kwargs)
            return await stack.enter_async_context(InlineExecutor(program, grace_seconds=grace))
        if choice == "inline":
            plain = TunerProgram(self._tuner, self._args, kwargs)
            return await stack.enter_async_context(
                InlineExecutor(plain, allow_blocking=True, grace_seconds=grace)
            )
        return await open_trial_processes(
            stack, self._tuner, self._project, self._args, kwargs, world=self._world
        )

    def _fit_kwargs(self) -> dict[str, Any]:
        """Return the keywords for `run_trial`, less `verbose` where it takes none."""
        kwargs, tuner = dict(self._kwargs), self._tuner
        if tuner.trains_by_itself:
            assert tuner.hypermodel is not None
            return in_lines(kwargs, is_taken=not defines_fit(tuner.hypermodel))
        if not takes_keyword(tuner.run_trial, "verbose"):
            kwargs.pop("verbose", None)
        return kwargs

    def _most_runs(self) -> int | None:
        """Return how many runs there may be at a time: one, if each blocks the caller's thread."""
        most, executor = (
            self._project.settings.max_concurrent_trials,
            self._project.settings.executor,
        )
        if executor != "inline" or self._tuner.has_async_trials:
            return most
        if most not in (None, 1):
            raise FatalValueError(
                f'max_concurrent_trials={most} has no effect with executor="inline", which runs one trial '
                "after the other: drop it"
            )
        return 1

    def _gpus(self) -> Any:
        """Return which GPUs to use: none for trials that run in the caller's own loop, unless asked for."""
        settings = self._project.settings
        asks = callable(settings.resources) or bool(settings.resources.gpus)
        if self._tuner.has_async_trials and settings.gpus == "auto" and not asks:
            return 0
        return settings.gpus

    def _open_progress(self, stack: AsyncExitStack, executor: Executor) -> list[Observer]:
        """Open the display that `verbose` asks for; leaving `stack` ends it and tidies the terminal."""
        has_model = self._tuner.hypermodel is not None
        progress = make_progress(
            self._verbose,
            self._tuner.objective,
            self._project.oracle.max_trials,
            starting=f"importing {self._tuner.model_framework}" if has_model else None,
            output=self._project.layout.run_logs if executor.writes_logs else None,
            unit="epoch" if has_model else "step",
        )
        if progress is None:
            return []
        stack.push_async_callback(in_thread, progress.close)
        return [progress]

    def _make_janitor(self) -> Janitor:
        """Return what measures checkpoints, and deletes those that nobody will ask for."""
        settings = self._project.settings
        return Janitor(
            self._project.layout,
            self._tuner.objective,
            Keep.of(settings.keep_checkpoints),
            self._clock,
            settings.max_disk_bytes,
        )

    def _plan(self, room: Room) -> Plan:
        tuner, settings, oracle = self._tuner, self._project.settings, self._project.oracle
        return Plan(
            layout=self._project.layout,
            policy=Policy(
                repeats=tuner.executions_per_trial * self._folds,
                retries=oracle.max_retries_per_trial,
                folds=self._folds,
                bounds=oracle.bounds,
            ),
            limits=settings.limits,
            pruner=settings.pruner,
            room=room,
            resources=settings.resources,
            # A setup is tried out before the first trial, too.
            has_discovery=tuner.has_discovery or settings.setup is not None,
            hooks=Hooks(
                on_search_begin=partial(called, tuner.on_search_begin),
                on_trial_begin=partial(called, tuner.on_trial_begin),
                on_trial_end=partial(called, tuner.on_trial_end),
                pre_create_trial=partial(called, tuner.pre_create_trial),
            ),
        )


def check_objective(history: History, tuner: Tunable, oracle: Oracle) -> None:
    """Raise StoreMismatch if the project was searched for another objective, or in other given ranges."""
    opened = history.opened
    if opened is None:
        return
    declared = tuner.objective.get_config()
    if dict(opened.objective) != declared:
        raise StoreMismatch(
            f"the project {tuner.project_dir} was searched for another objective:\n"
            f"  stored:   {dict(opened.objective)}\n  declared: {declared}\n"
            "Choose another project_name, pass overwrite=True to begin anew, or restore the objective."
        )
    conflicts = history.space.conflicts(Space(oracle.hyperparameters.space))
    if conflicts:
        lines = "\n  ".join(conflicts)
        raise StoreMismatch(
            f"the project {tuner.project_dir} was searched in other ranges than `hyperparameters` has:\n"
            f"  {lines}\nChoose another project_name, or pass overwrite=True to begin anew."
        )


def check_folds(history: History, tuner: Tunable, folds: int) -> None:
    """Raise StoreMismatch if the trials so far were measured on another number of folds."""
    stored = None if history.opened is None else history.opened.folds
    if stored not in (None, folds) and history.next_number > 0:
        raise StoreMismatch(
            f"the project {tuner.project_dir} was searched with {stored} folds, now there are {folds}: such "
            "scores do not compare. Choose another project_name, pass overwrite=True to begin anew, or restore "
            "the folds."
        )


def check_resources(pool: DevicePool, resources: object) -> None:
    """Raise DeviceError at once if no device of this machine can ever serve the request."""
    if isinstance(resources, Resources):
        pool.resolve(resources)
