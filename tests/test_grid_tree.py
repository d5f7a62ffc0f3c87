"""Tree, through the oracle: what is expected where nobody has been, and who has a point."""

from __future__ import annotations

from collections.abc import Mapping

from aiotune.events import Event, RunStarted, SpaceGrew, TrialCreated, TrialEnded, TrialMet
from aiotune.history import History
from aiotune.oracles.base import Exhausted, Suggest, Wait
from aiotune.oracles.grid_search import GridSearchOracle
from aiotune.space import Boolean, Choice, Condition, Int, Scalar
from aiotune.trial import FailureKind, TrialState


def begun(number: int, values: Mapping[str, Scalar]) -> list[Event]:
    trial_id = f"{number:04d}"
    return [
        TrialCreated(0, trial_id, number, number, values, 0),
        RunStarted(0, trial_id, 0, 0, 0, ("cpu",), None),
    ]


def test_behind_an_unknown_branch_come_the_names_of_its_neighbour_and_of_its_conditions() -> None:
    """Nobody has been at kind=b yet: its own y is expected there, the neighbour's w, and no z."""
    kind = Choice("kind", ["a", "b"])
    x, y = (
        Boolean(name, conditions=(Condition("kind", (value,)),))
        for name, value in (("x", "a"), ("y", "b"))
    )
    w, z = Boolean("w"), Boolean("z")
    history = History([SpaceGrew(0, None, (kind, x, y, z, w)), *begun(0, {})])
    values: dict[str, Scalar] = {"kind": "a", "x": False, "w": False}
    history.apply(TrialMet(0, "0000", (kind, x, w), values, True))
    oracle = GridSearchOracle()
    asked: list[Mapping[str, Scalar]] = []
    while isinstance(answer := oracle.ask(history, history.next_number), Suggest):
        asked.append(answer.values)
        for fact in begun(history.next_number, answer.values):
            history.apply(fact)
    assert isinstance(answer, Wait)
    assert asked == [
        {"kind": "a", "x": False, "w": True},
        {"kind": "a", "x": True},
        {"kind": "a", "x": True, "w": True},
        {"kind": "b"},
        {"kind": "b", "y": False, "w": True},
        {"kind": "b", "y": True},
        {"kind": "b", "y": True, "w": True},
    ]


A = Int("a", 0, 1)
NOTHING_BEHIND = Int("b", 0, 2)  # known, but not met where a is 0


def met(number: int) -> TrialMet:
    return TrialMet(0, f"{number:04d}", (A,), {"a": 0}, True)


def test_of_two_that_meet_the_same_names_the_one_judged_first_has_the_point() -> None:
    history = History([SpaceGrew(0, None, (A, NOTHING_BEHIND)), *begun(0, {}), *begun(1, {"b": 1})])
    oracle = GridSearchOracle()
    history.apply(met(1))
    assert not oracle.is_duplicate(history, history.trial("0001"))
    history.apply(met(0))
    oracle.ask(history, 2)
    assert oracle.is_duplicate(history, history.trial("0000"))
    assert not oracle.is_duplicate(history, history.trial("0001"))


def test_a_duplicate_of_a_trial_that_broke_shows_where_that_path_ends() -> None:
    """Trial 1 broke before it met a name; trial 2 meets none but `a`: so trial 1 was at that point."""
    other = Int("a", 0, 1, default=1)
    facts: list[Event] = [
        SpaceGrew(0, None, (other, NOTHING_BEHIND)),
        *begun(0, {}),
        TrialMet(0, "0000", (other,), {"a": 1}, True),
        TrialEnded(0, "0000", TrialState.COMPLETED, 0.0),
        *begun(1, {"a": 0}),
        TrialEnded(0, "0001", TrialState.FAILED, failure=FailureKind.CRASH),
        *begun(2, {"a": 0, "b": 1}),
        TrialMet(0, "0002", (other,), {"a": 0}, True),
    ]
    history = History(facts)
    assert GridSearchOracle().is_duplicate(history, history.trial("0002"))
    history.apply(TrialEnded(0, "0002", TrialState.DUPLICATE))
    assert isinstance(GridSearchOracle().ask(history, 3), Exhausted)
