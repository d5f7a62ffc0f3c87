"""What a killed process was about to decide is decided by the next one."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import anyio.lowlevel

from aiotune.events import EndReason, Event, Reported
from aiotune.executors.base import Finished, Observed, RunEvent
from aiotune.history import History
from aiotune.oracles.base import Answer, Exhausted, Oracle, Suggest, Verdict
from aiotune.resources import Limits
from aiotune.trial import Observation, RunState, Trial
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.searches import SearchOfFakes


class Strict(Oracle):
    """Proposes two trials, and stops each at a step."""

    def __init__(self, last_step: int | None = 1) -> None:
        super().__init__(objective="loss")
        self._last_step = last_step

    def ask(self, history: History, number: int) -> Answer:
        return Suggest({}, number) if number < 2 else Exhausted()

    def judge(self, trial: Trial, observation: Observation) -> Verdict:
        return Verdict.STOP if observation.step == self._last_step else Verdict.CONTINUE


async def going_on(script: Script) -> AsyncIterator[RunEvent]:
    """Report five steps, and wait for the search after each; go on behind the last report."""
    last = script.assignment.last_report
    for step in range(0 if last is None else last + 1, 5):
        yield Observed(step, {"loss": 5.0 - step})
        await anyio.lowlevel.checkpoint()
        if script.stop.is_set():
            yield Finished(is_stopped=True)
            return
    yield Finished()


def table(history: History) -> list[tuple[str, float | None]]:
    return [(trial.status, trial.score) for trial in history.trials.values()]


async def test_a_verdict_that_a_kill_came_before_is_given(tmp_path: Path) -> None:
    whole = SearchOfFakes(Strict(), FakeExecutor(going_on), tmp_path)
    await whole.run()
    assert table(whole.history) == [("PRUNED", 4.0)] * 2
    async for cut, history in whole.resumed_at_every_cut(Strict):
        assert table(history) == table(whole.history), f"after fact {cut}"


async def test_a_limit_that_was_reached_stops_what_was_left_in_progress(tmp_path: Path) -> None:
    limits = Limits(max_epochs=3)
    whole = SearchOfFakes(Strict(None), FakeExecutor(going_on), tmp_path, limits=limits)
    assert (await whole.run()).reason is EndReason.EPOCHS
    facts: list[Event] = whole.store.facts
    reached = [number for number, fact in enumerate(facts) if isinstance(fact, Reported)][2]
    resumed = whole.again(Strict(None), facts=facts[: reached + 1])
    assert (await resumed.run()).reason is EndReason.EPOCHS
    assert table(resumed.history) == [("PRUNED", 3.0)]
    assert resumed.history.trial("0000").runs[0].state is RunState.STOPPED
