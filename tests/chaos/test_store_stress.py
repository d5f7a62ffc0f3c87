"""Either a fact is durable or its caller gets the error: with readers, locks, full disks, a torn log."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from aiotune.errors import StoreUnwritable
from aiotune.events import Event
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Limits
from aiotune.store.reader import read_facts
from aiotune.store.sqlite import open_store
from aiotune.trial import Trial
from tests.support.chaos import Chaos
from tests.support.facts import created, opened, reported
from tests.support.fake_executor import FakeExecutor, declaring
from tests.support.mounts import of_a_network, of_one_disk
from tests.support.programs import ROOT, line_of, program
from tests.support.searches import SearchOfFakes
from tests.support.small_disk import run_on_small_disk
from tests.support.stressed import TRIALS
from tests.support.virtual_clock import VirtualClock
from tests.support.waiting_clock import WaitingClock

PROMISE = "The store tells the truth"
TABLES = {"disk": of_one_disk, "network": of_a_network}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "study.db"


def facts_from(first: int) -> Iterator[Event]:
    """Yield facts of which each tells its number."""
    while True:
        yield reported(step=first)
        first += 1


def is_prefix(facts: list[Event]) -> bool:
    return facts == [reported(step=step) for step in range(len(facts))]


def check_integrity(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


# Readers

READER = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    connection.execute("BEGIN")
    count = "SELECT count(*) FROM events"
    print(*connection.execute(count).fetchone(), flush=True)
    sys.stdin.readline()
    print(*connection.execute(count).fetchone(), flush=True)
    connection.execute("COMMIT")
    print(*connection.execute(count).fetchone(), flush=True)
"""


async def test_reader_with_a_transaction_open_all_the_time(chaos: Chaos, path: Path) -> None:
    writes = chaos.pick(300, 20_000)  # far more than a search makes in 30 s
    async with open_store(path) as store:
        await store.append(reported(step=0))
        with program(READER, path) as reader:
            assert line_of(reader) == "1"
            for step in range(1, writes):
                assert await store.append(reported(step=step)) == step + 1
            assert reader.stdin is not None
            print("go on", file=reader.stdin, flush=True)
            assert (line_of(reader), line_of(reader)) == ("1", str(writes))
        assert await store.append(reported(step=writes)) == writes + 1
    assert not path.with_name("study.db-wal").exists()  # it was merged, however long it had grown
    facts = read_facts(path)
    check_integrity(path)
    losses = writes + 1 - len(facts)
    chaos.count(
        PROMISE, "write beside a reader whose transaction stays open", writes, losses=losses
    )
    assert (losses, is_prefix(facts)) == (0, True)


READING_ON_AND_ON = """
    import sys, threading
    from pathlib import Path
    from aiotune.store.reader import read_facts
    from tests.support.facts import reported
    from tests.support.mounts import of_a_network, of_one_disk
    tables = {"disk": of_one_disk, "network": of_a_network}
    path, threads, where = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    stop, counts, wrong = threading.Event(), [], []
    def read():
        last = 0
        while not stop.is_set():
            try:
                facts = read_facts(path, mount_table=tables[where])
            except BaseException:
                wrong.append(last)
                raise
            if len(facts) < last or facts != [reported(step=step) for step in range(len(facts))]:
                wrong.append(len(facts))
            last = len(facts)
            counts.append(last)
    readers = [threading.Thread(target=read) for _ in range(threads)]
    for each in readers: each.start()
    print("reading", flush=True)
    sys.stdin.readline()
    stop.set()
    for each in readers: each.join()
    print(len(counts), len(wrong), flush=True)
"""


@pytest.mark.parametrize("where", ["disk", "network"])
async def test_twenty_readers_at_once(chaos: Chaos, path: Path, where: str) -> None:
    processes, threads = chaos.pick((1, 20), (20, 1))
    writes = chaos.pick(60 if where == "disk" else 15, 1500 if where == "disk" else 200)
    async with open_store(path, mount_table=TABLES[where]) as store:
        await store.append(reported(step=0))
        with ExitStack() as stack:
            command = (READING_ON_AND_ON, path, threads, where)
            readers = [stack.enter_context(program(*command)) for _ in range(processes)]
            assert [line_of(each) for each in readers] == ["reading"] * processes
            for step in range(1, writes):
                assert await store.append(reported(step=step)) == step + 1
            for each in readers:
                assert each.stdin is not None
                print("stop", file=each.stdin, flush=True)
            looks = [list(map(int, line_of(each).split())) for each in readers]
    wrong = sum(each[1] for each in looks)
    losses = writes - len(read_facts(path)) + wrong
    chaos.count(PROMISE, f"write beside 20 readers ({where})", writes, losses=losses)
    assert all(count > 0 for count, _ in looks)
    assert losses == 0


