"""`__main__` in a run: as far as user code can tell, the caller's program.

Functions and classes of the caller's `__main__` travel by value. In a run they live in its `__main__` again, so
that `global` statements meet, and so that `pickle` and `multiprocessing` find them by their names.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any, Self

from aiotune.errors import FatalRuntimeError

__all__ = [
    "MainGlobals",
    "MainModule",
    "is_definition_of_main",
    "main_globals",
    "names_set_by",
    "refuse_import_of_main",
]

MAIN = "__main__"
_ABSENT = object()
_replaced: list[ModuleType] = []  # kept, for code of theirs is running


@dataclass(frozen=True, slots=True)
class MainModule:
    """Where the caller's program came from: what `multiprocessing` needs to import it in a new interpreter.

    `name` is set under `python -m name`, `path` for a script; neither in a notebook.
    """

    name: str | None
    path: str | None
    package: str | None

    @classmethod
    def current(cls) -> Self:
        main = sys.modules[MAIN]
        spec = getattr(main, "__spec__", None)
        return cls(
            name=getattr(spec, "name", None),
            path=getattr(main, "__file__", None),
            package=getattr(main, "__package__", None),
        )

    def to_frame(self) -> dict[str, Any]:
        return asdict(self)

    def enter(self) -> None:
        """Replace this process's `__main__`."""
        module = ModuleType(MAIN)
        module.__package__ = self.package
        if self.path is not None:
            module.__file__ = self.path
        if self.name is not None:
            module.__spec__ = ModuleSpec(self.name, None, origin=self.path)
        _replaced.append(sys.modules[MAIN])
        sys.modules[MAIN] = module


class MainGlobals:
    """Stands, in a pickle, for the names of `__main__` in the process that unpickles it."""

    def __reduce__(self) -> tuple[Callable[[], dict[str, Any]], tuple[()]]:
        return main_globals, ()


def main_globals() -> dict[str, Any]:
    """Return the names of `__main__` in this process."""
    return vars(sys.modules[MAIN])


def refuse_import_of_main() -> None:
    """Raise FatalRuntimeError if `multiprocessing` imports the program to begin a worker in this process.

    Such a worker would begin the search that it is to serve. Python makes the same test, of the same attribute,
    before a worker starts another.
    """
    multiprocessing: Any = sys.modules.get("multiprocessing.process")
    if multiprocessing is not None and getattr(
        multiprocessing.current_process(), "_inheriting", False
    ):
        raise FatalRuntimeError(
            "multiprocessing imports this program to begin a worker: put the search, and what else only "
            'the program itself should do, below `if __name__ == "__main__":`'
        )


def is_definition_of_main(thing: object) -> bool:
    """Tell whether it is a function or class that `__main__` has under its own name."""
    if not isinstance(thing, type | FunctionType) or thing.__module__ != MAIN:
        return False
    return main_globals().get(thing.__qualname__) is thing


def names_set_by(function: Callable[[], object]) -> Mapping[str, Any]:
    """Call the function and return the names of `__main__` that it set, with their values."""
    before = dict(main_globals())
    function()
    return {
        name: value
        for name, value in main_globals().items()
        if before.get(name, _ABSENT) is not value
    }
