"""The public face: what `aiotune` offers, that it is described, and that importing it costs little."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import aiotune
from tests.support.programs import run_program

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aiotune"
FRAMEWORKS = (
    "tensorflow",
    "keras",
    "jax",
    "torch",
    "sklearn",
    "scipy",
    "rich",
    "aiosqlite",
    "pynvml",
)
PUBLIC = sorted(set(aiotune.__all__) - {"__version__"})


def test_importing_it_loads_no_framework() -> None:
    loaded = json.loads(
        run_program("import json, sys, aiotune; print(json.dumps(sorted(sys.modules)))")
    )
    assert "aiotune" in loaded
    assert not set(loaded) & set(FRAMEWORKS)


def test_a_tuner_loads_no_framework(tmp_path: Path) -> None:
    loaded = run_program(
        """
        import json, sys
        import aiotune
        aiotune.RandomSearch(lambda hp: None, "val_accuracy", directory=sys.argv[1])
        print(json.dumps(sorted(sys.modules)))
        """,
        tmp_path,
    )
    assert not set(json.loads(loaded)) & {"tensorflow", "keras", "jax", "torch", "sklearn"}


@pytest.mark.parametrize("name", aiotune.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(aiotune, name) is not None
    assert name in dir(aiotune)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="'aiotune' has no attribute 'Nothing'"):
        aiotune.Nothing  # noqa: B018


def test_type_checkers_see_the_same_names() -> None:
    """The lazy table and the imports for type checkers must not drift apart."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text(encoding="utf-8"))
    block = next(node for node in tree.body if isinstance(node, ast.If))
    seen = {
        alias.asname
        for node in block.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen | {"__version__"} == set(aiotune.__all__)


@pytest.mark.parametrize("name", PUBLIC)
def test_the_docs_name_it(name: str) -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages if page.name != "design.md")
    assert f"`{name}`" in text or f"aiotune.{name}" in text or f"`{name}(" in text


def test_the_version_is_in_the_changelog() -> None:
    assert aiotune.__version__ in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")


def _module_names() -> Iterator[str]:
    for path in sorted(PACKAGE.rglob("*.py")):
        # Neither engine nor src can be imported: they say what to write instead.
        if path.name not in ("__init__.py", "version.py", "engine.py", "src.py"):
            yield ".".join(path.relative_to(ROOT).with_suffix("").parts)


@pytest.mark.parametrize("module_name", list(_module_names()))
def test_what_a_module_exports_exists_and_is_described(module_name: str) -> None:
    module = importlib.import_module(module_name)
    assert module.__doc__, "the module has no docstring"
    for name in module.__all__:
        exported = getattr(module, name)  # AttributeError: it is listed, but not there
        if inspect.isclass(exported) and issubclass(exported, BaseException):
            continue
        if inspect.isfunction(exported) or inspect.isclass(exported):
            assert has_docstring(exported), f"{module_name}.{name} has no docstring"


def has_docstring(exported: object) -> bool:
    """Tell whether it has a docstring of its own, not the one that a dataclass is given."""
    text = getattr(exported, "__doc__", None) or ""
    return bool(text) and not text.startswith(f"{getattr(exported, '__name__', '')}(")


@pytest.mark.parametrize("name", [each for each in PUBLIC if each[0].isupper()])
def test_every_public_method_is_described(name: str) -> None:
    exported = getattr(aiotune, name)
    assert inspect.isclass(exported)
    for attribute, value in vars(exported).items():
        if inspect.isfunction(value) and not attribute.startswith("_"):
            assert inspect.getdoc(value), f"{name}.{attribute} has no docstring"


def test_the_package_says_that_it_is_typed() -> None:
    assert (PACKAGE / "py.typed").exists()
