"""Which trials of KerasTuner's are one point: its Hyperband makes a new trial to go on with an earlier one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from aiotune.kerastuner_files import SourceProject, SourceTrial
from aiotune.objective import Objective
from aiotune.oracles.brackets import Bracket, brackets_of
from aiotune.space import Values
from aiotune.trial import Budget

__all__ = ["Lineage", "lineages_of"]

_PARENT = "tuner/trial_id"
_Place = tuple[int, int]  # iteration and number of a bracket


@dataclass(frozen=True, slots=True)
class Lineage:
    """One point: a trial of KerasTuner's, and those that went on with it (Hyperband), each with its budget."""

    links: tuple[SourceTrial, ...]
    budgets: tuple[Budget | None, ...]
    is_promotable: bool = False  # its bracket is not done: it waits for a promotion

    @property
    def last(self) -> SourceTrial:
        return self.links[-1]

    def best(self, objective: Objective) -> SourceTrial:
        """Return the link with the best score; the last one, if none has a score."""
        scored = [link for link in self.links if link.is_scored]
        return (
            scored[objective.best([link.score or 0.0 for link in scored])] if scored else self.last
        )

    def point(self, link: SourceTrial) -> Values:
        """Return the link's values, less those that its budget has."""
        budget = self.budget_of(link)
        told = () if budget is None else (*budget.values, _PARENT)
        return {name: value for name, value in link.values.items() if name not in told}

    def waits_after(self, link: SourceTrial) -> bool:
        """Tell whether the trial was paused then: it was promoted, or still may be."""
        if link is not self.last:
            return True
        budget = self.budget_of(link)
        return self.is_promotable and budget is not None and not budget.is_last and link.is_scored

    def budget_of(self, link: SourceTrial) -> Budget | None:
        return self.budgets[self.links.index(link)]


def lineages_of(source: SourceProject) -> list[Lineage]:
    """Return the points in the order in which they were proposed."""
    if source.plan is None:
        return [Lineage((trial,), (None,)) for trial in source.trials]
    plan = brackets_of(source.plan.max_epochs, source.plan.factor)
    begun: Counter[int] = Counter()
    lineages = [_with_budgets(chain, plan, begun) for chain in _chains(source)]
    return _marked(lineages, plan)


def _chains(source: SourceProject) -> list[tuple[SourceTrial, ...]]:
    """Return each trial that began a point, with those that went on with it."""
    by_id = {trial.trial_id: trial for trial in source.trials}
    follower: dict[str, SourceTrial] = {}
    roots = []
    for trial in source.trials:
        parent = by_id.get(str(trial.values.get(_PARENT)))
        goes_on = parent is not None and parent.is_scored and parent.trial_id not in follower
        if parent is None or not goes_on or None in map(_plain_budget, (parent, trial)):
            roots.append(trial)
        else:
            follower[parent.trial_id] = trial
    chains = [tuple(_followed(root, follower)) for root in roots]
    told = {trial.trial_id for chain in chains for trial in chain}
    # Those that say that they go on with one another in a circle are points of their own.
    return [*chains, *((trial,) for trial in source.trials if trial.trial_id not in told)]


def _followed(
    trial: SourceTrial | None, follower: Mapping[str, SourceTrial]
) -> Iterator[SourceTrial]:
    while trial is not None:
        yield trial
        trial = follower.get(trial.trial_id)


def _with_budgets(
    chain: tuple[SourceTrial, ...], plan: Sequence[Bracket], begun: Counter[int]
) -> Lineage:
    """Place the chain in a bracket. `begun`: how many began in each so far, over all iterations."""
    bracket = next((each for each in _likely(chain[0], plan) if _grants(each, chain)), None)
    if bracket is None:
        return Lineage(chain, tuple(map(_plain_budget, chain)))
    iteration = begun[bracket.number] // bracket.size
    begun[bracket.number] += 1
    last = len(bracket.rungs) - 1
    budgets = [
        Budget(rung.epochs, rung.initial_epoch, bracket.number, index, iteration, index == last)
        for index, rung in enumerate(bracket.rungs[: len(chain)])
    ]
    return Lineage(chain, tuple(budgets))


def _likely(root: SourceTrial, plan: Sequence[Bracket]) -> list[Bracket]:
    """Return the brackets, the one that the trial says first: with parallel workers it may be wrong."""
    return sorted(plan, key=lambda each: each.number != root.values.get("tuner/bracket"))


def _grants(bracket: Bracket, chain: Sequence[SourceTrial]) -> bool:
    return len(chain) <= len(bracket.rungs) and all(
        (link.values.get("tuner/epochs"), link.values.get("tuner/initial_epoch"))
        == (rung.epochs, rung.initial_epoch)
        for link, rung in zip(chain, bracket.rungs, strict=False)
    )


def _plain_budget(trial: SourceTrial) -> Budget | None:
    """Return the budget of a trial that belongs to no bracket that is known."""
    epochs, initial = (trial.values.get(each) for each in ("tuner/epochs", "tuner/initial_epoch"))
    return Budget(epochs, initial) if isinstance(epochs, int) and isinstance(initial, int) else None


def _marked(lineages: Sequence[Lineage], plan: Sequence[Bracket]) -> list[Lineage]:
    """Mark those that may still be promoted: in brackets that lack trials, or results in the last rung."""
    begun, done = Counter[_Place](), Counter[_Place]()
    for each in lineages:
        place, budget = _place(each), each.budgets[-1]
        if place is not None and budget is not None:
            begun[place] += 1
            done[place] += budget.is_last and _is_over(each.last)
    sizes = {each.number: (each.size, each.rungs[-1].size) for each in plan}

    def is_open(place: _Place) -> bool:
        size, last = sizes[place[1]]
        return begun[place] < size or done[place] < last

    places = map(_place, lineages)
    return [
        replace(each, is_promotable=place is not None and is_open(place))
        for each, place in zip(lineages, places, strict=True)
    ]


def _place(lineage: Lineage) -> _Place | None:
    """Return iteration and number of its bracket."""
    budget = lineage.budgets[0]
    return None if budget is None or budget.bracket is None else (budget.iteration, budget.bracket)


def _is_over(trial: SourceTrial) -> bool:
    return trial.status in ("COMPLETED", "FAILED")
