"""Grid search: every point that the program can reach on a grid, each once.

The order is that of an odometer over the names as the program meets them: the last one moves fastest, and each
begins at its default. What the program declares after which values is read off the trials (see `grid_tree`); a
trial is sent down a branch that no other has taken, so that its point is new whatever it meets there.

While a trial in flight has not shown yet what it meets, what comes behind it is guessed from its neighbours and
from the conditions of the space, to keep other slots busy. A wrong guess can cost a build, which ends as a
duplicate before it trains, but never a point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple, TypeVar

from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.labels import Scalar, exact
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest, Wait
from aiotune.oracles.grid_axis import Axis
from aiotune.oracles.grid_tree import Node, Tree, group_by_value
from aiotune.oracles.tried import REFUSALS
from aiotune.space import HyperParameter, Identity, Space, Values, point_key, unit_draw
from aiotune.trial import Trial, TrialState

__all__ = ["GridSearchOracle"]

T = TypeVar("T")

_MOST_REFUSALS = 100_000  # a second or two


class GridSearchOracle(Oracle):
    """Tries every point of a grid over the space, defaults first. Failed trials count as tried."""

    def __init__(
        self,
        objective: Objective | str | Sequence[Objective | str] | None = None,
        max_trials: int | None = None,
        seed: int | None = None,
        hyperparameters: HyperParameters | None = None,
        allow_new_entries: bool = True,
        tune_new_entries: bool = True,
        max_retries_per_trial: int = 0,
        max_consecutive_failed_trials: int = 3,
    ) -> None:
        super().__init__(
            objective=objective,
            max_trials=max_trials,
            hyperparameters=hyperparameters,
            allow_new_entries=allow_new_entries,
            tune_new_entries=tune_new_entries,
            seed=seed,
            max_retries_per_trial=max_retries_per_trial,
            max_consecutive_failed_trials=max_consecutive_failed_trials,
        )
        self._grid: _Grid | None = None

    @property
    def draws_new_names(self) -> bool:
        """A name that a trial meets first begins at its default, as every name of the grid does."""
        return False

    def ask(self, history: History, number: int) -> Answer:
        grid = self._grid_of(history)
        grid.catch_up()
        try:
            path = grid.first_free()
        except _TooManyRefusals as error:
            return Wait() if history.has_trials_in_flight else Exhausted(str(error))
        if path is None:
            return Wait() if history.has_trials_in_flight else Exhausted(grid.left_out())
        # No defaults beyond it: a name that the program does not meet here could count as a parent's value.
        return Suggest(path.values, stream=path.stream)

    def completed(self, history: History, values: Values, suggested: Suggest) -> Suggest | None:
        """Return a suggestion of these values. Other names take their defaults, where a run meets them."""
        if not self.allows(history, values):
            return None
        return replace(suggested, values=values, stream=_stream_of("queued", values))

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        """Tell whether another trial, whose path is known, has the point of `trial`."""
        grid = self._grid_of(history)
        grid.catch_up(but=trial.trial_id)
        is_held = grid.tree.holder(trial) not in (None, trial.trial_id)
        if not is_held:
            grid.take_in(trial)  # at once: the point is this trial's from now on
        return is_held

    def _grid_of(self, history: History) -> _Grid:
        if self._grid is None or self._grid.history.lineage is not history.lineage:
            given = None if self.tune_new_entries else Space(self.hyperparameters.space)
            self._grid = _Grid(history, given)
        self._grid.history = history
        if self.constraint is not None:
            self._grid.allows = partial(self.allows, history)
        return self._grid


class _Path(NamedTuple):
    """The values that lead to a free point. Names beyond them take their default."""

    values: Values
    moved: Values  # those that are not at their default

    def through(self, axis: Axis, index: int) -> _Path:
        chosen = {axis.name: axis.value_at(index)}
        return _Path(self.values | chosen, self.moved | chosen if index else self.moved)

    @property
    def stream(self) -> int:
        """A number for the point, the same whenever and beside whatever it is tried: 53 bits.

        The point follows from what is moved alone, for all else is at its default. So a proposal with a stream
        that was used would only run again what that trial ran.
        """
        return _stream_of("grid", self.moved)


def _stream_of(kind: str, values: Values) -> int:
    return int(unit_draw(0, kind, point_key(values)) * 2**53)


class _TooManyRefusals(Exception):
    """The constraint refuses so many points in a row that the search gives up."""


class _Place(NamedTuple):
    """Where a path leads: to a node, or to one that does not exist yet, behind `parent` at `value`."""

    path: _Path
    node: Node | None
    parent: Node | None = None
    value: Scalar = None


class _Grid:
    """What the trials of a history show of the grid. All of it follows from the history."""

    def __init__(self, history: History, given: Space | None) -> None:
        self.history = history  # the newest one
        self.tree = Tree(self._axis_of, lambda trial_id: self.history.trial(trial_id))
        self._given = given  # the names that are tuned; None: all
        self._space = Space()
        self._names: tuple[HyperParameter, ...] = ()  # that may be guessed
        self._declared: Mapping[Identity, HyperParameter] = {}
        self._axes: dict[Identity, Axis] = {}
        self._streams: set[int] = set()  # those of the trials
        self._numbers_read = 0
        self._ends_read = 0
        self._settled: dict[str, tuple[HyperParameter, ...]] = {}  # open trials, as taken in
        self.allows: Callable[[Values], bool] | None = None  # None: all points
        self._is_allowed: dict[tuple[object, ...], bool] = {}  # by what is moved
        self._refused_in_a_row = 0

    # --- reading the history ---

    def catch_up(self, but: str = "") -> None:
        """Read what came since the last call; the trial `but` is to be judged, not yet to be taken in."""
        if self.history.space is not self._space:
            self._take_in_space(self.history.space)
        for number in range(self._numbers_read, self.history.next_number):
            self._streams.add(self.history.numbered(number).stream)
        self._numbers_read = self.history.next_number
        ended = self.history.ended_trials(after=self._ends_read)
        self._ends_read += len(ended)
        for trial in ended:
            self._settled.pop(trial.trial_id, None)
            self._take_in_ended(trial)
        for trial in self.history.open_trials():
            if trial.trial_id != but:
                self.take_in(trial)

    def take_in(self, trial: Trial) -> None:
        """Count the point of a trial in progress as tried, if all of it is known."""
        if trial.is_path_complete and self._settled.get(trial.trial_id) is not trial.space:
            self._settled[trial.trial_id] = trial.space
            self.tree.settle(trial, is_end=True)

    def _take_in_space(self, space: Space) -> None:
        self._space = space
        self._declared = {each.identity: each for each in space}
        self._names = tuple(space if self._given is None else self._given)
        self._is_allowed.clear()
        self.tree.reopen_guesses()

    def _take_in_ended(self, trial: Trial) -> None:
        if trial.state is TrialState.DUPLICATE:
            self.tree.learn(trial, is_end=trial.is_path_complete)  # the point is another trial's
            return
        is_refused = trial.failure in REFUSALS and bool(trial.space)
        self.tree.settle(trial, is_end=trial.is_path_complete or is_refused)

    def _axis_of(self, declared: HyperParameter) -> Axis:
        """Return the values of a declaration. Of two under one identity, the first one met holds."""
        axis = self._axes.get(declared.identity)
        if axis is None:
            is_tuned = self._given is None or declared in self._given
            known = self._declared.get(declared.identity, declared)
            axis = self._axes[declared.identity] = Axis(known, is_tuned=is_tuned)
        return axis

    # --- the next point ---

    def left_out(self) -> str | None:
        """Return a message if not every point of the grid was tried."""
        if all(self._is_allowed.values()):
            return None
        return "every point of the grid that constraint= allows was tried"

    def first_free(self) -> _Path | None:
        """Return the first point, in the order of the grid, that no trial has or may turn out to have.

        _TooManyRefusals if the constraint refuses one point after the other.
        """
        self._refused_in_a_row = 0
        arriving = self.tree.leads(
            [each for each in self.history.trials_in_flight() if not each.is_path_complete]
        )

        def behind(at: _Place) -> Iterator[_Place] | None:
            node = at.node
            return (
                None if node is None or node.axis is None else _branches(at.path, node, node.axis)
            )

        leaves = _leaves(_Place(_Path({}, {}), self.tree.root), behind)
        found = (self._free_at(place, arriving) for place in leaves)
        return next((path for path in found if path is not None), None)

    def _free_at(self, place: _Place, arriving: Mapping[Node, Sequence[Trial]]) -> _Path | None:
        """Return the first free point at a leaf of the tree, or None."""
        path, node = place.path, place.node
        here = arriving.get(node, ()) if node else ()
        if node is None:
            return self._free_behind(place)
        if node.is_end:
            if node.trials or here or not self._is_new(path):
                return None
            if not self._may_try(path):
                self.tree.close(node)
                return None
            return path
        trials = [*map(self.history.trial, node.trials), *here]
        free = self._guess(path, self._expected_behind(node.parent), trials)
        if free is None and not here:  # all broke before they met a name: any may follow
            free = self._guess(path, self._names, trials)
            if free is None:
                self.tree.close(node)
        return free

    def _free_behind(self, place: _Place) -> _Path | None:
        """Return the first free point in a branch that no trial has taken, or None."""
        path, parent = place.path, place.parent
        assert parent is not None
        if self._may_try(path):
            return path if self._is_new(path) else None
        # Refused as it is, with defaults beyond. Other values of names beyond may be allowed.
        free = self._guess(path, self._expected_behind(parent), ())
        free = free or self._guess(path, self._names, ())
        if free is None:
            self.tree.close(parent.grown(place.value))
        return free

    def _may_try(self, path: _Path) -> bool:
        """Tell whether the constraint allows a point, with defaults beyond its path."""
        if self.allows is None:
            return True
        key = tuple(path.moved.items())
        if key not in self._is_allowed:
            self._is_allowed[key] = self.allows(path.values)
            self._refused_in_a_row += not self._is_allowed[key]
            if self._refused_in_a_row > _MOST_REFUSALS:
                raise _TooManyRefusals(
                    f"no further point was found: constraint= refused {_MOST_REFUSALS} points of the grid in a "
                    "row. Loosen it, or declare narrower ranges"
                )
        return self._is_allowed[key]

    def _is_new(self, path: _Path) -> bool:
        """Tell whether it was not proposed before: a program that is no function of its values goes astray."""
        return path.stream not in self._streams

    def _expected_behind(self, node: Node | None) -> Sequence[HyperParameter]:
        """Return the names that may follow in a branch of `node` that no trial has shown yet.

        Those that followed in another branch, and those whose own conditions tell; all, if nothing is known.
        """
        if node is None or node.example is None:
            return self._names
        followed = {each.identity for each in node.example.space}
        return [each for each in self._names if each.conditions or each.identity in followed]

    def _guess(
        self, start: _Path, names: Sequence[HyperParameter], trials: Sequence[Trial]
    ) -> _Path | None:
        """Return the first point behind `start` that none of `trials` has, if the program meets `names`.

        One that the constraint refuses is taken for had.
        """

        def behind(
            at: tuple[_Path, Sequence[Trial]],
        ) -> Iterable[tuple[_Path, Sequence[Trial]]] | None:
            path, others = at
            if not others and self._may_try(path):
                return None
            following = next((each for each in names if _may_follow(each, path.values)), None)
            return () if following is None else _spread(path, self._axis_of(following), others)

        free = (path for path, _ in _leaves((start, trials), behind) if self._is_new(path))
        return next(free, None)


def _leaves(start: T, behind: Callable[[T], Iterable[T] | None]) -> Iterator[T]:
    """Yield, lazily and in order, what has nothing `behind` it (None): depth first, without recursion."""
    stack: list[Iterator[T]] = [iter((start,))]
    while stack:
        for at in stack[-1]:
            following = behind(at)
            if following is not None:
                stack.append(iter(following))
                break
            yield at
        else:
            stack.pop()


def _branches(path: _Path, node: Node, axis: Axis) -> Iterator[_Place]:
    """Yield the branches of an inner node that are not full; None stands for one that no trial has taken."""
    node.has_used_up()
    for index in range(node.cursor, axis.size):
        value = axis.value_at(index)
        branch = node.branch(value)
        if branch is None or not branch.is_full:
            yield _Place(path.through(axis, index), branch, node, value)


def _spread(
    path: _Path, axis: Axis, trials: Sequence[Trial]
) -> Iterator[tuple[_Path, Sequence[Trial]]]:
    """Yield each value of the axis with those of `trials` that have it."""
    groups = group_by_value(trials, axis)
    for index in range(axis.size):
        yield path.through(axis, index), groups.get(exact(axis.value_at(index)), ())


def _may_follow(declared: HyperParameter, values: Mapping[str, Scalar]) -> bool:
    return declared.name not in values and all(each.holds(values) for each in declared.conditions)
