from __future__ import annotations

import fcntl
import gc
import json
import logging
import os
import resource
import shutil
import socket
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from aiotune.devices.lock_files import Holder
from aiotune.devices.locks import LEASED, CardLocks, open_locks
from tests.support.programs import line_of, program, run_program
from tests.support.virtual_clock import VirtualClock

STRANGER = 65534  # a user who owns nothing


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "locks"


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def held(locks: CardLocks, uuid: str = "a") -> int:
    """Take a lock that must be free."""
    fd = locks.take(uuid)
    assert fd is not None
    return fd


# --- who has a card ---


def test_a_card_is_one_holders(directory: Path) -> None:
    # Two stand for two processes: a lock belongs to an open file.
    one, two = CardLocks(directory), CardLocks(directory)
    held(one)
    assert two.take("a") is None
    assert two.take("b") is not None
    one.drop("a")
    assert two.take("a") is not None
    assert one.take("a") is None


def test_a_lock_is_taken_once_and_closed_when_dropped(directory: Path) -> None:
    locks = CardLocks(directory)
    fd = held(locks)
    assert locks.take("a") == fd
    assert not os.get_inheritable(fd)
    locks.drop("a")
    assert not is_open(fd)
    locks.drop("a")  # and that is no error
    locks.drop("never taken")


def test_a_copy_of_the_descriptor_keeps_the_card(directory: Path) -> None:
    one, two = CardLocks(directory), CardLocks(directory)
    copy = os.dup(held(one))
    one.drop("a")
    assert two.take("a") is None
    assert one.take("a") is None  # not even for who gave the copy away
    os.close(copy)
    assert two.take("a") is not None


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")
def test_a_fork_has_no_part_in_the_locks(directory: Path) -> None:
    one, two = CardLocks(directory), CardLocks(directory)
    fd = held(one)
    here, there = socket.socketpair()
    with here, there:
        pid = os.fork()
        if pid == 0:
            try:
                here.close()
                there.send(b"o" if is_open(fd) else b"c")
                one.drop("a")  # as if it unwound the stack of its parent
                there.recv(1)
            finally:
                os._exit(0)
        there.close()
        assert here.recv(1) == b"c"
        assert two.take("a") is None
        one.drop("a")
        assert two.take("a") is not None  # while the fork lives
    os.waitpid(pid, 0)


def test_locks_that_nobody_has_any_more_are_free(directory: Path) -> None:
    one, two = CardLocks(directory), CardLocks(directory)
    held(one)
    del one
    gc.collect()
    assert two.take("a") is not None


def test_a_name_with_slashes_is_one_file(directory: Path) -> None:
    locks = CardLocks(directory)
    held(locks, "MIG-GPU-1/2/0")
    held(locks, "..")
    assert {each.name for each in directory.iterdir()} == {"MIG-GPU-1%2F2%2F0.lock", "...lock"}
    assert CardLocks(directory).take("MIG-GPU-1/2/0") is None


def test_a_file_that_was_deleted_is_not_locked(directory: Path) -> None:
    one, two = CardLocks(directory), CardLocks(directory)
    held(one)
    one.drop("a")
    (directory / "a.lock").unlink()
    held(two)
    assert one.take("a") is None


# --- who holds it ---

HOLDER = """
import sys
from pathlib import Path
from aiotune.devices.locks import CardLocks
locks = CardLocks(Path(sys.argv[1]))
assert locks.take("a") is not None
print("held", flush=True)
sys.stdin.read()
"""


def test_the_holder_has_a_name(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("USER", "anna")
    locks = CardLocks(directory)
    assert locks.holder("a") is None
    assert not directory.exists()  # to look makes nothing
    with program(HOLDER, directory) as process:
        assert line_of(process) == "held"
        assert locks.take("a") is None
        assert locks.holder("a") == f"process {process.pid} (-c, anna)"
        process.kill()
        process.wait()
        assert locks.holder("a") is None
    held(locks)
    assert locks.holder("a") is None
    assert CardLocks(directory).holder("a") == "a run of this process"


def test_the_holder_is_a_run_whose_process_has_ended(directory: Path) -> None:
    locks = CardLocks(directory)
    copy = os.dup(held(locks))
    locks.drop("a")
    ended = run_program("import os; print(os.getpid())").strip()
    said = json.dumps({"pid": int(ended), "user": "u", "host": os.uname().nodename, "program": "p"})
    (directory / "a.lock").write_text(said)
    assert locks.holder("a") == f"a run of process {ended} (p, u), which has ended"
    os.close(copy)


def test_the_holder_on_another_host_is_believed(directory: Path) -> None:
    assert Holder(1, "u", "elsewhere", "p").describe() == "process 1 (p, u) on elsewhere"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\x00",
        b"[]",
        b"null",
        b'{"pid": "x", "user": "", "host": "", "program": ""}',
        b'{"pid": 1e999, "user": "", "host": "", "program": ""}',
        b'{"pid": 99999999999999999999999, "user": "", "host": "HERE", "program": ""}',
        b"[" * 4000,
        b"x" * 100_000,
    ],
)
def test_what_a_file_says_may_be_anything(directory: Path, text: bytes) -> None:
    one, two = CardLocks(directory), CardLocks(directory)
    held(one)
    (directory / "a.lock").write_bytes(text.replace(b"HERE", os.uname().nodename.encode()))
    assert two.holder("a") == "another process"


