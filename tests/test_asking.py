"""Asking in a thread, and beforehand: what goes on meanwhile, what waits, and what is dropped."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import anyio
import pytest

from aiotune.asking import Asker
from aiotune.events import (
    EndReason,
    Event,
    Reported,
    RunEnded,
    RunStarted,
    SearchEnded,
    SpaceGrew,
    TrialCreated,
    TrialEnded,
    TrialMet,
)
from aiotune.executors.base import Finished, Met, Observed, RunEvent
from aiotune.history import History
from aiotune.hyperparameters import HyperParameters
from aiotune.objective import Objective
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest, Verdict, Wait
from aiotune.oracles.bayesian import BayesianOptimizationOracle
from aiotune.oracles.random_search import RandomSearchOracle
from aiotune.resources import Limits
from aiotune.space import Float
from aiotune.trial import Observation, RunState, Trial, TrialState
from tests.support.fake_executor import FakeExecutor, Script, declaring, hanging
from tests.support.searches import SearchOfFakes
from tests.support.virtual_clock import VirtualClock

SCORE = Objective("score", "min")
LONGEST_SECONDS = 20.0  # of a thread that waits for a test that has failed
X = Float("x", 0.0, 100.0)
LATER = Float("later", 0.0, 1.0)


class Thinker(Oracle):
    """Suggests one point after the other from a thread. Notes its calls, and fails where two overlap.

    answers: what it says instead to some numbers. slow: those for which it waits until `may_answer` is set.
    clock: where each answer takes a second.
    """

    asks_in_thread = True

    def __init__(
        self,
        max_trials: int | None = None,
        *,
        answers: dict[int, Answer] | None = None,
        slow: tuple[int, ...] = (),
        clock: VirtualClock | None = None,
    ) -> None:
        super().__init__(objective=SCORE, max_trials=max_trials, seed=1)
        self.asked: list[tuple[int, int]] = []  # number, and how many facts were seen
        self.heard: list[str] = []  # the other methods that were called
        self.known: set[int] = set()  # streams that it takes for known
        self.is_thinking = threading.Event()
        self.may_answer = threading.Event()
        self._answers = answers or {}
        self._slow = slow
        self._clock = clock

    def ask(self, history: History, number: int) -> Answer:
        with self._thinking():
            self.asked.append((number, history.length))
            before = dict(history.trials)
            if number in self._slow:
                assert self.may_answer.wait(LONGEST_SECONDS), "the test lets it wait for ever"
            assert dict(history.trials) == before == dict(self.trials)
            if self._clock is not None:
                self._clock.advance(1.0)
            return self._answers.get(number, Suggest({"x": number}, number))

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        with self._thinking():
            self.heard.append("judge")
        return Verdict.CONTINUE

    def tell(self, trial: Trial) -> None:
        with self._thinking():
            self.heard.append("tell")

    def is_duplicate(self, history: History, trial: Trial) -> bool:
        with self._thinking():
            self.heard.append("is_duplicate")
            return trial.stream in self.known

    @contextmanager
    def _thinking(self) -> Iterator[None]:
        assert not self.is_thinking.is_set(), "it was called while it was thinking"
        self.is_thinking.set()
        try:
            yield
        finally:
            self.is_thinking.clear()

    async def wait_thinking(self) -> None:
        await until(self.is_thinking.is_set)


class Silent(Thinker):
    """One that has no say while trials run: what it inherits does nothing."""

    judge = Oracle.judge
    tell = Oracle.tell
    is_duplicate = Oracle.is_duplicate


async def until(condition: Callable[[], object]) -> None:
    with anyio.fail_after(LONGEST_SECONDS / 2):
        while not condition():
            await anyio.lowlevel.checkpoint()


async def at_once(script: Script) -> AsyncIterator[RunEvent]:
    yield Finished({"score": float(script.assignment.number)}, 0)


def beside(oracle: Thinker) -> Callable[[Script], AsyncIterator[RunEvent]]:
    """Return runs of which the first reports and ends while the oracle thinks of the second trial."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number == 0:
            await oracle.wait_thinking()
        yield Observed(0, {"score": 1.0})
        yield Finished({"score": 1.0}, 0)

    return play


