"""One run, from its lease to its trial's end: start, follow, record, judge, conclude, settle, tell."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, nullcontext, suppress
from dataclasses import replace
from typing import NamedTuple, assert_never

import anyio

from aiotune.asking import Asker
from aiotune.assigning import assignment_of
from aiotune.calling import blaming
from aiotune.clock import Clock
from aiotune.conclusion import Conclusion, conclude, cut_off
from aiotune.constraints import missing_of
from aiotune.devices.base import Pool
from aiotune.devices.lease import Lease
from aiotune.discovery import check_range, fatal_error
from aiotune.errors import FatalRuntimeError, FatalValueError, StoreError
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
    GpuMeasured,
    Measured,
    Met,
    Noted,
    Observed,
    Progressed,
    RunNews,
    Started,
    start_run,
)
from aiotune.history import History
from aiotune.oracles.base import Oracle, Verdict
from aiotune.plan import Plan
from aiotune.run_timer import RunTimer
from aiotune.run_usage import RunUsage, lost_usage
from aiotune.settlement import Settlement, broken_run, complete, pruned, settle
from aiotune.tasks import Turns
from aiotune.trial import FailureKind, Observation, Run, RunState, StopCause, Trial, TrialState
from aiotune.usage import Usage

__all__ = ["Ruling", "RunKey", "Runner", "Spawn", "Task"]

_LOG = logging.getLogger("aiotune")
_LONGEST_CLEANUP_SECONDS = 10.0
_MOST_NOTES = 1000  # of all runs, that the search says

RunKey = tuple[str, int]  # the trial's id, and the index of the run in it
Record = Callable[..., Awaitable[None]]
Task = Callable[..., Awaitable[None]]
Spawn = Callable[..., None]  # (task, *arguments): starts it beside the caller


class Ruling(NamedTuple):
    """What runs of a trial are to stop for, and why, in words."""

    cause: StopCause
    reason: str | None = None


class Runner:
    """Performs runs of one search, any number at a time, each in a task of its caller.

    `pool` is told what each run takes, and tells what it took.

    Invariant: a run is in `active` from before its execution starts until its end is recorded and its
    trial settled.
    """

    def __init__(
        self,
        *,
        oracle: Oracle,
        asker: Asker,
        history: History,
        record: Record,
        executor: Executor,
        pool: Pool,
        plan: Plan,
        clock: Clock,
    ) -> None:
        self._oracle = oracle
        self._asker = asker
        self._history = history
        self._record = record
        self._executor = executor
        self._pool = pool
        self._plan = plan
        self._clock = clock
        self._executions: dict[RunKey, Execution | None] = {}
        self._starting: dict[RunKey, anyio.CancelScope] = {}  # those that have no execution yet
        self._usages: dict[RunKey, RunUsage] = {}  # of those that hold a lease
        self._turns = Turns()
        self._noted: set[str] = set()
        self._begun: set[str] = set()  # trials whose begin this process has announced
        # Names whose range an earlier session stored: a program that contradicts them has changed.
        self._stored = {each.identity for each in history.space}

    @property
    def active(self) -> frozenset[RunKey]:
        return frozenset(self._executions)

    @property
    def count(self) -> int:
        """How many runs are active."""
        return len(self._executions)

    @property
    def gpus(self) -> frozenset[str]:
        """The GPUs that runs hold."""
        return frozenset(uuid for each in self._usages.values() for uuid in each.lease.gpus)

    def usages(self) -> list[Usage]:
        """Return what each run took so far that has a GPU, if its end has not told it yet."""
        usages = [each.so_far() for each in self._usages.values() if not each.is_told]
        return [each for each in usages if each is not None]

    def turn(self, trial_id: str) -> AbstractAsyncContextManager[None]:
        """Hold this while a fact is found and written that starts or ends a run, if a trial may have several.

        A fact takes a moment to be written, in which no other task must decide by what was before it: a trial
        would end while a run of it is being started.
        """
        return nullcontext() if self._plan.policy.repeats == 1 else self._turns.of(trial_id)

    def adopt(self, trial_id: str, run: int, lease: Lease) -> None:
        """Take charge of a run whose start is recorded; `perform` must follow."""
        self._executions[trial_id, run] = None
        self._starting[trial_id, run] = anyio.CancelScope()
        self._usages[trial_id, run] = RunUsage(self._pool, lease, self._clock)

    def release_left(self) -> None:
        """Give back the leases of runs whose task never began, for the loop was shut down before."""
        for usage in self._usages.values():
            usage.lease.release()

    async def perform(self, key: RunKey, lease: Lease, spawn: Spawn) -> None:
        """Run to the end on `lease`, which is released. `spawn` starts a task beside this one."""
        try:
            execution = await self._begin(key, lease)
            outcome = await self._follow(key, execution, spawn)
            self._report(key, lease, outcome)
            await self._conclude(key, outcome)
        except BaseException:
            with suppress(StoreError):
                await self._abandon(key)
            raise
        finally:
            del self._usages[key]
            lease.release()
            self._starting.pop(key, None)
            del self._executions[key]

    def _report(self, key: RunKey, lease: Lease, outcome: Finished | Failed) -> None:
        """Tell the pool how a run ended, if that says anything of its devices."""
        run = self._run(key)
        match outcome:
            case Finished():
                self._pool.report(lease, failed=False)
            case Failed(is_lost=False) if run.stop_cause is None and run.attempt == 0:
                # A point that breaks runs does so again: its retries say nothing of the device.
                lacked_memory = outcome.kind is FailureKind.OUT_OF_MEMORY
                is_of_card = lacked_memory and not lease.is_shared and not outcome.is_of_host
                if outcome.kind is FailureKind.CRASH or is_of_card:
                    self._pool.report(lease, failed=True)
            case Failed():
                pass
            case _:
                assert_never(outcome)

    async def stop(
        self, keys: Iterable[RunKey], cause: StopCause, reason: str | None = None
    ) -> None:
        """Ask runs in progress to stop; a run that was asked before keeps its cause."""
        requests = self._requests(keys, cause, reason)
        if requests:
            await self._record(*requests)
            self._pass_on(requests)

    def _requests(
        self, keys: Iterable[RunKey], cause: StopCause, reason: str | None
    ) -> list[StopRequested]:
        """Return the facts that runs are asked to stop: those that were not asked before."""
        now = self._clock.now()
        asked = [key for key in sorted(keys) if self._may_stop(key)]
        return [StopRequested(now, *key, cause, reason) for key in asked]

    def _pass_on(self, facts: Iterable[Event]) -> None:
        """Ask those runs to stop of which it is recorded."""
        for fact in facts:
            if isinstance(fact, StopRequested):
                key = fact.trial_id, fact.run
                execution = self._executions.get(key)
                if execution is not None:
                    execution.request_stop(fact.cause.value)
                elif key in self._starting:  # nothing is there yet that could be asked
                    self._starting[key].cancel()

    def _may_stop(self, key: RunKey) -> bool:
        run = self._run(key)
        return key in self._executions and run.stop_cause is None and not run.is_over

    def _run(self, key: RunKey) -> Run:
        return self._history.trial(key[0]).runs[key[1]]

    async def _announce(self, trial_id: str) -> None:
        if trial_id not in self._begun:
            self._begun.add(trial_id)
            await self._plan.hooks.on_trial_begin(self._history.trial(trial_id))

    # --- following ---

    async def _begin(self, key: RunKey, lease: Lease) -> Execution | None:
        """Announce the run's trial and start the run; None if it was asked to stop before it was there.

        A hook may hang, and so may the import of a framework.
        """
        execution = None
        with self._starting[key]:
            await self._announce(key[0])
            execution = await start_run(self._executor, self._assignment(key, lease), lease.guards)
        self._executions[key] = execution
        del self._starting[key]
        cause = self._run(key).stop_cause
        if execution is not None and cause is not None:
            execution.request_stop(cause.value)
        return execution

    async def _follow(
        self, key: RunKey, execution: Execution | None, spawn: Spawn
    ) -> Finished | Failed:
        """Deal with the events of a run, and return the last one."""
        if execution is None:
            return Finished(is_stopped=True)
        timer, watch = RunTimer(self._plan.limits, self._clock), anyio.CancelScope()
        if timer.is_limited:
            spawn(self._time_out, key, timer, watch)
        try:
            async with aclosing(execution.events()) as events:
                async for event in events:
                    with timer.hearing():
                        if isinstance(event, Finished | Failed):
                            return event
                        await self._heard(key, event)
        finally:
            watch.cancel()
        raise FatalRuntimeError(f"run {key} ended without a last event: a defect of the executor")

    async def _heard(self, key: RunKey, event: RunNews) -> None:
        match event:
            case Started() | Progressed():
                pass
            case Met():
                await self._on_met(key, event)
            case Observed():
                await self._on_observed(key, event)
            case Noted():
                self._on_noted(event)
            case Measured():
                self._pool.measure(event.memory_bytes)
            case GpuMeasured():
                self._usages[key].measure(event.peak_bytes)
            case _:
                assert_never(event)

    def _assignment(self, key: RunKey, lease: Lease) -> Assignment:
        trial, run = self._history.trial(key[0]), self._run(key)
        return assignment_of(
            trial, run, lease, history=self._history, oracle=self._oracle, plan=self._plan
        )

    async def _time_out(self, key: RunKey, timer: RunTimer, watch: anyio.CancelScope) -> None:
        with watch:
            await self.stop({key}, await timer.wait_over())

    async def _on_met(self, key: RunKey, met: Met) -> None:
        trial_id, _ = key
        self._check_names(trial_id, met)
        facts = [*self._growth(trial_id, met), *self._news(trial_id, met)]
        if facts:
            await self._record(*facts)
        if await self._asker.is_duplicate(trial_id):
            await self.stop(self._runs_of(trial_id), StopCause.DUPLICATE)
        elif self._is_refused(self._history.trial(trial_id)):
            await self.stop(self._runs_of(trial_id), StopCause.CONSTRAINT)

    def _is_refused(self, trial: Trial) -> bool:
        """Tell whether the point of a trial, now that all of it is known, breaks the constraint."""
        constraint = self._oracle.constraint
        if constraint is None or not trial.is_path_complete:
            return False
        return not constraint.allows_met(trial.space, trial.values)

    def _check_names(self, trial_id: str, met: Met) -> None:
        """Raise if the program declares what it may not, or contradicts what an earlier session stored."""
        added = [each.name for each in met.added if each not in self._history.space]
        if added and not self._oracle.allow_new_entries:
            raise FatalRuntimeError(
                f"trial {trial_id} declared {', '.join(added)}, which `hyperparameters` does not have: "
                "declare it there, or pass allow_new_entries=True"
            )
        news = [new for old, new in met.redeclared if old.identity in self._stored]
        check_range(self._history, self._oracle, news)

    def _growth(self, trial_id: str, met: Met) -> Iterator[Event]:
        added = tuple(each for each in met.added if each not in self._history.space)
        redeclared = {old.name for old, _ in met.redeclared} - self._history.redeclared
        redeclared -= self._oracle.given
        if added or redeclared:
            yield SpaceGrew(self._clock.now(), trial_id, added, tuple(sorted(redeclared)))

    def _news(self, trial_id: str, met: Met) -> Iterator[Event]:
        """Yield what the run tells of its trial's path, unless another run has told as much already."""
        trial = self._history.trial(trial_id)
        is_shorter = trial.is_path_complete and len(met.space) <= len(trial.space)
        known = (trial.space, trial.is_path_complete)
        if not is_shorter and (met.space, met.is_complete) != known:
            now = self._clock.now()
            yield TrialMet(now, trial_id, met.space, dict(met.values), met.is_complete)

    async def _on_observed(self, key: RunKey, observed: Observed) -> None:
        trial_id, run = key
        if self._run(key).stop_cause in (StopCause.DUPLICATE, StopCause.CONSTRAINT):
            return
        step = observed.step + self._history.trial(trial_id).first_step(self._run(key))
        await self._record(Reported(self._clock.now(), trial_id, run, step, dict(observed.metrics)))
        observation = Observation(step, observed.metrics)
        ruling = await self.ruling(key, observation)
        if ruling is not None:
            async with self.turn(trial_id):
                await self.stop(self._runs_of(trial_id), *ruling)

    async def ruling(self, key: RunKey, observation: Observation) -> Ruling | None:
        """Return what the newest report of a run leads to, if not that it goes on."""
        match await self._asker.judge(key[0], observation):
            case Verdict.CONTINUE:
                reason = self._pruned(key)
                return None if reason is None else Ruling(StopCause.RULE, reason)
            case Verdict.STOP:
                return Ruling(StopCause.RULE)
            case Verdict.PAUSE:
                return Ruling(StopCause.PAUSE)

    def _pruned(self, key: RunKey) -> str | None:
        """Return why the pruner gives the trial of a run that has just reported no chance; None: it goes on."""
        pruner = self._plan.pruner
        if pruner is None:
            return None
        with blaming(f"{type(pruner).__name__}.judge(), for trial {key[0]}"):
            return pruner.judge(self._history, self._history.trial(key[0]), self._run(key))

    def _on_noted(self, noted: Noted) -> None:
        if noted.message not in self._noted and len(self._noted) < _MOST_NOTES:
            self._noted.add(noted.message)
            _LOG.warning("%s", noted.message)

    def _runs_of(self, trial_id: str) -> frozenset[RunKey]:
        return frozenset(key for key in self._executions if key[0] == trial_id)

    # --- ending ---

    async def _conclude(self, key: RunKey, outcome: Finished | Failed) -> None:
        """Record the run's end together with what follows from it for the trial, in one transaction."""
        run, trial = self._run(key), self._history.trial(key[0])
        reports = trial.curve(run, of_budget=True)
        if isinstance(outcome, Finished) and outcome.best_step is not None:
            outcome = replace(outcome, best_step=outcome.best_step + trial.first_step(run))
        concluded = conclude(outcome, run, self._oracle.objective, reports)
        taken = self._taken(key)
        end = _run_ended(self._clock.now(), key, concluded, taken)
        if isinstance(outcome, Failed) and outcome.is_fatal:
            await self._record(end)
            raise fatal_error(outcome, run.log)
        missing = missing_of(self._plan.policy.bounds, end.metrics) if end.metrics else None
        if end.state is RunState.FINISHED and missing is not None:
            await self._record(replace(end, state=RunState.CANCELLED, metrics={}, message=missing))
            raise FatalValueError(missing)
        async with self.turn(key[0]):
            trial = self._history.after_run(end)
            settlement = list(self._settlement(trial)) or self._judged_repeats(trial)
            await self._record(end, *settlement)
            self._pass_on(settlement)
        if any(isinstance(each, TrialEnded | TrialPaused) for each in settlement):
            await self._tell(trial.trial_id)
        if broken_run(trial, self._plan.policy) is not None:
            await self.stop(self._runs_of(trial.trial_id), StopCause.SIBLING)

    async def settle(self, trial_id: str) -> None:
        """End or pause the trial if its runs allow, and that is not recorded yet."""
        settlement = list(self._settlement(self._history.trial(trial_id)))
        if settlement:
            await self._record(*settlement)
            await self._tell(trial_id)

    async def complete(self, trial: Trial) -> None:
        """End a paused trial that gets no promotion."""
        ended = complete(trial, self._plan.policy, self._oracle.objective)
        await self._record(_trial_ended(self._clock.now(), trial.trial_id, ended))
        await self._tell(trial.trial_id)

    def _settlement(self, trial: Trial) -> Iterator[Event]:
        """Yield the fact that ends or pauses the trial, if its runs allow."""
        if trial.state is not TrialState.RUNNING:
            return
        ended = settle(trial, self._plan.policy, self._oracle.objective)
        now = self._clock.now()
        if ended is None:
            return
        if ended.status is TrialState.PAUSED:
            yield TrialPaused(now, trial.trial_id, ended.score, ended.best_step)
        else:
            yield _trial_ended(now, trial.trial_id, ended)

    def _judged_repeats(self, trial: Trial) -> list[Event]:
        """Return what follows if the pruner gives a trial no further repeat: requests to stop, or its end."""
        pruner = self._plan.pruner
        if pruner is None or not pruner.judges_ends or trial.state is not TrialState.RUNNING:
            return []
        with blaming(f"{type(pruner).__name__}.judge_repeats(), for trial {trial.trial_id}"):
            reason = pruner.judge_repeats(self._history, trial)
        if reason is None:
            return []
        left = [(trial.trial_id, run.index) for run in trial.runs if not run.is_over]
        if left:
            return [*self._requests(left, StopCause.RULE, reason)]
        ended = pruned(trial, self._plan.policy, self._oracle.objective, reason)
        return [_trial_ended(self._clock.now(), trial.trial_id, ended)]

    async def _tell(self, trial_id: str) -> None:
        """Tell the oracle, and the owner, of a trial that is over or paused."""
        trial = self._history.trial(trial_id)
        await self._asker.tell(trial)
        if trial.is_over:
            await self._plan.hooks.on_trial_end(trial)

    async def _abandon(self, key: RunKey) -> None:
        """Record that a run was cut off, unless its end is there already. A resumed search runs it again."""
        run = self._run(key)
        if run.is_over:
            return
        taken = self._taken(key)
        cut = self._cut_off(key[0], run, RunState.CANCELLED, "the search was cancelled", taken)
        await self._record(cut, longest_seconds=_LONGEST_CLEANUP_SECONDS)

    def lost(self, trial: Trial, run: Run, others: Sequence[Run] = ()) -> RunEnded:
        """Return the end of a run that an earlier process left in progress, with these others."""
        message = "the process that ran it is gone"
        taken = lost_usage(run, others, self._history.left_at)
        return self._cut_off(trial.trial_id, run, RunState.LOST, message, taken)

    def _taken(self, key: RunKey) -> Usage | None:
        """Return what a run took of its GPUs, for the fact of its end."""
        usage = self._usages[key]
        usage.is_told = True
        return usage.so_far()

    def _cut_off(
        self, trial_id: str, run: Run, state: RunState, message: str, taken: Usage | None
    ) -> RunEnded:
        reports = self._history.trial(trial_id).curve(run, of_budget=True)
        objective = self._oracle.objective
        ended = cut_off(run, objective, reports, state=state, message=message)
        return _run_ended(self._clock.now(), (trial_id, run.index), ended, taken)


def _run_ended(at: float, key: RunKey, ended: Conclusion, taken: Usage | None) -> RunEnded:
    return RunEnded(
        at,
        *key,
        ended.state,
        dict(ended.metrics),
        ended.best_step,
        ended.failure,
        ended.may_retry,
        ended.message,
        taken,
    )


def _trial_ended(at: float, trial_id: str, ended: Settlement) -> TrialEnded:
    """Return the fact that the trial has ended so."""
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
