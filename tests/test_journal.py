"""The store on a file system that other machines share, and what `durability="full"` waits for."""

from __future__ import annotations

import asyncio
import logging
import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import AbstractAsyncContextManager, closing
from pathlib import Path

import pytest

from aiotune.errors import StoreUnreadable
from aiotune.store.base import Store
from aiotune.store.database import connect_writer
from aiotune.store.reader import read_facts
from aiotune.store.sqlite import open_store
from tests.contracts.store_contract import StoreContract
from tests.support.facts import created, opened, reported, whole_trial
from tests.support.mounts import of_a_network, of_one_disk
from tests.support.programs import ROOT, line_of, program
from tests.support.waiting_clock import WaitingClock


class TestSqliteStoreOnANetwork(StoreContract):
    def open(self, path: Path) -> AbstractAsyncContextManager[Store]:
        return open_store(path, mount_table=of_a_network)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def read_there(path: Path) -> list[object]:
    return list(read_facts(path, mount_table=of_a_network))


def pragmas(path: Path, durability: str, *names: str, is_shared: bool) -> list[object]:
    table = of_a_network if is_shared else of_one_disk
    with closing(
        connect_writer(
            path,
            durability=durability,  # type: ignore[arg-type]
            factory=sqlite3.Connection,
            mount_table=table,
        )
    ) as connection:
        return [connection.execute(f"PRAGMA {each}").fetchone()[0] for each in names]


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 2), ("full", 3)])
def test_on_a_network_a_journal_takes_the_place_of_the_log(
    path: Path, durability: str, synchronous: int
) -> None:
    names = ("journal_mode", "synchronous", "locking_mode")
    found = pragmas(path, durability, *names, is_shared=True)
    assert found == ["truncate", synchronous, "normal"]


async def test_on_a_network_no_memory_is_shared_and_no_log_written(path: Path) -> None:
    async with open_store(path, mount_table=of_a_network) as store:
        await store.append(*whole_trial())
        assert not [
            each.name for each in path.parent.iterdir() if each.name.endswith(("-shm", "-wal"))
        ]
        assert read_there(path) == whole_trial()


