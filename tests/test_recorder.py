from __future__ import annotations

import asyncio
import logging

import anyio
import pytest

from aiotune.errors import FatalRuntimeError, StoreUnwritable
from aiotune.events import EndReason, Event, SearchEnded, TrialCreated
from aiotune.history import History
from aiotune.recorder import Recorder
from aiotune.store.memory import MemoryStore

CREATED = TrialCreated(0.0, "0000", 0, 0, {}, 0)
ENDED = SearchEnded(0.0, EndReason.STOPPED)


async def test_store_first_history_second_observers_third() -> None:
    store, history = MemoryStore(), History()
    seen: list[tuple[Event, int, int]] = []

    def observe(event: Event, known: History) -> None:
        seen.append((event, known.length, len(store.facts)))

    await Recorder(store, history, [observe]).record(CREATED, ENDED)
    assert seen == [(CREATED, 2, 2), (ENDED, 2, 2)]


async def test_a_fact_that_the_store_refuses_is_not_applied() -> None:
    store, history = MemoryStore(), History()
    store.fail_with = StoreUnwritable("full")
    with pytest.raises(StoreUnwritable):
        await Recorder(store, history).record(CREATED)
    assert history.length == 0


async def test_an_observer_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def broken(event: Event, history: History) -> None:
        raise ValueError("observer")

    history = History()
    with caplog.at_level(logging.ERROR, "aiotune"):
        await Recorder(MemoryStore(), history, [broken]).record(CREATED)
    assert history.length == 1
    assert "observer" in caplog.text


async def test_a_cancellation_does_not_part_store_and_history() -> None:
    store, history = MemoryStore(), History()
    recorder = Recorder(store, history)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await recorder.record(CREATED)
    assert history.length == len(store.facts) == 1


async def test_facts_of_many_tasks_are_applied_in_the_order_of_the_store() -> None:
    store, history = MemoryStore(), History()
    recorder = Recorder(store, history)
    async with anyio.create_task_group() as tasks:
        for number in range(50):
            fact = TrialCreated(0.0, f"{number:04d}", number, number, {}, 0)
            tasks.start_soon(recorder.record, fact)
    assert list(history.trials) == [fact.trial_id for fact in store.facts]  # type: ignore[union-attr]


async def test_a_store_that_is_out_of_step_is_noticed() -> None:
    store = MemoryStore()
    await store.append(CREATED)
    with pytest.raises(FatalRuntimeError, match="out of order"):
        await Recorder(store, History()).record(ENDED)


class HungStore(MemoryStore):
    """A store on a disk that never answers."""

    async def append(self, *facts: Event) -> int:
        await anyio.sleep_forever()
        raise AssertionError


async def test_after_a_write_in_doubt_no_further_fact_is_taken() -> None:
    recorder = Recorder(HungStore(), History())
    with pytest.raises(StoreUnwritable, match="did not answer"):
        await recorder.record(CREATED, longest_seconds=0)
    with pytest.raises(StoreUnwritable, match="did not answer"):
        await recorder.record(ENDED)
    assert recorder.history.length == 0


async def test_after_a_loop_that_shuts_down_no_fact_contradicts_the_stored_ones() -> None:
    recorder = Recorder(HungStore(), History())
    writing = asyncio.create_task(recorder.record(CREATED))
    await asyncio.sleep(0)
    writing.cancel()  # as the loop does: the shield does not withstand it
    with pytest.raises(asyncio.CancelledError):
        await writing
    with pytest.raises(StoreUnwritable, match="goes on from what is stored"):
        await recorder.record(ENDED)