def created(search: SearchOfFakes) -> list[TrialCreated]:
    return [fact for fact in search.store.facts if isinstance(fact, TrialCreated)]


def place(search: SearchOfFakes, wanted: Callable[[Event], bool]) -> int:
    """Return how many facts there were before the first one of that kind."""
    return next(place for place, fact in enumerate(search.store.facts) if wanted(fact))


# --- while the oracle thinks ---


async def test_trials_report_and_end_meanwhile_where_the_oracle_has_no_say(
    tmp_path: Path,
) -> None:
    oracle = Silent(max_trials=2, slow=(1,))
    search = SearchOfFakes(oracle, FakeExecutor(beside(oracle)), tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(search.history.ended_trials)
        assert oracle.is_thinking.is_set()
        assert len(created(search)) == 1
        oracle.may_answer.set()
    assert [trial.status for trial in search.history.trials.values()] == ["COMPLETED"] * 2
    assert [number for number, _ in oracle.asked] == [0, 1]


async def test_a_trial_has_how_many_facts_the_oracle_had_seen(tmp_path: Path) -> None:
    oracle = Silent(max_trials=2, slow=(1,))
    search = SearchOfFakes(oracle, FakeExecutor(beside(oracle)), tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(search.history.ended_trials)
        oracle.may_answer.set()
    assert [fact.asked_after for fact in created(search)] == [seen for _, seen in oracle.asked]
    is_second = place(search, lambda fact: isinstance(fact, TrialCreated) and fact.number == 1)
    assert created(search)[1].asked_after < is_second


@pytest.mark.parametrize(
    ("event", "recorded", "call"),
    [
        (Met((X,), {"x": 0}, (X,), (), True), TrialMet, "is_duplicate"),
        (Observed(0, {"score": 1.0}), Reported, "judge"),
        (Finished({"score": 1.0}, 0), TrialEnded, "tell"),
    ],
)
async def test_what_a_run_tells_is_recorded_and_the_oracle_hears_of_it_later(
    tmp_path: Path, event: RunEvent, recorded: type[Event], call: str
) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number == 0:
            await oracle.wait_thinking()
            yield event
        if not isinstance(event, Finished) or script.assignment.number > 0:
            yield Finished({"score": 1.0}, 0)

    oracle = Thinker(max_trials=2, slow=(1,))
    search = SearchOfFakes(oracle, FakeExecutor(play), tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(lambda: any(isinstance(fact, recorded) for fact in search.store.facts))
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert oracle.is_thinking.is_set()
        assert oracle.heard == []
        oracle.may_answer.set()
    assert oracle.heard[0] == call
    assert oracle.heard.count("tell") == 2


async def test_one_that_asks_on_the_loop_is_called_there_with_the_history_itself(
    tmp_path: Path,
) -> None:
    class Plain(RandomSearchOracle):
        def ask(self, history: History, number: int) -> Answer:
            assert threading.current_thread() is here
            assert history is search.history
            return super().ask(history, number)

    here = threading.current_thread()
    play = declaring(lambda hp: hp.Float("x", 0, 1), lambda _: 0.0)
    search = SearchOfFakes(Plain(SCORE, 5), FakeExecutor(play), tmp_path, slots=2)
    assert (await search.run()).reason is EndReason.MAX_TRIALS


async def test_what_an_oracle_is_asked_by_others_is_the_search_itself_again(tmp_path: Path) -> None:
    oracle = Silent(max_trials=3)
    search = SearchOfFakes(oracle, FakeExecutor(at_once), tmp_path)
    oracle.follow(lambda: search.history)
    await search.run()
    assert dict(oracle.trials) == dict(search.history.trials)
    assert len(oracle.trials) == 3


async def test_waiting_is_no_defect_if_the_trial_in_flight_ended_meanwhile(tmp_path: Path) -> None:
    class Waiting(Silent):
        def ask(self, history: History, number: int) -> Answer:
            answer = super().ask(history, number)
            return Wait() if history.trials_in_flight() else answer

    oracle = Waiting(max_trials=3, slow=(1,))
    search = SearchOfFakes(oracle, FakeExecutor(beside(oracle)), tmp_path, slots=2)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(search.history.ended_trials)
        assert oracle.is_thinking.is_set()
        oracle.may_answer.set()
    assert len(search.history.ended_trials()) == 3


# --- ends ---


async def test_cancelled_it_waits_for_the_thread_and_leaves_nothing(tmp_path: Path) -> None:
    oracle = Thinker(slow=(1,))
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2)
    scope, is_over = anyio.CancelScope(), anyio.Event()

    async def run() -> None:
        with scope:
            await search.run()
        is_over.set()

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: executor.running)
        await oracle.wait_thinking()
        scope.cancel()
        await until(lambda: not executor.running)
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        assert not is_over.is_set()
        oracle.may_answer.set()
        await is_over.wait()
        assert not oracle.is_thinking.is_set()
    assert len(created(search)) == 1
    assert search.pool.free == search.pool.total
    assert [run.state for run in search.history.numbered(0).runs] == [RunState.CANCELLED]


@pytest.mark.parametrize("reason", [EndReason.STOPPED, EndReason.TIME])
async def test_runs_are_asked_to_stop_before_the_oracle_has_answered(
    tmp_path: Path, reason: EndReason
) -> None:
    oracle = Silent(slow=(1,))
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2, limits=Limits(max_time=60))
    ends: list[SearchEnded] = []

    async def run() -> None:
        ends.append(await search.run())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await until(lambda: executor.running)
        await oracle.wait_thinking()
        if reason is EndReason.STOPPED:
            search.scheduler.request_stop()
        else:
            search.clock.advance(60)
        await until(lambda: executor.ended)
        assert oracle.is_thinking.is_set()
        assert not ends
        oracle.may_answer.set()
    assert [end.reason for end in ends] == [reason]
    assert len(created(search)) == 1


