from __future__ import annotations

import itertools

import pytest

from aiotune.oracles.generations import Generation

SIZE, REPLACED = 5, 2


def generation(results: dict[int, float | None]) -> Generation:
    found = Generation(3, SIZE, REPLACED)
    for place in range(SIZE):
        found.enter(place, f"trial {place}")
    for place, result in results.items():
        found.end(place, result)
    return found


def test_the_best_may_be_parents_and_the_worst_are_replaced() -> None:
    ended = generation({0: 0.5, 1: 0.1, 2: 0.9, 3: 0.3, 4: 0.7})
    assert [each for each in range(SIZE) if ended.may_be_parent(each)] == [1, 3]
    assert [each for each in range(SIZE) if ended.is_replaced(each)] == [2, 4]
    assert [each for each in range(SIZE) if ended.goes_on(each)] == [0, 1, 3]


@pytest.mark.parametrize("replaced", [1, 2])
def test_what_is_certain_stays_true_whatever_the_others_reach(replaced: int) -> None:
    """All orders of five results, two of which may be failures; each decision once it is made."""
    for results in itertools.permutations([0.1, 0.2, 0.3, None, 0.4 if replaced == 1 else None]):
        part, whole = Generation(0, 5, replaced), Generation(0, 5, replaced)
        for place, result in enumerate(results):
            part.enter(place, str(place))
            whole.enter(place, str(place))
            whole.end(place, result)
        for place, result in enumerate(results):
            part.end(place, result)
            for other in part.undecided:
                assert not part.is_replaced(other) or whole.is_replaced(other)
                assert not part.goes_on(other) or whole.goes_on(other)
                assert not whole.may_be_parent(other) or part.may_be_parent(other)
            parents = [part.parent_of(each, 7) for each in part.undecided if part.is_replaced(each)]
            wholes = [whole.parent_of(each, 7) for each in part.undecided if part.is_replaced(each)]
            assert all(a in (None, b) for a, b in zip(parents, wholes, strict=True))
        assert None not in parents


def test_a_broken_member_is_replaced_at_once_and_no_parent() -> None:
    begun = generation({2: None})
    assert begun.is_replaced(2)
    assert not begun.may_be_parent(2)
    assert begun.parent_of(2, seed=0) is None


def test_of_equals_the_first_place_leads() -> None:
    ended = generation(dict.fromkeys(range(SIZE), 0.5))
    assert [each for each in range(SIZE) if ended.may_be_parent(each)] == [0, 1]
    assert [each for each in range(SIZE) if ended.is_replaced(each)] == [3, 4]


def test_an_extinct_generation_has_no_survivor() -> None:
    assert generation(dict.fromkeys(range(SIZE))).is_extinct
    assert not generation(dict.fromkeys(range(SIZE - 1))).is_extinct
    assert not generation({0: 1.0, **dict.fromkeys(range(1, SIZE))}).is_extinct


def test_what_is_followed_is_decided() -> None:
    ended = generation({0: 0.5, 1: 0.1, 2: 0.9})
    assert (ended.undecided, ended.is_done, ended.has_news) == ([0, 1, 2], False, True)
    ended.has_news = False
    ended.follow(1)
    assert (ended.undecided, ended.has_news) == ([0, 2], True)
    ended.end(1, 0.1)
    assert ended.undecided == [0, 2]
    for place in range(SIZE):
        ended.follow(place)
    assert (ended.undecided, ended.is_done) == ([], True)