def test_words_of_strangers_are_fit_for_a_terminal() -> None:
    said = Holder(1, "\x1b[31mred\n", "host\r", "long" * 1000).describe()
    assert said == f"process 1 ({'long' * 16}, [31mred) on host"


# --- who comes next ---


def test_who_drops_a_card_leaves_it_to_who_waits(directory: Path) -> None:
    clock = VirtualClock()
    one, two = CardLocks(directory, clock=clock), CardLocks(directory, clock=clock)
    held(one)
    assert two.take("a") is None
    one.drop("a")
    assert one.take("a") is None
    assert one.holder("a") == "another process, which is about to take it"
    assert two.holder("a") is None
    held(two)
    two.drop("a")
    assert two.take("a") is None  # for now the first one waits
    held(one)


def test_who_waits_must_take_the_card_in_time(directory: Path) -> None:
    clock = VirtualClock()
    one, two = CardLocks(directory, clock=clock), CardLocks(directory, clock=clock)
    held(one)
    assert two.take("a") is None
    one.drop("a")
    clock.advance(0.099)
    assert one.take("a") is None
    clock.advance(0.002)
    assert one.holder("a") is None
    held(one)


@pytest.mark.parametrize("how", ["leaves", "dies", "got it"])
def test_a_card_that_nobody_waits_for_is_taken_again_at_once(directory: Path, how: str) -> None:
    clock = VirtualClock()
    one, two = CardLocks(directory, clock=clock), CardLocks(directory, clock=clock)
    held(one)
    assert two.take("a") is None
    match how:
        case "leaves":
            two.leave("a")
            two.leave("a")  # and that is no error
        case "dies":
            del two
            gc.collect()
        case _:
            one.drop("a")
            held(two)
            two.drop("a")
            clock.advance(1.0)
            held(one)
    one.drop("a")
    held(one)


def test_nobody_has_a_card_twice_in_a_row_that_others_want(directory: Path) -> None:
    clock = VirtualClock()
    rivals = [CardLocks(directory, clock=clock) for _ in range(3)]
    turns: list[int] = []
    holder = None
    while len(turns) < 30:
        if holder is not None:
            rivals[holder].drop("a")
        (holder,) = [i for i, each in enumerate(rivals) if each.take("a") is not None]
        turns.append(holder)
    assert all(before != after for before, after in pairwise(turns))


# --- what may be found in the directory ---


def test_all_users_may_lock(directory: Path) -> None:
    umask = os.umask(0o077)
    try:
        held(CardLocks(directory / "deeper"))
    finally:
        os.umask(umask)
    assert stat.S_IMODE((directory / "deeper").stat().st_mode) == 0o1777
    assert stat.S_IMODE((directory / "deeper" / "a.lock").stat().st_mode) == 0o666


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def other_name(path: Path, target: Path) -> None:
    path.hardlink_to(target)


def fifo(path: Path, target: Path) -> None:
    os.mkfifo(path)


def folder(path: Path, target: Path) -> None:
    path.mkdir()


def dangling(path: Path, target: Path) -> None:
    path.symlink_to(target.parent / "nothing")


