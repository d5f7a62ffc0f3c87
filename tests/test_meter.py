from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiotune.devices.device import Reading
from aiotune.devices.meter import Meter

CARD, OTHER = "GPU-1", "GPU-2"
GIB = 2**30


def counting(joules: float) -> Reading:
    return Reading(energy_joules=joules)


def watched(
    readings: Iterable[tuple[float, Reading, int]], meter: Meter | None = None, uuid: str = CARD
) -> Meter:
    """Return a meter that took note of (when, what, how many leases)."""
    meter = meter or Meter()
    for at, reading, leases in readings:
        meter.note(uuid, at, reading, leases)
    return meter


def every_second(
    read: Callable[[float], Reading], until: int, leases: Callable[[float], int] = lambda at: 1
) -> Meter:
    return watched((float(at), read(at), leases(at)) for at in range(until + 1))


# --- one lease has the card ---


def test_energy_is_the_difference_of_the_counter_between_readings() -> None:
    meter = every_second(lambda at: counting(5000 + 100 * at), until=10)
    usage = meter.usage([CARD], 0.5, 9.25)
    assert usage.gpu_seconds == 8.75
    assert usage.energy_joules == pytest.approx(875)
    assert not usage.is_estimated


def test_without_a_counter_power_is_added_up() -> None:
    meter = every_second(lambda at: Reading(power_watts=10 * at), until=10)
    assert meter.usage([CARD], 2, 8).energy_joules == pytest.approx(10 * (64 - 4) / 2)


def test_a_card_that_tells_nothing_has_no_energy_but_time() -> None:
    usage = every_second(lambda at: Reading(), until=10).usage([CARD], 2, 8)
    assert (usage.gpu_seconds, usage.energy_joules, usage.is_estimated) == (6, None, False)


def test_a_card_that_nobody_read_has_time() -> None:
    usage = Meter().usage([CARD, OTHER], 2, 8)
    assert (usage.gpu_seconds, usage.energy_joules, usage.peak_bytes) == (12, None, None)


def test_what_came_after_the_last_reading_goes_on_as_it_was() -> None:
    meter = watched([(0, Reading(energy_joules=0, power_watts=50), 1)])
    usage = meter.usage([CARD], 0, 2)
    assert (usage.energy_joules, usage.is_estimated) == (100, False)
    assert meter.usage([CARD], 0, 20).is_estimated


def test_one_reading_of_a_counter_alone_tells_nothing() -> None:
    assert watched([(0, counting(70), 1)]).usage([CARD], 0, 2).energy_joules is None


def test_a_run_between_distant_readings_is_estimated() -> None:
    meter = watched([(0, counting(0), 0), (600, counting(60_000), 1)])
    usage = meter.usage([CARD], 100, 110)
    assert (usage.energy_joules, usage.is_estimated) == (pytest.approx(1000), True)


def test_a_counter_that_begins_anew_costs_only_the_moment() -> None:
    meter = watched(
        (at, Reading(energy_joules=100 * (at if at < 5 else at - 5), power_watts=100), 1)
        for at in range(11)
    )
    assert meter.usage([CARD], 0, 10).energy_joules == pytest.approx(1000)


@pytest.mark.parametrize("silent", [Reading(), Reading(power_watts=9e9), counting(math.nan)])
def test_a_counter_that_is_silent_for_a_while_is_believed_afterwards(silent: Reading) -> None:
    meter = watched((at, counting(100 * at) if at not in (4, 5) else silent, 1) for at in range(11))
    assert meter.usage([CARD], 0, 10).energy_joules == pytest.approx(1000)


@pytest.mark.parametrize("power", [math.nan, math.inf, -1.0])
def test_figures_that_cannot_be_are_not_taken(power: float) -> None:
    meter = every_second(lambda at: Reading(power_watts=power), until=5)
    assert meter.usage([CARD], 0, 5).energy_joules is None


def test_readings_out_of_order_are_not_taken() -> None:
    meter = watched([(1, counting(10), 1), (0, counting(0), 1), (1, counting(7), 1)])
    watched([(2, counting(20), 1)], meter)
    assert meter.usage([CARD], 1, 2).energy_joules == 10


def test_several_cards_add_up_and_the_largest_peak_counts() -> None:
    meter = Meter()
    for uuid, watts, used in ((CARD, 100, 3), (OTHER, 50, 5)):
        idle = Reading(used_bytes=GIB, energy_joules=0)
        meter.note(uuid, 0, idle, 0)
        meter.note(uuid, 10, Reading(used_bytes=used * GIB, energy_joules=10 * watts), 1)
    usage = meter.usage([CARD, OTHER], 0, 10)
    assert (usage.gpu_seconds, usage.energy_joules) == (20, 1500)
    assert usage.peak_bytes == 4 * GIB