# Disks


def stressed(fault: str, disk: Path, seed: int, number: int, *, is_small: bool) -> list[Any]:
    """Run `tests.support.stressed`, on a file system of 4 MB if `is_small`, and return its outcomes."""
    command = [sys.executable, "-m", "tests.support.stressed", fault, disk, seed, 0, number]
    if is_small:
        done = run_on_small_disk(disk, "4m", command)
    else:
        done = subprocess.run(
            list(map(str, command)), cwd=ROOT, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    ("fault", "is_small", "name", "numbers"),
    [
        ("full", True, "full disk", (4, 120)),
        ("quota", False, "file that may not grow", (3, 100)),
        ("read-only", True, "read-only disk", (2, 20)),
    ],
)
def test_search_on_a_disk_that_refuses_ends_with_the_error_and_goes_on_later(
    chaos: Chaos, tmp_path: Path, fault: str, is_small: bool, name: str, numbers: tuple[int, int]
) -> None:
    number = chaos.pick(*numbers)
    outcomes = stressed(fault, tmp_path, chaos.seed, number, is_small=is_small)
    chaos.count(PROMISE, name, number, losses=sum(each["lost"] for each in outcomes))
    assert len(outcomes) == number
    for each in outcomes:
        assert each["first"].startswith("StoreUnwritable: "), each
        assert str(tmp_path) in each["first"], each
        assert (each["then"], each["lost"], each["integrity"]) == ("max_trials", 0, "ok"), each
        assert each["in_order"], each
        assert each["is_prefix"], each
        if each["readable"] is not None or fault != "quota":  # which bounds temporary copies, too
            assert each["readable"] >= each["acknowledged"], each
        assert each["trials"] == ["COMPLETED"] * TRIALS, each


# Locks

LOCKER = """
    import sqlite3, sys
    connection = sqlite3.connect(sys.argv[1], isolation_level=None)
    for line in sys.stdin:
        connection.execute(line)
        print("done", flush=True)
"""


@contextmanager
def another_process(path: Path) -> Iterator[Callable[[str], None]]:
    """Yield what has another process execute SQL on the database, and waits until it has."""
    with program(LOCKER, path) as process:

        def execute(sql: str) -> None:
            assert process.stdin is not None
            print(sql, file=process.stdin, flush=True)
            assert line_of(process) == "done"

        yield execute


@pytest.mark.parametrize("where", ["disk", "network"])
async def test_database_locked_for_a_while_is_waited_for(
    chaos: Chaos, path: Path, caplog: pytest.LogCaptureFixture, where: str
) -> None:
    times, losses = chaos.pick(1, 12), 0
    clock, numbers = WaitingClock(), facts_from(0)
    async with open_store(path, clock=clock, mount_table=TABLES[where]) as store:
        caplog.clear()  # of what was said about the network
        with another_process(path) as execute:
            for _ in range(times):
                execute("BEGIN EXCLUSIVE")
                waiting = [asyncio.create_task(store.append(next(numbers))) for _ in range(3)]
                await clock.wait_for_a_failed_attempt()
                losses += sum(each.done() for each in waiting)
                execute("COMMIT")
                await asyncio.gather(*waiting)
    facts = read_facts(path)
    losses += 3 * times - len(facts)
    chaos.count(PROMISE, "lock of another process, for a while", times, losses=losses)
    assert (losses, is_prefix(facts)) == (0, True)
    assert len(caplog.records) == times  # each time one warning
    assert "locked for writing" in caplog.records[0].getMessage()


