"""Cases of a fuzz test: documents and bytes that were nearly right before something in them was changed."""

from __future__ import annotations

import copy
import json
import math
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import hypothesis
from hypothesis import HealthCheck
from hypothesis import strategies as st

from tests.support.chaos import Chaos

__all__ = ["bounded", "changed_bytes", "changed_documents", "fuzz", "nothing_imported"]

_Case = TypeVar("_Case")
_LONGEST_SECONDS = 30  # for one case: it hangs

QUICK = 150
LONG = 10_000

_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.integers()
    | st.floats()
    | st.sampled_from(
        [
            2**53,
            2**63,
            -(2**63),
            10**30,
            1e308,
            -1e308,
            5e-324,
            math.inf,
            "nan",
            "-inf",
            "",
            "a",
            "\0",
        ]
    )
    | st.sampled_from(
        ["../x", "0000", "0001", "Int", "Choice", "COMPLETED", "min", "\x1b[2J", "loss"]
    )
    | st.text(max_size=5)
)
_JSON = st.recursive(
    _SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
    max_leaves=5,
)


# Made beforehand, for each draw of a recursive value takes a millisecond; and now and then such a one.
_PARTS = [None, True, False, -1, 0, 1, 2, 7, 1.5, -0.0, 2**53, 2**63, 10**30, 1e308, -1e308, 5e-324]
_PARTS += [
    math.inf,
    math.nan,
    *("nan", "-inf", "", "a", "\0", "../x", "0000", "0001", "Int", "loss"),
]
_PARTS += ["min", "COMPLETED", "FAILED", "\x1b[2J", "\ud800", [], {}]
_POOL = [*_PARTS, *([each] for each in _PARTS), *({"a": each} for each in _PARTS)]
_SEVERAL = st.sampled_from(_POOL)
_NEW = _SEVERAL | st.integers(0, 19).flatmap(lambda n: _JSON if n == 0 else _SEVERAL)


def fuzz(chaos: Chaos, cases: st.SearchStrategy[_Case], check: Callable[[_Case], None]) -> int:
    """Check as many cases as this run of the tests wants; return how many they were."""
    number = 0

    @hypothesis.seed(chaos.seed)
    @hypothesis.settings(
        max_examples=chaos.pick(QUICK, LONG),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @hypothesis.given(cases)
    def run(case: _Case) -> None:
        nonlocal number
        number += 1
        with bounded():
            check(case)

    run()
    return number


@contextmanager
def bounded() -> Iterator[None]:
    """Let what hangs fail. In the main thread."""

    def fail(*_: object) -> None:
        raise AssertionError("it hangs")

    former = signal.signal(signal.SIGALRM, fail)
    signal.alarm(_LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, former)


@contextmanager
def nothing_imported() -> Iterator[None]:
    """Assert that nothing in it imports a module."""
    before = set(sys.modules)
    yield
    new = sorted(set(sys.modules) - before)
    assert not new, f"imported: {new}"


def changed_documents(documents: Sequence[Any]) -> st.SearchStrategy[Any]:
    """Return one of the documents with some places of it changed: replaced, removed, doubled, renamed."""
    paths = [list(_paths(each)) for each in documents]

    @st.composite
    def change(draw: st.DrawFn) -> Any:
        number = draw(st.integers(0, len(documents) - 1))
        document = json.loads(json.dumps(documents[number]))
        for _ in range(draw(st.integers(1, 3))):
            path = draw(st.sampled_from(paths[number]))
            # A copy, for the next change may be within it: it is drawn for other cases, too.
            new = copy.deepcopy(draw(_NEW))
            document = _changed(document, path, draw(st.integers(0, 3)), new)
        return document

    return change()


def _paths(document: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    if isinstance(document, dict):
        for key, value in document.items():
            yield from _paths(value, (*path, key))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield from _paths(value, (*path, index))


def _changed(document: Any, path: tuple[Any, ...], how: int, new: Any) -> Any:
    """Return the document with that place changed; as it is, if an earlier change has taken the place away."""
    if not path:
        return new
    *above, last = path
    parent = document
    try:
        for key in above:
            parent = parent[key]
        old = parent[last]
        if how == 1:
            del parent[last]
        elif how == 2 and isinstance(parent, list):
            parent.append(old)
        elif how == 3 and isinstance(parent, dict):
            parent[new if isinstance(new, str) else "a"] = parent.pop(last)
        else:
            parent[last] = new
    except (LookupError, TypeError):
        pass
    return document


def changed_bytes(content: bytes) -> st.SearchStrategy[bytes]:
    """Return the bytes with some of them changed, left out, put in or cut off."""
    places = st.integers(0, max(0, len(content) - 1))
    edit = st.tuples(st.integers(0, 4), places, st.binary(min_size=1, max_size=8))

    def apply(edits: list[tuple[int, int, bytes]]) -> bytes:
        changed = bytearray(content)
        for how, place, piece in edits:
            match how:
                case 0 | 1:
                    changed[place : place + len(piece)] = piece
                case 2:
                    changed[place:place] = piece
                case 3:
                    del changed[place : place + len(piece)]
                case _:
                    del changed[place + 1 :]
        return bytes(changed)

    return st.lists(edit, min_size=1, max_size=6).map(apply)
