from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from aiotune.collecting import uncollected


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    was_enabled = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if was_enabled else gc.disable)()


def test_nothing_is_collected_until_the_last_block_is_left() -> None:
    with uncollected():
        with uncollected():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_error_lets_it_go_on() -> None:
    with pytest.raises(ZeroDivisionError), uncollected():
        raise ZeroDivisionError
    assert gc.isenabled()


def test_who_had_it_disabled_finds_it_so() -> None:
    gc.disable()
    with uncollected():
        pass
    assert not gc.isenabled()
