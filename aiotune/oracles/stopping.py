"""Successive halving by stopping: a trial that passes a rung trains on only if it is among the best there.

The stopping variant of ASHA (Li et al. 2020; Klein et al. 2020, section 3.1): who passes a rung is compared
with those that have passed it so far. So the verdicts depend on the order in which trials get there.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from statistics import fmean
from typing import Unpack

from aiotune.history import History
from aiotune.learning.fidelity import Fidelities, reports_until
from aiotune.objective import Objective
from aiotune.oracles.asha import AshaOracle
from aiotune.oracles.base import Answer, Oracle, Verdict
from aiotune.oracles.ladder import Place, cost_of
from aiotune.oracles.model_based import OracleOptions
from aiotune.outcome import score_of
from aiotune.trial import Budget, Observation, Run, Trial

__all__ = ["AshaStoppingOracle", "Passes"]


class AshaStoppingOracle(AshaOracle):
    """ASHA that stops: a trial trains up to `max_epochs` in one run, unless it is not among the best at a rung.

    The arguments are those of `AshaOracle`. A trial's score at a rung is its best one since its begin, for that
    is what the score of a run is.
    """

    # Apart from the oracle that promotes, for one that judges is waited for at each report.

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_epochs: int = 100,
        factor: int = 3,
        min_epochs: int = 1,
        max_trials: int | None = 100,
        brackets: int = 1,
        sampler: str | Oracle = "random",
        **options: Unpack[OracleOptions],
    ) -> None:
        # No `resource`: a run cannot get more data while it trains.
        super().__init__(
            objective, max_epochs, factor, min_epochs, max_trials, brackets, sampler, **options
        )

    @property
    def needs_checkpoints(self) -> bool:
        return False

    def fidelities(self) -> Fidelities:
        passed = {rung.epochs for each in self.brackets for rung in each.rungs}
        return Fidelities(self.objective, sorted(passed))

    def ask(self, history: History, number: int) -> Answer:
        self._passes.follow(history.lineage, history.trials.values())
        return self.beginning(history, number)

    def first_budget(self, stream: int) -> Budget:
        return Budget(self.max_epochs, bracket=self.bracket_of(stream).number)

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        if not self._passes.has_begun:  # a resumed run may report before the first question
            self._passes.follow(None, self.trials.values())
        is_good = self._passes.is_among_the_best(trial, observation)
        return Verdict.CONTINUE if is_good else Verdict.STOP

    @cached_property
    def _passes(self) -> Passes:
        rungs = {each.number: [rung.epochs for rung in each.rungs[:-1]] for each in self.brackets}
        return Passes(rungs, self.factor, self.objective)


class Passes:
    """What trials had reached when they passed the rungs of their bracket: the best of the epochs until there.

    rungs: for each bracket, the epochs at which trials are judged, ascending. Of several repeats, the mean of
    those that have passed. All of it follows from what the runs have reported.
    """

    def __init__(
        self, rungs: Mapping[int, Sequence[int]], factor: int, objective: Objective
    ) -> None:
        self._rungs = rungs
        self._factor = factor
        self._objective = objective
        self._places: dict[tuple[int, int], list[Place]] = {}  # by bracket and rung, best first
        self._own: dict[tuple[str, int], Place] = {}  # by trial and rung
        self._lineage: object = None
        self.has_begun = False

    def follow(self, lineage: object, trials: Iterable[Trial]) -> None:
        """Read what an earlier process saw, unless it is known: see `History` for `lineage`.

        Later reports come in by `is_among_the_best`.
        """
        if self.has_begun and self._lineage is lineage:
            return
        self._lineage, self.has_begun = lineage, True
        self._places, self._own = {}, {}
        for trial in trials:
            for rung in range(len(self._rungs_of(trial))):
                self._note(trial, rung)

    def is_among_the_best(self, trial: Trial, observation: Observation) -> bool:
        """Tell whether a trial goes on after its newest report: True where that passes no rung."""
        passed = sorted(self._passed(trial, observation))
        for rung in passed:
            self._note(trial, rung)
        return not passed or self._is_good(trial, passed[-1])

    def _rungs_of(self, trial: Trial) -> Sequence[int]:
        bracket = None if trial.budget is None else trial.budget.bracket
        return () if bracket is None else self._rungs.get(bracket, ())

    def _passed(self, trial: Trial, observation: Observation) -> set[int]:
        """Return the rungs that the run passes by this report, its newest."""
        rungs = self._rungs_of(trial)
        reached = bisect_right(rungs, observation.step + 1)
        if reached == 0:
            return set()
        newest = [
            run
            for run in trial.runs
            if not run.is_over and run.observations and run.observations[-1] == observation
        ]
        return {
            rung
            for run in newest
            for rung in range(bisect_right(rungs, _step_before(trial, run) + 1), reached)
        }

    def _note(self, trial: Trial, rung: int) -> None:
        """Let the trial have the place in a rung that its reports give it."""
        assert trial.budget is not None
        assert trial.budget.bracket is not None
        costs = list(self._costs(trial, self._rungs_of(trial)[rung]))
        if not costs:
            return
        places = self._places.setdefault((trial.budget.bracket, rung), [])
        former = self._own.get((trial.trial_id, rung))
        if former is not None:
            del places[bisect_left(places, former)]
        place = fmean(costs), trial.number, trial.trial_id
        insort(places, place)
        self._own[trial.trial_id, rung] = place

    def _costs(self, trial: Trial, epochs: int) -> Iterator[float]:
        """Yield what each repeat had reached, less being better, by the newest of its runs that got so far."""
        repeats = {run.repeat for run in trial.runs}
        for repeat in sorted(repeats):
            runs = [run for run in trial.runs if run.repeat == repeat]
            curves = (reports_until(trial, run, epochs) for run in reversed(runs))
            curve = next((each for each in curves if each), None)
            if curve is not None:
                yield self._cost(curve)

    def _cost(self, curve: Sequence[Observation]) -> float:
        """Return the best of a curve; the worst there is without a number."""
        best = score_of(curve, self._objective)
        if best is None or best[0] != best[0]:
            return cost_of(self._objective.worst, self._objective)
        return cost_of(best[0], self._objective)

    def _is_good(self, trial: Trial, rung: int) -> bool:
        """Tell whether a trial is among the best 1 / factor of a rung, rounded up: the best one always is."""
        place = self._own.get((trial.trial_id, rung))
        if place is None:
            return True
        assert trial.budget is not None
        assert trial.budget.bracket is not None
        places = self._places[trial.budget.bracket, rung]
        return bisect_left(places, place) * self._factor < len(places)


def _step_before(trial: Trial, run: Run) -> int:
    """Return the step of the report before the newest one; -1 if there is none."""
    if len(run.observations) > 1:
        return run.observations[-2].step
    reports = trial.curve(run)
    return reports[-2].step if len(reports) > 1 else -1
