"""Why a card is not leased: rules over readings, releases, ends of runs and times."""

from __future__ import annotations

import os
from dataclasses import replace
from random import Random

import pytest

from aiotune.devices.base import HELD, LOADED, SETTLING
from aiotune.devices.condition import (
    BENCH_SECONDS,
    CALM_SECONDS,
    CLEAN_SECONDS,
    FEW_FAILURES,
    LOADED_SECONDS,
    LONGEST_CLEAN_SECONDS,
    SETTLE_SECONDS,
    Cause,
    Condition,
    Rules,
    foreign_bytes,
    tolerable_bytes,
)
from aiotune.devices.conditions import Conditions, News
from aiotune.devices.device import Process, Reading

GIB = 2**30
SKIP, USE = Rules(), Rules(skips_busy=False)
FREE = Reading(total_bytes=80 * GIB, used_bytes=0)
FULL = replace(FREE, used_bytes=40 * GIB)
BROKEN = Reading(fault="Xid 79: the GPU has fallen off the bus")


def busy(gibibytes: float, *processes: Process) -> Reading:
    return replace(FREE, used_bytes=int(gibibytes * GIB), processes=processes)


def fresh(at: float = 0.0) -> Condition:
    """A card that was read, and is free."""
    return seen(Condition(waits_since=at), at, FREE)


def seen(
    card: Condition, at: float, reading: Reading, rules: Rules = SKIP, *, leases: int = 0
) -> Condition:
    return card.read(at, reading, rules, leases=leases, read_in=card.round)


def computing(
    card: Condition, since: float, *parts: float | None, rules: Rules = SKIP, is_shared: bool = True
) -> Condition:
    """A card with a run on it whose processor was so busy, second by second."""
    for second, part in enumerate(parts):
        reading = replace(FREE, utilisation=part)
        card = card.read(
            since + second, reading, rules, leases=1, read_in=card.round, is_shared=is_shared
        )
    return card


def cause(card: Condition, at: float) -> Cause | None:
    verdict = card.verdict(at)
    return None if verdict is None else verdict.cause


def reason(card: Condition, at: float) -> str:
    verdict = card.verdict(at)
    assert verdict is not None
    return verdict.reason


# New cards


def test_a_card_is_leased_once_it_has_been_read() -> None:
    card = Condition(waits_since=5.0)
    assert cause(card, 5.0) is Cause.UNREAD
    assert cause(seen(card, 5.1, FREE), 5.1) is None


def test_a_card_of_which_no_reading_comes_is_in_quarantine_until_one_does() -> None:
    card = Condition(waits_since=0.0)
    late = SETTLE_SECONDS + 30
    assert card.changes_at(0.0) == SETTLE_SECONDS
    assert cause(card, late) is Cause.SILENT
    assert cause(seen(card, late, FREE), late) is None


def test_a_card_that_is_leased_already_needs_no_reading_without_leases() -> None:
    card = seen(Condition(waits_since=0.0), 0.1, FULL, leases=1)
    assert cause(card, 0.1) is None


# Memory after a run


def test_a_released_card_waits_for_its_memory() -> None:
    card = fresh().vacated(1.0)
    assert card.verdict(1.0) is not None
    assert reason(card, 1.0) == SETTLING
    card = seen(card, 1.1, FULL)
    assert cause(card, 1.1) is Cause.SETTLING
    assert cause(seen(card, 1.2, FREE), 1.2) is None


def test_a_reading_asked_for_before_the_release_does_not_count() -> None:
    before = fresh()
    after = before.vacated(1.0)
    card = after.read(1.1, FREE, SKIP, leases=0, read_in=before.round)
    assert cause(card, 1.1) is Cause.SETTLING


def test_the_pause_between_readings_grows() -> None:
    card = fresh().vacated(0.0)
    assert card.due(0.0, read_at=-1.0, read_in=card.round - 1) == 0.0
    at, pauses = 0.0, []
    for _ in range(8):
        card = seen(card, at, FULL)
        due = card.due(at, read_at=at, read_in=card.round)
        assert due is not None
        pauses.append(due - at)
        at = due
    assert pauses == pytest.approx([0.04, 0.08, 0.16, 0.32, 0.5, 0.5, 0.5, 0.5])


