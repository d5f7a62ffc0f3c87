from __future__ import annotations

from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest

import aiotune
from aiotune.arguments import named_arguments
from aiotune.errors import FatalTypeError
from aiotune.executors.context import failure_of
from aiotune.executors.payload import Payload, load
from aiotune.lazy import Lazy, first_lazy, resolved
from aiotune.trial import FailureKind
from tests.support.tuned import make

Pair = namedtuple("Pair", "first second")


class Counter:
    """A factory that knows how often it was called."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self.calls += 1
        return [self.calls, args, kwargs]


def test_calling_it_gives_the_object() -> None:
    assert Lazy(sorted, [2, 1], reverse=True)() == [2, 1]


def test_it_is_made_wherever_it_stands_and_once() -> None:
    factory = Counter()
    lazy = Lazy(factory)
    pair = Pair(0, lazy)
    args, kwargs = resolved((lazy, [1, lazy]), {"data": (lazy, {"a": lazy}), "pair": pair})
    made = args[0]
    assert made == [1, (), {}]
    assert args[1][1] is made
    assert kwargs["data"][0] is made
    assert kwargs["data"][1]["a"] is made
    assert kwargs["pair"] == Pair(0, made)
    assert isinstance(kwargs["pair"], Pair)
    assert factory.calls == 1


def test_two_are_made_apart_and_each_time_anew() -> None:
    factory = Counter()
    first, second = Lazy(factory, 1), Lazy(factory, 1)
    made, _ = resolved((first, second), {})
    again, _ = resolved((first,), {})
    assert [each[0] for each in (*made, *again)] == [1, 2, 3]


def test_one_can_be_made_of_another() -> None:
    factory = Counter()
    base = Lazy(factory)
    args, _ = resolved((base, Lazy(list, base)), {})
    assert args[1] == args[0]
    assert factory.calls == 1


def test_arguments_without_one_are_not_copied() -> None:
    x, nested = object(), ([1, 2], {"a": 3})
    args, kwargs = resolved((x, nested), {"y": nested})
    assert args[0] is x
    assert args[1] is nested
    assert kwargs["y"] is nested


def test_its_failure_names_it_and_stays_what_it_is() -> None:
    def broken(size: int, *, name: str) -> None:
        raise MemoryError("too large")

    with pytest.raises(MemoryError) as caught:
        resolved((), {"x": [Lazy(broken, 5, name="train")]})
    failed = failure_of(caught.value)
    assert failed.kind is FailureKind.OUT_OF_MEMORY
    assert "too large" in failed.message
    assert (
        "Lazy(test_its_failure_names_it_and_stays_what_it_is.<locals>.broken, 5, name='train')"
        in (failed.message)
    )


def test_its_repr_is_short() -> None:
    assert repr(Lazy(sorted, list(range(1000)), key=None)) == (
        "Lazy(sorted, [0, 1, 2, 3, 4, 5, ...], key=None)"
    )


def test_what_is_no_factory_is_refused() -> None:
    with pytest.raises(FatalTypeError, match=r"not what it returned \(list\)"):
        Lazy([1, 2])  # type: ignore[arg-type]

    async def factory() -> None: ...

    with pytest.raises(FatalTypeError, match="write `def`"):
        Lazy(factory)


def test_the_first_one_is_found() -> None:
    named = named_arguments("search()", (1,), {"data": (2, [Lazy(list)])})
    assert first_lazy(named) == "the argument data= of search(), item 1, item 0"
    assert first_lazy({"x": [1, {"a": 2}]}) is None


def test_it_travels_with_what_it_captures() -> None:
    size = 3

    def program(run: Any) -> Any:
        return lazy

    lazy = Lazy(lambda scale: [scale] * size, 2)
    with Payload.create(program) as payload:
        assert load(payload.fd)(None)() == [2, 2, 2]  # type: ignore[arg-type,operator]


class Sum(aiotune.RandomSearch):
    def run_trial(self, trial: Any, x: Any, data: Any) -> float:
        trial.hyperparameters.Int("a", 1, 9)
        assert data["x"] is x
        assert x.pop() == 3  # each run has one of its own
        return float(sum(x))


@pytest.mark.parametrize("executor", ["process", "inline"])
async def test_a_search_uses_what_it_makes(tmp_path: Path, executor: Any) -> None:
    lazy = aiotune.Lazy(lambda: [1, 2, 3])
    tuner = make(Sum, tmp_path, executor=executor, max_trials=2, max_concurrent_trials=1)
    result = await tuner.search(lazy, data={"x": lazy})
    assert [trial.score for trial in result.trials] == [3.0, 3.0]


class InLoop(aiotune.RandomSearch):
    async def run_trial(self, trial: Any, x: Any) -> float:
        return 0.0


def test_a_search_in_the_loop_refuses_it(tmp_path: Path) -> None:
    with pytest.raises(
        FatalTypeError, match=r"argument 1 of search\(\), item 1 is an aiotune.Lazy"
    ):
        make(InLoop, tmp_path).start([0, aiotune.Lazy(list)])