def test_the_energy_of_a_part_of_the_cards_is_no_sum() -> None:
    meter = every_second(lambda at: counting(at), until=3)
    watched([(0, Reading(), 1)], meter, OTHER)
    assert meter.usage([CARD, OTHER], 0, 3).energy_joules is None


# --- several leases share it ---


def test_leases_that_share_divide_time_and_energy() -> None:
    meter = every_second(lambda at: counting(100 * at), until=10, leases=lambda at: 4)
    usage = meter.usage([CARD], 2, 10, is_shared=True)
    assert usage.gpu_seconds == pytest.approx(2)
    assert usage.energy_joules == pytest.approx(200)
    assert usage.is_estimated


def test_a_share_of_an_unread_card_is_its_whole_time() -> None:
    usage = Meter().usage([CARD], 0, 5, is_shared=True)
    assert (usage.gpu_seconds, usage.energy_joules, usage.is_estimated) == (5, None, True)


@given(
    st.lists(
        st.tuples(st.integers(0, 40), st.integers(1, 40)).map(lambda each: (each[0], sum(each))),
        min_size=1,
        max_size=8,
    )
)
def test_what_all_took_adds_up_to_what_the_card_did(leases: list[tuple[int, int]]) -> None:
    step = 1 / 32

    def held(at: float) -> int:
        return sum(since <= at < until for since, until in leases)

    meter, ended = Meter(), []
    for tick in range(-1, 80 * 32 + 2):
        at = tick * step
        # As the runner does: it asks before the lease is given back.
        ended += [
            meter.usage([CARD], since, until, is_shared=True)
            for since, until in leases
            if until == at
        ]
        meter.note(CARD, at, counting(100 + 30 * at), held(at))
    busy = sum(held(tick * step) > 0 for tick in range(80 * 32)) * step
    # Between two readings the number of leases may change: each change costs half a step at most.
    error = 2 * len(leases) * step
    assert sum(each.gpu_seconds for each in ended) == pytest.approx(busy, abs=error)
    energies = [each.energy_joules for each in ended]
    assert None not in energies
    assert sum(filter(None, energies)) == pytest.approx(30 * busy, abs=30 * error)


# --- memory ---


def levels(*used: tuple[float, float, int]) -> Meter:
    """Return a meter that read (when, GiB in use, leases)."""
    return watched((at, Reading(used_bytes=int(size * GIB)), n) for at, size, n in used)


def test_peak_memory_is_what_came_on_top_of_the_idle_card() -> None:
    meter = levels((0, 0.5, 0), (1, 0.5, 1), (2, 6.5, 1), (3, 4.0, 1))
    assert meter.usage([CARD], 0.5, 3).peak_bytes == 6 * GIB
    assert meter.usage([CARD], 2.5, 3).peak_bytes == 3.5 * GIB


@pytest.mark.parametrize(
    "readings",
    [
        [(1, 0.5, 1), (2, 6.5, 1)],  # nobody knows what was there before
        [(0, 0.5, 0), (1, 6.5, 1), (2, 9.5, 2)],  # whose is it?
        [(0, 0.5, 0)],  # none while it ran
    ],
)
def test_peak_memory_that_is_not_known_is_none(readings: list[tuple[float, float, int]]) -> None:
    assert levels(*readings).usage([CARD], 0.5, 3).peak_bytes is None


def test_less_memory_in_use_than_before_is_no_negative_peak() -> None:
    assert levels((0, 2, 0), (1, 1, 1)).usage([CARD], 0.5, 1).peak_bytes == 0


# --- room ---


def test_a_long_run_keeps_its_sums_and_little_else() -> None:
    day = 86_400
    meter = Meter()
    meter.note(CARD, 0, Reading(used_bytes=0, energy_joules=0), 0)
    for at in range(1, day):
        reading = Reading(used_bytes=9 * GIB if at == 5000 else GIB, energy_joules=300.0 * at)
        meter.note(CARD, at, reading, 1)
    assert meter.kept <= 3600
    usage = meter.usage([CARD], 0.5, day - 1)
    assert usage.energy_joules == pytest.approx(300 * (day - 1.5))
    assert (usage.peak_bytes, usage.is_estimated) == (9 * GIB, False)


def test_what_came_before_a_moment_without_leases_is_forgotten() -> None:
    meter = Meter()
    for at in range(10_000):
        meter.note(CARD, at, Reading(used_bytes=GIB, energy_joules=at), at // 10 % 2)
    assert meter.kept <= 13
