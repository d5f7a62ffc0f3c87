"""The order in which arrays are met, and how often a step is traced, on TensorFlow. One process for all."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.test_keras import keras_host, run_program
from tests.test_keras_continuation import PROGRAMS


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    directory = tmp_path_factory.mktemp("orders")
    with keras_host("tensorflow", directory / "host.log", PROGRAMS) as host:
        yield {name: run_program(host, directory, name) for name in ("orders", "traces")}


@pytest.fixture(scope="module")
def got(found: Any) -> Any:
    return found["orders"]


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
    assert set(got["left"].values()) == {True}
    assert len(got["left"]) == 10


def test_a_size_that_all_batches_have_is_known(got: Any) -> None:
    assert got["shapes"] == [[4, 1], [None, 1]]


def test_each_row_has_the_weight_of_its_class(got: Any) -> None:
    """1 where none is given, as in Keras's way with arrays; the rows' numbers are 0, 1, 2, 0, 1, ..."""
    weights = {0: 2.0, 1: 1.0, 2: 0.5}
    for name, rows in got["weights"].items():
        if name == "booleans":
            assert {weight for row, weight in rows} <= {2.0, 1.0}
            assert all(weight == (1.0 if row % 3 == 2 else 2.0) for row, weight in rows)
        else:
            assert [weight for _, weight in rows] == [weights[row % 3] for row, _ in rows], name


def test_an_output_without_targets_stays_without(got: Any) -> None:
    assert got["missing"] == [["not", "there"], True]


def test_the_chance_of_an_epoch_is_its_own(got: Any) -> None:
    first, second, again = got["draws"]
    assert first != second
    assert again == second


# keras_tracing


def test_a_training_step_is_traced_once_and_trains_the_same(found: Any) -> None:
    alone, helped = found["traces"]["alone"], found["traces"]["helped"]
    assert helped["count"] == 1
    assert alone["count"] == 2  # else Keras needs no help any more
    assert helped["trained"] == alone["trained"]


def test_a_model_with_a_step_of_its_own_is_left_alone(found: Any) -> None:
    assert found["traces"]["helped"]["built"] is True
    assert found["traces"]["own"] is False