def test_memory_that_is_not_back_in_time_is_quarantine_until_it_is() -> None:
    card = seen(fresh().vacated(0.0), 1.0, FULL)
    assert cause(card, SETTLE_SECONDS - 0.1) is Cause.SETTLING
    assert cause(card, SETTLE_SECONDS) is Cause.NOT_BACK
    assert "40 GiB of its memory are in use" in reason(card, SETTLE_SECONDS)
    card = seen(card, 600.0, FULL)
    assert cause(card, 600.0) is Cause.NOT_BACK
    assert card.due(600.0, read_at=600.0, read_in=card.round) == 601.0
    assert cause(seen(card, 601.0, FREE), 601.0) is None


def test_where_the_driver_hangs_after_a_release_that_is_the_reason() -> None:
    card = fresh().vacated(0.0)
    assert cause(card, SETTLE_SECONDS) is Cause.SILENT
    assert "the driver has not told" in reason(card, SETTLE_SECONDS)


def test_with_busy_cards_in_use_a_card_settles_at_what_was_usual() -> None:
    usual = busy(30)
    card = seen(Condition(waits_since=0.0), 0.0, usual, USE)
    assert cause(card, 0.0) is None
    card = card.vacated(10.0)
    card = seen(card, 10.1, busy(70), USE)
    assert cause(card, 10.1) is Cause.SETTLING
    assert cause(seen(card, 10.2, usual, USE), 10.2) is None


def test_with_busy_cards_in_use_memory_is_not_waited_for_without_end() -> None:
    card = seen(fresh(), 0.0, FREE, USE).vacated(0.0)
    causes, at = set(), 0.0
    while card.verdict(at) is not None:
        causes.add(cause(card, at))
        at += 0.25
        card = seen(card, at, FULL, USE)
    assert at < SETTLE_SECONDS
    assert causes == {Cause.SETTLING}  # nothing that the user would be told


def test_runs_in_this_process_keep_their_memory_and_that_is_no_reason() -> None:
    rules = Rules(judges_memory=False)
    own = busy(60, Process(os.getpid(), 60 * GIB, False))
    card = seen(Condition(waits_since=0.0), 0.0, own, rules)
    assert cause(card, 0.0) is None
    assert cause(seen(card.vacated(1.0), 1.0, own, rules), 1.0) is None
    assert cause(seen(card, 2.0, BROKEN, rules), 2.0) is Cause.FAULT


# Neighbours


@pytest.mark.parametrize(
    ("reading", "expected"),
    [
        (Reading(), 0),
        (busy(3), 3 * GIB),
        (busy(3, Process(7, 2 * GIB, True)), 1 * GIB),  # a desktop
        (busy(3, Process(7, None, True)), 0),  # a desktop, on a driver that tells no figures
        (busy(3, Process(7, None, True), Process(8, 2 * GIB, False)), 2 * GIB),
        (busy(9, Process(7, None, False)), 9 * GIB),  # a container: who, is not known
        (busy(1, Process(7, 9 * GIB, False)), 9 * GIB),
        (Reading(processes=(Process(7, 5 * GIB, False),)), 5 * GIB),  # unified memory
    ],
)
def test_what_others_use(reading: Reading, expected: int) -> None:
    assert foreign_bytes(reading) == expected


def test_how_much_others_may_use_of_a_free_card() -> None:
    assert tolerable_bytes(None) == GIB
    assert tolerable_bytes(8 * GIB) == GIB
    assert tolerable_bytes(80 * GIB) == 4 * GIB


def test_a_card_that_another_program_computes_on_is_left_alone() -> None:
    card = seen(fresh(), 1.0, busy(12, Process(4711, 12 * GIB, False)))
    assert cause(card, 1.0) is Cause.BUSY
    assert "12 GiB of its memory are in use by another program (process 4711)" in reason(card, 1.0)


def test_a_desktop_does_not_keep_a_card() -> None:
    card = seen(fresh(), 1.0, busy(12, Process(900, 12 * GIB, True)))
    assert cause(card, 1.0) is None


def test_a_busy_card_is_used_when_it_was_free_for_a_while() -> None:
    card = seen(seen(fresh(), 0.0, FULL), 60.0, FULL)
    card = seen(card, 100.0, FREE)
    assert cause(card, 100.0) is Cause.BUSY
    card = seen(card, 103.0, FULL)  # the colleague's next run
    card = seen(card, 200.0, FREE)
    assert cause(seen(card, 200.0 + CALM_SECONDS - 0.1, FREE), 204.9) is Cause.BUSY
    assert cause(seen(card, 200.0 + CALM_SECONDS, FREE), 205.0) is None


def test_what_was_busy_for_a_moment_has_to_be_free_for_a_moment() -> None:
    card = seen(seen(fresh(), 10.0, FULL), 11.0, FREE)
    assert cause(card, 11.0) is Cause.BUSY
    assert cause(seen(card, 12.0, FREE), 12.0) is None


