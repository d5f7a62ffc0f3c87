from __future__ import annotations

import pytest

from aiotune.devices.run_memory import RUN_MEMORY_BYTES, RunMemory


@pytest.mark.parametrize(
    ("available_bytes", "runs"),
    [(0, 1), (RUN_MEMORY_BYTES, 1), (3 * RUN_MEMORY_BYTES - 1, 2), (32 * 2**30, 8)],
)
def test_before_a_measure_a_run_counts_much(available_bytes: int, runs: int) -> None:
    assert RunMemory(available_bytes).runs == runs


def test_the_largest_measure_and_a_quarter_count() -> None:
    memory = RunMemory(1000)
    counted = []
    for measure in (40, 100, 80, 900):
        memory.note(measure)
        counted.append((memory.run_bytes, memory.runs))
    assert counted == [(50, 20), (125, 8), (125, 8), (1125, 1)]


def test_a_measure_of_nothing_is_no_division_by_it() -> None:
    memory = RunMemory(1000)
    memory.note(0)
    assert (memory.run_bytes, memory.runs) == (1, 1000)
