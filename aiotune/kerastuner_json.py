"""What stands in a JSON file of KerasTuner's, made sure of: the file may be torn, or somebody else's.

Each function returns what it was asked for or raises ValueError, and OSError for what cannot be read.
"""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from aiotune.private_files import read_bytes

__all__ = [
    "a_plan",
    "a_step",
    "a_text_or_none",
    "a_time",
    "an_object",
    "ids_of",
    "read_object",
    "values_at",
]

_MOST_BYTES = 2**27  # of a file
_MOST_STEPS = 2**53
_MOST_EXECUTIONS = 1000  # of one trial: each becomes a run
_MOST_EPOCHS = 10**9


def read_object(path: Path) -> dict[str, Any]:
    """Return the object in the file. NaN and Infinity are there, in spite of JSON. Links are not followed."""
    try:
        return an_object(json.loads(read_bytes(path, _MOST_BYTES).decode()))
    except RecursionError:
        raise ValueError("it is nested too deep") from None


def an_object(value: Any) -> dict[str, Any]:
    """Return a JSON object."""
    if not isinstance(value, dict):
        raise ValueError(f"a JSON object is needed, not {type(value).__name__}")
    return value


def ids_of(value: Any) -> list[str]:
    """Return ids of trials; none for None."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
        raise ValueError(f"{value!r:.100} is no list of ids")
    return value


def a_step(value: Any) -> int:
    """Return a step; KerasTuner writes none for the only one."""
    step = 0 if value is None else value
    if type(step) is not int or not 0 <= step < _MOST_STEPS:
        raise ValueError(f"{value!r:.100} is no step")
    return step


def a_text_or_none(value: Any) -> str | None:
    """Return text; None for anything else."""
    return value if isinstance(value, str) else None


def values_at(value: Any) -> tuple[float, ...]:
    """Return what was measured at one step, a number for each execution: numbers that have a mean."""
    listed = value if isinstance(value, list) else [value]
    if not 0 < len(listed) <= _MOST_EXECUTIONS:
        raise ValueError(f"{len(listed)} executions are none, or too many")
    if not all(type(each) in (int, float) for each in listed):
        raise ValueError(f"{value!r:.100} is no number")
    try:
        numbers = tuple(map(float, listed))
        statistics.fmean(numbers)
    except OverflowError:
        raise ValueError(f"{value!r:.100} is too large") from None
    return numbers


def a_time(state: Mapping[str, Any], trial_id: str) -> float | None:
    """Return when the trial began, in seconds since 1970; KerasTuner notes the local time, if any."""
    display = an_object(state.get("display") or {})
    text = an_object(display.get("trial_start") or {}).get(trial_id)
    if text is None:
        return None
    try:
        return datetime.fromisoformat(text).timestamp()
    except (TypeError, OverflowError) as error:
        raise ValueError(f"{text!r:.100} is no time") from error


def a_plan(state: Mapping[str, Any]) -> tuple[int, int, int] | None:
    """Return Hyperband's max_epochs, factor and iterations; None if there are none, or of another kind."""
    epochs: Any = state.get("max_epochs")
    factor: Any = state.get("factor")
    iterations = state.get("hyperband_iterations") or 1
    numbers = (epochs, factor, 1 if iterations == math.inf else iterations)
    if any(type(each) not in (int, float) or not 1 <= each <= _MOST_EPOCHS for each in numbers):
        return None
    if epochs != int(epochs) or factor != int(factor) or factor < 2:
        return None
    return int(epochs), int(factor), int(numbers[2])
