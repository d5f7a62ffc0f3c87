"""What a program declares after which values, as a tree, and which of its paths were tried.

A node stands for a program after some declarations and their values. An inner node has the declaration that
comes next, with a branch for each value; at an end the program declares nothing more; at an open node no trial
has shown yet what comes. A path from the root to an end is a point of the space.

All of it follows from the trials that were taken in, in whatever order. Their points are never listed: a node
is there because a trial went through it, and a subtree without a free point is passed over at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

from aiotune.labels import exact
from aiotune.oracles.grid_axis import Axis
from aiotune.space import HyperParameter, Scalar
from aiotune.trial import Trial

__all__ = ["Example", "Node", "Tree", "group_by_value"]


class Example(NamedTuple):
    """What a trial met, all in all. Of several that went through a node, the first one by number is kept."""

    number: int
    space: tuple[HyperParameter, ...]


class Node:
    """A program after some declarations. It is inner (`axis`), an end (`is_end`) or open (neither).

    Invariants: an inner node has no `trials`; if it is not full, no ancestor is; the branches before `cursor`
    are full.
    """

    __slots__ = ("_branches", "axis", "cursor", "example", "is_end", "is_full", "parent", "trials")

    def __init__(self, parent: Node | None = None) -> None:
        self.parent = parent
        self.axis: Axis | None = None
        self.is_end = False
        self.is_full = False  # no free point below
        self.cursor = 0
        self.example: Example | None = None  # of an inner node
        # Ids of those that lead here; the first one has the point.
        self.trials: tuple[str, ...] = ()
        self._branches: dict[tuple[type, Scalar], Node] | None = None

    @property
    def is_open(self) -> bool:
        return self.axis is None and not self.is_end

    def branch(self, value: Scalar) -> Node | None:
        return self._branches.get(exact(value)) if self._branches else None

    def grown(self, value: Scalar) -> Node:
        """Return the branch, made if need be."""
        if self._branches is None:
            self._branches = {}
        key = exact(value)
        node = self._branches.get(key)
        if node is None:
            node = self._branches[key] = Node(self)
        return node

    def has_used_up(self) -> bool:
        """Move the cursor over the branches that are full; tell whether all are."""
        axis = self.axis
        if axis is None:
            return False
        while self.cursor < axis.size:
            node = self.branch(axis.value_at(self.cursor))
            if node is None or not node.is_full:
                return False
            self.cursor += 1
        return True


class Tree:
    """The paths of trials. `axis_of` gives the values of a declaration, `trial_of` a trial by its id."""

    def __init__(
        self, axis_of: Callable[[HyperParameter], Axis], trial_of: Callable[[str], Trial]
    ) -> None:
        self.root = Node()
        self._axis_of = axis_of
        self._trial_of = trial_of
        self._closed: list[Node] = []  # open nodes that were found full, as far as could be guessed

    def learn(self, trial: Trial, *, is_end: bool = False) -> Node:
        """Take in which names the trial met, and whether none can follow; return the node behind them.

        The order in which the first trial met them holds: what a program meets next may depend on a value that
        it reads later, where one name is declared with conditions and without.
        """
        node = self.root
        left = _by_name(trial)
        while left:
            if node.axis is None:
                self._extend(node, self._axis_of(next(iter(left.values()))))
            assert node.axis is not None
            if left.pop(node.axis.name, None) is None:
                break  # not met yet; or the program is no function of its values
            if trial.is_path_complete and (
                node.example is None or trial.number <= node.example.number
            ):
                node.example = Example(trial.number, trial.space)
            node = node.grown(_value(trial, node.axis))
        if is_end and node.is_open:
            node.is_end = True
            self._close_if_taken(node)
        return node

    def leads(self, trials: Iterable[Trial]) -> Mapping[Node, Sequence[Trial]]:
        """Return the trials, taken in, by the nodes that they lead to: no inner ones."""
        met = [(self.learn(trial), trial) for trial in trials]
        groups: dict[Node, list[Trial]] = {}
        for node, trial in met:  # once all are taken in
            groups.setdefault(self._descend(node, trial), []).append(trial)
        return groups

    def settle(self, trial: Trial, *, is_end: bool) -> None:
        """Count the trial's point as tried. `is_end`: no name can follow those that it met."""
        node = self.learn(trial, is_end=is_end)
        self._occupy(self._descend(node, trial), trial.trial_id)

    def holder(self, trial: Trial) -> str | None:
        """Return the id of the trial that has the point of `trial`, which need not be taken in."""
        node: Node | None = self.root
        left = _by_name(trial)
        while node is not None and node.axis is not None:
            if left.pop(node.axis.name, None) is None and trial.is_path_complete:
                return None  # trials went on from here, and so may this one
            node = node.branch(_value(trial, node.axis))
        if node is None or left or not node.trials:
            return None
        return node.trials[0] if node.is_end or trial.is_path_complete else None

    def close(self, node: Node) -> None:
        """Note that an end, or an open node by all that can be guessed, has no free point."""
        if node.is_open:
            self._closed.append(node)
        node.is_full = True
        above = node.parent
        while above is not None and above.has_used_up():
            above.is_full = True
            above = above.parent

    def reopen_guesses(self) -> None:
        """Forget what was closed by a guess: more is known now."""
        for node in self._closed:
            if node.is_open:
                _reopen(node)
        self._closed.clear()

    def _extend(self, node: Node, axis: Axis) -> None:
        """Let a declaration follow where none was known; the trials there move on."""
        _reopen(node)
        moving, node.trials = node.trials, ()
        node.axis, node.is_end = axis, False
        for trial_id in moving:
            self._occupy(self._descend(node, self._trial_of(trial_id)), trial_id)

    def _descend(self, node: Node, trial: Trial) -> Node:
        """Follow the declarations that are known, by the trial's values."""
        while node.axis is not None:
            node = node.grown(_value(trial, node.axis))
        return node

    def _occupy(self, node: Node, trial_id: str) -> None:
        if trial_id not in node.trials:
            node.trials = (*node.trials, trial_id)
        self._close_if_taken(node)

    def _close_if_taken(self, node: Node) -> None:
        if node.is_end and node.trials and not node.is_full:
            self.close(node)


def _by_name(trial: Trial) -> dict[str, HyperParameter]:
    """Return what the trial met, each name once: of two declarations the first one owns the value."""
    met: dict[str, HyperParameter] = {}
    for each in trial.space:
        met.setdefault(each.name, each)
    return met


def _value(trial: Trial, axis: Axis) -> Scalar:
    """Return the trial's value: a name that nobody proposed a value for takes its default."""
    return trial.values.get(axis.name, axis.default)


def _reopen(node: Node) -> None:
    """Let the node, and what was full because of it, be looked through again."""
    at: Node | None = node
    while at is not None and at.is_full:
        at.is_full = False
        at = at.parent
        if at is not None:
            at.cursor = 0


def group_by_value(
    trials: Sequence[Trial], axis: Axis
) -> Mapping[tuple[type, Scalar], list[Trial]]:
    """Return the trials by their value on the axis."""
    groups: dict[tuple[type, Scalar], list[Trial]] = {}
    for trial in trials:
        groups.setdefault(exact(_value(trial, axis)), []).append(trial)
    return groups
