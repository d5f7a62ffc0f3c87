from __future__ import annotations

import os
from pathlib import Path

import pytest

from aiotune.executors.log_cap import CAP_BYTES, LogCap

CAP = 64 * 1024


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def capped(path: Path, cap_bytes: int = CAP) -> LogCap:
    return LogCap(str(path), cap_bytes=cap_bytes, clock=Clock())


def lines(first: int, last: int) -> bytes:
    return b"".join(b"line %d\n" % number for number in range(first, last))


def test_short_log_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"x" * CAP)
    capped(path).look()
    assert path.read_bytes() == b"x" * CAP


def test_long_log_keeps_beginning_and_end_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    text = lines(0, 20_000)
    path.write_bytes(text)
    capped(path).look()
    kept = path.read_bytes()
    assert len(kept) <= CAP
    head, _, tail = kept.partition(b"\n--- about ")
    assert text.startswith(head)
    assert head.endswith(b"\n")
    cut, _, tail = tail.partition(b" ---\n")
    assert text.endswith(tail)
    assert tail.startswith(b"line ")
    assert int(cut.split()[0].replace(b",", b"")) == len(text) - len(head) - len(tail)


def test_whoever_holds_the_log_goes_on_behind_what_is_left(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    cap = capped(path)
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for round_ in range(5):
        os.write(fd, lines(round_ * 20_000, (round_ + 1) * 20_000))
        cap.look()
        os.write(fd, b"behind\n")
    os.close(fd)
    kept = path.read_bytes()
    assert len(kept) < CAP
    assert kept.startswith(lines(0, 100))
    assert kept.endswith(b"line 99999\nbehind\n")
    assert kept.count(b"were cut out here") == 1


def test_one_line_without_end_is_cut_too(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    path.write_bytes(b"\0" * 10 * CAP)
    capped(path).look()
    assert CAP // 4 < path.stat().st_size < CAP


def test_log_that_was_removed_is_still_kept_short(tmp_path: Path) -> None:
    path = tmp_path / "run.log"
    with path.open("ab", buffering=0) as log:
        cap = capped(path)
        cap.look()
        path.unlink()
        log.write(b"x" * 10 * CAP)
        cap.look()
        assert os.fstat(log.fileno()).st_size < CAP


@pytest.mark.parametrize("kind", ["nothing", "link", "hard link", "fifo", "directory"])
def test_what_is_no_plain_file_is_left_alone(tmp_path: Path, kind: str) -> None:
    path, other = tmp_path / "run.log", tmp_path / "other"
    other.write_bytes(b"x" * 10 * CAP)
    match kind:
        case "link":
            path.symlink_to(other)
        case "hard link":
            path.hardlink_to(other)
        case "fifo":
            os.mkfifo(path)
        case "directory":
            path.mkdir()
    cap = capped(path)
    cap.look()
    cap.close()
    assert other.stat().st_size == 10 * CAP


def test_looks_come_sooner_the_faster_a_log_grows(tmp_path: Path) -> None:
    path, clock = tmp_path / "run.log", Clock()
    cap = LogCap(str(path), clock=clock)
    path.write_bytes(b"")
    pauses = []
    for size in (0, 1000, CAP_BYTES // 4, CAP_BYTES // 2):
        clock.now += 1
        os.truncate(path, size)
        cap.look()
        pauses.append(cap.next_look - clock.now)
    assert pauses[:2] == [1.0, 1.0]
    assert pauses == sorted(pauses, reverse=True)
    assert 0.05 <= pauses[-1] <= 1.0
