"""The search so far as a study of Optuna, fed with what the history has that is new.

The trials stand in the order of asking, behind those of earlier searches. A sampler may note more than values:
which generation a trial belongs to, how far a sequence was used up. Such notes are no facts of the search; so
each trial is asked for again when it is taken in, with the trials of then, and makes the same notes.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice

from optuna.samplers import BaseSampler
from optuna.trial import Trial as OptunaTrial

from aiotune.errors import FatalError, FatalRuntimeError
from aiotune.history import History
from aiotune.labels import Scalar, Values, exact
from aiotune.objective import Objective
from aiotune.oracles.optuna_axes import Axes
from aiotune.oracles.optuna_storage import RewindableStorage, open_study
from aiotune.oracles.optuna_trials import attributes_of, curve_of, directions_of, outcome_of
from aiotune.space import Space
from aiotune.trial import Trial

__all__ = ["Mirror"]

SamplerOf = Callable[[int, int], BaseSampler]  # for a stream and an attempt, counted from 0


class Mirror:
    """The trials of one search as those of a study.

    lineage: that of the search's history; see `History`. earlier: trials of other searches, all over. replays:
    so many attempts at most are made to find the one that led to a trial; 0: the samplers make no notes.
    Invariant: between calls, the study has the earlier trials, then those of the history that was given last.
    """

    def __init__(
        self,
        lineage: object,
        objective: Objective,
        sampler_of: SamplerOf,
        *,
        replays: int,
        earlier: Sequence[Trial] = (),
    ) -> None:
        self.lineage = lineage
        self._earlier = earlier
        self._objective = objective
        self._sampler_of = sampler_of
        self._replays = replays
        self._storage = RewindableStorage(directions_of(objective))
        self._study = open_study(self._storage)
        self._axes = Axes(Space())
        self._ends_read = 0
        for place, trial in enumerate(earlier):
            self._storage.create_new_trial(0)
            self._end(trial, place)

    def catch_up(self, history: History, space: Space) -> None:
        """Take in what came since the last call. `space` is what is tuned."""
        if self._axes.space != space:
            self._axes = Axes(space)
            for place, trial in enumerate(self._earlier):
                self._describe(trial, place)
        ends = history.ended_trials(after=self._ends_read)
        self._ends_read += len(ends)
        ends.reverse()  # the first one is now the last
        for number in range(len(self._storage.trials) - len(self._earlier), history.next_number):
            trial = history.numbered(number)
            while ends and _was_seen(ends[-1], trial):
                self._end(*self._placed(ends.pop()))
            self._begin(trial)
        while ends:
            self._end(*self._placed(ends.pop()))
        for trial in history.open_trials():
            self._describe(*self._placed(trial))

    @contextmanager
    def trying(self) -> Iterator[None]:
        """Leave no trace, after the block, of the points that were sought in it."""
        with self._storage.rewinding():
            yield

    def attempts(self, stream: int, among: Container[str] | None = None) -> Iterator[Values]:
        """Yield, without end, points for a further trial, each sought in place of the one before.

        among: the names that were known then; None: all that are known now.
        """
        count, attempt = len(self._storage.trials), 0
        while True:
            self._storage.drop_after(count)
            yield self._sample(self._sampler_of(stream, attempt), among)
            attempt += 1

    def _sample(self, sampler: BaseSampler, among: Container[str] | None) -> Values:
        self._study.sampler = sampler
        try:
            trial: OptunaTrial = self._study.ask()
            return self._axes.sample(trial, among)
        except FatalError:
            raise
        except Exception as error:
            raise FatalRuntimeError(
                f"Optuna's {type(sampler).__name__} finds no point: {type(error).__name__}: {error}"
            ) from error

    def _begin(self, trial: Trial) -> None:
        """Take in a trial as one that runs. What ended before it was asked for must have been taken in."""
        if self._replays:
            for values in islice(self.attempts(trial.stream, trial.proposed), self._replays):
                if _is_same(values, trial.proposed):
                    break
        else:
            self._storage.create_new_trial(0)
        self._describe(*self._placed(trial))

    def _placed(self, trial: Trial) -> tuple[Trial, int]:
        """Return a trial of this search with its place in the study."""
        return trial, len(self._earlier) + trial.number

    def _describe(self, trial: Trial, place: int) -> None:
        """Let the study know the trial's point as it is known now."""
        parameters, distributions = self._axes.encoded(trial.values)
        self._storage.change(place, params=parameters, distributions=distributions)

    def _end(self, trial: Trial, place: int) -> None:
        self._describe(trial, place)
        state, values = outcome_of(trial, self._objective)
        self._storage.change(
            place,
            user_attrs=attributes_of(trial),
            intermediate_values=curve_of(trial, self._objective),
        )
        sampler = self._sampler_of(trial.stream, 0)
        frozen = self._storage.get_trial(place)
        sampler.after_trial(self._study, frozen, state, values)
        self._storage.set_trial_state_values(place, state, values)


def _was_seen(ended: Trial, asked: Trial) -> bool:
    """Tell whether the end of one trial was known when another was asked for."""
    assert ended.ended_after is not None
    return ended.number < asked.number and ended.ended_after < asked.asked_after


def _is_same(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> bool:
    return {name: exact(value) for name, value in one.items()} == {
        name: exact(value) for name, value in other.items()
    }