@pytest.mark.parametrize("asks_in_thread", [False, True])
async def test_an_error_ends_the_search_as_it_is_wherever_the_oracle_was_asked(
    tmp_path: Path, asks_in_thread: bool
) -> None:
    class Broken(Silent):
        def ask(self, history: History, number: int) -> Answer:
            if number == 1:
                raise ZeroDivisionError("no way")
            return super().ask(history, number)

    oracle = Broken()
    oracle.asks_in_thread = asks_in_thread
    oracle.follow(lambda: search.history)
    executor = FakeExecutor(hanging)
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2)
    with pytest.raises(ZeroDivisionError, match="no way"):
        await search.run()
    assert search.history.ended is not None
    assert search.history.ended.message is not None
    assert search.history.ended.message.startswith(
        "ZeroDivisionError: no way\nraised in Broken.ask()"
    )
    assert executor.running == []
    assert search.pool.free == search.pool.total


async def test_an_error_in_an_answer_beforehand_ends_the_search_too(tmp_path: Path) -> None:
    class Broken(Silent):
        def ask(self, history: History, number: int) -> Answer:
            if number == 3:
                raise ZeroDivisionError("no way")
            return super().ask(history, number)

    clock = VirtualClock()
    executor = FakeExecutor(first_ends(1))
    search = SearchOfFakes(Broken(clock=clock), executor, tmp_path, slots=2, clock=clock)
    with anyio.fail_after(LONGEST_SECONDS), pytest.raises(ZeroDivisionError, match="no way"):
        await search.run()
    assert [fact.number for fact in created(search)] == [0, 1, 2]
    assert executor.running == []


# --- beforehand ---


