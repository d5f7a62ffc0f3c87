"""What every store does: subclass it as `Test...` and say how one is opened."""

from __future__ import annotations

import asyncio
import json
import math
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aiotune.errors import FatalTypeError, StoreError
from aiotune.events import Event, Reported, to_json
from aiotune.history import History
from aiotune.store.base import Store
from tests.support.facts import created, every_kind, opened, reported, run_ended, whole_trial


class StoreContract:
    """Each test opens its store by `open(path)`, which finds what was written there before."""

    def open(self, path: Path) -> AbstractAsyncContextManager[Store]:
        raise NotImplementedError

    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "project" / "study.db"

    async def test_new_store_is_empty(self, path: Path) -> None:
        async with self.open(path) as store:
            assert await store.load() == []

    async def test_every_kind_of_fact_comes_back_equal_and_in_order(self, path: Path) -> None:
        facts = every_kind()
        async with self.open(path) as store:
            for number, fact in enumerate(facts, start=1):
                assert await store.append(fact) == number
            assert await store.load() == facts

    async def test_facts_outlive_the_store(self, path: Path) -> None:
        facts = [opened(), *whole_trial()]
        async with self.open(path) as store:
            await store.append(*facts)
        async with self.open(path) as store:
            assert await store.load() == facts
            assert await store.append(created(1)) == len(facts) + 1

    async def test_facts_of_one_call_are_numbered_together(self, path: Path) -> None:
        async with self.open(path) as store:
            assert await store.append(opened(), created(0), created(1)) == 3
            assert await store.append() == 3

    async def test_callers_are_numbered_and_resume_in_the_order_of_their_calls(
        self, path: Path
    ) -> None:
        resumed: list[tuple[int, int]] = []

        async def add(store: Store, call: int) -> None:
            number = await store.append(created(call))
            resumed.append((call, number))

        async with self.open(path) as store:
            async with asyncio.TaskGroup() as tasks:
                for call in range(50):
                    tasks.create_task(add(store, call))
            assert resumed == [(call, call + 1) for call in range(50)]
            facts = await store.load()
        assert [fact.number for fact in facts] == list(range(50))  # type: ignore[union-attr]

    async def test_fact_of_a_cancelled_caller_is_written(self, path: Path) -> None:
        async with self.open(path) as store:
            caller = asyncio.create_task(store.append(created(0)))
            await asyncio.sleep(0)  # the call is made, its answer not there
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            assert await store.append(created(1)) == 2
            assert await store.load() == [created(0), created(1)]

    async def test_leaving_writes_what_was_handed_over(self, path: Path) -> None:
        async with self.open(path) as store:
            callers = [asyncio.create_task(store.append(created(n))) for n in range(20)]
            await asyncio.sleep(0)
        assert await asyncio.gather(*callers) == list(range(1, 21))
        async with self.open(path) as store:
            assert len(await store.load()) == 20

    async def test_leaving_by_an_error_passes_it_on_and_keeps_the_facts(self, path: Path) -> None:
        with pytest.raises(ZeroDivisionError):
            await self._fail_inside(path)
        async with self.open(path) as store:
            assert await store.load() == [opened()]

    async def _fail_inside(self, path: Path) -> None:
        async with self.open(path) as store:
            await store.append(opened())
            raise ZeroDivisionError

    async def test_closed_store_takes_nothing(self, path: Path) -> None:
        async with self.open(path) as store:
            pass
        with pytest.raises(StoreError, match="closed"):
            await store.append(opened())

    async def test_numbers_that_json_lacks_come_back(self, path: Path) -> None:
        metrics = {"loss": math.nan, "up": math.inf, "down": -math.inf}
        async with self.open(path) as store:
            await store.append(Reported(1.0, "0000", 0, 0, metrics))
            (fact,) = await store.load()
        assert isinstance(fact, Reported)
        assert math.isnan(fact.metrics["loss"])
        assert (fact.metrics["up"], fact.metrics["down"]) == (math.inf, -math.inf)

    @pytest.mark.parametrize("message", ["ünïcode 🎉", "a\0b", "stray \udcff byte", "it's; --"])
    async def test_any_text_comes_back(self, path: Path, message: str) -> None:
        fact = replace(run_ended(), message=message)
        async with self.open(path) as store:
            await store.append(*whole_trial()[:-2], fact)
            assert (await store.load())[-1] == fact

    async def test_fact_that_json_cannot_hold_is_refused_and_harms_no_other(
        self, path: Path
    ) -> None:
        odd = Reported(1.0, "0000", 0, 0, {"loss": np.float32(0.5)})  # type: ignore[dict-item]
        async with self.open(path) as store:
            with pytest.raises(FatalTypeError, match=r"Reported.*float32"):
                await store.append(opened(), odd)
            assert await store.append(opened()) == 1
            assert await store.load() == [opened()]

    @pytest.mark.parametrize(
        "odd",
        [
            replace(created(), values={"layers": [64, 32]}),  # type: ignore[dict-item]
            replace(reported(), metrics={"loss": True}),
            replace(reported(), step=-1),
            replace(created(), trial_id="../0000"),
        ],
    )
    async def test_fact_that_could_not_be_read_again_is_refused(
        self, path: Path, odd: Event
    ) -> None:
        """As an oracle or an executor of the user's own may give it: no search could be resumed from it."""
        async with self.open(path) as store:
            with pytest.raises(FatalTypeError, match=type(odd).__name__):
                await store.append(odd)
            assert await store.append(opened()) == 1
            assert await store.load() == [opened()]

    async def test_history_is_the_same_after_a_restart(self, path: Path) -> None:
        facts: list[Event] = [opened(), *whole_trial(0), *whole_trial(1), created(2)]
        async with self.open(path) as store:
            await store.append(*facts)
        async with self.open(path) as store:
            history = History(await store.load())
        assert dict(history.trials) == dict(History(facts).trials)

    async def test_reports_of_many_steps_keep_their_order(self, path: Path) -> None:
        facts = [reported(step=step, loss=1 / (1 + step)) for step in range(200)]
        async with self.open(path) as store:
            await store.append(*facts)
            loaded = await store.load()
        assert json.dumps([to_json(fact) for fact in loaded]) == json.dumps(
            [to_json(fact) for fact in facts]
        )
