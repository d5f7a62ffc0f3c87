"""The tasks that the quality of a search is measured on: what a task is, and the list of all.

They were chosen, and committed, before anything was tuned on them. `quality_functions` has those that are
formulas, `quality_tables` those that were recorded once. No module of these imports aiotune, so that a peer can
run them in an environment of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

__all__ = ["Hyper", "Kind", "Measured", "Task", "measure", "tasks"]


class Hyper(Protocol):
    """What a task declares its names on: the part that aiotune and KerasTuner have in common."""

    def Float(  # noqa: N802
        self,
        name: str,
        min_value: float,
        max_value: float,
        step: Any = None,
        sampling: Any = "linear",
    ) -> Any: ...

    def Int(  # noqa: N802
        self, name: str, min_value: int, max_value: int, step: Any = None, sampling: Any = "linear"
    ) -> Any: ...

    def Choice(self, name: str, values: Sequence[Any], ordered: Any = None) -> Any: ...  # noqa: N802

    def Boolean(self, name: str) -> Any: ...  # noqa: N802

    def conditional_scope(
        self, parent_name: str, parent_values: Any
    ) -> AbstractContextManager[Any]: ...


class Kind(StrEnum):
    """What is hard about a task, beyond its landscape."""

    ORDINARY = "ordinary"  # numbers and categories; none of what follows
    NOISY = "noisy"
    CONDITIONAL = "conditional"
    FAILING = "failing"


@dataclass(frozen=True, slots=True)
class Task:
    """A program to minimise: it declares its names and returns its value. NaN and MemoryError are failures.

    optimum: the lowest value that there is. best: a point that has it (to 1e-6). noise: the standard deviation
    of what is observed beside the value.
    """

    name: str
    kind: Kind
    program: Callable[[Any], float]
    optimum: float
    best: Mapping[str, Any]
    noise: float = 0.0


@dataclass(frozen=True, slots=True)
class Measured:
    """What one trial gave. `observed` is what the search is told, `value` is without noise; None: it failed."""

    value: float | None
    observed: float | None
    failure: str | None = None  # "out of memory" or "nan"


def measure(task: Task, hp: Hyper, seed: int, trial: int) -> Measured:
    """Run the program. The noise depends on task, seed and trial alone: all contenders meet the same."""
    try:
        value = float(task.program(hp))
    except MemoryError:
        return Measured(None, None, "out of memory")
    if math.isnan(value):
        return Measured(None, None, "nan")
    noise = random.Random(f"{task.name}/{seed}/{trial}").gauss(0.0, 1.0)
    return Measured(value, value + task.noise * noise)


def tasks(names: Sequence[str] | None = None) -> list[Task]:
    """Return the tasks of these names, or all. ValueError with the names that there are."""
    from quality_functions import FUNCTIONS
    from quality_tables import TABLES

    known = {each.name: each for each in (*FUNCTIONS, *(table.task() for table in TABLES))}
    unknown = [name for name in names or () if name not in known]
    if unknown:
        raise ValueError(f"there is no task {unknown[0]!r}; there are: {', '.join(known)}")
    return [known[name] for name in names] if names else list(known.values())