@pytest.mark.parametrize("place", [link, other_name, fifo, folder, dangling])
def test_what_is_no_plain_file_is_no_lock(
    tmp_path: Path,
    directory: Path,
    place: Callable[[Path, Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    target = tmp_path / "precious"
    target.write_text("precious")
    directory.mkdir()
    for name in ("a.lock", "a.next"):
        place(directory / name, target)
    one, two = CardLocks(directory), CardLocks(directory)
    for _ in range(2):
        fd = held(one)  # without a lock: a leftover in a directory must not cost the card
        one.drop("a")
        assert not is_open(fd)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"{directory / 'a.lock'}: " in record.message
    assert "AIOTUNE_LOCK_DIR" in record.message
    held(one)
    held(two)
    assert CardLocks(directory).holder("a") is None
    assert target.read_text() == "precious"
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("place", [link, fifo, dangling])
def test_directory_that_is_none_costs_one_warning(
    tmp_path: Path,
    directory: Path,
    place: Callable[[Path, Path], None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    (tmp_path / "elsewhere").mkdir()
    place(directory, tmp_path / "elsewhere")
    locks = CardLocks(directory)
    for uuid in "abc":
        held(locks, uuid)
        locks.drop(uuid)
        assert locks.holder(uuid) is None
    (record,) = caplog.records
    assert f"{directory}: " in record.message
    assert list((tmp_path / "elsewhere").iterdir()) == []


@contextmanager
def of_another() -> Iterator[Path]:
    """Yield a new directory that everybody can look into, and that only its owner can write to."""
    path = Path(tempfile.mkdtemp(dir="/tmp"))
    path.chmod(0o755)
    try:
        yield path
    finally:
        path.chmod(0o755)
        shutil.rmtree(path)


@contextmanager
def as_stranger() -> Iterator[None]:
    """Have no rights on what was made before, or was made read-only."""
    if os.geteuid() != 0:  # then who made a file read-only cannot write to it, either
        yield
        return
    os.seteuid(STRANGER)
    try:
        yield
    finally:
        os.seteuid(0)


def test_file_of_another_that_cannot_be_written_is_locked_all_the_same() -> None:
    with of_another() as directory:
        for name in ("a.lock", "a.next"):
            (directory / name).write_text("mine")
            (directory / name).chmod(0o444)
        directory.chmod(0o555)
        clock = VirtualClock()
        one, two = CardLocks(directory, clock=clock), CardLocks(directory, clock=clock)
        with as_stranger():
            held(one)
            assert two.take("a") is None
            assert two.holder("a") == "another process"
            one.drop("a")
            assert one.take("a") is None  # the other one waits
            held(two)
        assert (directory / "a.lock").read_text() == "mine"


@pytest.mark.parametrize("has_file", [True, False])
def test_directory_of_another_without_a_file_for_us(
    has_file: bool, caplog: pytest.LogCaptureFixture
) -> None:
    with of_another() as directory:
        if has_file:
            (directory / "a.lock").touch(0o000)
        directory.chmod(0o555)
        one, two = CardLocks(directory), CardLocks(directory)
        with as_stranger():
            held(one)
            held(two)
            assert CardLocks(directory).holder("a") is None
    assert [record.message.count("Permission denied") for record in caplog.records] == [1, 1]


def test_without_descriptors_no_card_is_taken(directory: Path) -> None:
    locks = CardLocks(directory)
    held(locks, "b")
    free = os.dup(0)
    os.close(free)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        answers = locks.take("a"), locks.holder("a"), locks.take("b")
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert answers[0] is None
    assert "ulimit -n" in str(answers[1])
    assert answers[2] is not None
    assert locks.holder("a") is None
    held(locks)


# --- which directory ---


def test_directory_is_the_one_that_is_named(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    held(open_locks({"AIOTUNE_LOCK_DIR": str(tmp_path / "link")}))
    assert (tmp_path / "real" / "a.lock").is_file()


@pytest.mark.parametrize("environment", [{}, {"AIOTUNE_LOCK_DIR": ""}])
def test_directory_is_the_machines_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str]
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    held(open_locks(environment, tmp_path / "everybodys"))
    assert (tmp_path / "everybodys" / "a.lock").is_file()


def test_a_search_inside_of_a_run_has_the_cards_of_the_run(directory: Path) -> None:
    """The process around the run holds their locks already."""
    around = CardLocks(directory)
    for uuid in "abc":
        held(around, uuid)
    inside = open_locks({"AIOTUNE_LOCK_DIR": str(directory), LEASED: "a,b"})
    assert [inside.take(uuid) is not None for uuid in "abc"] == [True, True, False]
    inside.drop("a")
    assert CardLocks(directory).take("a") is None
    around.drop("a")
    assert CardLocks(directory).take("a") is not None


def test_lock_is_flocks(directory: Path) -> None:
    """So that a shell script can take part: `flock /tmp/aiotune-locks/<UUID>.lock train.sh`."""
    directory.mkdir()
    with (directory / "a.lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert CardLocks(directory).take("a") is None
    assert CardLocks(directory).take("a") is not None
