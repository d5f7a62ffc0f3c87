"""Search: one search in progress. It owns every resource, and gives each back whatever happens."""

from __future__ import annotations

import inspect
import secrets
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from types import MappingProxyType, TracebackType
from typing import Any, Self

import anyio

from aiotune.clock import Clock, SystemClock
from aiotune.devices.opening import open_pool
from aiotune.devices.pool import DevicePool
from aiotune.discovery import discover
from aiotune.errors import FatalRuntimeError, FatalValueError, StoreMismatch
from aiotune.event_log import EventLog, EventStream
from aiotune.events import Event, SearchOpened, SpaceGrew
from aiotune.executors.base import Executor
from aiotune.executors.inline import InlineExecutor
from aiotune.executors.payload import Payload
from aiotune.executors.process import ProcessExecutor
from aiotune.history import History
from aiotune.observers.progress import make_progress
from aiotune.oracles.base import Oracle
from aiotune.plan import Hooks, Plan
from aiotune.program import AsyncTunerProgram, Tunable, TunerProgram, modules_to_preload
from aiotune.project import Project
from aiotune.recorder import Observer, Recorder
from aiotune.resources import Resources
from aiotune.results import SearchResult, SearchStatus, best_trials
from aiotune.retention import Janitor
from aiotune.scheduler import Scheduler
from aiotune.settlement import Policy
from aiotune.space import Space
from aiotune.store.lock import hold_lock
from aiotune.store.sqlite import open_store
from aiotune.version import __version__

__all__ = ["Search", "discover_space"]


class Search:
    """A search in progress: `async with tuner.start(...) as search`.

    Its work is done by one background task, which never raises: `result()` does. Leaving the block cancels the
    task and waits until every child has ended and every fact is written.
    """

    def __init__(
        self,
        tuner: Tunable,
        project: Project,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        clock: Clock | None = None,
    ) -> None:
        self._tuner = tuner
        self._project = project
        self._args = args
        self._kwargs = dict(kwargs)
        self._clock = clock or SystemClock()
        self._log = EventLog()
        self._scheduler: Scheduler | None = None
        self._is_begun = False
        self._is_stop_requested = False
        self._outcome: SearchResult | Exception | None = None
        self._done = anyio.Event()
        self._tasks = anyio.create_task_group()

    async def __aenter__(self) -> Self:
        if self._is_begun:
            raise FatalRuntimeError(
                "a Search runs once: call tuner.start(...) again for another one, which goes on from there"
            )
        self._is_begun = True
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._drive)
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._tasks.cancel_scope.cancel()
        # The group learns of a cancellation only: it would wrap another error of the body, or, since its scope
        # is cancelled, swallow it. Nothing is returned, so that whatever the body raised goes on.
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            await self._tasks.__aexit__(exc_type, exc, traceback)
        else:
            await self._tasks.__aexit__(None, None, None)

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
        trials = list(history.trials.values())
        scheduler = self._scheduler
        running = {trial_id for trial_id, _ in scheduler.running} if scheduler else set()
        best = best_trials(trials, self._tuner.objective, 1)
        return SearchStatus(
            counts=Counter(trial.status for trial in trials),
            running=tuple(sorted(running)),
            waiting=scheduler.waiting if scheduler else {},
            best=best[0] if best else None,
            ended=history.ended.reason if self._done.is_set() and history.ended else None,
        )

    def _require_begun(self) -> None:
        if not self._is_begun:
            raise FatalRuntimeError(
                "the search has not begun: write `async with tuner.start(...) as search:`"
            )

    # --- its life ---

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
            await anyio.to_thread.run_sync(stack.enter_context, hold_lock(project.layout.lock))
            executor = await self._open_executor(stack)
            store = await stack.enter_async_context(
                open_store(project.layout.store, durability=settings.durability)
            )
            history = await anyio.to_thread.run_sync(History, await store.load())
            check_objective(history, self._tuner, oracle)
            pool = await open_pool(gpus=self._gpus(), max_concurrent=self._most_runs())
            check_resources(pool, settings.resources)
            project.hold(history)
            observers = [*self._open_progress(stack), *self._open_janitor(stack)]
            recorder = Recorder(store, history, [self._log, *settings.observers, *observers])
            await self._open_study(recorder)
            scheduler = Scheduler(
                oracle=oracle,
                recorder=recorder,
                pool=pool,
                executor=executor,
                plan=self._plan(),
                clock=self._clock,
            )
            return await self._conduct(scheduler, history)

    async def _conduct(self, scheduler: Scheduler, history: History) -> SearchResult:
        self._scheduler = scheduler
        if self._is_stop_requested:
            scheduler.request_stop()
        await called(self._tuner.on_search_begin)
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
            )
        ]
        if given:
            facts.append(SpaceGrew(now, None, given))
        await recorder.record(*facts)

    async def _open_executor(self, stack: AsyncExitStack) -> Executor:
        choice = self._project.settings.executor
        is_async = self._tuner.has_async_trials
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
        return await open_process_executor(stack, self._tuner, self._project, self._args, kwargs)

    def _fit_kwargs(self) -> dict[str, Any]:
        """Return the keywords for `run_trial`, less `verbose` where it takes none.

        Keras's own display would fill the logs with progress bars: it writes a line for each epoch.
        """
        kwargs = dict(self._kwargs)
        if self._tuner.has_discovery and kwargs.get("verbose", "auto") in ("auto", 1, True):
            return kwargs | {"verbose": 2}
        if not takes_keyword(self._tuner.run_trial, "verbose"):
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

    def _open_progress(self, stack: AsyncExitStack) -> list[Observer]:
        """Open the display that `verbose` asks for; leaving `stack` ends it and tidies the terminal."""
        has_model = self._tuner.hypermodel is not None
        progress = make_progress(
            self._kwargs.get("verbose", 0),
            self._tuner.objective,
            self._project.oracle.max_trials,
            starting="importing keras" if has_model else None,
            unit="epoch" if has_model else "step",
        )
        if progress is None:
            return []
        stack.push_async_callback(_in_thread, progress.close)
        return [progress]

    def _open_janitor(self, stack: AsyncExitStack) -> list[Observer]:
        """Start what deletes checkpoints that nobody will ask for; leaving `stack` lets it finish."""
        keep = self._project.settings.keep_checkpoints
        if keep == "all":
            return []
        janitor = Janitor(self._project.layout, self._tuner.objective, keep)
        self._tasks.start_soon(janitor.work)
        stack.push_async_callback(janitor.wait_idle)
        return [janitor]

    def _plan(self) -> Plan:
        tuner, settings, oracle = self._tuner, self._project.settings, self._project.oracle
        return Plan(
            layout=self._project.layout,
            policy=Policy(tuner.executions_per_trial, oracle.max_retries_per_trial),
            limits=settings.limits,
            resources=settings.resources,
            has_discovery=tuner.has_discovery,
            hooks=Hooks(
                on_trial_begin=partial(called, tuner.on_trial_begin),
                on_trial_end=partial(called, tuner.on_trial_end),
                pre_create_trial=partial(called, tuner.pre_create_trial),
            ),
        )


