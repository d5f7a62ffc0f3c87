from __future__ import annotations

import anyio

from aiotune.event_log import EventLog, EventStream
from aiotune.events import Event, Reported
from aiotune.history import History

HISTORY = History()


def report(step: int) -> Reported:
    return Reported(0.0, "0000", 0, step, {"loss": 1.0})


def filled(log: EventLog, count: int) -> None:
    for step in range(count):
        log(report(step), HISTORY)


async def steps(stream: EventStream) -> list[int]:
    return [event.step async for event in stream if isinstance(event, Reported)]


async def test_each_reader_sees_every_event_from_the_first_on() -> None:
    log = EventLog()
    filled(log, 3)
    log.close()
    assert await steps(EventStream(log)) == [0, 1, 2]
    assert await steps(EventStream(log)) == [0, 1, 2]


async def test_a_reader_waits_for_the_next_event() -> None:
    log = EventLog()
    seen: list[Event] = []

    async def read() -> None:
        async for event in EventStream(log):
            seen.append(event)  # noqa: PERF401  one by one: the test looks in between

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(read)
        for step in range(3):
            await anyio.wait_all_tasks_blocked()
            assert len(seen) == step
            log(report(step), HISTORY)
        log.close()
    assert len(seen) == 3


async def test_a_slow_reader_loses_the_oldest_events_and_knows_how_many() -> None:
    log = EventLog(longest=5)
    stream = EventStream(log)
    filled(log, 2)
    assert (await anext(stream)) == report(0)
    for step in range(2, 12):
        log(report(step), HISTORY)
    log.close()
    assert await steps(stream) == [7, 8, 9, 10, 11]
    assert stream.missed == 6


async def test_a_reader_may_leave_at_any_point() -> None:
    log = EventLog()
    filled(log, 2)
    stream = EventStream(log)
    async for _ in stream:
        break
    log.close()
    assert await steps(stream) == [1]


async def test_an_ended_log_is_ended_for_good() -> None:
    log = EventLog()
    log.close()
    stream = EventStream(log)
    assert await steps(stream) == []
    assert await steps(stream) == []
