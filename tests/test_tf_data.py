"""What the caller says of a TensorFlow that answers otherwise. Real datasets: test_data.py."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from aiotune.executors.culprit import CannotTravel
from aiotune.frameworks.tf_data import is_tf_dataset, reduce_tf_dataset


class FakeDataset:
    """Captures one variable, in a function of the dataset that it is made of."""

    element_spec = None

    def __init__(self, device: str = "CPU:0", depth: int = 1) -> None:
        self.device = device
        self.depth = depth

    def _inputs(self) -> list[Any]:
        return [FakeDataset(self.device, 0)] if self.depth else []

    def _functions(self) -> list[Any]:
        captured = [] if self.depth else [SimpleNamespace(device=self.device)]
        return [SimpleNamespace(function=SimpleNamespace(captured_inputs=captured))]


def fake_tensorflow(graph: bytes | None = None, gpus: int = 0) -> Any:
    """Return a TensorFlow whose datasets have this graph; None: it has no such operation."""
    answer = SimpleNamespace(numpy=lambda: graph)
    has_ops = {} if graph is None else {"DatasetToGraphV2": lambda **options: answer}
    return SimpleNamespace(
        __version__="9.9",
        config=SimpleNamespace(list_logical_devices=lambda kind: [kind] * gpus),
        data=SimpleNamespace(
            Dataset=FakeDataset, experimental=SimpleNamespace(to_variant=lambda dataset: dataset)
        ),
        raw_ops=SimpleNamespace(**has_ops),
    )


def refusal(monkeypatch: pytest.MonkeyPatch, tensorflow: Any, device: str = "CPU:0") -> str:
    monkeypatch.setitem(sys.modules, "tensorflow", tensorflow)
    dataset = FakeDataset(device)
    assert is_tf_dataset(dataset)
    with pytest.raises(CannotTravel) as caught:
        reduce_tf_dataset(dataset)
    assert caught.value.thing is dataset
    return str(caught.value)


def test_a_tensorflow_without_the_operation_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, fake_tensorflow())
    assert "TensorFlow 9.9 cannot tell its graph (AttributeError: " in message
    assert "aiotune.Lazy(" in message


def test_a_graph_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, fake_tensorflow(b""))  # TensorFlow's answer to over 2 GB
    assert "over 2 GB" in message
    assert "Pass the arrays themselves" in message


def test_a_variable_on_a_gpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(monkeypatch, fake_tensorflow(gpus=1), "/device:GPU:0")
    assert "a variable on /device:GPU:0" in message
    assert "CPU" in message
    assert "over 2 GB" in refusal(monkeypatch, fake_tensorflow(b"", gpus=1))


def test_nothing_is_a_dataset_where_tensorflow_is_not_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    assert reduce_tf_dataset(FakeDataset()) is NotImplemented
    assert not is_tf_dataset(FakeDataset())
    assert "tensorflow" not in sys.modules