async def test_database_locked_for_good_refuses_each_fact_and_takes_them_later(
    chaos: Chaos, path: Path
) -> None:
    clock = WaitingClock()
    async with open_store(path, clock=clock) as store:
        await store.append(reported(step=0))
        with another_process(path) as execute:
            execute("BEGIN EXCLUSIVE")
            waiting = [asyncio.create_task(store.append(reported(step=1 + n))) for n in range(3)]
            await clock.wait_for_a_failed_attempt()
            clock.elapsed += 3600
            for each in await asyncio.gather(*waiting, return_exceptions=True):
                assert isinstance(each, StoreUnwritable)
                assert "another program keeps" in str(each)
            failed = clock.failed_attempts
            with pytest.raises(StoreUnwritable, match="another program keeps"):
                await store.append(reported(step=4))
            assert clock.failed_attempts == failed  # it is not waited for a second time
            execute("ROLLBACK")
            assert await store.append(reported(step=1)) == 2
    facts = read_facts(path)
    chaos.count(PROMISE, "lock of another process, for good", 1, losses=2 - len(facts))
    assert facts == [reported(step=0), reported(step=1)]


async def test_locked_database_does_not_keep_the_store_from_closing(path: Path) -> None:
    clock = WaitingClock()
    with another_process(path) as execute:
        async with open_store(path, clock=clock) as store:
            await store.append(opened())
            execute("BEGIN EXCLUSIVE")
            waiting = asyncio.create_task(store.append(created()))
            await clock.wait_for_a_failed_attempt()
            clock.elapsed += 3600
        with pytest.raises(StoreUnwritable):
            await waiting
    assert read_facts(path) == [opened()]


async def test_database_that_is_locked_when_it_is_opened(chaos: Chaos, path: Path) -> None:
    if not chaos.is_long:
        pytest.skip("SQLite waits some seconds by the clock here")
    async with open_store(path) as store:
        await store.append(opened())
    with another_process(path) as execute:
        execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreUnwritable, match="another program keeps"):
            async with open_store(path):
                pass
        assert read_facts(path) == [opened()]
        execute("ROLLBACK")
    chaos.count(PROMISE, "lock of another process, at opening")
    async with open_store(path) as store:
        assert await store.append(created()) == 2


# A torn log


@dataclass
class Torn:
    """A database beside its log, as they are while a writer lives, and where in the log each fact ends."""

    base: bytes
    log: bytes
    index: bytes
    ends: list[int] = field(default_factory=list)

    def before(self, offset: int) -> int:
        """Return how many facts are whole before this byte of the log."""
        return sum(end <= offset for end in self.ends)


@pytest.fixture
async def torn(path: Path, tmp_path: Path) -> Torn:
    ends = []
    log = path.with_name("study.db-wal")
    async with open_store(path) as store:
        for step in range(100):  # so few that the log is not merged meanwhile
            await store.append(reported(step=step))
            ends.append(log.stat().st_size)
        return Torn(*copies_of(path, tmp_path / "copies"), ends)


def copies_of(path: Path, directory: Path) -> tuple[bytes, bytes, bytes]:
    """Return the content of the database, its log and the log's index.

    Read by another process: to close a descriptor of the file in this one would drop the store's locks.
    """
    directory.mkdir()
    files = [f"{path}{suffix}" for suffix in ("", "-wal", "-shm")]
    subprocess.run(["cp", *files, directory], check=True)
    base, log, index = [(directory / Path(each).name).read_bytes() for each in files]
    return base, log, index


def tear(log: bytes, chance: random.Random) -> tuple[str, int, bytes]:
    """Return what was done to a log, the first byte that it was done to, and the log."""
    offset = chance.randrange(len(log))
    match chance.choice(["cut", "flip", "zeros", "noise", "repeat"]):
        case "cut":
            return "log cut off", offset, log[:offset]
        case "flip":
            flipped = log[offset] ^ (1 << chance.randrange(8))
            return (
                "bit flipped in the log",
                offset,
                log[:offset] + bytes([flipped]) + log[offset + 1 :],
            )
        case "zeros":
            size = min(4096, len(log) - offset)
            return (
                "page of the log zeroed",
                offset,
                log[:offset] + bytes(size) + log[offset + size :],
            )
        case "noise":
            return "log ends in noise", offset, log[:offset] + chance.randbytes(len(log) - offset)
        case _:
            return "log ends in itself", offset, log[:offset] + log[: len(log) - offset]


