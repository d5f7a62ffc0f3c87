from __future__ import annotations

from dataclasses import replace

import pytest

from aiotune.devices.device import Device
from aiotune.devices.parts import Share, part_on
from aiotune.devices.placement import place_shared, place_whole, to_empty
from aiotune.devices.taken import Choice, Taken
from tests.support.leasing import GIB, gpus


def pairs(*gibibytes: int) -> list[Device]:
    """Return cards of which each two are joined: a with c, b with d; else the order is the list's."""
    cards = gpus(*gibibytes)
    half = len(cards) // 2
    near = []
    for place, card in enumerate(cards):
        mate = cards[(place + half) % len(cards)]
        others = [each for each in cards if each not in (card, mate)]
        near.append(replace(card, neighbours=tuple(each.uuid for each in (mate, *others))))
    return near


def names(cards: tuple[Device, ...]) -> str:
    return "".join(card.uuid for card in cards)


def test_neighbours_go_together() -> None:
    a, b, c, d = pairs(80, 80, 80, 80)
    assert names(place_whole([a, b, c, d], 2)) == "ac"
    assert names(place_whole([b, c, d], 2)) == "bd"
    assert names(place_whole([a, b, d], 2)) == "bd"
    assert names(place_whole([a, d], 2)) == "ad"
    assert names(place_whole([a, b, c, d], 3)) == "abc"


def test_cards_that_are_known_to_be_close_come_before_those_of_which_nothing_is_known() -> None:
    a, b, c, d = gpus(80, 80, 80, 80)
    near = [a, replace(b, neighbours=("d",)), c, replace(d, neighbours=("b",))]
    assert names(place_whole(near, 2)) == "bd"


def test_the_smallest_come_before_neighbours() -> None:
    a, b, c, d = pairs(80, 24, 80, 24)
    assert names(place_whole([a, b, c, d], 2)) == "bd"
    assert names(place_whole([a, b, c, d], 3)) == "bda"
    assert names(place_whole([a, b, c, d], 1)) == "b"


def test_where_nothing_is_known_of_neighbours_the_first_are_taken() -> None:
    assert names(place_whole(gpus(80, 80, 80), 2)) == "ab"
    assert names(place_whole(gpus(80, None, 24), 2)) == "ca"


@pytest.mark.parametrize(("number", "found"), [(0, ""), (3, "ab")])
def test_as_many_as_there_are(number: int, found: str) -> None:
    assert names(place_whole(gpus(80, 80), number)) == found


def used(cards: list[Device], **gibibytes: float) -> Taken:
    """Return what is taken if on the cards of these names so much is leased; 0: all of it."""
    taken = Taken()
    for card in cards:
        if card.uuid in gibibytes:
            size = int(gibibytes[card.uuid] * GIB)
            part = part_on(card, Share(None, size)) if size else None
            taken.add(Choice((card.uuid,), (), part), is_exclusive=True)
    return taken


@pytest.mark.parametrize(
    ("leased", "size", "found"),
    [
        ({}, 2, "d"),  # the smallest that fits
        ({"b": 10}, 2, "d"),
        ({"d": 23}, 2, "a"),
        ({}, 30, "a"),
        ({"b": 10}, 30, "b"),  # what is shared already, so that others stay whole
        ({"a": 10, "b": 40, "c": 20}, 30, "b"),  # the fullest
        ({"a": 10, "b": 60, "c": 20}, 30, "c"),  # with room
        ({"a": 10, "b": 0, "c": 20}, 60, "a"),
        ({"a": 0, "b": 20, "c": 0}, 60, None),
    ],
)
def test_a_shared_run_fills_the_fullest_of_the_smallest_cards(
    leased: dict[str, float], size: int, found: str | None
) -> None:
    cards = gpus(80, 80, 80, 24)
    fitting = [card for card in cards if (card.memory_bytes or 0) >= size * GIB]
    placed = place_shared(fitting, Share(None, size * GIB), used(cards, **leased))
    assert (placed and placed[0].uuid) == found


def test_as_long_as_nothing_is_known_a_run_gets_the_largest_card_whole() -> None:
    cards = gpus(24, 80, 80)
    placed = place_shared(cards, Share(), used(cards, b=10))
    assert placed == (cards[2], None)
    assert place_shared(cards, Share(), used(cards, a=1, b=1, c=1)) is None


def test_a_card_with_few_runs_is_emptied_first() -> None:
    cards = gpus(80, 80, 80)
    taken = used(cards, a=10, b=10, c=0)
    taken.add(Choice(("a",), (), part_on(cards[0], Share(None, GIB))), is_exclusive=True)
    assert names(to_empty(cards, 1, taken)) == "b"
    assert names(to_empty(cards, 3, taken)) == "ba"
    taken.withheld["b"] = "a fault"
    assert names(to_empty(cards, 1, taken)) == "a"