def test_a_neighbour_that_comes_while_our_run_is_there_is_found_after_it() -> None:
    card = seen(fresh(), 1.0, FULL, leases=1)
    assert cause(card, 1.0) is None
    card = seen(card.vacated(2.0), 2.1, busy(30))
    assert cause(card, 2.1) is Cause.SETTLING
    assert cause(seen(card, 13.0, busy(30)), 13.0) is Cause.NOT_BACK


def test_the_own_process_is_named_with_the_remedy() -> None:
    card = seen(Condition(waits_since=0.0), 0.0, busy(70, Process(os.getpid(), 70 * GIB, False)))
    assert cause(card, 0.0) is Cause.OWN
    assert "this process itself holds 70 GiB" in reason(card, 0.0)
    assert 'busy_gpus="use"' in reason(card, 0.0)


def test_the_own_process_is_found_also_after_a_run_and_not_waited_for() -> None:
    own = busy(70, Process(os.getpid(), 70 * GIB, False))
    card = seen(seen(fresh(), 1.0, FULL, leases=1).vacated(2.0), 2.1, own)
    assert cause(card, 2.1) is Cause.OWN


def test_with_busy_gpus_in_use_nobody_elses_memory_counts() -> None:
    assert cause(seen(fresh(), 1.0, FULL, USE), 1.0) is None


# Faults


def test_a_fault_keeps_a_card_until_readings_were_clean_for_a_while() -> None:
    card = seen(fresh(), 0.0, BROKEN)
    assert reason(card, 0.0) == BROKEN.fault
    assert cause(seen(card, CLEAN_SECONDS - 1, FREE), CLEAN_SECONDS - 1) is Cause.FAULT
    assert cause(seen(card, CLEAN_SECONDS, FREE), CLEAN_SECONDS) is None


def test_relapses_take_longer_each_time_but_not_for_ever() -> None:
    card, at, waits = fresh(), 0.0, []
    for _ in range(12):
        card = seen(card, at, BROKEN)
        since = at
        while card.verdict(at) is not None:
            at += 1.0
            card = seen(card, at, FREE)
        waits.append(at - since)
    assert waits[:3] == [CLEAN_SECONDS, 2 * CLEAN_SECONDS, 4 * CLEAN_SECONDS]
    assert max(waits) == LONGEST_CLEAN_SECONDS


def test_a_run_that_succeeds_makes_up_for_earlier_faults() -> None:
    card = fresh()
    for at in (0.0, 100.0):
        card = seen(seen(card, at, BROKEN), at + 60.0, FREE)
    card = seen(card.succeeded(200.0), 300.0, BROKEN)
    assert cause(seen(card, 300.0 + CLEAN_SECONDS, FREE), 310.0) is None


def test_a_fault_during_a_run_outlasts_the_release() -> None:
    card = seen(fresh(), 1.0, BROKEN, leases=1).vacated(2.0)
    assert cause(card, 2.0) is Cause.FAULT
    assert cause(seen(card, 2.1, FREE), 2.1) is Cause.FAULT


# The processor


def test_a_shared_card_whose_processor_is_busy_gets_no_further_run() -> None:
    card = computing(fresh(), 0.0, 0.97, 1.0)
    assert card.verdict(1.0) is None
    card = computing(card, LOADED_SECONDS, 0.97)
    assert cause(card, 2.0) is Cause.LOADED
    assert reason(card, 2.0) == f"{LOADED} to 97 %: no further run shares it"


@pytest.mark.parametrize(
    "parts",
    [
        (1.0, 1.0, 0.94, 1.0, 1.0),  # a pause between steps
        (1.0,),
        (0.94,) * 60,
        (None,) * 60,  # as of a MIG instance
        (1.0, None, 1.0, None, 1.0),
    ],
)
def test_what_is_not_busy_all_the_time_or_not_known_is_no_bound(
    parts: tuple[float | None, ...],
) -> None:
    assert computing(fresh(), 0.0, *parts).verdict(60.0) is None


def test_a_busy_card_is_shared_again_when_it_has_time_to_spare() -> None:
    card = computing(fresh(), 0.0, *[1.0] * 5, 0.91)
    assert cause(card, 5.0) is Cause.LOADED
    card = computing(card, 6.0, 0.89, 0.97, 0.97)
    assert card.verdict(8.0) is None
    assert cause(computing(card, 9.0, 0.97), 9.0) is Cause.LOADED


