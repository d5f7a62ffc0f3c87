from __future__ import annotations

import asyncio
import json
import math
import os
import shutil
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import AbstractAsyncContextManager, closing
from itertools import chain
from pathlib import Path

import anyio
import pytest

from aiotune.errors import FatalValueError, StoreError, StoreUnreadable, StoreUnwritable
from aiotune.events import Event, Reported, to_json
from aiotune.store.base import Store
from aiotune.store.database import connect_writer, migrate
from aiotune.store.reader import read_facts, read_meta
from aiotune.store.schema import APPLICATION_ID, MIGRATIONS, derived
from aiotune.store.sqlite import BatchConnection, open_store
from aiotune.trial import RunState, TrialState
from tests.contracts.store_contract import StoreContract
from tests.support.facts import (
    created,
    ended,
    every_kind,
    opened,
    reported,
    run_ended,
    started,
    whole_trial,
)
from tests.support.programs import line_of, program, run_program


class TestSqliteStore(StoreContract):
    def open(self, path: Path) -> AbstractAsyncContextManager[Store]:
        return open_store(path)


class TestSqliteStoreAgainstPowerLoss(StoreContract):
    def open(self, path: Path) -> AbstractAsyncContextManager[Store]:
        return open_store(path, durability="full")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def query(path: Path, sql: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(sql).fetchall()


def write(path: Path, *facts: Event) -> None:
    async def main() -> None:
        async with open_store(path) as store:
            await store.append(*facts)

    asyncio.run(main())


def files_beside(path: Path) -> list[str]:
    return sorted(each.name for each in path.parent.iterdir())


def damage_all_but_the_first_page(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(b"\xa5" * (path.stat().st_size - 4096))


def execute(path: Path, *statements: str) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


# Derived tables


async def test_derived_tables_follow_the_facts(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(opened(), *whole_trial(), created(1), started(1))
    assert query(
        path, "SELECT trial_id, number, state, score, best_step, ended_at FROM trials"
    ) == [
        ("0000", 0, "COMPLETED", 0.25, 1, 9.0),
        ("0001", 1, "RUNNING", None, None, None),
    ]
    assert query(path, "SELECT trial_id, run, state, devices, started_at, ended_at FROM runs") == [
        ("0000", 0, "FINISHED", '["GPU-1"]', 3.0, 8.0),
        ("0001", 0, "RUNNING", '["GPU-1"]', 3.0, None),
    ]
    assert query(path, "SELECT * FROM metrics WHERE name = 'val_loss' ORDER BY step") == [
        ("0000", 0, 0, "val_loss", 1.0),
        ("0000", 0, 1, "val_loss", 0.25),
    ]
    ((values,),) = query(path, "SELECT vals FROM trials WHERE number = 0")
    assert json.loads(str(values)) == {"units": 32, "rate": 0.01}


async def test_no_number_is_null_in_derived_tables(path: Path) -> None:
    nan = Reported(5.0, "0000", 0, 0, {"loss": math.nan, "up": math.inf})
    async with open_store(path) as store:
        await store.append(created(), started(), nan, ended(score=math.nan))
    assert query(path, "SELECT name, value FROM metrics") == [("loss", None), ("up", math.inf)]
    assert query(path, "SELECT score FROM trials") == [(None,)]


async def test_step_reported_twice_is_kept_twice_in_the_log(path: Path) -> None:
    facts = [created(), started(), reported(loss=0.5), reported(loss=0.25)]
    async with open_store(path) as store:
        await store.append(*facts)
        assert await store.load() == facts
    assert query(path, "SELECT value FROM metrics WHERE name = 'loss'") == [(0.25,)]


def test_every_kind_names_existing_columns(path: Path) -> None:
    with closing(
        connect_writer(path, durability="process", factory=sqlite3.Connection)
    ) as connection:
        for fact in every_kind():
            for sql, rows in derived(fact):
                connection.executemany(sql, rows)
        states = connection.execute("SELECT state FROM runs ORDER BY run").fetchall()
    assert states == [(RunState.STOPPED,), (RunState.FAILED,)]


async def test_usage_of_gpus_is_in_the_runs(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(*every_kind())
    columns = "gpu_memory, gpu_fraction, gpu_seconds, peak_bytes, energy_joules, is_estimated"
    assert query(path, f"SELECT {columns} FROM runs ORDER BY run") == [
        (None,) * 6,
        (2**31, 0.25, 0.025, 2**30, 7.5, 1),
    ]


async def test_best_trials_come_from_the_index(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(*whole_trial())
    sql = "SELECT trial_id FROM trials WHERE state = 'COMPLETED' ORDER BY score LIMIT 10"
    ((*_, plan),) = query(path, f"EXPLAIN QUERY PLAN {sql}")
    assert "trials_by_score" in str(plan)
    assert query(path, sql) == [("0000",)]


# Crash, cancellation, closing


async def test_whatever_returned_survives_kill_9(path: Path) -> None:
    code = """
        import asyncio, sys
        from pathlib import Path
        from aiotune.store.sqlite import open_store
        from tests.support.facts import created, reported
        async def add(store, base):
            for step in range(1_000_000):
                print(await store.append(reported(base, step)), flush=True)
        async def main():
            async with open_store(Path(sys.argv[1])) as store, asyncio.TaskGroup() as tasks:
                for base in range(4):
                    tasks.create_task(add(store, base))
        asyncio.run(main())
    """
    with program(code, path) as process:
        printed = [int(line_of(process)) for _ in range(500)]
        process.kill()
        assert process.stdout is not None
        whole = [line for line in process.stdout if line.endswith("\n")]
        printed += [int(line) for line in whole]
    assert printed == list(range(1, len(printed) + 1))
    assert len(read_facts(path)) >= len(printed)
    async with open_store(path) as store:
        facts = await store.load()
        assert await store.append(opened()) == len(facts) + 1
    assert query(path, "PRAGMA integrity_check") == [("ok",)]
    ((steps,),) = query(path, "SELECT count(*) FROM metrics WHERE name = 'loss'")
    assert steps == len(facts)


async def test_cancelled_body_leaves_every_fact_written(path: Path) -> None:
    is_in_body = asyncio.Event()

    async def search() -> None:
        async with open_store(path) as store, asyncio.TaskGroup() as tasks:
            for number in range(30):
                tasks.create_task(store.append(created(number)))
            is_in_body.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(search())
    await is_in_body.wait()
    await asyncio.sleep(0)  # the calls are made
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert read_facts(path) == [created(number) for number in range(30)]


async def test_cancelled_scope_leaves_every_fact_written(path: Path) -> None:
    with anyio.CancelScope() as scope:
        async with open_store(path) as store, asyncio.TaskGroup() as tasks:
            for number in range(30):
                tasks.create_task(store.append(created(number)))
            await asyncio.sleep(0)  # the calls are made
            scope.cancel()
            await asyncio.Event().wait()
    assert scope.cancelled_caught
    assert files_beside(path) == ["study.db"]
    assert read_facts(path) == [created(number) for number in range(30)]


@pytest.mark.parametrize("turns", range(12))
async def test_task_cancelled_again_and_again_leaves_a_closed_file(path: Path, turns: int) -> None:
    async def search() -> None:
        async with open_store(path) as store:
            await store.append(*whole_trial())
            await asyncio.Event().wait()

    task = asyncio.create_task(search())
    for _ in range(turns):
        await asyncio.sleep(0)
    while not task.done():
        task.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await task
    assert files_beside(path) in ([], ["study.db"])
    assert read_facts(path) in ([], whole_trial())


async def test_closing_leaves_one_file_and_no_thread(path: Path) -> None:
    async with open_store(path) as store:
        before = {thread.name for thread in threading.enumerate() if not thread.daemon}
        await store.append(opened())
        assert files_beside(path) == ["study.db", "study.db-shm", "study.db-wal"]
    after = {thread.name for thread in threading.enumerate() if not thread.daemon}
    assert files_beside(path) == ["study.db"]
    assert len(before - after) == 1  # the one that ran SQLite


@pytest.mark.parametrize("is_daemon", [None, True, False])
def test_store_of_a_dropped_loop_does_not_keep_the_interpreter_alive(
    path: Path, is_daemon: bool | None
) -> None:
    code = """
        import asyncio, sys, threading
        from pathlib import Path
        from aiotune.store.sqlite import open_store
        from tests.support.facts import opened
        def use():
            global loop, manager  # as a notebook keeps them
            loop, manager = asyncio.new_event_loop(), open_store(Path(sys.argv[1]))
            async def main():
                store = await manager.__aenter__()
                print(await store.append(opened()), flush=True)
            loop.run_until_complete(main())
        if sys.argv[2] == "None":
            use()
        else:
            thread = threading.Thread(target=use, daemon=sys.argv[2] == "True")
            thread.start()
            thread.join()
    """
    assert run_program(code, path, is_daemon).strip() == "1"
    assert read_facts(path) == [opened()]


# A batch that fails


def small(path: Path) -> BatchConnection:
    """Return a connection to a file that may not grow."""
    connection = connect_writer(path, durability="process", factory=BatchConnection)
    connection.outbox = []
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    return connection


def test_transaction_that_fails_leaves_nothing_and_the_next_one_works(path: Path) -> None:
    with closing(small(path)) as connection:
        for fact in (created(0), created(1)):
            connection.outbox.extend(derived(fact))
        connection.outbox.extend(derived(reported()) * 20_000)
        connection.outbox[-1] = connection.outbox[-1]._replace(
            rows=[("0", run, 0, "loss", 0.5) for run in range(10_000)]
        )
        with pytest.raises(sqlite3.OperationalError, match="full"):
            connection.commit()
        assert not connection.in_transaction
        assert connection.execute("SELECT count(*) FROM trials").fetchone() == (0,)
        connection.outbox.extend(derived(created(2)))
        connection.commit()
        assert connection.execute("SELECT number FROM trials").fetchall() == [(2,)]


def test_full_disk_refuses_facts_and_takes_them_again_later(path: Path) -> None:
    code = """
        import asyncio, os, resource, sys
        from pathlib import Path
        from aiotune.errors import StoreUnwritable
        from aiotune.store.sqlite import open_store
        from tests.support.facts import created, opened
        path = Path(sys.argv[1])
        def limit(size):
            hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        async def main():
            async with open_store(path) as store:
                await store.append(opened())
                limit(os.path.getsize(f"{path}-wal"))
                calls = [store.append(created(number)) for number in range(5)]
                for outcome in await asyncio.gather(*calls, return_exceptions=True):
                    print(type(outcome).__name__, str(path) in str(outcome))
                limit(resource.RLIM_INFINITY)
                print(await store.append(created(7)))
        asyncio.run(main())
    """
    assert run_program(code, path).splitlines() == ["StoreUnwritable True"] * 5 + ["2"]
    assert read_facts(path) == [opened(), created(7)]


async def test_fact_that_sqlite_refuses_harms_no_neighbour(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("aiotune.store.hardening.MOST_BYTES", 10_000)
    odd = Reported(1.0, "0001", 0, 0, {"loss" * 5000: 0.5})
    async with open_store(path) as store:
        outcomes = await asyncio.gather(
            store.append(created(0)),
            store.append(created(1), odd),
            store.append(created(2)),
            return_exceptions=True,
        )
        assert outcomes[0] == 1
        assert isinstance(outcomes[1], StoreError)
        assert outcomes[2] == 2
        assert await store.load() == [created(0), created(2)]


async def test_two_writers_of_one_file_are_told(path: Path) -> None:
    async with open_store(path) as one, open_store(path) as other:
        await one.append(opened())
        with pytest.raises(StoreError, match="another search writes"):
            await other.append(opened())
        assert await one.append(created()) == 2


# Files that cannot be used


async def test_directory_is_created(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "study.db"
    async with open_store(path) as store:
        await store.append(opened())
    assert read_facts(path) == [opened()]


async def test_path_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "study.db", tmp_path / "file" / "project" / "study.db"):
        with pytest.raises(StoreUnwritable, match="file is in the way: choose another"):
            async with open_store(path):
                pass


def test_directory_in_the_files_place_is_refused(path: Path) -> None:
    path.mkdir()
    with pytest.raises(StoreUnwritable, match=r"study\.db cannot be written"):
        write(path, opened())
    with pytest.raises(StoreUnreadable, match=r"study\.db cannot be read"):
        read_facts(path)


@pytest.fixture
def public_directory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A directory that a process of another user can reach."""
    directory = Path(os.path.realpath("/tmp")) / f"aiotune-test-{os.getpid()}"
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    yield directory
    for each in (directory, *directory.rglob("*")):
        each.chmod(0o700)
    shutil.rmtree(directory)


# Root may write anywhere; as nobody it may not.
AS_NOBODY = """
    import asyncio, os, sys
    from pathlib import Path
    from aiotune.errors import StoreError
    from aiotune.store.reader import read_facts
    from aiotune.store.sqlite import open_store
    if os.getuid() == 0:
        os.setuid(65534)
    path = Path(sys.argv[1])
    try:
        print(len(read_facts(path)))
    except StoreError as error:
        print(type(error).__name__)
    async def main():
        async with open_store(path):
            pass
    try:
        asyncio.run(main())
    except StoreError as error:
        print(type(error).__name__, str(path) in str(error))
"""


def test_read_only_copy_with_a_left_over_log_is_read(public_directory: Path) -> None:
    origin, copy = public_directory / "origin", public_directory / "copy"
    code = """
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
    with program(code, origin / "study.db") as process:
        process.wait()
    copy.mkdir()
    for name in ("study.db", "study.db-wal"):
        shutil.copyfile(origin / name, copy / name)
        (copy / name).chmod(0o444)
    copy.chmod(0o555)
    before = sorted(copy.iterdir())
    facts, writing = run_program(AS_NOBODY, copy / "study.db").splitlines()
    assert int(facts) == len(whole_trial())
    assert writing == "StoreUnwritable True"
    assert sorted(copy.iterdir()) == before


def test_read_only_project_that_was_closed_is_read(public_directory: Path) -> None:
    path = public_directory / "project" / "study.db"
    write(path, *whole_trial())
    path.chmod(0o444)
    path.parent.chmod(0o555)
    facts, writing = run_program(AS_NOBODY, path).splitlines()
    assert int(facts) == len(whole_trial())
    assert writing == "StoreUnwritable True"


def test_file_without_read_permission_is_named(public_directory: Path) -> None:
    path = public_directory / "study.db"
    write(path, opened())
    path.chmod(0o000)
    assert run_program(AS_NOBODY, path).splitlines() == ["StoreUnreadable", "StoreUnwritable True"]


def check_refused(path: Path, message: str) -> None:
    before = path.read_bytes()
    with pytest.raises(StoreUnreadable, match=message) as caught:
        read_facts(path)
    assert str(path) in str(caught.value)
    with pytest.raises(StoreUnreadable, match=message):
        read_meta(path)
    with pytest.raises(StoreUnreadable, match=message):
        write(path, created())
    assert path.read_bytes() == before


def test_file_that_is_no_database_is_refused(path: Path) -> None:
    path.write_text("a text that is longer than the header of a database " * 20)
    check_refused(path, "is no database: choose another project_name")


def test_another_programs_database_is_refused(path: Path) -> None:
    execute(path, "CREATE TABLE theirs (x)")
    check_refused(path, "another program's database")


def test_another_programs_marked_database_is_refused(path: Path) -> None:
    execute(path, "PRAGMA application_id = 77")
    check_refused(path, "another program's database")


def test_newer_schema_is_refused(path: Path) -> None:
    write(path, opened())
    execute(path, f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    check_refused(path, "newer aiotune.*upgrade.*project_name.*overwrite=True")


def test_damaged_database_is_refused(path: Path) -> None:
    write(path, *chain.from_iterable(whole_trial(number) for number in range(50)))
    damage_all_but_the_first_page(path)
    check_refused(path, "damaged.*overwrite=True")


async def test_missing_fact_is_damage(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(*whole_trial())
    execute(path, "DELETE FROM events WHERE seq = 3")
    async with open_store(path) as store:
        with pytest.raises(StoreUnreadable, match="fact 3 is missing"):
            await store.load()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("kind = 'TrialCloned'", "TrialCloned.*upgrade"),
        ("data = json_set(data, '$.colour', 1)", "upgrade"),
        ("data = '[1]'", "TrialCreated.*upgrade"),
        ("data = '{'", "overwrite=True"),
    ],
)
async def test_fact_that_cannot_be_understood_is_named(
    path: Path, change: str, message: str
) -> None:
    async with open_store(path) as store:
        await store.append(opened(), created())
    execute(path, f"UPDATE events SET {change} WHERE seq = 2")
    with pytest.raises(StoreUnreadable, match=f"fact 2.*{message}"):
        read_facts(path)


async def test_texts_that_pass_for_others_only_together_are_damage(path: Path) -> None:
    """Facts are parsed many at a time: what is wrong alone must not be right beside the others."""
    texts = ['{"at":1.0},{"at":2.0}', '[{"at":1.0}', '{"at":1.0}]', '"', '{"at":1.0}/*']
    for number, text in enumerate(texts):
        each = path.with_name(f"{number}.db")
        async with open_store(each) as store:
            await store.append(*whole_trial())
        with closing(sqlite3.connect(each, isolation_level=None)) as connection:
            connection.execute("UPDATE events SET data = ? WHERE seq = 3", (text,))
        with pytest.raises(StoreUnreadable, match="fact 3"):
            read_facts(each)


def test_search_of_several_pieces_is_read_whole(path: Path) -> None:
    facts = [reported(step=step) for step in range(10_000)]  # twice what is read at once
    write(path, *facts)
    assert read_facts(path) == facts
    execute(path, "DELETE FROM events WHERE seq = 7001")
    with pytest.raises(StoreUnreadable, match="fact 7001 is missing"):
        read_facts(path)


async def test_unknown_durability_is_refused(path: Path) -> None:
    with pytest.raises(FatalValueError, match='"process" or "full"'):
        async with open_store(path, durability="disk"):  # type: ignore[arg-type]
            pass
    assert files_beside(path) == []


# Schema


@pytest.mark.parametrize(("durability", "synchronous"), [("process", 1), ("full", 2)])
def test_connection_is_set_up(path: Path, durability: str, synchronous: int) -> None:
    with closing(
        connect_writer(path, durability=durability, factory=sqlite3.Connection)  # type: ignore[arg-type]
    ) as connection:
        pragmas = ("application_id", "user_version", "journal_mode", "synchronous")
        values = [connection.execute(f"PRAGMA {each}").fetchone()[0] for each in pragmas]
    assert values == [APPLICATION_ID, len(MIGRATIONS), "wal", synchronous]


async def test_older_file_is_brought_up_to_date(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(*whole_trial())
    steps = (
        *MIGRATIONS,
        ("ALTER TABLE trials ADD COLUMN note TEXT", "UPDATE trials SET note = trial_id || '!'"),
        ("CREATE INDEX trials_by_note ON trials (note)",),
    )
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        migrate(connection, path, steps)
        migrate(connection, path, steps)  # nothing left to do
    assert query(path, "PRAGMA user_version") == [(len(steps),)]
    assert query(path, "SELECT note FROM trials") == [("0000!",)]


async def test_file_of_the_first_schema_opens_and_goes_on(path: Path) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        migrate(connection, path, MIGRATIONS[:1])
        for number, fact in enumerate([opened(), *whole_trial()], start=1):
            kind, data = to_json(fact)
            for name in ("gpu_memory", "gpu_fraction", "usage"):  # as they were then
                data.pop(name, None)
            row = (number, fact.at, kind, None, json.dumps(data))
            connection.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?)", row)
    assert read_facts(path) == [opened(), *whole_trial()]
    async with open_store(path) as store:
        await store.append(created(1), started(1))
        assert await store.load() == [opened(), *whole_trial(), created(1), started(1)]
    assert query(path, "SELECT trial_id, gpu_seconds FROM runs") == [("0001", None)]


async def test_step_that_fails_changes_nothing(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(opened())
    steps = (*MIGRATIONS, ("CREATE TABLE half (x)",), ("CREATE TABLE half (x)",))
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        with pytest.raises(sqlite3.OperationalError, match="half already exists"):
            migrate(connection, path, steps)
        assert not connection.in_transaction
    assert query(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert read_facts(path) == [opened()]


@pytest.mark.parametrize("state", ["missing", "empty", "marked"])
def test_file_left_by_a_crash_before_the_first_fact_is_taken_over(path: Path, state: str) -> None:
    if state == "empty":
        path.touch()
    if state == "marked":
        execute(path, f"PRAGMA application_id = {APPLICATION_ID}")
    assert read_facts(path) == []
    write(path, opened())
    assert read_facts(path) == [opened()]


# Readers


async def test_reader_with_an_open_transaction_does_not_block_the_writer(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(opened())
        with closing(sqlite3.connect(path, isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
            assert await store.append(*whole_trial()) == 7
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (1,)
            assert len(read_facts(path)) == 7
            reader.execute("COMMIT")
    assert len(read_facts(path)) == 7


async def test_reading_beside_a_writer_of_the_same_process_keeps_its_locks(path: Path) -> None:
    code = """
        import sqlite3, sys
        connection = sqlite3.connect(sys.argv[1], isolation_level=None, timeout=0)
        try:
            connection.execute("PRAGMA journal_mode = DELETE")  # needs the file for itself
            print("alone")
        except sqlite3.OperationalError as error:
            print(error)
    """
    async with open_store(path) as store:
        await store.append(opened())
        for _ in range(3):
            assert read_facts(path) == [opened()]
            assert read_meta(path) is not None
        assert run_program(code, path).strip() == "database is locked"
        assert await store.append(created()) == 2


async def test_meta_tells_size_and_latest_opening(path: Path) -> None:
    assert read_meta(path) is None
    async with open_store(path) as store:
        empty = read_meta(path)
        await store.append(opened(at=1.0), *whole_trial(), opened(at=99.0))
        full = read_meta(path)
    assert empty is not None
    assert full is not None
    assert (empty.schema, empty.facts, empty.opened) == (len(MIGRATIONS), 0, None)
    assert (full.facts, full.opened) == (8, opened(at=99.0))


async def test_loop_turns_while_facts_are_loaded(path: Path) -> None:
    async with open_store(path) as store:
        await store.append(*(reported(step=step) for step in range(2000)))
        loading = asyncio.create_task(store.load())
        turns = 0
        while not loading.done():
            await asyncio.sleep(0)
            turns += 1
        assert len(await loading) == 2000
    assert turns > 10  # a load on the loop would leave one or two


def test_states_in_the_tables_are_the_public_words() -> None:
    sql_words = {
        row[0] for fact in [ended(), run_ended()] for row in next(iter(derived(fact))).rows
    }
    assert sql_words == {TrialState.COMPLETED.value, RunState.FINISHED.value}
