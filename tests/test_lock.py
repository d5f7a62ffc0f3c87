from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest

from aiotune.errors import StoreLocked, StoreUnwritable
from aiotune.store.lock import hold_lock
from tests.support.programs import line_of, program, run_program
from tests.support.virtual_clock import VirtualClock

HOLD = """
    import os, sys
    from pathlib import Path
    from aiotune.store.lock import hold_lock
    with hold_lock(Path(sys.argv[1])):
        print(os.getpid(), flush=True)
        sys.stdin.read()
"""
TRY = """
    import sys
    from pathlib import Path
    from aiotune.errors import StoreLocked
    from aiotune.store.lock import hold_lock
    try:
        with hold_lock(Path(sys.argv[1])):
            print("free")
    except StoreLocked as error:
        print(error.pid)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "project" / "study.lock"


def test_file_says_who_holds_it_and_stays_empty(path: Path) -> None:
    clock = VirtualClock()
    with hold_lock(path, clock=clock) as owner:
        assert json.loads(path.read_text()) == {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "since": owner.since,
        }
    assert path.read_text() == ""
    assert owner.since == clock.now()


def test_lock_can_be_taken_again_after_its_release(path: Path) -> None:
    with hold_lock(path):
        pass
    with pytest.raises(ZeroDivisionError), hold_lock(path):
        raise ZeroDivisionError
    with hold_lock(path) as owner:
        assert owner.pid == os.getpid()


def test_second_process_learns_the_owner(path: Path) -> None:
    with program(HOLD, path) as process:
        pid = int(line_of(process))
        message = rf"pid {pid} on .*another project_name"
        with pytest.raises(StoreLocked, match=message) as caught, hold_lock(path):
            pass
        assert (caught.value.pid, caught.value.host) == (pid, socket.gethostname())


def test_second_task_of_the_process_is_refused_and_does_not_break_the_lock(
    path: Path, tmp_path: Path
) -> None:
    alias = tmp_path / "alias"
    with hold_lock(path):
        alias.symlink_to(path.parent)
        for same in (path, alias / path.name, path.parent / ".." / "project" / path.name):
            with pytest.raises(StoreLocked, match="this process") as caught, hold_lock(same):
                pass
            assert caught.value.pid == os.getpid()
        assert run_program(TRY, path).strip() == str(os.getpid())
    assert run_program(TRY, path).strip() == "free"


def test_killed_owner_holds_nothing(path: Path) -> None:
    with program(HOLD, path) as process:
        line_of(process)
        process.kill()
        process.wait()
        assert path.read_text() != ""  # it had no time to tidy up
        with hold_lock(path) as owner:
            assert owner.pid == os.getpid()


def test_fork_of_a_killed_owner_does_not_keep_the_lock(path: Path) -> None:
    code = """
        import os, signal, sys
        from pathlib import Path
        from aiotune.store.lock import hold_lock
        with hold_lock(Path(sys.argv[1])):
            if os.fork() == 0:
                print("forked", flush=True)
                sys.stdin.read()
                os._exit(0)
            signal.pause()
    """
    with program(code, path) as process:
        assert line_of(process) == "forked"
        assert run_program(TRY, path).strip() == str(process.pid)
        process.kill()
        assert process.wait() != 0
        with hold_lock(path) as owner:  # while the fork still lives: its stdin is open
            assert owner.pid == os.getpid()


def test_fork_that_unwinds_the_block_leaves_the_lock_to_its_parent(path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from aiotune.errors import StoreLocked
        from aiotune.store.lock import hold_lock
        path = Path(sys.argv[1])
        try:
            with hold_lock(path):
                child = os.fork()
                if child == 0:
                    sys.exit(0)
                assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
                print(os.getpid(), flush=True)
                sys.stdin.read()
        except SystemExit:
            try:
                with hold_lock(path):
                    pass
            except StoreLocked as error:
                os._exit(0 if error.pid == os.getppid() else 1)
            os._exit(2)
    """
    with program(code, path) as process:
        pid = line_of(process)
        assert run_program(TRY, path).strip() == pid


def test_fork_can_take_the_lock_once_its_parent_has_released_it(path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from aiotune.store.lock import hold_lock
        path = Path(sys.argv[1])
        waiting, released = os.pipe()
        with hold_lock(path):
            child = os.fork()
            if child == 0:
                os.read(waiting, 1)
                with hold_lock(path) as owner:
                    os._exit(0 if owner.pid == os.getpid() else 1)
        os.write(released, b"x")
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    assert run_program(code, path).strip() == "0"


def test_lock_files_that_are_deleted_never_give_two_owners(path: Path) -> None:
    code = """
        import os, sys
        from pathlib import Path
        from aiotune.errors import StoreLocked
        from aiotune.store.lock import hold_lock
        path, marker = Path(sys.argv[1]), Path(sys.argv[1]).parent.parent / "marker"
        print("ready", flush=True)
        sys.stdin.readline()
        turns = 0
        while turns < 300:
            try:
                with hold_lock(path):
                    marker.touch(exist_ok=False)
                    marker.unlink()
                    path.unlink()
                    turns += 1
            except StoreLocked:
                pass
        print("alone", flush=True)
    """
    with program(code, path) as one, program(code, path) as other:
        for process in (one, other):
            assert line_of(process) == "ready"
        for process in (one, other):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [line_of(process) for process in (one, other)] == ["alone", "alone"]


def test_half_written_owner_is_no_obstacle_to_the_message(path: Path) -> None:
    with program(HOLD, path) as process:
        line_of(process)
        path.write_text('{"pid": 1')
        with pytest.raises(StoreLocked, match="another process") as caught, hold_lock(path):
            pass
        assert caught.value.pid is None


def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    below = tmp_path / "file" / "study.lock"
    with pytest.raises(StoreUnwritable, match="file is in the way"), hold_lock(below):
        pass
    directory = tmp_path / "study.lock"
    directory.mkdir()
    with pytest.raises(StoreUnwritable, match=r"study\.lock cannot be locked"):
        hold_lock(directory).__enter__()
