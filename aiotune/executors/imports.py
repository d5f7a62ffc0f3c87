"""What happens as modules are imported in a run: some are set right afterwards, and the time is counted."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import os
import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from types import ModuleType
from typing import Any

from aiotune.executors.mentions import FRAMEWORKS

__all__ = ["Imports", "import_hint", "preloaded_frameworks"]

Action = Callable[[Any], object]

_STEPS = (1, 2, 5, 10, 20, 50, 100)  # seconds that a hint tells
_SMALL_SHARE = 0.1  # of the time; modules below it are not worth a preload
_MOST_NAMES = 5
_STDLIB = os.path.dirname(os.__file__) + os.sep
_INSTALLED = (f"{os.sep}site-packages{os.sep}", f"{os.sep}dist-packages{os.sep}")
# Each has a loader of its own for each module, so that the loader can be changed for one import.
_TIMED_LOADERS = (
    importlib.machinery.SourceFileLoader,
    importlib.machinery.SourcelessFileLoader,
    importlib.machinery.ExtensionFileLoader,
)


class Imports(importlib.abc.MetaPathFinder):
    """The first finder of this process: it calls what waits for a module, and counts seconds.

    `seconds` has the outermost imports by module. What a package imports in turn is counted with the package,
    and costs no more than a look. A module of the user's own is no import to count, but those in it are: the
    fork server can import an installed package only, for it runs no user code.
    """

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.seconds: dict[str, float] = {}
        self._clock = clock
        self._waiting: dict[str, list[Action]] = {}
        self._is_counting = False  # an outermost import is in progress, in whichever thread

    def install(self) -> None:
        sys.meta_path.insert(0, self)

    def after(self, name: str, action: Action) -> None:
        """Call `action(module)` now if the module is loaded, else right after its first import."""
        module = sys.modules.get(name)
        if module is None:
            self._waiting.setdefault(name, []).append(action)
        else:
            action(module)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if self._is_counting and fullname not in self._waiting:
            return None
        spec = _spec_of_others(self, fullname, path, target)
        if spec is not None and spec.loader is not None:
            if not self._is_counting and _is_worth_counting(spec):
                _wrap(spec.loader, self._counted)
            if fullname in self._waiting:
                _wrap(spec.loader, self._followed)
        return spec

    def _counted(self, execute: Action, module: ModuleType) -> None:
        if self._is_counting:  # found before, executed within another import
            execute(module)
            return
        self._is_counting = True
        begin = self._clock()
        try:
            execute(module)
        finally:
            self._is_counting = False
            name = module.__name__
            self.seconds[name] = self.seconds.get(name, 0.0) + self._clock() - begin

    def _followed(self, execute: Action, module: ModuleType) -> None:
        execute(module)
        # Taken here and not when it was found: a program may look for a module and not import it.
        for action in self._waiting.pop(module.__name__, ()):
            action(module)


def import_hint(seconds: Mapping[str, float], preloaded: Collection[str]) -> str | None:
    """Return what to say to the user of these import times; None if they are short.

    `preloaded` are the modules that an explicit `preload` has to name as well, since it replaces the default.
    The time is told in steps, so that all runs of a search say the same.
    """
    counted = {name: each for name, each in seconds.items() if not name.startswith("aiotune.")}
    total = sum(counted.values())
    passed = [step for step in _STEPS if total > step]
    if not passed:
        return None
    slow = [name for name, each in counted.items() if each >= _SMALL_SHARE * total]
    slow = sorted(slow, key=lambda name: -counted[name])[:_MOST_NAMES] or sorted(counted)
    names = [*preloaded, *(name for name in slow if name not in preloaded)]
    listed = ", ".join(f'"{name}"' for name in names)
    return (
        f"each run spends over {passed[-1]} s importing {', '.join(slow)}: pass preload=[{listed}] to the "
        "tuner, and they are imported once for all runs"
    )


def preloaded_frameworks() -> tuple[str, ...]:
    """Return the frameworks that this process has loaded; a backend that Keras loads itself is left out."""
    loaded = sorted(FRAMEWORKS & sys.modules.keys())
    config: Any = getattr(sys.modules.get("keras"), "config", None)
    backend = config.backend() if config is not None else None
    return tuple(name for name in loaded if name != backend)


def _spec_of_others(
    own: Imports, fullname: str, path: Sequence[str] | None, target: ModuleType | None
) -> importlib.machinery.ModuleSpec | None:
    for finder in list(sys.meta_path):
        find_spec = getattr(finder, "find_spec", None)  # an old one has none
        if finder is not own and find_spec is not None:
            spec: importlib.machinery.ModuleSpec | None = find_spec(fullname, path, target)
            if spec is not None:
                return spec
    return None


def _is_worth_counting(spec: importlib.machinery.ModuleSpec) -> bool:
    """Tell whether it is an installed module, of a file."""
    origin = spec.origin or ""
    is_installed = origin.startswith(_STDLIB) or any(each in origin for each in _INSTALLED)
    return is_installed and isinstance(spec.loader, _TIMED_LOADERS)


def _wrap(loader: Any, around: Callable[[Action, ModuleType], None]) -> None:
    """Have `around(execute, module)` called when this one loader object executes its module next.

    A loader around it would lack its resource methods. It is as it was once it has executed.
    """
    execute = loader.exec_module
    before = vars(loader).get("exec_module")

    def execute_once(module: ModuleType) -> None:
        if before is None:
            del loader.exec_module
        else:
            loader.exec_module = before
        around(execute, module)

    loader.exec_module = execute_once
