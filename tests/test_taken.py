from __future__ import annotations

from aiotune.devices.base import LOADED, SETTLING
from aiotune.devices.parts import Part, Share, part_on, usable_bytes
from aiotune.devices.taken import Choice, Taken
from tests.support.leasing import GIB, gpus

(CARD,) = gpus(64)
(UNKNOWN,) = gpus(None)


def leased(*parts: Part | None) -> Taken:
    taken = Taken()
    for part in parts:
        taken.add(Choice(("a",), (), part), is_exclusive=True)
    return taken


def test_ten_tenths_are_one_card() -> None:
    tenth = part_on(CARD, Share(0.1))
    assert leased(*[tenth] * 9).has_room(CARD, tenth)
    assert not leased(*[tenth] * 10).has_room(CARD, tenth)


def test_fractions_count_where_the_memory_is_unknown() -> None:
    half = part_on(UNKNOWN, Share(0.5, 10**15))
    assert leased(half).has_room(UNKNOWN, half)
    assert not leased(half, half).has_room(UNKNOWN, half)


def test_memory_counts_beside_fractions() -> None:
    part = part_on(CARD, Share(0.1, 40 * GIB))
    assert leased().has_room(CARD, part)
    assert not leased(part).has_room(CARD, part)


def test_a_card_that_is_leased_whole_has_room_for_nobody() -> None:
    speck = part_on(CARD, Share(None, 1))
    assert not leased(None).has_room(CARD, speck)
    assert not leased(speck).has_room(CARD, None)
    assert leased(speck).has_room(CARD, part_on(CARD, Share(None, usable_bytes(64 * GIB) - 1)))


def test_a_card_that_is_withheld_has_room_for_nobody() -> None:
    half = part_on(CARD, Share(0.5))
    taken = leased(half)
    taken.withheld["a"] = "a fault"
    assert not taken.has_room(CARD, half)
    assert not taken.may_empty(CARD)
    assert not taken.soon().has_room(CARD, half)


def test_memory_that_is_not_back_will_be_soon() -> None:
    taken = Taken(withheld={"a": SETTLING})
    assert not taken.is_free(CARD)
    assert taken.soon().is_free(CARD)


def test_a_shared_card_that_is_busy_may_be_emptied_and_is_joined_later() -> None:
    half, packed = part_on(CARD, Share(0.5)), part_on(CARD, Share(None, 2 * GIB))
    taken = leased(half)
    taken.withheld["a"] = f"{LOADED} to 97 %: no further run shares it"
    assert not taken.has_room(CARD, packed)
    assert taken.has_room(CARD, half)
    assert taken.may_empty(CARD)
    assert taken.soon().has_room(CARD, packed)
