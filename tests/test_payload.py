from __future__ import annotations

import ast
import os
import sys
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from aiotune.errors import PayloadError
from aiotune.executors.base import Finished
from aiotune.executors.context import RunContext
from aiotune.executors.culprit import CannotTravel
from aiotune.executors.mentions import mentioned_frameworks
from aiotune.executors.payload import LARGE_BUFFER_BYTES, Payload, load

LARGE = 4 * LARGE_BUFFER_BYTES


def capture(thing: Any) -> Any:
    """Return a program that takes `thing` along, and returns it when it is called."""

    def program(run: RunContext) -> Any:
        return thing

    return program


def round_trip(thing: Any) -> Any:
    with Payload.create(capture(thing)) as payload:
        return load(payload.fd)(None)  # type: ignore[arg-type]


def test_program_comes_back() -> None:
    assert round_trip({"a": [1, 2.5, None]}) == {"a": [1, 2.5, None]}


@pytest.mark.parametrize(
    "array",
    [
        np.arange(LARGE, dtype=np.float64),
        np.asfortranarray(np.arange(LARGE).reshape(16, -1)),
        np.arange(LARGE)[::2],
        np.arange(5),
        np.zeros(0),
        np.array(["a", "bc"]),
    ],
    ids=["large", "fortran", "strided", "small", "empty", "text"],
)
def test_arrays_come_back(array: np.ndarray[Any, Any]) -> None:
    first, second = round_trip([array, array])
    np.testing.assert_array_equal(first, array)
    assert first is second  # shared things stay shared
    assert first.dtype == array.dtype


def test_large_arrays_stand_beside_the_pickle() -> None:
    array = np.zeros(12_500_000)  # 100 MB
    with Payload.create(capture({"x": array, "y": [array[:10]]})) as payload:
        assert payload.pickle_bytes < 2000
        assert os.fstat(payload.fd).st_size >= array.nbytes


def test_arrays_are_writable_and_private() -> None:
    array = np.arange(LARGE)
    with Payload.create(capture(array)) as payload:
        mine, others = (load(payload.fd)(None) for _ in range(2))  # type: ignore[arg-type]
        mine[0] = 99
        assert (others[0], array[0]) == (0, 0)


def test_content_outlives_the_payload() -> None:
    assert round_trip(np.arange(LARGE)).sum() == LARGE * (LARGE - 1) // 2


@pytest.mark.skipif(sys.platform != "linux", reason="memory files are Linux's")
def test_content_cannot_be_changed() -> None:
    with Payload.create(capture(1)) as payload, pytest.raises(PermissionError):
        os.pwrite(payload.fd, b"x", 0)


def test_closed_payload_says_so() -> None:
    payload = Payload.create(capture(1))
    payload.close()
    payload.close()
    with pytest.raises(PayloadError, match="closed"):
        _ = payload.fd


def test_failure_leaves_no_descriptor() -> None:
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(PayloadError):
        Payload.create(capture(threading.Lock()))
    assert len(os.listdir("/dev/fd")) == before


def numbers() -> Iterator[int]:
    yield 1


class Holder:
    def __init__(self, thing: object) -> None:
        self.thing = thing


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (threading.Lock(), ["argument 1", "lock", "inside build or run_trial"]),
        (numbers(), ["argument 1", "generator", "pass a list"]),
        ({"a": [0, threading.Lock()]}, ["argument 1, key 'a', item 1", "lock"]),
        (Holder(threading.Lock()), ["argument 1, attribute 'thing'", "lock"]),
        (capture(threading.Lock()), ["argument 1, captured variable 'thing'", "lock"]),
        (partial(print, threading.Lock()), ["argument 1, its arguments", "lock"]),
    ],
    ids=["lock", "generator", "containers", "attribute", "closure", "partial"],
)
def test_culprit_is_named_with_the_remedy(part: object, words: list[str]) -> None:
    with pytest.raises(PayloadError) as caught:
        Payload.create(capture([1, part]), {"argument 0": 1, "argument 1": part})
    message = str(caught.value)
    assert all(word in message for word in words), message
    assert caught.value.__cause__ is not None


def test_open_file_is_named_with_the_remedy(tmp_path: Path) -> None:
    with (tmp_path / "data").open("w") as file, pytest.raises(PayloadError) as caught:
        Payload.create(capture(file), {"callbacks": [file]})
    assert "callbacks, item 0" in str(caught.value)
    assert "Pass the file's path" in str(caught.value)


