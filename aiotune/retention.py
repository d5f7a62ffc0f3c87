"""Which checkpoints stay, and the one who deletes the others.

Who refers to a checkpoint follows from the trials (`checkpoints.holders`). What nobody refers to is dropped:
that is recorded, and only then deleted. A process that dies between the two leaves files that the next search
finds.
"""

from __future__ import annotations

import logging
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import anyio

from aiotune.assigning import spent_reports
from aiotune.checkpoints import Checkpoint, Keep, holders
from aiotune.clock import Clock
from aiotune.disk import Key, TrialFiles, forget_reports, look, remove, tidy
from aiotune.disk_budget import DiskBudget, amount, victims
from aiotune.errors import StoreError
from aiotune.events import (
    CheckpointsDropped,
    CheckpointsKept,
    Event,
    Reported,
    RunEnded,
    TrialCreated,
    TrialEnded,
    TrialPaused,
)
from aiotune.history import History
from aiotune.layout import Layout
from aiotune.objective import Objective
from aiotune.recorder import Recorder
from aiotune.settlement import Work
from aiotune.tasks import Changes
from aiotune.trial import Trial, TrialState, trial_id_of

__all__ = ["Janitor"]

_LOG = logging.getLogger("aiotune")
_MEASURED_EVERY_SECONDS = 1.0  # at most, what runs in progress have written
_UNREADABLE = (OSError, RecursionError)  # user code may nest directories a thousand deep

Doomed = tuple[str, Sequence[Key]]
_Result = TypeVar("_Result")


