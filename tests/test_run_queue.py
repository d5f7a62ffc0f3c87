"""The run queue: whatever happens, it has just what `settlement.pending` says."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

from aiotune.events import Event
from aiotune.executors.base import Failed, Finished, RunEvent
from aiotune.history import History
from aiotune.objective import Objective
from aiotune.oracles.hyperband import HyperbandOracle
from aiotune.run_queue import RunQueue
from aiotune.settlement import Policy, Work, pending
from aiotune.trial import FailureKind
from tests.support.fake_executor import FakeExecutor, Script
from tests.support.searches import SearchOfFakes

POLICY = Policy(repeats=2, retries=1)


async def a_search(directory: Path) -> SearchOfFakes:
    """Return a search with promotions, repeats, retries, and trials that fail for good."""

    async def play(script: Script) -> AsyncIterator[RunEvent]:
        met = script.met(lambda hp: hp.Float("x", 0, 1))
        yield met
        assignment = script.assignment
        if assignment.number % 4 == 1 and assignment.attempt <= assignment.number % 3:
            yield Failed(FailureKind.CRASH, "unlucky")
        else:
            yield Finished({"score": float(str(met.values["x"]))}, 0)

    oracle = HyperbandOracle(
        Objective("score", "min"), max_epochs=4, factor=2, max_consecutive_failed_trials=100
    )
    search = SearchOfFakes(oracle, FakeExecutor(play), directory, slots=3, policy=POLICY)
    await search.run()
    return search


def looked_up(history: History) -> list[tuple[str, list[Work]]]:
    """Return what every trial in flight wants, without the queue."""
    wanted = [(each.trial_id, pending(each, POLICY)) for each in history.trials_in_flight()]
    return [(trial_id, works) for trial_id, works in wanted if works]


def queued(queue: RunQueue) -> list[tuple[str, list[Work]]]:
    return [(trial.trial_id, list(works)) for trial, works in queue]


async def test_after_every_fact_it_has_what_the_trials_want(tmp_path: Path) -> None:
    search = await a_search(tmp_path)
    history = History()
    queue = RunQueue(history, POLICY)
    lengths: set[int] = set()
    for fact in search.store.facts:
        history.apply(fact)
        queue.note(fact)
        assert queued(queue) == looked_up(history), fact
        assert len(queue) == len(looked_up(history))
        lengths.add(len(queue))
    assert lengths == {0, 1}  # a new trial is asked for only where one could start


async def test_a_resumed_search_has_the_same_queue(tmp_path: Path) -> None:
    facts: list[Event] = (await a_search(tmp_path)).store.facts
    for cut in range(1, len(facts), 7):
        history = History(facts[:cut])
        assert queued(RunQueue(history, POLICY)) == looked_up(history)
