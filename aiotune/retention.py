"""Which checkpoints stay: of the best trials, of those on the front, and of every trial that is not over.

Of a trial that is over only the best epoch stays: nobody goes on from its last one.
"""

from __future__ import annotations

import logging
import shutil
from contextlib import suppress
from pathlib import Path

import anyio

from aiotune.events import Event, TrialEnded
from aiotune.history import History
from aiotune.layout import BEFORE, LAST_STATE, Layout, unfinished
from aiotune.objective import Objective
from aiotune.pareto import pareto_front
from aiotune.ranking import best_trials
from aiotune.trial import Trial

__all__ = ["Janitor"]

_LOG = logging.getLogger("aiotune")


class Janitor:
    """Deletes the checkpoints of trials that are over and not among the best `keep`. An observer.

    Where the objective is a front, its trials are kept as well, however many they are; with 0, none are.
    """

    def __init__(self, layout: Layout, objective: Objective, keep: int) -> None:
        self._layout = layout
        self._objective = objective
        self._keep = keep
        self._kept: set[str] | None = None  # the best trials so far
        self._doomed: list[tuple[str, bool]] = []  # trials, and whether their best epoch stays
        self._changed = anyio.Event()

    def __call__(self, event: Event, history: History) -> None:
        if not isinstance(event, TrialEnded):
            return
        known = history.trials if self._kept is None else self._kept
        candidates = {*known, event.trial_id}
        trials = [history.trial(each) for each in sorted(candidates)]
        best = self._best([trial for trial in trials if trial.is_over])
        kept = {trial.trial_id for trial in best}
        over = {each for each in candidates - kept if history.trial(each).is_over}
        # At first all: an earlier process may have ended before it had trimmed one.
        to_trim = kept if self._kept is None else kept & {event.trial_id}
        self._kept = kept
        self._doomed.extend((each, True) for each in sorted(to_trim))
        self._doomed.extend((each, False) for each in sorted(over))
        self._wake()

    def _best(self, trials: list[Trial]) -> list[Trial]:
        if self._keep == 0:
            return []
        best = best_trials(trials, self._objective, self._keep)
        return best + pareto_front(trials, self._objective) if self._objective.seeks_front else best

    async def work(self) -> None:
        """Delete what is doomed, until cancelled."""
        while True:
            doomed = list(self._doomed)
            try:
                await anyio.to_thread.run_sync(self._delete, doomed)
            except Exception:  # a janitor must never change a search
                names = ", ".join(trial_id for trial_id, _ in doomed)
                _LOG.exception("checkpoints of trials %s could not be deleted", names)
            del self._doomed[: len(doomed)]
            self._wake()
            while not self._doomed:
                await self._changed.wait()

    async def wait_idle(self) -> None:
        """Return once nothing is doomed any more."""
        while self._doomed:
            await self._changed.wait()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    def _delete(self, doomed: list[tuple[str, bool]]) -> None:
        for trial_id, keeps_best in doomed:
            for path in self._layout.trial(trial_id).glob("repeat-*"):
                if keeps_best:
                    _trim(path)
                else:
                    shutil.rmtree(path, ignore_errors=True)


def _trim(directory: Path) -> None:
    """Delete what a repeat's later runs would go on from, and what a run that was killed was writing."""
    for path in (directory / LAST_STATE, *directory.glob(unfinished(Path("*")).name)):
        with suppress(OSError):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for former in directory.glob(f"{BEFORE}*"):
        shutil.rmtree(former, ignore_errors=True)