async def test_on_a_network_one_warning_says_what_is_done(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(path, mount_table=of_a_network) as store:
        await store.append(*whole_trial())
        await store.load()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert str(path) in record.getMessage()
    assert "other machines share" in record.getMessage()
    assert "local disk" in record.getMessage()


async def test_on_a_disk_of_its_own_nothing_is_said(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_store(path, mount_table=of_one_disk) as store:
        await store.append(opened())
    assert caplog.records == []


async def test_project_moves_from_a_disk_to_a_network_and_back(path: Path) -> None:
    for number, table in enumerate([of_one_disk, of_a_network, of_one_disk, of_a_network]):
        async with open_store(path, mount_table=table) as store:
            assert await store.append(created(number)) == number + 1
    assert read_there(path) == [created(number) for number in range(4)]


KILLED_WHILE_WRITING = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from aiotune.store.sqlite import open_store
    from tests.support.facts import whole_trial
    async def main():
        async with open_store(Path(sys.argv[1])) as store:
            await store.append(*whole_trial())
            os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(main())
"""


def leave_a_log(path: Path) -> None:
    """Let a process write a trial on a disk of its own, and die: its facts are in the log alone."""
    with program(KILLED_WHILE_WRITING, path) as process:
        process.wait()
    assert path.with_name("study.db-wal").stat().st_size > 0


async def test_log_that_was_left_on_a_disk_is_taken_in_on_a_network(path: Path) -> None:
    leave_a_log(path)
    assert read_there(path) == whole_trial()
    async with open_store(path, mount_table=of_a_network) as store:
        assert await store.load() == whole_trial()
        assert await store.append(created(1)) == len(whole_trial()) + 1
    assert not path.with_name("study.db-wal").exists()
    assert read_there(path) == [*whole_trial(), created(1)]


async def test_machine_that_writes_a_log_is_read_over_the_network(path: Path) -> None:
    async with open_store(path, mount_table=of_one_disk) as store:
        await store.append(*whole_trial())
        before = sorted(each.name for each in path.parent.iterdir())
        assert read_there(path) == whole_trial()
        await store.append(created(1))
        assert read_there(path) == [*whole_trial(), created(1)]
        assert sorted(each.name for each in path.parent.iterdir()) == before


async def test_on_a_network_a_reader_that_does_not_end_holds_the_writer_up_but_loses_nothing(
    path: Path,
) -> None:
    clock = WaitingClock()
    async with open_store(path, mount_table=of_a_network, clock=clock) as store:
        await store.append(opened())
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
            waiting = asyncio.create_task(store.append(created()))
            await clock.wait_for_a_failed_attempt()
            assert not waiting.done()
            reader.execute("COMMIT")
            assert await waiting == 2
    assert read_there(path) == [opened(), created()]


async def test_on_a_network_readers_of_the_whole_search_do_not_stop_the_writer(path: Path) -> None:
    async with open_store(path, mount_table=of_a_network) as store:
        await store.append(*(reported(step=step) for step in range(6000)))  # more than one piece
        readings = [asyncio.create_task(asyncio.to_thread(read_there, path)) for _ in range(4)]
        for step in range(6000, 6030):
            assert await store.append(reported(step=step)) == step + 1
        for facts in await asyncio.gather(*readings):
            assert facts == [reported(step=step) for step in range(len(facts))]
            assert len(facts) >= 6000


def test_what_a_dead_writer_had_begun_is_not_read(path: Path) -> None:
    """Its journal must be rolled back first, which a reader may not do: it does so in a copy."""
    code = """
        import os, signal, sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None)
        connection.execute("PRAGMA cache_size = 1")
        connection.execute("PRAGMA cache_spill = 1")
        connection.execute("BEGIN IMMEDIATE")
        connection.execute("DELETE FROM events")
        connection.execute("DELETE FROM metrics")
        print("begun", flush=True)
        sys.stdin.readline()
    """
    facts = [reported(step=step) for step in range(2000)]

    async def write() -> None:
        async with open_store(path, mount_table=of_a_network) as store:
            await store.append(*facts)

    asyncio.run(write())
    with program(code, path) as process:
        assert line_of(process) == "begun"
        process.kill()
    assert path.with_name("study.db-journal").stat().st_size > 0
    before = path.read_bytes()
    assert read_there(path) == facts
    assert path.read_bytes() == before


def test_copy_that_cannot_be_made_is_told(path: Path) -> None:
    path.write_bytes(b"no database")
    path.with_name("study.db-wal").write_bytes(b"no log")
    with pytest.raises(StoreUnreadable, match="no database"):
        read_there(path)


# Loss of power


@pytest.fixture
def traced(tmp_path: Path) -> list[str]:
    """The command that runs a program and notes in `calls` what it waits for the disk for."""
    command = ["strace", "-f", "-y", "-e", "trace=fsync,fdatasync,write"]
    command += ["-e", "signal=none", "-o", str(tmp_path / "calls")]
    if shutil.which("strace") is None:
        pytest.skip("no strace is here")
    if subprocess.run([*command, "true"], capture_output=True, check=False).returncode:
        pytest.skip("strace may not be used here")
    return command


def test_against_loss_of_power_each_fact_and_each_new_directory_is_waited_for(
    tmp_path: Path, traced: list[str]
) -> None:
    code = """
import asyncio, os, sys
from pathlib import Path
from aiotune.store.sqlite import open_store
from tests.support.facts import created
async def main():
    async with open_store(Path(sys.argv[1]), durability="full") as store:
        os.write(1, b"opened\\n")
        for number in range(3):
            await store.append(created(number))
            os.write(1, b"durable\\n")
asyncio.run(main())
"""
    path = tmp_path / "new" / "project" / "study.db"
    subprocess.run(
        [*traced, sys.executable, "-c", code, str(path)], cwd=ROOT, check=True, capture_output=True
    )
    lines = (tmp_path / "calls").read_text().splitlines()
    calls = [line for line in lines if "sync(" in line or "opened" in line or "durable" in line]
    until_open = calls[: next(i for i, line in enumerate(calls) if "opened" in line)]
    for directory in (path.parent, path.parent.parent, tmp_path):
        assert any(f"<{os.path.realpath(directory)}>" in each for each in until_open), directory
    rest = calls[len(until_open) + 1 :]
    for _ in range(3):
        until_durable = next(i for i, line in enumerate(rest) if "durable" in line)
        assert any("study.db-wal>" in each for each in rest[:until_durable])
        rest = rest[until_durable + 1 :]