def refuse_holders(thing: object) -> Any:
    if isinstance(thing, Holder) and thing.thing == "stay":
        raise CannotTravel(thing, "it is at home here. Leave it.")
    return NotImplemented


@pytest.mark.parametrize(
    ("part", "words"),
    [
        (
            Holder("stay"),
            "argument 1 cannot be sent to a child process: it is at home here. Leave it.",
        ),
        (
            [1, Holder("stay")],
            "argument 1, item 1 cannot be sent to a child process: it is at home",
        ),
        (
            iter([Holder("stay")]),
            "argument 1 holds what cannot be sent to a child process: it is at",
        ),
    ],
    ids=["itself", "in a list", "where nobody looks"],
)
def test_what_a_reducer_refuses_is_named_in_its_words(part: object, words: str) -> None:
    with pytest.raises(PayloadError) as caught:
        Payload.create(capture(part), {"argument 1": part}, reducers=[refuse_holders])
    assert str(caught.value).startswith(words)
    assert "it is at home here. Leave it." in str(caught.value)


def test_a_reducer_says_how_a_thing_travels() -> None:
    def reduce_holder(thing: object) -> Any:
        return (list, ([thing.thing],)) if isinstance(thing, Holder) else NotImplemented

    with Payload.create(capture({"a": Holder(1)}), reducers=[reduce_holder]) as payload:
        assert load(payload.fd)(None) == {"a": [1]}  # type: ignore[arg-type,comparison-overlap]


def test_unnamed_culprit_is_the_program() -> None:
    with pytest.raises(PayloadError, match="the program"):
        Payload.create(capture(threading.Lock()), {"argument 1": 1})


def frameworks_of(source: str) -> frozenset[str]:
    """Return the frameworks of a function `program` that `source` defines in `__main__`."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(compile(ast.parse(source), "<main>", "exec"), names)
    with Payload.create(names["program"]) as payload:
        return payload.frameworks


def test_frameworks_are_found_without_importing_them() -> None:
    was_loaded = "torch" in sys.modules  # by another test of this process
    assert frameworks_of("def program(run):\n    from keras import layers") == {"keras"}
    assert frameworks_of("def program(run):\n    import torch.nn as nn") == {"torch"}
    assert ("torch" in sys.modules) == was_loaded
    assert frameworks_of("def program(run):\n    return 'jax', 'torch'") == frozenset()
    assert frameworks_of("import json\ndef program(run):\n    return json") == frozenset()


def test_framework_that_a_module_of_the_user_imports_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    keras = ModuleType("keras")
    helpers = ModuleType("helpers")
    exec("def build(hp): return keras.Model()\nclass Other: pass", vars(helpers))
    vars(helpers).update(keras=keras)
    monkeypatch.setitem(sys.modules, "helpers", helpers)
    assert set(mentioned_frameworks(helpers.build)) == {"keras"}
    assert set(mentioned_frameworks(helpers.Other)) == {"keras"}
    assert set(mentioned_frameworks(keras)) == {"keras"}
    assert set(mentioned_frameworks(3)) == set()
    assert set(mentioned_frameworks(Finished)) == set()


class LoadedOnDemand(ModuleType):
    """A module that is half loaded while it is first looked into, as TensorFlow's lazy ones are."""

    def __init__(self) -> None:
        super().__init__("loaded_on_demand")
        del self.__package__
        self.is_loading = False
        self.was_met_half_loaded = False

    def __getattr__(self, name: str) -> Any:
        if name != "__package__":
            raise AttributeError(name)
        if self.is_loading:
            self.was_met_half_loaded = True
            raise AttributeError(name)
        self.is_loading = True
        other = threading.Thread(target=lambda: Payload.create(capture(self)).close())
        other.start()
        other.join(timeout=0.5)  # ample for it to come here, where nothing keeps it from that
        self.__package__ = ""
        self.is_loading = False
        return self.__package__

    def __reduce__(self) -> tuple[Any, ...]:
        return ModuleType, (self.__name__,)


def test_programs_are_pickled_one_at_a_time() -> None:
    module = LoadedOnDemand()
    Payload.create(capture(module)).close()
    assert "__package__" in vars(module)  # it was looked into
    assert not module.was_met_half_loaded
