"""Random search without repeats, whatever runs beside it.

The search walks a sequence of candidates 0, 1, 2, ... Candidate c draws the value of each name from
(seed, c, name), so its point depends on nothing else, however late the program declares the name. The search's
points are the first `max_trials` distinct ones of that sequence: a candidate that repeats a known point is
passed over, and one that might repeat a point whose trial is still finding out its names is deferred. Hence
the number of slots and the order in which trials end change nothing. Two things may: trials that fail before
they have met all their names, and a name that the program declares with one range here and another there, of
which the first one met holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from aiotune.history import History
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest, Wait
from aiotune.space import HyperParameter, Identity, Scalar, Space, Values, point_key, unit_draw
from aiotune.trial import FailureKind, Trial, TrialState

__all__ = ["RandomSearchOracle"]

# So many candidates in a row without a new point: the space must be small and nearly used up, so list it.
# With a tenth of the points left, 200 misses in a row have a chance of 7e-10.
_MISSES_BEFORE_LISTING = 200
_LARGEST_LIST = 100_000
_REFUSALS = frozenset({FailureKind.INFEASIBLE, FailureKind.USER_ERROR})

Fill = Callable[[HyperParameter], Scalar]


class RandomSearchOracle(Oracle):
    """Draws every trial at random. A finite space is exhausted exactly, without a repeat."""

    _tried: _Tried | None = None

    def ask(self, history: History, number: int) -> Answer:
        tried = self._catch_up(history)
        space = self.tunable(history)
        unsettled = [t for t in history.trials_in_flight() if not t.is_path_complete]
        deferred = 0
        for candidate in tried.unused(_MISSES_BEFORE_LISTING):
            fill = self._fill(candidate)
            values = space.complete(fill)
            if self._was_tried(tried, space, values, fill):
                tried.use(candidate)
            elif any(_agrees(trial, values) for trial in unsettled):
                deferred += 1
                if self.max_trials and history.counted() + deferred >= self.max_trials:
                    return Wait()
            else:
                return Suggest(values, stream=candidate)
        return self._ask_from_list(history, tried, space)

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether the point of `trial`, by what is known of its path, was tried by another trial."""
        tried = self._catch_up(history, but=trial.trial_id)
        return tried.has_point(trial.values, self._fill(trial.stream), but=trial.trial_id)

    def _catch_up(self, history: History, but: str = "") -> _Tried:
        if self._tried is None or self._tried.history is not history:
            self._tried = _Tried(history)
        self._tried.catch_up(but)
        return self._tried

    def _fill(self, candidate: int) -> Fill:
        """Return the chance of one candidate: the value of any name, known or not."""
        seed = self.chance
        if self.tune_new_entries:
            return lambda each: each.from_unit(unit_draw(seed, candidate, each.name))
        known = {each.identity for each in self.hyperparameters.space}
        return lambda each: (
            each.from_unit(unit_draw(seed, candidate, each.name))
            if each.identity in known
            else each.default
        )

    def _was_tried(self, tried: _Tried, space: Space, values: Values, fill: Fill) -> bool:
        def complete(trial: Trial) -> Values:
            return space.complete(self._fill(trial.stream), trial.values)

        return tried.has_point(values, fill) or tried.has_broken(values, complete)

    def _ask_from_list(self, history: History, tried: _Tried, space: Space) -> Answer:
        """Return a point of a nearly exhausted space that no trial has or may turn out to have."""
        in_flight = history.trials_in_flight()
        if (space.size or _LARGEST_LIST) < _LARGEST_LIST:
            stream = tried.first_free
            fill = self._fill(stream)
            left = [
                values
                for values in space.points()
                if not self._was_tried(tried, space, values, fill)
                and not any(_agrees(trial, values) for trial in in_flight)
            ]
            if left:
                chance = self.chance
                values = min(left, key=lambda each: unit_draw(chance, "list", point_key(each)))
                return Suggest(values, stream=stream)
        return Wait() if in_flight else Exhausted()


class _Tried:
    """The points and candidates that the trials of a history have used. All of it follows from the history."""

    def __init__(self, history: History) -> None:
        self.history = history
        self._root = _Node()
        self._leaves: dict[str, _Node] = {}  # where each trial's path ends
        self._broken: dict[str, Trial] = {}  # over before its path was complete
        self._used: set[int] = set()
        self._numbers_read = 0
        self._ends_read = 0
        self._floor = 0  # every candidate below is used
        self._top = 0  # every used candidate is below

    def catch_up(self, but: str) -> None:
        """Read what came since the last call; the trial `but` is to be judged, not yet to be taken in."""
        for number in range(self._numbers_read, self.history.next_number):
            self.use(self.history.numbered(number).stream)
        self._numbers_read = self.history.next_number
        ended = self.history.ended_trials(after=self._ends_read)
        self._ends_read += len(ended)
        for trial in (*ended, *self.history.open_trials()):
            if trial.trial_id != but and trial.state is not TrialState.DUPLICATE:
                self._take_in(trial)

    def _take_in(self, trial: Trial) -> None:
        # What user code refused, it refused for the names met so far, whatever else it would have met.
        is_refused = trial.failure in _REFUSALS and bool(trial.space)
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

    def unused(self, count: int) -> Iterator[int]:
        """Yield the first `count` candidates that no trial has used, in order."""
        candidate = self._floor
        while count:
            if candidate not in self._used:
                yield candidate
                count -= 1
            elif candidate == self._floor:
                self._floor += 1
            candidate += 1

    def use(self, candidate: int) -> None:
        """Pass over a candidate for good."""
        self._used.add(candidate)
        self._top = max(self._top, candidate + 1)

    @property
    def first_free(self) -> int:
        """A candidate above all that were used, so that its chance is fresh."""
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
        _, values = self._ways.setdefault(declared.identity, (declared, {}))
        return values.setdefault(_exact(value), _Node())

    def walk(self, choose: Fill) -> Iterator[str]:
        """Yield the trials whose paths a program meets that gets `choose(declaration)` for each name."""
        if self.owner is not None:
            yield self.owner
        for declared, values in self._ways.values():
            node = values.get(_exact(choose(declared)))
            if node is not None:
                yield from node.walk(choose)


def _exact(value: Scalar) -> tuple[type, Scalar]:
    """Return a key that tells 1, 1.0 and True apart."""
    return type(value), value


def _is_same(one: Mapping[str, Scalar], other: Mapping[str, Scalar]) -> bool:
    return one.keys() == other.keys() and all(
        _exact(value) == _exact(other[name]) for name, value in one.items()
    )


def _agrees(trial: Trial, values: Mapping[str, Scalar]) -> bool:
    """Tell whether a point may be that of a trial whose names are not all known yet.

    A trial that has no value yet says nothing: it is not waited for.
    """
    return bool(trial.values) and all(
        _exact(value) == _exact(values[name])
        for name, value in trial.values.items()
        if name in values
    )
