"""What is left when a process of a search is killed, the caller or another: no process, and every result."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from aiotune import EndReason, Resources, SearchResult, Trial
from aiotune.errors import StoreLocked
from aiotune.events import Event, Reported, RunEnded
from tests.support import tuned
from tests.support.marked import MARK, marked, wait_until_gone
from tests.support.programs import ROOT, line_of, run_program
from tests.support.tuned import make

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a kill is best effort")

MAX_TRIALS = 8
LONGEST_LIFE_SECONDS = 5.0
LONGEST_WAIT_SECONDS = 20.0  # far above what anything takes; reaching it is a failure

PROGRAM = """
import asyncio, os, signal, sys
from pathlib import Path
from tests.support import tuned

def tell(event, history):
    print(type(event).__name__, flush=True)
    if type(event).__name__ == "Reported" and os.environ.get("FORKS") and os.getpid() == caller:
        del os.environ["FORKS"]
        sibling = os.fork()
        while sibling == 0:
            signal.pause()
        print("sibling", sibling, flush=True)

caller = os.getpid()
kind, directory, *arguments = sys.argv[1:]
tuner = tuned.make(getattr(tuned, kind), Path(directory), max_trials={max_trials}, observers=[tell])
print("began", flush=True)
asyncio.run(tuner.search(*arguments, verbose=0))
print("ended", flush=True)
sys.stdin.read()
"""


@contextmanager
def searching(
    mark: str, kind: str, *arguments: object, **variables: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a search in a program whose processes all have the mark; at the end all of them are killed."""
    command = [sys.executable, "-c", PROGRAM.format(max_trials=MAX_TRIALS), kind]
    with subprocess.Popen(
        [*command, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {MARK: mark} | variables,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            yield process
        finally:
            for pid in [process.pid, *marked(mark)]:
                subprocess.run(["kill", "-9", str(pid)], check=False, capture_output=True)


def read_until(process: subprocess.Popen[str], line: str, count: int) -> None:
    """Return when the program has printed the line so many times."""
    while count:
        count -= line_of(process) == line


def ended(trials: tuple[Trial, ...]) -> dict[str, Trial]:
    return {trial.trial_id: trial for trial in trials if trial.is_over}


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("began", 1),  # the fork server imports
        ("SearchOpened", 1),
        ("TrialCreated", 1),
        ("RunStarted", 2),
        ("Reported", 3),
        ("RunEnded", 2),
        ("TrialEnded", 3),
        ("TrialEnded", MAX_TRIALS - 1),
    ],
)
def test_after_a_kill_nothing_lives_and_nothing_is_lost(
    tmp_path: Path, line: str, count: int
) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parabola", tmp_path, "0.5") as process:
        read_until(process, line, count)
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    tuner = make(tuned.Parabola, tmp_path, max_trials=MAX_TRIALS)
    before = ended(tuner.trials)
    if line == "TrialEnded":
        assert len(before) >= count
    result = asyncio.run(tuner.search(0.5))
    assert result.reason is EndReason.MAX_TRIALS
    assert len(result.trials) == MAX_TRIALS
    assert {trial.status for trial in result.trials} == {"COMPLETED"}
    assert {key: ended(result.trials)[key] for key in before} == before


