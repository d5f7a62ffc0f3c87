"""What the trials of a search scored at each fidelity: after so many epochs, or on so much of the data.

A model learns from the highest fidelity that enough trials have reached (BOHB: Falkner et al. 2018, section
3.2). These are the best of those that were tried: were they all, a model would know nothing of the poor ones,
and look there again and again. So the others count, too, as if they had gained what trials gain on the median
between their last fidelity and that one. Failures count at every fidelity that they kept a trial from. All of
it follows from the moves of the trials, in their order.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import TYPE_CHECKING

from aiotune.changing import changed
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.outcome import score_of
from aiotune.space import Space
from aiotune.trial import Budget, Observation, Run, RunState, Trial, TrialState, counted_runs

if TYPE_CHECKING:
    from aiotune.learning.gaussian_process import Array
    from aiotune.learning.lessons import Lessons

__all__ = ["Fidelities", "reports_until", "runs_under"]

# Beyond one for each name: |D| >= N_min + 2 with N_min = d + 1 in Falkner et al. 2018, section 3.2.
_MORE_THAN_NAMES = 3
_BROKEN = frozenset({TrialState.FAILED, TrialState.INFEASIBLE})
_WITH_RESULT = frozenset({RunState.FINISHED, RunState.STOPPED})


@dataclass(slots=True)
class _Known:
    """What is known of a trial: how it would have ended at each fidelity that it reached."""

    first: Trial  # its first result, or its failure
    at: dict[int, Trial] = field(default_factory=dict)
    results: dict[int, Array] = field(
        default_factory=dict
    )  # the same in numbers, as they are asked for
    is_broken: bool = False  # at all higher ones


class Fidelities:
    """The results of one search by fidelity, which is the last epoch of a budget.

    passed: the epochs at which a run that trains through them all is looked at, instead of at its end.
    """

    def __init__(self, objective: Objective, passed: Sequence[int] = ()) -> None:
        self._objective = objective
        self._passed = passed
        self._begin(None)

    def _begin(self, lineage: object) -> None:
        self._lineage = lineage
        self._moves_read = 0
        self._pauses = Counter[str]()  # of each trial
        self._scored = Counter[int]()  # at each fidelity
        self._known: dict[str, _Known] = {}  # in the order of their first results
        self._is_new = True
        self._ground: Lessons | None = None  # the places of the trials, with their first results
        self._taken = 0
        self._lessons: Lessons | None = None

    def lessons(self, history: History, space: Space) -> Lessons:
        """Return what the trials teach about the highest fidelity that has enough scores; else that with most.

        The same object while nothing is new.
        """
        if self._lineage is not history.lineage:
            self._begin(history.lineage)
        self._catch_up(history)
        ground = self._ground_of(space)
        if self._is_new or self._lessons is None:
            self._lessons, self._is_new = self._at(self._chosen(space), ground), False
        return self._lessons

    def _ground_of(self, space: Space) -> Lessons:
        from aiotune.learning.lessons import Lessons

        if self._ground is None or self._ground.encoding.space != space:
            self._ground, self._taken, self._is_new = Lessons(space, self._objective), 0, True
        news = list(self._known.values())[self._taken :]
        self._taken += len(news)
        self._ground.take(each.first for each in news)
        return self._ground

    def _chosen(self, space: Space) -> int:
        enough = sum(each.size != 1 for each in space) + _MORE_THAN_NAMES
        reached = [each for each, count in self._scored.items() if count >= enough]
        if reached:
            return max(reached)
        return max(self._scored, key=lambda each: (self._scored[each], each), default=0)

    def _at(self, fidelity: int, ground: Lessons) -> Lessons:
        """Return the lessons as they are, or would be, at one fidelity."""
        import numpy as np

        known = [self._known[each.trial_id] for each in ground.trials]
        gains = {epochs: self._gain(epochs, fidelity, ground) for epochs in self._scored}
        results = np.full((len(known), 1 + ground.goals.shape[1]), np.nan)
        for row, each in enumerate(known):
            if fidelity in each.at:
                results[row] = _result(each, fidelity, ground)
            elif each.at and not each.is_broken:
                last = max(each.at)
                results[row] = _result(each, last, ground) + gains[last]
        is_broken = [each.is_broken and fidelity not in each.at for each in known]
        return ground.counted_as(results[:, 0], results[:, 1:], np.array(is_broken, dtype=bool))

    def _gain(self, low: int, high: int, ground: Lessons) -> Array:
        """Return how results change between two fidelities, on the median: (1 + d,); NaN if unknown."""
        import numpy as np

        both = [each for each in self._known.values() if low in each.at and high in each.at]
        if not both:
            return np.full(1 + ground.goals.shape[1], np.nan)
        changes = [_result(each, high, ground) - _result(each, low, ground) for each in both]
        gain: Array = np.median(np.array(changes), axis=0)
        return gain

    # --- reading ---

    def _catch_up(self, history: History) -> None:
        moves = history.moves(after=self._moves_read)
        self._moves_read += len(moves)
        for trial, state, _ in moves:
            match state:
                case TrialState.QUEUED | TrialState.RUNNING | TrialState.DUPLICATE:
                    pass
                case TrialState.PAUSED:
                    self._take_pause(trial)
                case _:
                    self._take_end(trial)

    def _take_pause(self, trial: Trial) -> None:
        """Take in the result under the budget that the trial had then; it may have got another since."""
        budget = _budgets(trial)[self._pauses[trial.trial_id]]
        self._pauses[trial.trial_id] += 1
        self._take_result(trial, budget)

    def _take_end(self, trial: Trial) -> None:
        if trial.state in _BROKEN:
            self._of(trial, trial).is_broken = True
        elif self._passed:
            for epochs in self._passed:
                self._take(epochs, trial, _runs_until(trial, epochs, self._objective))
        else:
            for budget in _budgets(trial)[self._pauses[trial.trial_id] :]:
                self._take_result(trial, budget)

    def _take_result(self, trial: Trial, budget: Budget | None) -> None:
        if budget is not None:
            self._take(budget.epochs, trial, runs_under(trial, budget, self._objective))

    def _take(self, epochs: int, trial: Trial, runs: Sequence[Run]) -> None:
        if runs:
            result = _as_over(trial, runs, self._objective)
            known = self._of(trial, result)
            self._scored[epochs] += epochs not in known.at
            known.at[epochs] = result

    def _of(self, trial: Trial, result: Trial) -> _Known:
        self._is_new = True
        return self._known.setdefault(trial.trial_id, _Known(result))


def _result(known: _Known, fidelity: int, ground: Lessons) -> Array:
    """Return a trial's score at a fidelity, then its goals: (1 + d,)."""
    if fidelity not in known.results:
        known.results[fidelity] = ground.result_of(known.at[fidelity])
    return known.results[fidelity]