def test_a_busy_card_that_is_empty_settles_and_is_free() -> None:
    card = computing(fresh(), 0.0, *[1.0] * 5).vacated(5.0)
    assert cause(card, 5.0) is Cause.SETTLING
    assert seen(card, 5.1, replace(FREE, utilisation=1.0)).verdict(5.1) is None


def test_a_card_without_leases_is_not_busy_with_them() -> None:
    card = computing(fresh(), 0.0, *[1.0] * 5)
    assert seen(card, 6.0, replace(FREE, utilisation=1.0)).verdict(6.0) is None


def test_a_run_that_has_its_card_for_itself_may_keep_it_busy() -> None:
    assert computing(fresh(), 0.0, *[1.0] * 60, is_shared=False).verdict(60.0) is None


def test_with_busy_gpus_in_use_the_processor_is_no_bound() -> None:
    assert computing(fresh(), 0.0, *[1.0] * 60, rules=USE).verdict(60.0) is None


def test_a_fault_of_a_busy_card_comes_first() -> None:
    card = computing(fresh(), 0.0, *[1.0] * 5)
    assert cause(seen(card, 5.0, BROKEN, leases=1), 5.0) is Cause.FAULT


# Locks of other processes


def test_a_card_of_another_process_is_not_read() -> None:
    card = fresh().taken(f"{HELD}: process 12")
    assert reason(card, 1.0) == f"{HELD}: process 12"
    assert card.due(100.0, read_at=0.0, read_in=0) is None
    card = card.vacated(100.0)
    assert cause(card, 100.0) is Cause.SETTLING
    assert card.due(100.0, read_at=0.0, read_in=0) == 100.0


# Failures


def watched(*uuids: str, rules: Rules = SKIP) -> Conditions:
    cards = Conditions()
    cards.open(uuids, rules, 0.0)
    for uuid in uuids:
        cards.read(uuid, 0.0, FREE, leases=0, read_in=0)
    return cards


def fail(cards: Conditions, uuid: str, at: float, number: int = 1) -> None:
    for _ in range(number):
        cards.reported([uuid], at, failed=True)


def test_a_card_on_which_all_fails_while_others_succeed_is_tried_again_later() -> None:
    cards = watched("a", "b")
    fail(cards, "a", 1.0, FEW_FAILURES)
    assert cards["a"].verdict(1.0) is None
    cards.reported(["b"], 2.0, failed=False)
    verdict = cards["a"].verdict(2.0)
    assert verdict is not None
    assert verdict.cause is Cause.FAILURES
    assert cards["a"].changes_at(2.0) == 2.0 + BENCH_SECONDS
    assert cards["a"].verdict(2.0 + BENCH_SECONDS) is None
    assert cards["b"].verdict(2.0) is None


def test_the_trial_after_the_pause_decides() -> None:
    cards = watched("a", "b")
    fail(cards, "a", 1.0, FEW_FAILURES)
    cards.reported(["b"], 2.0, failed=False)
    back = 2.0 + BENCH_SECONDS
    cards.reported(["b"], back + 1, failed=False)
    fail(cards, "a", back + 2)
    assert cause(cards["a"], back + 2) is Cause.FAILURES
    again = back + 2 + BENCH_SECONDS
    cards.reported(["a"], again, failed=False)
    fail(cards, "a", again + 1, FEW_FAILURES - 1)
    assert cause(cards["a"], again + 1) is None


def test_where_all_cards_fail_it_is_the_program() -> None:
    cards = watched("a", "b", "c")
    cards.reported(["b"], 1.0, failed=False)
    for at in range(2, 30):
        for uuid in "abc":
            fail(cards, uuid, float(at))
    assert [cause(cards[uuid], 30.0) for uuid in "abc"] == [None, None, None]


def test_a_success_in_between_begins_the_count_anew() -> None:
    cards = watched("a", "b")
    for at in range(20):
        cards.reported(["b"], float(at), failed=False)
        cards.reported(["a"], float(at), failed=at % FEW_FAILURES != 0)
        assert cause(cards["a"], float(at)) is None


def test_all_cards_of_a_run_share_the_blame() -> None:
    cards = watched("a", "b", "c")
    for at in range(FEW_FAILURES):
        cards.reported(["a", "b"], float(at), failed=True)
    cards.reported(["c"], 9.0, failed=False)
    assert [cause(cards[uuid], 9.0) for uuid in "abc"] == [Cause.FAILURES, Cause.FAILURES, None]


def test_an_end_on_a_card_that_is_not_watched_means_nothing() -> None:
    cards = watched("a")
    cards.reported(["elsewhere"], 1.0, failed=True)
    cards.befell("elsewhere", 1.0, "Xid 79")
    cards.vacated("elsewhere", 1.0)
    assert cause(cards["a"], 1.0) is None


