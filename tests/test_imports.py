from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

from aiotune.executors.imports import Imports, import_hint

Clock = Callable[[], float]

_NAMES = ("heavy", "heavy.part", "light", "mine", "broken", "clock")


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Imports]:
    """Yield installed imports whose clock moves when a module says `clock.now += seconds`."""
    time = ModuleType("clock")
    vars(time)["now"] = 0.0
    monkeypatch.setattr(sys, "meta_path", list(sys.meta_path))
    monkeypatch.setitem(sys.modules, "clock", time)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path / "site-packages"))
    found = Imports(lambda: float(vars(time)["now"]))
    found.install()
    yield found
    for name in _NAMES:
        sys.modules.pop(name, None)


def write(path: Path, seconds: float, also: str = "") -> None:
    """Write a module that takes so long to import."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"import clock\nclock.now += {seconds}\n{also}\n")
    importlib.invalidate_caches()


def test_outermost_imports_are_counted_with_what_they_import(
    imports: Imports, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages"
    write(installed / "heavy" / "__init__.py", 1.0, "import light")
    write(installed / "heavy" / "part.py", 4.0)
    write(installed / "light.py", 2.0)
    importlib.import_module("heavy.part")
    importlib.import_module("light")
    assert imports.seconds == {"heavy": 3.0, "heavy.part": 4.0}


def test_modules_of_the_user_are_seen_through(imports: Imports, tmp_path: Path) -> None:
    write(tmp_path / "mine.py", 9.0, "import light")
    write(tmp_path / "site-packages" / "light.py", 2.0)
    importlib.import_module("mine")
    assert imports.seconds == {"light": 2.0}


def test_import_that_fails_is_counted_and_counting_goes_on(
    imports: Imports, tmp_path: Path
) -> None:
    installed = tmp_path / "site-packages"
    write(installed / "broken.py", 1.0, "raise ImportError('no')")
    write(installed / "light.py", 2.0)
    with pytest.raises(ImportError, match="no"):
        importlib.import_module("broken")
    importlib.import_module("light")
    assert imports.seconds == {"broken": 1.0, "light": 2.0}


def test_action_waits_for_the_import_also_within_another(imports: Imports, tmp_path: Path) -> None:
    installed = tmp_path / "site-packages"
    write(installed / "heavy.py", 1.0, "import light\nlight.done.append('heavy')")
    write(installed / "light.py", 2.0, "done = []")
    imports.after("light", lambda module: module.done.append("action"))
    assert importlib.util.find_spec("light") is not None  # looked for, not imported
    heavy = importlib.import_module("heavy")
    assert heavy.light.done == ["action", "heavy"]
    importlib.reload(heavy.light)
    assert heavy.light.done == []  # once only


def test_action_on_a_loaded_module_is_done_at_once(imports: Imports) -> None:
    seen: list[str] = []
    imports.after("sys", lambda module: seen.append(module.__name__))
    assert seen == ["sys"]


def test_loader_is_as_it_was_after_the_import(imports: Imports, tmp_path: Path) -> None:
    write(tmp_path / "site-packages" / "light.py", 2.0)
    imports.after("light", lambda module: None)
    loader = importlib.import_module("light").__spec__.loader
    assert "exec_module" not in vars(loader)
    assert "clock.now" in loader.get_source("light")  # type: ignore[union-attr]


def test_hint_names_what_was_slow_and_the_remedy() -> None:
    hint = import_hint({"torch": 5.4, "pandas": 1.9, "json": 0.01}, ("keras",))
    assert hint is not None
    assert "over 5 s importing torch, pandas" in hint
    assert 'preload=["keras", "torch", "pandas"]' in hint
    assert import_hint({"torch": 6.1, "pandas": 1.4, "json": 0.03}, ("keras",)) == hint


def test_no_hint_for_short_imports_nor_for_our_own() -> None:
    assert import_hint({}, ()) is None
    assert import_hint({"torch": 0.6, "pandas": 0.4}, ()) is None
    assert import_hint({"aiotune.tuners": 3.0, "pandas": 0.4}, ()) is None


def test_hint_for_many_short_imports_names_them() -> None:
    hint = import_hint({f"part{number:02}": 0.06 for number in range(20)}, ())
    assert hint is not None
    assert 'preload=["part00"' in hint
