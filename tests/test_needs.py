from __future__ import annotations

from aiotune.devices.needs import GpuNeed


def test_the_largest_peak_and_a_sixteenth_count() -> None:
    need = GpuNeed()
    assert need.memory_bytes is None
    counted: list[int | None] = []
    for peak in (1600, 800, 3200):
        need.note(peak)
        counted.append(need.memory_bytes)
    assert counted == [1700, 1700, 3400]


def test_a_run_that_took_nothing_is_known_to_need_little() -> None:
    need = GpuNeed()
    need.note(0)
    assert need.memory_bytes == 1