class Janitor:
    """Measures checkpoints and deletes those that nobody refers to, in a thread. An observer, and a `Room`.

    max_bytes: what all checkpoints together may take. Invariant: a file of a part is deleted only after the
    fact that drops the part is durable.
    """

    def __init__(
        self,
        layout: Layout,
        objective: Objective,
        keep: Keep,
        clock: Clock,
        max_bytes: int | None = None,
    ) -> None:
        self._layout = layout
        self._objective = objective
        self._keep = keep
        self._clock = clock
        self._budget = None if max_bytes is None else DiskBudget(max_bytes)
        self._history = History()
        self._best: list[str] = []  # the trials that are over and whose best epochs stay
        self._touched: dict[
            str, set[int]
        ] = {}  # to be looked at, and repeats whose runs have ended
        self._growing: set[str] = set()  # to be measured when there is time
        self._measured_at = -_MEASURED_EVERY_SECONDS
        self._pins: Counter[str] = Counter()
        self._is_busy = True  # until what an earlier session has left was looked at
        self._is_closed = False
        self._has_told = False  # that trials will begin anew
        self._refusal: StoreError | None = None  # the store's: no room can be made without it
        self._wake_others: list[Callable[[], None]] = []
        self._changes = Changes()
        self._settled = anyio.Event()
        self.lack: str | None = None

    # --- as an observer: it takes notes, and returns at once ---

    def __call__(self, event: Event, history: History) -> None:
        match event:
            case RunEnded():
                run = history.trial(event.trial_id).runs[event.run]
                self._touch(event.trial_id, run.repeat)
            case TrialPaused() | TrialCreated(parent=str()):
                self._touch(event.trial_id)
            case TrialEnded():
                self._rank(history, event.trial_id)
                self._touch(event.trial_id)
            case Reported() if self._budget is not None:
                self._growing.add(event.trial_id)
                if self._clock.monotonic() >= self._measured_at + _MEASURED_EVERY_SECONDS:
                    self._changes.tell()
            case _:
                pass

    def _touch(self, trial_id: str, *repeats: int) -> None:
        self._touched.setdefault(trial_id, set()).update(repeats)
        self._changes.tell()

    def _rank(self, history: History, trial_id: str) -> None:
        """Note who is among the best now that a trial has ended, and look at those who are no longer."""
        trials = [history.trial(each) for each in (*self._best, trial_id)]
        former, self._best = self._best, self._ids(trials)
        for each in former:
            if each not in self._best:
                self._touch(each)

    def _ids(self, trials: Iterable[Trial]) -> list[str]:
        return [trial.trial_id for trial in self._keep.best_of(trials, self._objective)]

    # --- as a room ---

    @property
    def is_settled(self) -> bool:
        return not (self._touched or self._is_busy or self._is_room_wanted)

    @property
    def _is_room_wanted(self) -> bool:
        return self._budget is not None and self._budget.wanted > 0

    def admits(self, work: Work) -> bool:
        """Tell whether a run has room below `max_bytes`; if not, and it can be had, begin to make it.

        StoreError if the store has refused to record what is to be deleted: it would be asked for ever.
        """
        if self._refusal is not None:
            raise self._refusal
        if self._budget is None:
            return True
        short = self._budget.shortage(self._history, work)
        if short <= 0:
            self.lack = None
            return True
        self.lack = self._budget.why(short)
        if short <= self._budget.bytes_of(trial.trial_id for trial in self._victims()):
            self._budget.wanted = short
            self._changes.tell()
        return False

    def subscribe(self, wake: Callable[[], None]) -> None:
        self._wake_others.append(wake)

    @contextmanager
    def pinned(self, trial_id: str) -> Iterator[None]:
        self._pins[trial_id] += 1
        try:
            yield
        finally:
            self._pins[trial_id] -= 1

    async def wait_settled(self) -> None:
        while not self.is_settled:
            await self._settled.wait()

    # --- its work ---

    async def work(self, recorder: Recorder) -> None:
        """Look, record and delete, until cancelled or closed. Begins with what an earlier session has left."""
        self._history = recorder.history
        is_first = True
        while not self._is_closed:
            changed = self._changes.next()
            if self.is_settled and not self._is_measuring_due:
                await changed.wait()
                continue
            self._is_busy = True
            try:
                if is_first:
                    await self._begin(recorder.history)
                await self._pass(recorder)
                if is_first and self._budget is not None:
                    await self._in_thread(_warn_of_disk, self._budget)
            except StoreError as error:
                self._refusal = error  # it ends the search; nothing was deleted
            except Exception:  # a janitor must never change a search
                _LOG.exception("checkpoints could not be measured")
            is_first = self._is_busy = False
            if self.is_settled:
                self._settle()

    async def _begin(self, history: History) -> None:
        trials = history.trials.values()
        self._best = self._ids(trials)
        for trial in trials:  # no run of theirs is in progress yet
            self._touch(trial.trial_id, *(run.repeat for run in trial.runs))
        if trials:  # one that was to descend from another may have got files, but no fact
            await self._in_thread(_remove_all, trial_id_of(history.next_number))

    async def close(self) -> None:
        """Let it finish, and do nothing more."""
        try:
            await self.wait_settled()
        finally:
            self._is_closed = True
            self._changes.tell()

    async def _pass(self, recorder: Recorder) -> None:
        """Look at the trials that something has happened to, and do what follows from that."""
        touched, self._touched = self._touched, {}
        growing, self._growing = self._growing - touched.keys(), set()
        self._measured_at = self._clock.monotonic()
        found = await self._in_thread(
            _forget_and_look, self._spent(touched), [*touched, *growing], touched
        )
        facts: list[Event] = []
        doomed: list[Doomed] = []
        for trial_id, files in found.items():
            self._note(trial_id, files)
            if trial_id in touched:
                facts += self._judge(trial_id, files, doomed)
        await self._drop(recorder, facts, doomed)
        if self._budget is not None:
            await self._make_room(recorder, self._budget)

    def _spent(self, trial_ids: Iterable[str]) -> dict[str, list[int]]:
        """Return the runs whose kept reports are of no use any more: that they have ended is recorded."""
        return {each: spent_reports(self._history.trial(each)) for each in trial_ids}

    def _judge(self, trial_id: str, files: TrialFiles, doomed: list[Doomed]) -> Iterator[Event]:
        """Yield what is new of a trial's checkpoints; what is to be deleted comes to `doomed`."""
        history, now = self._history, self._clock.now()
        trial = history.trial(trial_id)
        kept: list[Checkpoint] = []
        dropped: list[Checkpoint] = []
        gone: list[Key] = []
        for repeat, part in files.keys:
            held = holders(trial, part, self._keep, self._best)
            size = files.piles[repeat, part].bytes
            if history.is_dropped(trial, repeat, part):
                gone.append((repeat, part))
            elif held:
                kept.append(Checkpoint(repeat, part, size, len(held)))
            else:
                dropped.append(Checkpoint(repeat, part, size))
        lost = {each.key for each in dropped}
        if tuple(kept) != tuple(e for e in history.checkpoints(trial_id) if e.key not in lost):
            yield CheckpointsKept(now, trial_id, tuple(kept))
        if dropped:
            yield CheckpointsDropped(now, trial_id, tuple(dropped))
        if lost or gone:
            doomed.append((trial_id, [*gone, *lost]))

    async def _drop(
        self, recorder: Recorder, facts: Sequence[Event], doomed: Sequence[Doomed]
    ) -> None:
        """Record first, delete second."""
        if facts:
            await recorder.record(*facts)
        if doomed:
            left = await self._in_thread(_remove, doomed)
            for trial_id, files in left.items():
                self._note(trial_id, files)

    async def _make_room(self, recorder: Recorder, budget: DiskBudget) -> None:
        """Drop checkpoints until there is as much room as is wanted, or nothing more may go."""
        short, budget.wanted = max(budget.wanted, budget.total - budget.most), 0
        facts: list[Event] = []
        doomed: list[Doomed] = []
        for trial in self._victims() if short > 0 else ():
            if short <= 0:
                break
            files = budget.files(trial.trial_id)
            short -= files.bytes
            parts = tuple(
                Checkpoint(*key, files.piles[key].bytes)
                for key in files.keys
                if not self._history.is_dropped(trial, *key)
            )
            reason = f"max_disk={amount(budget.most)}"
            facts.append(CheckpointsDropped(self._clock.now(), trial.trial_id, parts, reason))
            doomed.append((trial.trial_id, files.keys))
            self._tell_of(trial, reason)
        await self._drop(recorder, facts, doomed)

    def _victims(self) -> list[Trial]:
        if self._budget is None:
            return []
        trials = [self._history.trial(each) for each in self._budget.trial_ids]
        known = [each for each in trials if self._has_more(each, self._budget)]
        return list(victims(known, self._objective, +self._pins))

    def _has_more(self, trial: Trial, budget: DiskBudget) -> bool:
        """Tell whether something can still be dropped: what could not be deleted then is no room to come."""
        keys = budget.files(trial.trial_id).keys
        return any(not self._history.is_dropped(trial, *key) for key in keys)

    def _tell_of(self, trial: Trial, reason: str) -> None:
        if trial.state is TrialState.PAUSED and not self._has_told:
            self._has_told = True
            _LOG.warning(
                "%s has no room for all trials that wait for a promotion: the checkpoints of the worst of them "
                "are deleted, trial %s the first; one that is promoted all the same begins anew",
                reason,
                trial.trial_id,
            )

    def _note(self, trial_id: str, files: TrialFiles) -> None:
        if self._budget is not None:
            self._budget.note(trial_id, files)

    async def _in_thread(self, function: Callable[..., _Result], *args: object) -> _Result:
        return await anyio.to_thread.run_sync(partial(function, self._layout, *args))

    @property
    def _is_measuring_due(self) -> bool:
        passed = self._clock.monotonic() - self._measured_at
        return bool(self._growing) and passed >= _MEASURED_EVERY_SECONDS

    def _settle(self) -> None:
        settled, self._settled = self._settled, anyio.Event()
        settled.set()
        for wake in self._wake_others:
            wake()


