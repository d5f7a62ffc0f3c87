"""What all checkpoints take of `max_disk`, what a further run needs, and who has to give way."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator

from aiotune.disk import TrialFiles
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.ranking import best_trials
from aiotune.settlement import Work
from aiotune.trial import Trial, TrialState

__all__ = ["DiskBudget", "amount", "victims"]

_UNITS = ("bytes", "kB", "MB", "GB", "TB")


class DiskBudget:
    """Adds up what was measured.

    most: bytes that all checkpoints may take. wanted: bytes that are to be freed for a run that waits.

    A run is expected to take as much as the one that took most so far, and beside it a second copy of its
    largest file: a new one is whole before the old one goes.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.wanted = 0
        self.total = 0
        self._files: dict[str, TrialFiles] = {}
        self._need = 0

    @property
    def trial_ids(self) -> list[str]:
        """The trials that have something on disk."""
        return list(self._files)

    def files(self, trial_id: str) -> TrialFiles:
        return self._files.get(trial_id, TrialFiles({}))

    def note(self, trial_id: str, files: TrialFiles) -> None:
        """Take in what a trial has on disk now."""
        self.total += files.bytes - self.files(trial_id).bytes
        self._files[trial_id] = files
        if not files.piles:
            del self._files[trial_id]
        for repeat in files.repeats:
            self._need = max(self._need, files.bytes_of(repeat) + files.largest_of(repeat))

    def shortage(self, history: History, work: Work) -> int:
        """Return how many bytes are lacking for one more run beside those in progress; 0 or less: none."""
        running = (
            (trial.trial_id, run.repeat)
            for trial in history.trials_in_flight()
            for run in trial.runs
            if not run.is_over
        )
        claims = sum(self._claim(*each) for each in running)
        return self.total + claims + self._claim(work.trial_id, work.repeat) - self.most

    def bytes_of(self, trial_ids: Iterable[str]) -> int:
        return sum(self.files(each).bytes for each in trial_ids)

    def why(self, short: int) -> str:
        """Return in words why a run that lacks so many bytes has to wait."""
        return (
            f"max_disk={amount(self.most)} has no room for another run: the checkpoints that have to stay take "
            f"{amount(self.total)}, and a run about {amount(self._need)}, with what it writes before the "
            f"old goes; {amount(short)} are lacking"
        )

    def _claim(self, trial_id: str, repeat: int) -> int:
        """Return what a run will add to what its repeat has on disk."""
        files = self.files(trial_id)
        return max(self._need - files.bytes_of(repeat), files.largest_of(repeat))


def victims(
    trials: Iterable[Trial], objective: Objective, pinned: Collection[str] = ()
) -> Iterator[Trial]:
    """Yield the trials whose checkpoints may go for want of room, those that are missed least first.

    Trials that are over, the worst first and never the best one; then those that wait for a promotion, the
    worst first: one that is promoted all the same begins anew. pinned: the ids of trials that are in use.
    """
    known = list(trials)
    over = [trial for trial in known if trial.is_over]
    yield from _worst_first(over, objective, spared=1)
    paused = [
        trial
        for trial in known
        if trial.state is TrialState.PAUSED and trial.trial_id not in pinned
    ]
    yield from _worst_first(paused, objective)


def _worst_first(trials: list[Trial], objective: Objective, spared: int = 0) -> Iterator[Trial]:
    """Yield the trials from the worst to the best, less so many of the best."""
    ranked = best_trials(trials, objective, len(trials))
    yield from (trial for trial in trials if not trial.has_score)
    yield from reversed(ranked[spared:])


def amount(number: float) -> str:
    """Return bytes in words: 1_500_000 is "1.5 MB"."""
    for unit in _UNITS[:-1]:
        if number < 999.5:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} {_UNITS[-1]}"