def test_a_killed_search_tries_the_points_that_it_would_have_tried(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Tree", tmp_path) as process:
        read_until(process, "TrialEnded", 3)
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    resumed = make(tuned.Tree, tmp_path, max_trials=MAX_TRIALS)
    asyncio.run(resumed.search())
    whole = make(tuned.Tree, tmp_path, max_trials=MAX_TRIALS, project_name="whole")
    asyncio.run(whole.search())
    assert tuned.points(resumed.trials) == tuned.points(whole.trials)


def test_children_in_their_user_code_die_with_what_they_have_started(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parent", tmp_path) as process:
        read_until(process, "Reported", 2)
        # Caller, guardian, fork server, two children, and a process that each has left in its own session.
        assert len(marked(mark)) == 7
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []


def test_children_that_ignore_everything_die(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Stubborn", tmp_path) as process:
        read_until(process, "Reported", 2)
        assert len(marked(mark)) == 5
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []


def test_ctrl_c_ends_every_process_and_the_search_can_go_on(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parent", tmp_path) as process:
        read_until(process, "Reported", 2)
        subprocess.run(["kill", "-INT", str(process.pid)], check=True)
        assert process.stdout is not None
        assert process.stdout.read().split().count("RunEnded") == 2
        assert process.wait() != 0
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    tuner = make(tuned.Dice, tmp_path, max_trials=MAX_TRIALS)  # the same space, but its trials end
    assert [run.state for trial in tuner.trials for run in trial.runs] == ["CANCELLED"] * 2
    assert len(asyncio.run(tuner.search()).trials) == MAX_TRIALS


async def test_the_search_of_another_process_is_left_alone(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Patient", tmp_path) as process:
        read_until(process, "Reported", 2)
        tuner = make(tuned.Patient, tmp_path)
        with pytest.raises(StoreLocked, match=f"pid {process.pid} on ") as caught:
            await tuner.search()
        assert caught.value.pid == process.pid
        with pytest.raises(StoreLocked):
            make(tuned.Patient, tmp_path, overwrite=True)
        assert [trial.status for trial in tuner.trials] == ["RUNNING", "RUNNING"]


# --- another process than the caller ---


@pytest.fixture
def mark(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A mark for the processes that this one starts; at the end all of them are killed."""
    mark = str(uuid.uuid4())
    monkeypatch.setenv(MARK, mark)
    monkeypatch.setenv("KERAS_TEST", mark)  # a fork server of its own
    yield mark
    for pid in marked(mark):
        os.kill(pid, signal.SIGKILL)


async def search_and_kill(directory: Path, victim: str, times: int) -> SearchResult:
    """Search, and kill the process that a report names so, in so many fork servers; then let trials end."""
    tuner = make(tuned.Sower, directory, max_trials=MAX_TRIALS)
    gate = directory / "gate"
    servers: set[float] = set()
    killed: set[float] = set()
    async with tuner.start(str(gate)) as search:
        async for event in search.events():
            if not isinstance(event, Reported):
                continue
            family = event.metrics
            if family["server"] not in servers and len(servers) < times:
                servers.add(family["server"])
                killed.add(family[victim])
                os.kill(int(family[victim]), signal.SIGKILL)
            # A dying server's runs may still see the gate, so it is opened when another's have begun.
            if family[victim] not in killed or victim == "daemon":
                gate.touch()
        return await search.result()


@pytest.mark.parametrize(
    ("victim", "times"),
    [("guardian", 1), ("server", 1), ("server", 2), ("guardian", 2), ("child", 1), ("daemon", 1)],
)
async def test_search_goes_on_after_the_death_of(
    tmp_path: Path, mark: str, victim: str, times: int
) -> None:
    result = await search_and_kill(tmp_path, victim, times)
    assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
    assert result.reason is EndReason.MAX_TRIALS
    assert len(result.trials) == MAX_TRIALS
    states = sorted(trial.status for trial in result.trials)
    failed = 1 if victim == "child" else 0
    assert states == ["COMPLETED"] * (MAX_TRIALS - failed) + ["FAILED"] * failed
    lost = sum(run.state == "LOST" for trial in result.trials for run in trial.runs)
    assert (lost > 0) == (victim in ("guardian", "server"))
    again = make(tuned.Sower, tmp_path, max_trials=MAX_TRIALS + 1)
    assert len((await again.search(str(tmp_path / "gate"))).trials) == MAX_TRIALS + 1


async def test_what_a_run_leaves_is_gone_when_it_ends_though_another_run_goes_on(
    tmp_path: Path, mark: str
) -> None:
    tuner = make(tuned.Sower, tmp_path, max_trials=2)
    daemons: list[int] = []
    async with tuner.start(str(tmp_path / "gate")) as search:
        async for event in search.events():
            match event:
                case Reported(metrics=metrics):
                    daemons.append(int(metrics["daemon"]))
                    if len(daemons) == 2:
                        os.kill(int(metrics["child"]), signal.SIGKILL)  # the other one goes on
                case RunEnded():
                    alive = [pid in marked(mark) for pid in daemons]
                    assert alive == [not (tmp_path / "gate").exists(), False]
                    (tmp_path / "gate").touch()


# --- relatives of the caller ---


def test_forked_sibling_of_a_killed_caller_keeps_nothing_alive(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parabola", tmp_path, "0.5", FORKS="1") as process:
        sibling = sibling_of(process)
        process.kill()
        process.wait()
        assert wait_until_gone(mark, LONGEST_LIFE_SECONDS, but=[sibling]) == []
        assert marked(mark) == [sibling]
        tuner = make(tuned.Parabola, tmp_path, max_trials=MAX_TRIALS)
        assert len(tuner.trials) < MAX_TRIALS
        result = asyncio.run(tuner.search(0.5))
        assert [trial.status for trial in result.trials] == ["COMPLETED"] * MAX_TRIALS


def test_search_of_a_caller_with_a_forked_sibling_ends(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    with searching(mark, "Parabola", tmp_path, "0.5", FORKS="1") as process:
        sibling = sibling_of(process)
        read_until(process, "ended", 1)
        assert sorted(marked(mark)) == sorted([process.pid, sibling])
    tuner = make(tuned.Parabola, tmp_path, max_trials=MAX_TRIALS)
    assert [trial.status for trial in tuner.trials] == ["COMPLETED"] * MAX_TRIALS


def sibling_of(process: subprocess.Popen[str]) -> int:
    """Return the process that the caller has forked in mid-search."""
    while not (line := line_of(process)).startswith("sibling"):
        pass
    return int(line.split()[1])


def test_process_that_was_forked_from_a_searching_one_can_search(tmp_path: Path) -> None:
    mark = str(uuid.uuid4())
    printed = run_program(
        """
        import asyncio, multiprocessing, os, sys
        from pathlib import Path
        os.environ["{MARK}"] = "{mark}"
        from aiotune.executors.launch import acquire_server, release_server
        from aiotune.processes import OWN_MODULES
        from tests.support import tuned
        from tests.support.marked import marked

        def search(name):
            tuner = tuned.make(tuned.Parabola, Path(sys.argv[1]), project_name=name)
            result = asyncio.run(tuner.search(verbose=0))
            print(name, [trial.status for trial in result.trials].count("COMPLETED"), flush=True)

        server = acquire_server(OWN_MODULES)  # as a search has it: the child inherits this server
        search("before")
        fork = multiprocessing.get_context("fork")
        for number in range(2):
            child = fork.Process(target=search, args=(f"child {number}",))
            child.start()
            child.join()
            print("exit", child.exitcode, "alive", server.is_alive, flush=True)
        search("after")
        release_server(server)
        print(len(marked("{mark}")), "left")
        """.replace("{MARK}", MARK).replace("{mark}", mark),
        tmp_path,
    )
    assert printed.splitlines() == [
        "before 4",
        "child 0 4",
        "exit 0 alive True",
        "child 1 4",
        "exit 0 alive True",
        "after 4",
        "0 left",
    ]


# --- threads of the caller ---


class SearchingThread(threading.Thread):
    """A thread that searches in a loop of its own. `begun`: its first run has reported from a child."""

    def __init__(self, directory: Path, name: str) -> None:
        super().__init__(daemon=True)
        self.gate = directory / f"gate of {name}"
        self.begun = threading.Event()
        self.family: dict[str, float] = {}
        self.result: SearchResult | None = None
        self._tuner = make(
            tuned.Sower,
            directory,
            project_name=name,
            observers=[self._observe],
            max_concurrent_trials=1,
            resources=Resources(cpus=1),  # and leave a core to the other
        )
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None

    def _observe(self, event: Event, history: object) -> None:
        if isinstance(event, Reported):
            self.family = dict(event.metrics)
            self.begun.set()

    def run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._search())

    async def _search(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self.result = await self._tuner.search(str(self.gate))

    def cancel(self) -> None:
        assert self._loop is not None
        assert self._task is not None
        self._loop.call_soon_threadsafe(self._task.cancel)

    def open_gate(self) -> None:
        self.gate.touch()


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one core is one run at a time")
@pytest.mark.parametrize("is_cancelled", [False, True], ids=["finished", "cancelled"])
def test_thread_that_launched_the_fork_server_ends_and_others_go_on(
    tmp_path: Path, mark: str, is_cancelled: bool
) -> None:
    first, second = SearchingThread(tmp_path, "first"), SearchingThread(tmp_path, "second")
    for thread in (first, second):  # the first one launches the server
        thread.start()
        assert thread.begun.wait(LONGEST_WAIT_SECONDS)
    assert first.family["server"] == second.family["server"]
    if is_cancelled:
        first.cancel()
    first.open_gate()
    first.join()
    assert (first.result is None) == is_cancelled
    second.open_gate()
    second.join()
    assert second.result is not None
    assert [trial.status for trial in second.result.trials] == ["COMPLETED"] * 4
    assert [len(trial.runs) for trial in second.result.trials] == [1] * 4  # none was lost
    assert wait_until_gone(mark, LONGEST_LIFE_SECONDS) == []
