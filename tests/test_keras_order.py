"""The order in which arrays are met, on TensorFlow. That trainings follow it: test_keras_continuation."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.test_keras import keras_host, run_program
from tests.test_keras_continuation import PROGRAMS


@pytest.fixture(scope="module")
def got(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("orders")
    with keras_host("tensorflow", directory / "host.log", PROGRAMS) as host:
        yield run_program(host, directory, "orders")


def rows(epoch: list[Any]) -> list[float]:
    return [row for batch in epoch for row in batch[0]]


def test_each_epoch_has_every_row_once_in_an_order_of_its_own(got: Any) -> None:
    first, second, third, again = map(rows, got["epochs"])
    assert sorted(first) == sorted(second) == sorted(third) == list(range(8))
    assert len({tuple(each) for each in (first, second, third)}) == 3
    assert again == second  # by the epoch's number, not by how many came before


def test_what_belongs_to_a_row_stays_with_it(got: Any) -> None:
    for epoch in got["epochs"]:
        assert [len(batch[0]) for batch in epoch] == [4, 4]
        for left, right, y, weight in epoch:
            assert [each - 100 for each in right] == y == weight == left


def test_the_rest_is_as_keras_has_it(got: Any) -> None:
    assert got["batches"] == 2
    assert got["held_out"] == [8, 9]
    assert "float32" in got["kind"]


def test_what_cannot_be_ordered_is_left_as_it_is(got: Any) -> None:
    assert got["left"] == {"in order": True, "one row": True, "ragged": True, "text": True}


def test_the_chance_of_an_epoch_is_its_own(got: Any) -> None:
    first, second, again = got["draws"]
    assert first != second
    assert again == second
