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


def test_what_runs_in_progress_have_told_says_what_is_needed_once_one_of_them_has_ended() -> None:
    need = GpuNeed()
    need.note_so_far("one", 1600)
    need.note_so_far("other", 3200)
    need.note_so_far("one", 800)
    need.note_end("silent")
    assert need.memory_bytes is None
    need.note_end("one")
    assert need.memory_bytes == 3400
    need.note_so_far("other", 6400)
    assert need.memory_bytes == 6800
