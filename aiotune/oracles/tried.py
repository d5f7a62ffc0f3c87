"""Which points the trials of a search have used: the memory of every oracle that proposes none twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import count

from aiotune.history import History
from aiotune.labels import exact
from aiotune.space import HyperParameter, Identity, Scalar, Values
from aiotune.trial import FailureKind, Trial, TrialState

__all__ = ["REFUSALS", "Fill", "Tried", "may_be_at"]

# What user code refused, it refused for the names met so far, whatever else it would have met.
REFUSALS = frozenset({FailureKind.INFEASIBLE, FailureKind.USER_ERROR})

_LONGEST_SEQUENCE = 2**24

Fill = Callable[[HyperParameter], Scalar]


class Tried:
    """The points and candidates that the trials of a search have used. All of it follows from its history.

    lineage: that of the search's history; see `History`.
    """

    def __init__(self, lineage: object) -> None:
        self.lineage = lineage
        self._root = _Node()
        self._leaves: dict[str, _Node] = {}  # where each trial's path ends
        self._broken: dict[str, Trial] = {}  # over before its path was complete
        self._used: set[int] = set()
        self._numbers_read = 0
        self._meetings_read = 0
        self._ends_read = 0
        self._postponed: list[str] = []  # ids of trials that were to be judged when they were read
        self._floor = 0  # every candidate below is used
        self._top = 0  # the candidate of every trial is below
        self._undrawn = (
            0  # the same, but for streams that are no candidates: a grid search makes larger ones
        )

    def catch_up(self, history: History, but: str) -> None:
        """Read what came since the last call; the trial `but` is to be judged, not yet to be taken in."""
        for number in range(self._numbers_read, history.next_number):
            stream = history.numbered(number).stream
            self._used.add(stream)
            self._top = max(self._top, stream + 1)
            if stream < _LONGEST_SEQUENCE:
                self._undrawn = max(self._undrawn, stream + 1)
        self._numbers_read = history.next_number
        postponed, self._postponed = self._postponed, []
        met = history.met_trials(after=self._meetings_read)
        self._meetings_read += len(met)
        ended = history.ended_trials(after=self._ends_read)
        self._ends_read += len(ended)
        # Each once, though most of them have met their names and ended since.
        news = {each.trial_id: each for each in (*map(history.trial, postponed), *met, *ended)}
        for trial in news.values():
            if trial.trial_id == but:
                self._postponed.append(but)
            elif trial.state is not TrialState.DUPLICATE:
                self._take_in(trial)

    def _take_in(self, trial: Trial) -> None:
        # What user code refused, it refused for the names met so far, whatever else it would have met.
        is_refused = trial.failure in REFUSALS and bool(trial.space)
        if trial.is_path_complete or is_refused:
            self._place(trial)
        elif trial.is_over:
            self._broken[trial.trial_id] = trial

    def _place(self, trial: Trial) -> None:
        """Let the trial's path end at its leaf; it may have ended earlier, before it met a further name."""
        node = self._root
        for each in trial.space:
            node = node.step(each, trial.values[each.name])
        former = self._leaves.get(trial.trial_id)
        if former is not node:
            if former is not None and former.owner == trial.trial_id:
                former.owner = None
            self._leaves[trial.trial_id] = node
        node.owner = node.owner or trial.trial_id

    def has_point(self, values: Mapping[str, Scalar], fill: Fill, but: str = "") -> bool:
        """Tell whether a run at `values`, and `fill` for other names, would take a point already tried.

        A program is taken to be a function of its values: it then walks the same path and meets the same names.
        """
        ends = self._root.walk(
            lambda each: values[each.name] if each.name in values else fill(each)
        )
        return any(owner != but for owner in ends)

    def has_broken(self, values: Mapping[str, Scalar], complete: Callable[[Trial], Values]) -> bool:
        """Tell whether `values`, over the whole space, are those of a trial that broke on its way.

        With no name known yet, nothing tells one trial from another.
        """
        return bool(values) and any(
            _is_same(complete(trial), values) for trial in self._broken.values()
        )

    def unused(self) -> Iterator[int]:
        """Yield the candidates that no trial has used, in order, without an end."""
        while self._floor in self._used:
            self._floor += 1
        return (each for each in count(self._floor) if each not in self._used)

    @property
    def first_undrawn(self) -> int:
        """The first candidate above all that trials were drawn from."""
        return self._undrawn

    @property
    def first_free(self) -> int:
        """A candidate above those of all trials, so that its chance is fresh.

        Not above those that were passed over: which they are depends on what was asked since the search opened.
        """
        return self._top


class _Node:
    """A program after some of its declarations. A path through the tree is a point of the space.

    Nearly always one declaration comes next: a program is a function of its values. Where runs were seen to
    go on differently (a name under two ranges, a name met after the build was over), each way is followed.
    """

    __slots__ = ("_ways", "owner")

    def __init__(self) -> None:
        self.owner: str | None = None  # the trial whose path ends here
        self._ways: dict[Identity, tuple[HyperParameter, dict[tuple[type, Scalar], _Node]]] = {}

    def step(self, declared: HyperParameter, value: Scalar) -> _Node:
        """Return the node behind a declaration and its value, made if need be."""
        way = self._ways.get(declared.identity)
        if way is None:
            way = self._ways[declared.identity] = declared, {}
        values, key = way[1], exact(value)
        node = values.get(key)
        if node is None:
            node = values[key] = _Node()
        return node

    def walk(self, choose: Fill) -> Iterator[str]:
        """Yield the trials whose paths a program meets that gets `choose(declaration)` for each name."""
        if self.owner is not None:
            yield self.owner
        for declared, values in self._ways.values():
            node = values.get(exact(choose(declared)))
            if node is not None:
                yield from node.walk(choose)


def may_be_at(trial: Trial, values: Mapping[str, Scalar]) -> bool:
    """Tell whether a point may be that of a trial whose names are not all known yet.

    A trial that has no value yet says nothing: it is not waited for.
    """
    return bool(trial.values) and all(
        exact(value) == exact(values[name])
        for name, value in trial.values.items()
        if name in values
    )


def _is_same(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> bool:
    return one.keys() == other.keys() and all(
        exact(value) == exact(other[name]) for name, value in one.items()
    )
