"""What KerasTuner's files say, as the facts of a search.

A trial becomes a trial, under the next number. Those that Hyperband made to go on with an earlier one become
further runs of that one, for here a point is one trial. The facts stand in an order in which they might have
happened: all trials are asked for, then run in the order of their ends.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from aiotune.events import (
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SearchOpened,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
    TrialPaused,
    TrialPromoted,
)
from aiotune.kerastuner_files import Metric, SourceProject, SourceTrial
from aiotune.kerastuner_points import Lineage
from aiotune.objective import Objective
from aiotune.trial import Budget, FailureKind, RunState, TrialState, trial_id_of

__all__ = ["facts_of"]


def facts_of(
    source: SourceProject,
    lineages: Sequence[Lineage],
    objective: Objective,
    *,
    now: float,
    version: str,
) -> list[Event]:
    """Return every fact of the search, the opening first. `now`, `version`: of the import."""
    facts: list[Event] = [
        SearchOpened(
            now, objective.get_config(), source.seed or 0, source.proposer or "KerasTuner", version
        )
    ]
    if len(source.space):
        facts.append(SpaceGrew(now, None, tuple(source.space)))
    for number, lineage in enumerate(lineages):
        facts.append(_created(lineage, number, asked_after=len(facts)))
    told = _Teller(source, lineages, objective)
    for trial in _in_order_of_ends(source):
        facts.extend(told.about(trial))
    facts.append(
        SearchEnded(now, EndReason.STOPPED, f"imported from KerasTuner's {source.directory}")
    )
    return facts


def _created(lineage: Lineage, number: int, *, asked_after: int) -> TrialCreated:
    first = lineage.links[0]
    return TrialCreated(
        at=_began(first),
        trial_id=trial_id_of(number),
        number=number,
        stream=number,
        values=lineage.point(first),
        asked_after=asked_after,
        budget=lineage.budgets[0],
    )


def _in_order_of_ends(source: SourceProject) -> list[SourceTrial]:
    """Return the trials as they ended, then those that did not, each after the one that it went on with."""
    place = {trial_id: number for number, trial_id in enumerate(source.ended)}
    return sorted(source.trials, key=lambda each: place.get(each.trial_id, len(place)))


class _Teller:
    """Tells the facts of one trial after the other."""

    def __init__(
        self, source: SourceProject, lineages: Sequence[Lineage], objective: Objective
    ) -> None:
        self._source = source
        self._objective = objective
        self._of = {
            link.trial_id: (trial_id_of(number), lineage)
            for number, lineage in enumerate(lineages)
            for link in lineage.links
        }
        self._told: set[str] = set()
        self._runs: Counter[str] = Counter()

    def about(self, source: SourceTrial) -> Iterator[Event]:
        """Yield what happened to the trial, and before that to those which it went on with."""
        trial_id, lineage = self._of[source.trial_id]
        for index, link in enumerate(lineage.links[: lineage.links.index(source) + 1]):
            if link.trial_id not in self._told:
                self._told.add(link.trial_id)
                if index:
                    yield self._promoted(trial_id, lineage, link)
                yield from self._ran(trial_id, lineage, link)
                yield from self._settled(trial_id, lineage, link)

    def _promoted(self, trial_id: str, lineage: Lineage, link: SourceTrial) -> TrialPromoted:
        budget = lineage.budget_of(link)
        assert budget is not None
        return TrialPromoted(_began(link), trial_id, budget)

    def _ran(self, trial_id: str, lineage: Lineage, link: SourceTrial) -> Iterator[Event]:
        """Yield a run for each value that the trial has at a step: KerasTuner kept the mean of such."""
        widths = [len(each) for one in link.metrics.values() for each in one.values.values()]
        offset = _offset(lineage.budget_of(link), link)
        for repeat in range(max(widths, default=1)):
            run = self._runs[trial_id]
            self._runs[trial_id] += 1
            steps = _steps(link.metrics, repeat, offset)
            yield RunStarted(
                _began(link),
                trial_id,
                run,
                repeat,
                max(link.attempts - 1, 0),
                (),
                None,
                lineage.budget_of(link),
            )
            yield TrialMet(
                _began(link), trial_id, link.space, lineage.point(link), link.status == "COMPLETED"
            )
            for step, metrics in steps.items():
                yield Reported(link.written_at, trial_id, run, step, metrics)
            yield self._run_ended(trial_id, run, link, steps)

    def _run_ended(
        self, trial_id: str, run: int, link: SourceTrial, steps: Mapping[int, Mapping[str, float]]
    ) -> RunEnded:
        state = _run_state(link)
        best = self._best_step(steps)
        metrics = {} if best is None or state is RunState.LOST else steps[best]
        return RunEnded(
            link.written_at,
            trial_id,
            run,
            state,
            metrics,
            best_step=None if state is RunState.LOST else best,
            failure=self._failure(link) if state is RunState.FAILED else None,
            message=_run_message(link),
        )

    def _best_step(self, steps: Mapping[int, Mapping[str, float]]) -> int | None:
        """Return the step with the best value of the objective; the last one, if none has it."""
        known = [step for step, metrics in steps.items() if self._objective.has_value(metrics)]
        if not known:
            return max(steps, default=None)
        return known[
            self._objective.best([self._objective.get_value(steps[each]) for each in known])
        ]

    def _settled(self, trial_id: str, lineage: Lineage, link: SourceTrial) -> Iterator[Event]:
        """Yield how the trial stands after a link."""
        if lineage.waits_after(link):
            step = _absolute(lineage, link)
            yield TrialPaused(link.written_at, trial_id, link.score, step)
            return
        state = self._end_of(link)
        if state is None:
            return  # it is run again
        best = lineage.best(self._objective)
        yield TrialEnded(
            link.written_at,
            trial_id,
            state,
            best.score,
            _absolute(lineage, best),
            self._final_metrics(best),
            self._failure(link) if state is TrialState.FAILED else None,
            link.message,
        )

    def _end_of(self, link: SourceTrial) -> TrialState | None:
        match link.status:
            case "COMPLETED":
                return TrialState.COMPLETED
            case "FAILED":
                return TrialState.FAILED
            case "STOPPED":
                return TrialState.PRUNED
            case "INVALID" if link.trial_id not in self._source.to_retry:
                return TrialState.FAILED
            case _:
                return None

    def _failure(self, link: SourceTrial) -> FailureKind:
        measured = link.metrics.get(self._objective.name)
        is_nan = measured is not None and measured.best() is None
        return FailureKind.NAN if is_nan else FailureKind.USER_ERROR

    def _final_metrics(self, link: SourceTrial) -> dict[str, float]:
        """Return the means at the best step; of a metric that has none there, at its last one."""
        return {
            name: statistics.fmean(metric.values.get(link.best_step or 0) or _last(metric))
            for name, metric in link.metrics.items()
            if metric.values
        }


def _last(metric: Metric) -> Sequence[float]:
    return metric.values[max(metric.values)]


def _steps(metrics: Mapping[str, Metric], repeat: int, offset: int) -> dict[int, dict[str, float]]:
    """Return by step what one execution measured."""
    steps: dict[int, dict[str, float]] = {}
    for name, metric in metrics.items():
        for step, values in metric.values.items():
            if len(values) > repeat:
                steps.setdefault(step + offset, {})[name] = values[repeat]
    return dict(sorted(steps.items()))


def _offset(budget: Budget | None, link: SourceTrial) -> int:
    """Return where the steps of a promoted trial begin: KerasTuner counts them from its promotion on."""
    if budget is None:
        return 0
    steps = [step for metric in link.metrics.values() for step in metric.values]
    length = budget.epochs - budget.initial_epoch
    return budget.initial_epoch if max(steps, default=0) < length else 0


def _absolute(lineage: Lineage, link: SourceTrial) -> int | None:
    if link.best_step is None or not link.is_scored:
        return link.best_step
    return link.best_step + _offset(lineage.budget_of(link), link)


def _run_state(link: SourceTrial) -> RunState:
    match link.status:
        case "COMPLETED":
            return RunState.FINISHED
        case "STOPPED":
            return RunState.STOPPED
        case "FAILED" | "INVALID":
            return RunState.FAILED
        case _:
            return RunState.LOST


def _run_message(link: SourceTrial) -> str:
    origin = f"run by KerasTuner as trial {link.trial_id}"
    if _run_state(link) is RunState.LOST:
        origin += f", which was {link.status}"
    return f"{origin}\n{link.message}" if link.message else origin


def _began(link: SourceTrial) -> float:
    return link.written_at if link.started_at is None else min(link.started_at, link.written_at)
