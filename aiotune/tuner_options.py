"""Options of a tuner's constructor: what they may be."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any

from aiotune.errors import FatalTypeError, FatalValueError
from aiotune.layout import why_no_directory

__all__ = ["at_least_one", "below_directory", "refuse_idle", "strategy_factory"]


def refuse_idle(*, logger: object, tuner_id: object) -> None:
    """Raise FatalValueError for arguments of KerasTuner that would have no effect."""
    if logger is not None:
        raise FatalValueError(
            "logger has no effect: drop it. KerasTuner ignores it as well; observers=[function] is shown every "
            "fact of a search"
        )
    if tuner_id is not None:
        raise FatalValueError(
            "tuner_id has no effect: drop it. There are no workers to tell apart: one program runs "
            "max_concurrent_trials= at a time"
        )


def strategy_factory(distribution_strategy: Any) -> Any:
    """Return the argument if it is None or makes a strategy. FatalTypeError for a strategy itself."""
    if distribution_strategy is None or callable(distribution_strategy):
        return distribution_strategy
    name = type(distribution_strategy).__name__
    raise FatalTypeError(
        f"distribution_strategy is a {name} of this process, but models are trained in child processes: pass a "
        f"function that makes one there, distribution_strategy=lambda: tf.distribute.{name}(), say"
    )


def below_directory(project_name: str) -> str:
    """Return the name if it leads to a place below the tuner's `directory`. FatalValueError for any other.

    A program may take the name from others, and everything in that place is the search's to write and delete.
    """
    if "\0" not in project_name and (reason := why_no_directory(project_name)):
        raise FatalValueError(f"project_name={project_name!r}: {reason}; choose another name")
    path = PurePath(project_name)
    if path.is_absolute() or ".." in path.parts or "\0" in project_name:
        raise FatalValueError(
            f"project_name={project_name!r} leads out of directory=: give the place there, a plain name here"
        )
    return project_name


def at_least_one(name: str, value: int) -> int:
    """Return the value if it is a whole number, 1 or more. FatalValueError for any other."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise FatalValueError(f"{name}={value!r}: it must be a whole number, 1 or more")
    return value
