"""The runs that wait for a device: retries, repeats, promotions and new trials, oldest trial first.

What a trial wants follows from its facts (`settlement.pending`), so a resumed search has the same queue. It is
worked out anew for the trial that a fact is about, and for no other: a search may have a thousand in flight.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from aiotune.events import (
    CheckpointsDropped,
    CheckpointsKept,
    DeviceChanged,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SearchOpened,
    SpaceGrew,
    StopRequested,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.history import History
from aiotune.settlement import Policy, Work, pending
from aiotune.trial import Trial, TrialState

__all__ = ["RunQueue"]


class RunQueue:
    """The runs of a search that could start, given devices.

    Invariant, between facts: what it has for a trial in flight is `pending(trial, policy)`; nothing for others.
    """

    def __init__(self, history: History, policy: Policy) -> None:
        self._history = history
        self._policy = policy
        self._works: dict[int, list[Work]] = {}  # by the trial's number; none is empty
        self._numbers: list[int] = []  # the keys of `_works`, ascending
        for trial in history.trials_in_flight():
            self._look(trial)

    def __len__(self) -> int:
        """How many trials have a run that waits."""
        return len(self._numbers)

    def __iter__(self) -> Iterator[tuple[Trial, Sequence[Work]]]:
        """Yield the trials with their waiting runs, oldest first. To be read before the next fact."""
        for number in self._numbers:
            yield self._history.numbered(number), self._works[number]

    def note(self, fact: Event) -> None:
        """Take note of a fact that the history has."""
        match fact:
            case (
                TrialCreated(trial_id=trial_id)
                | RunStarted(trial_id=trial_id)
                | StopRequested(trial_id=trial_id)
                | RunEnded(trial_id=trial_id)
                | TrialPaused(trial_id=trial_id)
                | TrialPromoted(trial_id=trial_id)
                | TrialEnded(trial_id=trial_id)
            ):
                self._look(self._history.trial(trial_id))
            case (
                Reported()
                | TrialMet()
                | SpaceGrew()
                | SearchOpened()
                | SearchEnded()
                | CheckpointsKept()
                | CheckpointsDropped()
                | DeviceChanged()
            ):
                pass  # none of them says that a run is wanted

    def _look(self, trial: Trial) -> None:
        is_in_flight = not trial.is_over and trial.state is not TrialState.PAUSED
        works = pending(trial, self._policy) if is_in_flight else []
        was_waiting = trial.number in self._works
        if works:
            self._works[trial.number] = works
            if not was_waiting:
                insort(self._numbers, trial.number)
        elif was_waiting:
            del self._works[trial.number]
            del self._numbers[bisect_left(self._numbers, trial.number)]
