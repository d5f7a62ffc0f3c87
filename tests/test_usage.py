from __future__ import annotations

import pytest

from aiotune.usage import JOULES_PER_KWH, Usage, total_usage, usage_text

GIB = 2**30


def test_the_sum_of_nothing_is_not_known() -> None:
    assert total_usage([]) is None
    assert total_usage([None, None]) is None


def test_times_and_energies_add_up_and_the_largest_peak_counts() -> None:
    first, second = Usage(10, 3 * GIB, 500.0), Usage(20, 2 * GIB, 250.0, is_estimated=True)
    assert total_usage([first, None]) == first
    assert total_usage([first, None, second]) == Usage(30, 3 * GIB, 750.0, is_estimated=True)


def test_energy_that_is_known_of_a_part_only_is_an_estimate() -> None:
    assert total_usage([Usage(10), Usage(20)]) == Usage(30)
    assert total_usage([Usage(10), Usage(20, None, 250.0)]) == Usage(30, None, 250.0, True)


@pytest.mark.parametrize(
    ("usage", "text"),
    [
        (Usage(4500), "1.25 GPU hours"),
        (Usage(36, int(3.2 * GIB)), "36 GPU seconds, peak 3.2 GiB"),
        (Usage(3600, None, 1800), "1 GPU hour, 0.5 Wh"),
        (
            Usage(4500, 2 * GIB, 0.45 * JOULES_PER_KWH, is_estimated=True),
            "1.25 GPU hours, peak 2 GiB, 0.45 kWh (estimated)",
        ),
    ],
)
def test_usage_in_words(usage: Usage, text: str) -> None:
    assert usage_text(usage) == text


def test_units_that_people_count_in() -> None:
    usage = Usage(7200, energy_joules=1.8e6)
    assert (usage.gpu_hours, usage.energy_kwh) == (2, 0.5)
    assert Usage(7200).energy_kwh is None