async def test_torn_log_opens_with_all_that_is_before_the_tear(
    chaos: Chaos, torn: Torn, tmp_path: Path
) -> None:
    for number in range(chaos.pick(60, 1500)):
        chance = random.Random(f"{chaos.seed} {number}")
        copy = tmp_path / str(number) / "study.db"
        copy.parent.mkdir()
        kind, offset, log = tear(torn.log, chance)
        copy.write_bytes(torn.base)
        copy.with_name("study.db-wal").write_bytes(log)
        if chance.random() < 0.3:
            copy.with_name("study.db-shm").write_bytes(chance.choice([torn.index, b"\xa5" * 32768]))
        facts = read_facts(copy, mount_table=chance.choice([of_one_disk, of_a_network]))
        losses = max(0, torn.before(offset) - len(facts))
        chaos.count(PROMISE, kind, losses=losses)
        assert losses == 0, (number, kind, offset)
        assert is_prefix(facts), (number, kind, offset)
        if number % 20 == 0:
            async with open_store(copy) as store:
                assert await store.append(reported(step=len(facts))) == len(facts) + 1
            assert is_prefix(read_facts(copy))
            check_integrity(copy)
        shutil.rmtree(copy.parent)


# Clocks


class JumpingClock(VirtualClock):
    """A clock whose wall time is set back and ahead, by up to a week, at each look."""

    def __init__(self, chance: random.Random) -> None:
        super().__init__()
        self._chance = chance

    def now(self) -> float:
        return super().now() + self._chance.uniform(-7, 7) * 86400


def told_of(trial: Trial) -> tuple[object, ...]:
    """Return what may not depend on any clock."""
    return trial.trial_id, trial.number, trial.status, dict(trial.values), trial.score


def declare_x(hp: HyperParameters) -> None:
    hp.Float("x", 0.0, 1.0)


def score_of_x(values: dict[str, object]) -> float:
    return float(str(values["x"]))


async def searched(root: Path, clock: VirtualClock, cut: int | None) -> SearchOfFakes:
    """Search, and if `cut` is given, again from its first facts."""

    def oracle() -> RandomSearchOracle:
        return RandomSearchOracle(Objective("score", "max"), max_trials=8, seed=3)

    limits = Limits(max_time=3600.0)
    executor = FakeExecutor(declaring(declare_x, score_of_x))
    search = SearchOfFakes(oracle(), executor, root, slots=2, clock=clock, limits=limits)
    await search.run()
    if cut is not None:
        search = search.again(oracle(), facts=search.store.facts[:cut], clock=clock)
        await search.run()
    return search


async def test_clock_that_jumps_changes_nothing_but_times(
    chaos: Chaos, tmp_path: Path, path: Path
) -> None:
    expected = await searched(tmp_path, VirtualClock(), None)
    for number in range(chaos.pick(4, 100)):
        chance = random.Random(f"{chaos.seed} {number}")
        cut = chance.randrange(1, len(expected.store.facts))
        search = await searched(tmp_path, JumpingClock(chance), cut)
        history = search.history
        trials = list(map(told_of, history.trials.values()))
        assert trials == list(map(told_of, expected.history.trials.values()))
        runs = [run for trial in history.trials.values() for run in trial.runs]
        assert all(run.seconds is None or run.seconds >= 0 for run in runs)
        times = [fact.at for fact in search.store.facts]
        assert times != sorted(times)
        chaos.count(PROMISE, "search whose clock jumps")
    async with open_store(path) as store:
        await store.append(*search.store.facts)
    assert read_facts(path) == search.store.facts  # by number, not by time


# Long searches


def test_long_search_is_resumed_and_asked(chaos: Chaos, tmp_path: Path) -> None:
    """What is measured is reported beside its target, and not asserted: machines differ."""
    trials, path = chaos.pick(150, 10_000), tmp_path / "figures.json"
    options = ["--trials", str(trials), "--repeats", "100", "--json", str(path)]
    done = subprocess.run(
        [sys.executable, "benchmarks/store.py", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    figures = {each["name"]: each for each in json.loads(path.read_text())["figures"]}
    assert figures["random: trials"]["value"] == trials
    assert figures["random: facts"]["value"] > 20 * trials
    assert figures["Hyperband: trials"]["value"] > 0.9 * trials
    targets = [each for each in figures.values() if each["at_most"] is not None]
    assert len(targets) == 5
    if chaos.is_long:
        for each in targets:
            value, target = (f"{each[key]:.3g} {each['unit']}" for key in ("value", "at_most"))
            name = f"{trials:,} trials x 20 epochs, {each['name']}"
            is_met = each["value"] <= each["at_most"]
            chaos.measure(PROMISE, name, value, target=target, is_met=is_met)
