from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from aiotune.arguments import leaves, named_arguments, refuse_iterators
from aiotune.errors import FatalTypeError, PayloadError
from aiotune.hypermodel import HyperModel, require_fit_takes


def numbers() -> Iterator[int]:
    yield 1


async def later() -> AsyncIterator[int]:
    yield 1


def test_leaves_are_named_by_the_way_to_them() -> None:
    named = named_arguments("search()", (1, [2]), {"data": ({"a": (3,)}, 4)})
    assert dict(leaves(named)) == {
        "argument 1 of search()": 1,
        "argument 2 of search(), item 0": 2,
        "the argument data= of search(), item 0, key 'a', item 0": 3,
        "the argument data= of search(), item 1": 4,
    }


@pytest.mark.parametrize(
    "thing",
    [
        numbers(),
        later(),
        iter([1]),
        map(abs, [1]),
        zip([1], [2], strict=True),
        enumerate([1]),
        filter(None, [1]),
        reversed([1]),
        itertools.count(),
    ],
    ids=lambda thing: type(thing).__name__,
)
def test_what_one_pass_uses_up_is_refused(thing: Any) -> None:
    with pytest.raises(PayloadError) as caught:
        refuse_iterators({"argument 1": ([1], thing)})
    message = str(caught.value)
    assert message.startswith(f"argument 1, item 1 is of type {type(thing).__qualname__}, ")
    assert "aiotune.Lazy(" in message


def test_an_open_file_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "data").open("w") as file, pytest.raises(PayloadError, match="file's path"):
        refuse_iterators({"argument 1": file})


class Plain(HyperModel):
    def build(self, hp: Any) -> Any: ...


class Fits(Plain):
    def fit(
        self, hp: Any, model: Any, x: Any, *, epochs: int = 1, callbacks: Any = None
    ) -> Any: ...


def test_a_fit_of_the_users_own_must_take_the_arguments() -> None:
    require_fit_takes(Fits(), (1,), {"epochs": 2})
    with pytest.raises(
        FatalTypeError, match=r"to Fits\.fit\(.*unexpected keyword argument 'epoch'"
    ):
        require_fit_takes(Fits(), (1,), {"epoch": 2})
    with pytest.raises(FatalTypeError, match="missing a required argument: 'x'"):
        require_fit_takes(Fits(), (), {})


def test_keras_own_fit_is_asked_in_the_child() -> None:
    require_fit_takes(Plain(), (), {"epoch": 2})
    require_fit_takes(None, (), {"epoch": 2})


class Endless:
    """An iterator of the user's, which may know better: each child has a copy."""

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        return 1


@pytest.mark.parametrize("thing", [[1], {"a": 1}, "text", range(3), Endless(), numbers, None])
def test_what_can_be_used_again_is_fine(thing: Any) -> None:
    refuse_iterators({"argument 1": thing})