# Several watches


def test_the_stricter_rules_hold_for_a_card_of_two_searches() -> None:
    cards = Conditions()
    cards.open(["a", "b"], USE, 0.0)
    place = cards.open(["a"], SKIP, 0.0)
    assert cards.rules("a").skips_busy
    assert not cards.rules("b").skips_busy
    cards.close(place)
    assert not cards.rules("a").skips_busy


def test_what_nobody_watches_any_more_is_forgotten() -> None:
    cards = Conditions()
    first = cards.open(["a", "b"], SKIP, 0.0)
    second = cards.open(["b"], SKIP, 0.0)
    fail(cards, "b", 1.0)
    cards.close(first)
    with pytest.raises(KeyError):
        cards["a"]
    assert cards["b"].failures == 1
    cards.close(second)
    cards.open(["b"], SKIP, 5.0)
    assert cause(cards["b"], 5.0) is Cause.UNREAD
    assert cards["b"].failures == 0


def test_two_watches_that_hear_of_one_release_wait_once() -> None:
    cards = watched("a")
    cards.vacated("a", 1.0)
    cards.vacated("a", 1.0)
    cards.notice("a", SETTLING, 1.0)
    assert cards["a"].round == 1


# News


def test_each_change_is_told_once_and_moments_are_not() -> None:
    news, card = News(), fresh()
    told: list[tuple[float, str | None]] = []

    def tell(at: float) -> None:
        for _, verdict in news.of({"a": card.verdict(at)}):
            told.append((at, None if verdict is None else verdict.cause.name))

    tell(0.0)
    card = card.vacated(1.0)
    tell(1.0)
    card = seen(card, 1.1, FREE)
    tell(1.1)
    card = card.taken(HELD)
    tell(2.0)
    card = seen(card.vacated(3.0), 3.0, FREE)
    tell(3.0)
    for at in (4.0, 5.0, 6.0):
        card = seen(card, at, busy(at + 10))  # other figures, the same matter
        tell(at)
    card = seen(card, 7.0, BROKEN)
    tell(7.0)
    for at in (20.0, 21.0, 30.0):
        card = seen(card, at, FREE)
        tell(at)
    assert told == [(4.0, "BUSY"), (7.0, "FAULT"), (20.0, "BUSY"), (30.0, None)]


def test_a_card_that_is_busy_with_its_own_runs_is_no_news_but_well_again() -> None:
    news, card = News(), fresh()
    broken = seen(card, 0.0, BROKEN, leases=1)
    assert [verdict is None for _, verdict in news.of({"a": broken.verdict(0.0)})] == [False]
    assert news.of({"b": computing(card, 0.0, *[1.0] * 5).verdict(5.0)}) == []
    healed = computing(broken, 1.0, *[1.0] * 60)
    assert cause(healed, 60.0) is Cause.LOADED
    assert news.of({"a": healed.verdict(60.0)}) == [("a", None)]


# Any sequence


@pytest.mark.parametrize("seed", range(50))
def test_whatever_happened_a_card_that_is_healthy_and_free_is_leased_again(seed: int) -> None:
    rng = Random(seed)
    rules = rng.choice([SKIP, USE, Rules(judges_memory=False)])
    cards, at = watched("a", "b", rules=rules), 0.0
    for _ in range(200):
        at += rng.choice([0.0, 0.01, 0.5, 1.0, 30.0])
        uuid = rng.choice("ab")
        match rng.randrange(6):
            case 0:
                cards.vacated(uuid, at)
            case 1:
                cards.reported([uuid], at, failed=rng.random() < 0.7)
            case 2:
                cards.befell(uuid, at, "Xid 48")
            case 3:
                cards.taken(uuid, "process 12")
            case _:
                reading = rng.choice([FREE, FULL, BROKEN, replace(FREE, utilisation=1.0)])
                read_in = cards[uuid].round - rng.randrange(2)
                leases = rng.randrange(2)
                cards.read(
                    uuid, at, reading, leases=leases, read_in=read_in, is_shared=rng.random() < 0.5
                )
    for uuid in "ab":
        if cards[uuid].held is not None:
            cards.vacated(uuid, at)
    end = at + BENCH_SECONDS + LONGEST_CLEAN_SECONDS
    while at < end:
        at += 1.0
        for uuid in "ab":
            cards.read(uuid, at, FREE, leases=0, read_in=cards[uuid].round)
    assert [cards[uuid].verdict(at) for uuid in "ab"] == [None, None]