def _warn_of_disk(layout: Layout, budget: DiskBudget) -> None:
    """Say so if the disk cannot hold what the checkpoints may take."""
    free = shutil.disk_usage(layout.root).free
    if free < budget.most - budget.total:
        _LOG.warning(
            "max_disk=%s, but the disk of %s has only %s free: it may be full before",
            amount(budget.most),
            layout.root,
            amount(free),
        )


def _look(
    layout: Layout, trial_ids: Iterable[str], ended: Mapping[str, Collection[int]]
) -> dict[str, TrialFiles]:
    """Return what these trials have on disk. What the runs that ended were writing is deleted before."""
    found = {}
    for trial_id in trial_ids:
        try:
            files = look(layout, trial_id)
        except _UNREADABLE as error:
            _LOG.warning("the checkpoints of trial %s cannot be looked at: %s", trial_id, error)
            continue
        try:
            tidy(layout, trial_id, files, ended.get(trial_id, ()))
        except _UNREADABLE as error:
            _LOG.warning("what trial %s was writing could not be deleted: %s", trial_id, error)
        found[trial_id] = files.without_paths()
    return found


def _forget_and_look(
    layout: Layout,
    spent: Mapping[str, Iterable[int]],
    trial_ids: Iterable[str],
    ended: Mapping[str, Collection[int]],
) -> dict[str, TrialFiles]:
    for trial_id, runs in spent.items():
        forget_reports(layout, trial_id, runs)
    return _look(layout, trial_ids, ended)


def _remove_all(layout: Layout, trial_id: str) -> dict[str, TrialFiles]:
    files = look(layout, trial_id)
    tidy(layout, trial_id, files, files.repeats)
    return _remove(layout, [(trial_id, files.keys)])


def _remove(layout: Layout, doomed: Iterable[Doomed]) -> dict[str, TrialFiles]:
    """Delete these parts; return what their trials have on disk then."""
    for trial_id, keys in doomed:
        try:
            remove(layout, trial_id, keys)
        except _UNREADABLE as error:  # the next search tries again
            _LOG.warning("checkpoints of trial %s could not be deleted: %s", trial_id, error)
    return _look(layout, [trial_id for trial_id, _ in doomed], {})
