"""Datasets of TensorFlow, Keras and PyTorch in whole searches, from a program that has made them itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
PROGRAM = ROOT / "tests" / "support" / "data_program.py"
LONGEST_SECONDS = 400.0  # far above what it takes; reaching it is a failure


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Run the program once for all tests, and return what it found."""
    directory = tmp_path_factory.mktemp("data")
    environment = os.environ | {
        "CUDA_VISIBLE_DEVICES": "-1",
        "TF_CPP_MIN_LOG_LEVEL": "2",
        "PYTHONPATH": str(ROOT),
    }
    done = subprocess.run(
        [sys.executable, PROGRAM, directory],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONGEST_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((directory / "found.json").read_text())


@pytest.mark.parametrize(
    "name", ["infinite", "images", "py_dataset", "data_loader", "data_frame", "lazy"]
)
def test_it_trains(found: Any, name: str) -> None:
    ((status, message, score),) = found["trains"][name]
    assert (status, message) == ("COMPLETED", None)
    assert score > 0.0


def test_datasets_of_all_kinds_come_back(found: Any) -> None:
    ((message, metrics),) = found["look"]
    assert message is None
    different = {name for name, value in metrics.items() if not value} - {"loss"}
    assert not different
    assert len(metrics) > 18


def test_tensors_of_other_frameworks_come_back(found: Any) -> None:
    tensors = dict(found["tensors"])
    assert tensors.pop("sizes") < 100_000  # of the pickles; the tensors have over 300 KB each
    assert {name for name, is_right in tensors.items() if not is_right} == set()


REFUSED = {
    "from_generator": ["argument 1 of search()", "Dataset.from_generator", "aiotune.Lazy("],
    "validation": ["the argument validation_data= of search()", "Dataset.from_generator"],
    "nested": ["argument 1 of search()", "numpy_function", "aiotune.Lazy("],
    "py_function": ["argument 1 of search()", "py_function", "aiotune.Lazy("],
    "captured": ["argument 1 of search(), attribute 'factory', its arguments", "aiotune.Lazy("],
    "iterator": ["argument 1 of search()", "OwnedIterator", "Pass the dataset itself"],
    "numpy_iterator": ["argument 1 of search()", "NumpyIterator", "Pass the dataset itself"],
    "generator": ["argument 1 of search()", "type generator", "aiotune.Lazy("],
    "enumerate": ["the argument validation_data= of search()", "enumerate", "aiotune.Lazy("],
    "lock": ["argument 2 of search()", "lock", "aiotune.Lazy("],
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_travel_is_refused_before_the_first_trial(found: Any, name: str) -> None:
    end = found["ends"][name]
    assert (end["error"], end["trials"]) == ("PayloadError", 0)
    assert [words for words in REFUSED[name] if words not in end["text"]] == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing", ["validation_data=", "tf.data.Dataset", "reading one element", "missing.csv"]),
        ("broken", ["argument 1", "Broken", "LookupError: the database is out of reach"]),
    ],
)
def test_what_cannot_be_read_ends_the_search_before_the_first_trial(
    found: Any, name: str, words: list[str]
) -> None:
    end = found["ends"][name]
    assert (end["error"], end["trials"]) == ("FatalValueError", 0)
    assert [each for each in [*words, "aiotune.Lazy("] if each not in end["text"]] == []


def test_a_misspelt_argument_ends_the_search_before_the_first_trial(found: Any) -> None:
    end = found["ends"]["misspelt"]
    assert (end["error"], end["trials"]) == ("FatalTypeError", 0)
    assert "validaton_data" in end["text"]
    assert "it takes x, y, batch_size" in end["text"]