def first_ends(count: int) -> Callable[[Script], AsyncIterator[RunEvent]]:
    """Return runs of which the first so many end at once, and the others when they are asked to stop."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number >= count:
            await script.stop.wait()
        yield Finished({"score": 0.0}, 0)

    return play


def lasting(seconds: float) -> list[Event]:
    """Return the facts of one trial whose run lasts so long."""
    return [
        TrialCreated(0.0, "0000", 0, 0, {}, 0),
        RunStarted(10.0, "0000", 0, 0, 0, ("cpu:0",), None),
        RunEnded(10.0 + seconds, "0000", 0, RunState.FINISHED, {"score": 0.0}, 0),
        TrialEnded(10.0 + seconds, "0000", TrialState.COMPLETED, 0.0, 0),
    ]


class Spawned:
    """Keeps the tasks that are to be started, and runs them when the test says so."""

    def __init__(self) -> None:
        self.calls: list[tuple[Callable[..., object], tuple[object, ...]]] = []

    def __call__(self, function: Callable[..., object], *arguments: object) -> None:
        self.calls.append((function, arguments))

    async def run(self) -> None:
        for function, arguments in self.calls:
            await function(*arguments)  # type: ignore[misc]
        self.calls.clear()


@pytest.mark.parametrize(("run_seconds", "is_short"), [(49.0, True), (51.0, False)])
async def test_it_asks_beforehand_where_a_run_takes_less_than_fifty_answers(
    run_seconds: float, is_short: bool
) -> None:
    clock, spawned = VirtualClock(), Spawned()
    asker = Asker(Thinker(clock=clock), History(lasting(run_seconds)), clock)
    asker.prepare(1, spawned)
    assert not spawned.calls  # it is not known how long an answer takes
    await asker.ask(1)
    asker.prepare(2, spawned)
    assert bool(spawned.calls) is is_short


async def test_it_does_not_ask_beforehand_before_it_knows_how_long_runs_take() -> None:
    clock, spawned = VirtualClock(), Spawned()
    history = History(lasting(0.0)[:2])
    asker = Asker(Thinker(clock=clock), history, clock)
    await asker.ask(1)
    asker.prepare(2, spawned)
    assert not spawned.calls
    lost = RunEnded(10.0, "0000", 0, RunState.LOST, {})  # how long it took is not known
    for fact in (lost, TrialEnded(10.0, "0000", TrialState.FAILED)):
        history.apply(fact)
    asker.prepare(2, spawned)
    assert not spawned.calls


async def test_an_oracle_that_asks_on_the_loop_is_not_asked_beforehand() -> None:
    clock, spawned = VirtualClock(), Spawned()
    oracle = Thinker(clock=clock)
    oracle.asks_in_thread = False
    history = History(lasting(0.0))
    oracle.follow(lambda: history)
    asker = Asker(oracle, history, clock)
    await asker.ask(1)
    asker.prepare(2, spawned)
    assert not spawned.calls


async def prepared(oracle: Thinker, history: History, clock: VirtualClock) -> Asker:
    """Return what has an answer for trial 1 beforehand."""
    asker, spawned = Asker(oracle, history, clock), Spawned()
    await asker.ask(1)
    asker.prepare(1, spawned)
    asker.prepare(1, spawned)  # once is enough
    assert len(spawned.calls) == 1
    await spawned.run()
    oracle.asked.clear()
    return asker


async def test_a_prepared_answer_is_given_at_once_and_once() -> None:
    clock = VirtualClock()
    oracle, history = Thinker(clock=clock), History(lasting(1.0))
    seen = history.length
    asker = await prepared(oracle, history, clock)
    history.apply(TrialCreated(0.0, "0001", 1, 7, {}, 0))
    first = await asker.ask(1)
    assert oracle.asked == []
    assert (first.answer, first.number, first.asked_after) == (Suggest({"x": 1}, 1), 1, seen)
    assert (await asker.ask(1)).asked_after == seen + 1
    assert oracle.asked == [(1, seen + 1)]


@pytest.mark.parametrize("what", ["space", "number", "known", "forgotten"])
async def test_a_prepared_answer_is_dropped_when_something_has_changed(what: str) -> None:
    clock = VirtualClock()
    oracle, history = Thinker(clock=clock), History(lasting(1.0))
    asker = await prepared(oracle, history, clock)
    number = 1
    match what:
        case "space":
            history.apply(SpaceGrew(0.0, "0000", (LATER,)))
        case "number":
            number = 2
        case "known":
            oracle.known.add(1)
        case "forgotten":
            asker.forget_prepared()
    asked = await asker.ask(number)
    assert oracle.asked == [(number, history.length)]
    assert asked.asked_after == history.length


@pytest.mark.parametrize("answer", [Wait(), Exhausted()])
async def test_an_answer_without_a_point_does_not_hold_later(answer: Answer) -> None:
    clock = VirtualClock()
    oracle = Thinker(answers={1: answer}, clock=clock)
    asker = await prepared(oracle, History(lasting(1.0)), clock)
    spawned = Spawned()
    asker.prepare(1, spawned)
    assert not spawned.calls  # nor is it asked for again and again
    assert (await asker.ask(1)).answer == answer
    assert len(oracle.asked) == 1


async def test_an_answer_that_is_forgotten_while_it_is_thought_of_is_dropped() -> None:
    clock, spawned = VirtualClock(), Spawned()
    oracle = Thinker(slow=(2,), clock=clock)
    asker = Asker(oracle, History(lasting(1.0)), clock)
    await asker.ask(1)
    asker.prepare(2, spawned)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(spawned.run)
        await oracle.wait_thinking()
        asker.forget_prepared()
        oracle.may_answer.set()
    await asker.ask(2)
    assert [number for number, _ in oracle.asked] == [1, 2, 2]


async def test_a_device_that_becomes_free_has_its_trial_at_once(tmp_path: Path) -> None:
    clock = VirtualClock()
    gate = anyio.Event()

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number in (1, 2):
            await gate.wait()
        yield Finished({"score": 0.0}, 0)

    oracle = Silent(max_trials=5, slow=(4,), clock=clock)
    search = SearchOfFakes(oracle, FakeExecutor(play), tmp_path, slots=2, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(lambda: len(oracle.asked) == 4)  # 1 and 2 run, 3 is asked for beforehand
        await until(lambda: not oracle.is_thinking.is_set())
        for _ in range(50):
            await anyio.lowlevel.checkpoint()
        assert [fact.number for fact in created(search)] == [0, 1, 2]
        gate.set()
        await until(lambda: len(search.history.ended_trials()) == 4)  # 3 ran while 4 is thought of
        oracle.may_answer.set()
    assert [number for number, _ in oracle.asked] == [0, 1, 2, 3, 4]
    ended = place(search, lambda fact: isinstance(fact, TrialEnded) and fact.trial_id != "0000")
    assert created(search)[3].asked_after <= ended  # it does not know the result that made room
    assert [fact.asked_after for fact in created(search)] == [seen for _, seen in oracle.asked]


async def test_an_enqueued_point_makes_it_ask_anew(tmp_path: Path) -> None:
    clock = VirtualClock()
    oracle = Silent(clock=clock)
    executor = FakeExecutor(first_ends(1))
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(lambda: len(oracle.asked) == 4)
        search.scheduler.forget_prepared()
        await until(lambda: len(oracle.asked) == 5)
        search.scheduler.request_stop()
    assert [number for number, _ in oracle.asked] == [0, 1, 2, 3, 3]


async def test_it_is_not_asked_beyond_max_trials(tmp_path: Path) -> None:
    async def play(script: Script) -> AsyncIterator[RunEvent]:
        if script.assignment.number > 1:
            await gate.wait()
        yield Finished({"score": 0.0}, 0)

    clock, gate = VirtualClock(), anyio.Event()
    oracle = Silent(max_trials=4, clock=clock)
    executor = FakeExecutor(play)
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(lambda: {2, 3} <= {each.script.assignment.number for each in executor.running})
        for _ in range(20):
            await anyio.lowlevel.checkpoint()
        gate.set()
    assert [number for number, _ in oracle.asked] == [0, 1, 2, 3]


async def test_a_search_that_ends_waits_for_an_answer_that_nobody_wants(tmp_path: Path) -> None:
    clock = VirtualClock()
    oracle = Silent(slow=(3,), clock=clock)
    executor = FakeExecutor(first_ends(1))
    search = SearchOfFakes(oracle, executor, tmp_path, slots=2, clock=clock)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(search.run)
        await until(lambda: len(oracle.asked) == 4)
        search.scheduler.request_stop()
        await until(lambda: not executor.running)
        assert oracle.is_thinking.is_set()
        assert search.history.ended is None
        oracle.may_answer.set()
    assert search.history.ended is not None
    assert not oracle.is_thinking.is_set()
    assert len(created(search)) == 3


async def test_with_one_slot_every_result_is_known_before_the_next_trial(tmp_path: Path) -> None:
    clock = VirtualClock()
    oracle = Thinker(max_trials=8, clock=clock)
    search = SearchOfFakes(oracle, FakeExecutor(at_once), tmp_path, clock=clock)
    await search.run()
    places = [place for place, fact in enumerate(search.store.facts) if fact in created(search)]
    assert [fact.asked_after for fact in created(search)] == places
    assert len(oracle.asked) == 8


# --- the same trials ---


def few(hp: HyperParameters) -> None:
    if hp.Choice("kind", ["a", "b"]) == "a":
        hp.Int("n", 0, 4)
    hp.Boolean("flag")


def mixed(hp: HyperParameters) -> None:
    hp.Float("x", 0, 1)
    hp.Choice("kind", ["a", "b", "c"])


def loss(values: dict[str, object]) -> float:
    return (float(str(values["x"])) - 0.3) ** 2 + (values["kind"] != "b")


@pytest.mark.parametrize("oracle", [RandomSearchOracle, BayesianOptimizationOracle])
async def test_with_one_slot_the_trials_are_those_of_asking_on_the_loop(
    tmp_path: Path, oracle: type[RandomSearchOracle]
) -> None:
    tables = []
    for asks_in_thread in (False, True):
        asked = oracle(SCORE, 9, seed=3)
        asked.asks_in_thread = asks_in_thread
        search = SearchOfFakes(asked, FakeExecutor(declaring(mixed, loss)), tmp_path)
        await search.run()
        trials = search.history.trials.values()
        tables.append([(each.values, each.stream, each.asked_after) for each in trials])
    assert len(tables[0]) == 9
    assert tables[0] == tables[1]


async def test_a_finite_space_is_tried_without_a_repeat_though_it_asks_beforehand(
    tmp_path: Path,
) -> None:
    class Slow(RandomSearchOracle):
        asks_in_thread = True

        def ask(self, history: History, number: int) -> Answer:
            clock.advance(1.0)
            return super().ask(history, number)

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        for _ in range(script.assignment.number % 3):
            await anyio.lowlevel.checkpoint()
        yield script.met(few)
        yield Finished({"score": 0.0}, 0)

    clock = VirtualClock()
    search = SearchOfFakes(Slow(SCORE, None), FakeExecutor(play), tmp_path, slots=3, clock=clock)
    assert (await search.run()).reason is EndReason.EXHAUSTED
    done = [t for t in search.history.trials.values() if t.state is TrialState.COMPLETED]
    points = {tuple(trial.values.items()) for trial in done}
    assert len(points) == len(done) == 12


async def test_a_recorded_trial_is_never_asked_for_again(tmp_path: Path) -> None:
    clock = VirtualClock()
    play = first_ends(6)
    search = SearchOfFakes(
        Silent(6, clock=clock), FakeExecutor(play), tmp_path, slots=2, clock=clock
    )
    await search.run()
    for number in range(6):
        is_created = place(
            search, lambda f, n=number: isinstance(f, TrialCreated) and f.number == n
        )
        oracle = Silent(6)
        resumed = search.again(oracle, facts=search.store.facts[: is_created + 1])
        await resumed.run()
        assert [number for number, _ in oracle.asked] == list(range(number + 1, 6))
        first, second = created(search)[number], created(resumed)[number]
        assert first == second
