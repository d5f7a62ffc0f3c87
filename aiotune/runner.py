"""One run, from its lease to its trial's end: start, follow, record, judge, conclude, settle, tell."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing, suppress
from typing import assert_never

import anyio
from anyio.abc import TaskGroup

from aiotune.clock import Clock
from aiotune.conclusion import StopCause, conclude
from aiotune.devices.pool import Lease
from aiotune.discovery import check_range, fatal_error
from aiotune.errors import FatalRuntimeError, StoreError
from aiotune.events import (
    Event,
    Reported,
    RunEnded,
    SpaceGrew,
    StopRequested,
    TrialEnded,
    TrialMet,
    TrialPaused,
)
from aiotune.executors.base import (
    Assignment,
    Execution,
    Executor,
    Failed,
    Finished,
    Met,
    Observed,
    Started,
)
from aiotune.history import History
from aiotune.oracles.base import Oracle, Verdict
from aiotune.plan import Plan
from aiotune.settlement import Settlement, broken_run, settle
from aiotune.trial import Observation, Run, RunState, TrialState

__all__ = ["RunKey", "Runner"]

_LONGEST_CLEANUP_SECONDS = 10.0

RunKey = tuple[str, int]  # the trial's id, and the index of the run in it
Record = Callable[..., Awaitable[None]]


class Runner:
    """Performs runs of one search, any number at a time, each in a task of its caller.

    Invariant: a run is in `active` from before its execution starts until its end is recorded and its
    trial settled.
    """

    def __init__(
        self,
        *,
        oracle: Oracle,
        history: History,
        record: Record,
        executor: Executor,
        plan: Plan,
        clock: Clock,
    ) -> None:
        self._oracle = oracle
        self._history = history
        self._record = record
        self._executor = executor
        self._plan = plan
        self._clock = clock
        self._executions: dict[RunKey, Execution | None] = {}
        self._causes: dict[RunKey, StopCause] = {}
        self._duplicates: set[str] = set()  # trials that end as duplicates once their runs are over
        # Names whose range an earlier session stored: a program that contradicts them has changed.
        self._stored = {each.identity for each in history.space}

    @property
    def active(self) -> frozenset[RunKey]:
        return frozenset(self._executions)

    def is_duplicate(self, trial_id: str) -> bool:
        """Tell whether the trial was found to repeat another one: it gets no further run."""
        return trial_id in self._duplicates

    def adopt(self, trial_id: str, run: int) -> None:
        """Take charge of a run whose start is recorded; `perform` must follow."""
        self._executions[trial_id, run] = None

    async def perform(self, key: RunKey, lease: Lease, tasks: TaskGroup) -> None:
        """Run to the end on `lease`, which is released. Timers become children of `tasks`."""
        try:
            if key[1] == 0:
                await self._plan.hooks.on_trial_begin(self._history.trial(key[0]))
            outcome = await self._follow(key, lease, tasks)
            await self._conclude(key, outcome)
        except BaseException:
            with anyio.move_on_after(_LONGEST_CLEANUP_SECONDS, shield=True), suppress(StoreError):
                await self._abandon(key)
            raise
        finally:
            lease.release()
            del self._executions[key]
            self._causes.pop(key, None)

    async def stop(self, keys: frozenset[RunKey], cause: StopCause) -> None:
        """Ask runs in progress to stop; a run that was asked before keeps its cause."""
        for key in sorted(keys):
            if key in self._causes or key not in self._executions:
                continue
            self._causes[key] = cause
            await self._record(StopRequested(self._clock.now(), *key, cause.value))
            execution = self._executions.get(key)
            if execution is not None:
                execution.request_stop(cause.value)

    # --- following ---

    async def _follow(self, key: RunKey, lease: Lease, tasks: TaskGroup) -> Finished | Failed:
        execution = await self._executor.start(self._assignment(key, lease))
        self._executions[key] = execution
        if key in self._causes:  # asked to stop while it was being started
            execution.request_stop(self._causes[key].value)
        timer = anyio.CancelScope()
        try:
            async with aclosing(execution.events()) as events:
                async for event in events:
                    match event:
                        case Started():
                            self._start_timer(key, timer, tasks)
                        case Met():
                            await self._on_met(key, event)
                        case Observed():
                            await self._on_observed(key, event)
                        case Finished() | Failed():
                            return event
                        case _:
                            assert_never(event)
        finally:
            timer.cancel()
        raise FatalRuntimeError(f"run {key} ended without a last event: a defect of the executor")

    def _assignment(self, key: RunKey, lease: Lease) -> Assignment:
        trial = self._history.trial(key[0])
        run = trial.runs[key[1]]
        directory = self._plan.layout.trial(trial.trial_id)
        return Assignment(
            trial_id=trial.trial_id,
            number=trial.number,
            stream=trial.stream,
            repeat=run.repeat,
            attempt=run.attempt,
            run=run.index,
            seed=self._oracle.chance,
            values=trial.values,
            space=tuple(self._history.space),
            tune_new_entries=self._oracle.tune_new_entries,
            allow_new_entries=self._oracle.allow_new_entries,
            trial_directory=str(directory),
            log=run.log or "",
            gpus=lease.gpus,
            cores=lease.cores,
            budget=run.budget,
        )

    def _start_timer(self, key: RunKey, timer: anyio.CancelScope, tasks: TaskGroup) -> None:
        seconds = self._plan.limits.trial_timeout
        if seconds is not None:
            tasks.start_soon(self._time_out, key, timer, seconds)

    async def _time_out(self, key: RunKey, timer: anyio.CancelScope, seconds: float) -> None:
        with timer:
            await self._clock.sleep(seconds)
            await self.stop(frozenset({key}), StopCause.TIMEOUT)

    async def _on_met(self, key: RunKey, met: Met) -> None:
        trial_id, _ = key
        known = self._history.space
        added = tuple(each for each in met.added if each not in known)
        if added and not self._oracle.allow_new_entries:
            raise FatalRuntimeError(
                f"trial {trial_id} declared {', '.join(each.name for each in added)}, which "
                "`hyperparameters` does not have: declare it there, or pass allow_new_entries=True"
            )
        news = tuple(new for old, new in met.redeclared if old.identity in self._stored)
        check_range(self._history, self._oracle, news)
        redeclared = {old.name for old, _ in met.redeclared} - self._history.redeclared
        now = self._clock.now()
        facts: list[Event] = []
        if added or redeclared:
            facts.append(SpaceGrew(now, trial_id, added, tuple(sorted(redeclared))))
        trial = self._history.trial(trial_id)
        if not trial.is_path_complete:
            facts.append(TrialMet(now, trial_id, met.space, dict(met.values), met.is_complete))
        if facts:
            await self._record(*facts)
        if self._oracle.is_duplicate(self._history, self._history.trial(trial_id)):
            self._duplicates.add(trial_id)
            await self.stop(self._runs_of(trial_id), StopCause.DUPLICATE)

    async def _on_observed(self, key: RunKey, observed: Observed) -> None:
        trial_id, run = key
        if trial_id in self._duplicates:
            return
        await self._record(
            Reported(self._clock.now(), trial_id, run, observed.step, dict(observed.metrics))
        )
        observation = Observation(observed.step, observed.metrics)
        match self._oracle.judge(self._history.trial(trial_id), observation):
            case Verdict.CONTINUE:
                pass
            case Verdict.STOP:
                await self.stop(self._runs_of(trial_id), StopCause.RULE)
            case Verdict.PAUSE:
                await self.stop(self._runs_of(trial_id), StopCause.PAUSE)

    def _runs_of(self, trial_id: str) -> frozenset[RunKey]:
        return frozenset(key for key in self._executions if key[0] == trial_id)

    # --- ending ---

    async def _conclude(self, key: RunKey, outcome: Finished | Failed) -> None:
        trial_id, index = key
        run = self._history.trial(trial_id).runs[index]
        cause = self._causes.get(key)
        ended = conclude(outcome, cause, run, self._oracle.objective)
        await self._record(
            RunEnded(
                self._clock.now(),
                trial_id,
                index,
                ended.state,
                dict(ended.metrics),
                ended.best_step,
                ended.failure,
                ended.may_retry,
                ended.message,
            )
        )
        if isinstance(outcome, Failed) and outcome.is_fatal:
            raise fatal_error(outcome, run.log or "none")
        await self.settle(trial_id, cause)

    async def settle(self, trial_id: str, cause: StopCause | None = None) -> None:
        """End or pause the trial if its runs allow, and tell the oracle."""
        trial = self._history.trial(trial_id)
        if trial.is_over or any(not run.is_over for run in trial.runs):
            if broken_run(trial, self._plan.policy) is not None:
                await self.stop(self._runs_of(trial_id), StopCause.SIBLING)
            return
        ended = settle(trial, self._plan.policy, self._oracle.objective)
        if trial_id in self._duplicates:
            ended = Settlement(TrialState.DUPLICATE, message=StopCause.DUPLICATE.value)
        if ended is None:
            return
        now = self._clock.now()
        if cause is StopCause.PAUSE and ended.status is TrialState.COMPLETED:
            await self._record(TrialPaused(now, trial_id, ended.score, ended.best_step))
        else:
            await self._record(_trial_ended(now, trial_id, ended))
        await self._tell(trial_id)

    async def _tell(self, trial_id: str) -> None:
        trial = self._history.trial(trial_id)
        self._oracle.tell(trial)
        await self._plan.hooks.on_trial_end(trial)

    async def _abandon(self, key: RunKey) -> None:
        """Record that a run was cut off, unless its end is there already. A resumed search runs it again."""
        trial_id, index = key
        run: Run = self._history.trial(trial_id).runs[index]
        if not run.is_over:
            await self._record(
                RunEnded(
                    self._clock.now(),
                    trial_id,
                    index,
                    RunState.CANCELLED,
                    {},
                    message="the search was cancelled",
                )
            )


def _trial_ended(at: float, trial_id: str, ended: Settlement) -> TrialEnded:
    return TrialEnded(
        at,
        trial_id,
        ended.status,
        ended.score,
        ended.best_step,
        ended.metrics,
        ended.failure,
        ended.message,
    )
