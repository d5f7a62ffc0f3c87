from __future__ import annotations

import multiprocessing
import pickle
import sys
from types import ModuleType

import pytest

from aiotune.errors import FatalRuntimeError
from aiotune.executors.main_module import (
    MainGlobals,
    MainModule,
    is_definition_of_main,
    main_globals,
    names_set_by,
    refuse_import_of_main,
)


@pytest.fixture(autouse=True)
def main(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Have a `__main__` of our own for the test."""
    module = ModuleType("__main__")
    monkeypatch.setitem(sys.modules, "__main__", module)
    return module


def test_entered_module_says_where_the_program_came_from() -> None:
    MainModule("package.prog", "/package/prog.py", "package").enter()
    main = sys.modules["__main__"]
    assert main.__spec__ is not None
    assert (main.__name__, main.__spec__.name, main.__file__, main.__package__) == (
        "__main__",
        "package.prog",
        "/package/prog.py",
        "package",
    )
    assert MainModule.current() == MainModule("package.prog", "/package/prog.py", "package")


def test_program_without_a_file_has_none() -> None:
    MainModule(None, None, None).enter()
    assert not hasattr(sys.modules["__main__"], "__file__")
    assert sys.modules["__main__"].__spec__ is None
    assert MainModule.current() == MainModule(None, None, None)


def test_globals_are_those_of_the_process_that_unpickles(main: ModuleType) -> None:
    assert pickle.loads(pickle.dumps(MainGlobals())) is vars(main)


def test_names_that_a_function_sets_are_found(main: ModuleType) -> None:
    vars(main).update(kept=1, changed=2, mutated=[])

    def function() -> None:
        main_globals().update(changed=3, new=4)
        main_globals()["mutated"].append(5)

    assert dict(names_set_by(function)) == {"changed": 3, "new": 4}


def test_definitions_of_main_are_under_their_own_name(main: ModuleType) -> None:
    exec("def function(): pass\nclass Kind: pass\nother = function\nnumber = 1", vars(main))
    exec("def local():\n    def inner(): pass\n    return inner\ninner = local()", vars(main))
    names = vars(main)
    assert is_definition_of_main(names["function"])
    assert is_definition_of_main(names["Kind"])
    assert not is_definition_of_main(names["inner"])
    assert not is_definition_of_main(names["number"])
    assert not is_definition_of_main(MainModule)


def test_worker_that_imports_the_program_must_not_search(monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_import_of_main()
    monkeypatch.setattr(
        multiprocessing.process.current_process(), "_inheriting", True, raising=False
    )
    with pytest.raises(FatalRuntimeError, match="__main__"):
        refuse_import_of_main()
