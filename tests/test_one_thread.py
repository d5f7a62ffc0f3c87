"""Linear algebra on one thread, and on as many as before afterwards."""

from __future__ import annotations

import numpy as np  # noqa: F401  # loads the libraries that are counted
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from aiotune.oracles.one_thread import one_thread


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
