from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from aiotune.errors import StoreUnwritable
from aiotune.store.base import Store
from aiotune.store.memory import MemoryStore
from tests.contracts.store_contract import StoreContract
from tests.support.facts import created, opened


class TestMemoryStore(StoreContract):
    def setup_method(self) -> None:
        self.store = MemoryStore()

    def open(self, path: Path) -> AbstractAsyncContextManager[Store]:
        return self.store


async def test_injected_failure_writes_nothing_until_it_is_taken_away() -> None:
    store = MemoryStore()
    await store.append(opened())
    store.fail_with = StoreUnwritable("no space is left")
    with pytest.raises(StoreUnwritable, match="no space"):
        await store.append(created(0))
    store.fail_with = None
    assert await store.append(created(1)) == 2
    assert store.facts == [opened(), created(1)]


async def test_facts_can_be_read_after_closing() -> None:
    async with MemoryStore() as store:
        await store.append(opened())
    assert store.facts == [opened()]


async def test_facts_are_copies() -> None:
    values = {"units": 32}
    store = MemoryStore()
    await store.append(replace(created(0), values=values))
    values["units"] = 64
    assert store.facts[0].values == {"units": 32}  # type: ignore[union-attr]