async def open_process_executor(
    stack: AsyncExitStack,
    tuner: Tunable,
    project: Project,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
) -> ProcessExecutor:
    """Pickle the program and start its fork server, which imports while the search is opened."""
    slim = tuner.for_child()
    program = TunerProgram(slim, args, kwargs)
    parts = {
        **{f"argument {number} of search()": each for number, each in enumerate(args, start=1)},
        **{f"the argument {name}= of search()": each for name, each in kwargs.items()},
        **{f"the tuner's attribute {name}": each for name, each in vars(slim).items()},
        f"the class {type(tuner).__name__}": type(tuner),
    }
    payload = await anyio.to_thread.run_sync(Payload.create, program, parts)
    stack.callback(payload.close)
    settings = project.settings
    preload = settings.preload
    if preload is None:
        preload = modules_to_preload(tuner, payload.frameworks)
    await anyio.Path(project.layout.root).mkdir(parents=True, exist_ok=True)
    executor = ProcessExecutor(
        payload,
        preload=preload,
        server_log=project.layout.server_log,
        grace_seconds=settings.grace_seconds,
    )
    return await stack.enter_async_context(executor)


async def discover_space(tuner: Tunable, project: Project) -> Space:
    """Return the space that the program declares, from one run in a child on the processor."""
    async with AsyncExitStack() as stack:
        executor = await open_process_executor(stack, tuner, project)
        pool = await open_pool(gpus=0, max_concurrent=1)
        found = await discover(project.oracle, project.layout, pool, executor)
        return Space(found.space)


async def _in_thread(function: Callable[[], None]) -> None:
    """Call what may block for moments, even while cancelled."""
    with anyio.CancelScope(shield=True):
        await anyio.to_thread.run_sync(function)


def takes_keyword(function: Callable[..., Any], name: str) -> bool:
    """Return whether the function can be called with this keyword."""
    parameters = inspect.signature(function).parameters.values()
    return any(each.name == name or each.kind is each.VAR_KEYWORD for each in parameters)


async def called(hook: Callable[..., Any], *args: object) -> None:
    """Call a hook of the user's, and await what it returns if it is `async def`."""
    result = hook(*args)
    if inspect.isawaitable(result):
        await result


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


def check_resources(pool: DevicePool, resources: object) -> None:
    """Raise DeviceError at once if no device of this machine can ever serve the request."""
    if isinstance(resources, Resources):
        pool.resolve(resources)