def runs_under(trial: Trial, budget: Budget, objective: Objective) -> list[Run]:
    """Return the runs whose mean was the trial's score when it had used up a budget; [] if it never had."""
    return counted_runs(changed(trial, budget=budget), TrialState.PAUSED, objective)


def reports_until(trial: Trial, run: Run, epochs: int) -> list[Observation]:
    """Return what a run, with those that it continues, reported until it had trained so far.

    [] if it has not.
    """
    reports: list[Observation] = []
    for each in trial.curve(run):
        reports.append(each)
        if each.step + 1 >= epochs:
            return reports
    return []


def _budgets(trial: Trial) -> list[Budget | None]:
    """Return the budgets that the trial has had runs under, in their order."""
    return list(dict.fromkeys(run.budget for run in trial.runs))


def _runs_until(trial: Trial, epochs: int, objective: Objective) -> list[Run]:
    """Return a run of each repeat as if it had ended after so many epochs; [] unless all have got there."""
    last = {run.repeat: run for run in trial.runs if run.state in _WITH_RESULT}
    found = [_run_until(trial, run, epochs, objective) for _, run in sorted(last.items())]
    runs = [run for run in found if run is not None]
    return runs if len(runs) == len(found) else []


def _run_until(trial: Trial, run: Run, epochs: int, objective: Objective) -> Run | None:
    reports = reports_until(trial, run, epochs)
    best = score_of(reports, objective)
    if best is None:
        return None
    _, step = best
    metrics = next(each.metrics for each in reports if each.step == step)
    return replace(run, metrics=metrics, best_step=step)


def _as_over(trial: Trial, runs: Sequence[Run], objective: Objective) -> Trial:
    """Return the trial as if it had ended with these runs."""
    names = [name for name in runs[0].metrics if all(name in run.metrics for run in runs)]
    return replace(
        trial,
        state=TrialState.COMPLETED,
        runs=tuple(runs),
        score=fmean(objective.get_value(run.metrics) for run in runs),
        final_metrics={name: fmean(run.metrics[name] for run in runs) for name in names},
    )
