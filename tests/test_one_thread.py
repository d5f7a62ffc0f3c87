"""Linear algebra on one thread, and on as many as before afterwards."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np  # noqa: F401  # loads the libraries that are counted
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from aiotune.learning.one_thread import one_thread


def threads() -> list[int]:
    return [each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"]


def test_one_thread_in_the_block_and_as_many_as_before_after_it() -> None:
    with threadpool_limits(limits=2, user_api="blas"):
        with one_thread():
            assert set(threads()) == {1}
        assert set(threads()) == {2}
        with pytest.raises(ValueError, match="broke"), one_thread():
            raise ValueError("broke")
        assert set(threads()) == {2}


def test_blocks_of_two_threads_take_turns_and_restore_what_was_before() -> None:
    before = threads()
    is_in, is_second_in = threading.Event(), threading.Event()

    def first() -> None:
        with one_thread():
            is_in.set()
            # Where it comes in, it comes at once; else nothing shows that it waits, but that it is not there.
            assert not is_second_in.wait(timeout=0.2)

    def second() -> None:
        is_in.wait()
        with one_thread():
            is_second_in.set()

    with ThreadPoolExecutor(2) as pool:
        for each in [pool.submit(first), pool.submit(second)]:
            each.result()
    assert is_second_in.is_set()
    assert threads() == before
