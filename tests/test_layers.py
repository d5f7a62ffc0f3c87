"""The layer rules of docs/design.md, section 1, over the imports and the names of the package."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "aiotune"

# Ground first: a module, or a folder, imports only from what stands before it. The design has the same list.
LAYERS = (
    "printable errors version clock tasks collecting changing calling own_thread absent private_files "
    "engine src",
    "labels kinds space decoding hyperparameters",
    "objective constraints outcome metrics usage trial observations ranking schedule pareto layout checkpoints "
    "events history resources",
    "learning",
    "oracles",
    "pruners",
    "store",
    "devices",
    "executors",
    "recorder settlement conclusion room shared_error plan run_timer discovery spending end_rules asking "
    "run_queue inheritance run_usage assigning runner adoption scheduler simulation",
    "arguments lazy folds hypermodel frameworks applications",
    "program settings project processes child_self optuna_study results disk disk_budget retention event_log "
    "notebook observers search job retraining refitting",
    "tuner_hooks tuner_knowledge tuner_models tuner_results tuner_options tuner epochs_tuner sklearn_tuner "
    "model_based_tuners multifidelity_tuners population_tuners tuners",
    "kerastuner_json kerastuner_files kerastuner_objective kerastuner_points kerastuner_facts "
    "kerastuner_import cli_gpus cli __main__",
)
ORDER = " ".join(LAYERS).split()

HOMES: Mapping[str, tuple[str, ...]] = {
    "aiosqlite": ("store.sqlite",),
    "pynvml": ("devices.nvml",),
    "cloudpickle": ("executors.payload",),
    "threadpoolctl": ("executors.libraries", "learning.one_thread"),
    "rich": ("observers.progress", "cli"),
    "keras": ("frameworks", "applications"),
    "h5py": ("frameworks.hdf5",),
    "tensorflow": ("frameworks", "applications"),
    "jax": ("frameworks",),
    "torch": ("frameworks",),
    "sklearn": ("frameworks", "learning.trees"),
    "cmaes": ("learning.evolution",),
    "tensorboard": ("frameworks.keras_tensorboard",),
    "optuna": (
        "oracles.optuna",
        "oracles.optuna_axes",
        "oracles.optuna_mirror",
        "oracles.optuna_quiet",
        "oracles.optuna_samplers",
        "oracles.optuna_storage",
        "oracles.optuna_trials",
        "optuna_study",
    ),
}
EVERYWHERE = {"anyio", "numpy", "scipy"}

# Plain synchronous Python: a search can be simulated with no event loop.
SYNCHRONOUS = {*" ".join(LAYERS[1:4]).split()}


@dataclass(frozen=True)
class Import:
    """One import: of a module of the package, without `aiotune.`, or of another package."""

    module: str
    is_ours: bool


@cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the package by its dotted name without `aiotune.`; the package itself is ""."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"), str(path))
    return found


def imports_of(tree: ast.Module) -> Iterator[Import]:
    """Yield each import in the module, wherever it stands: in a function, or for type checkers alone."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                targets = [alias.name for alias in names]
            case ast.ImportFrom(level=0, module=str(module), names=names):
                targets = [_target(module, alias.name) for alias in names]
            case ast.ImportFrom():
                raise AssertionError(f"line {node.lineno}: write relative imports in full")
            case _:
                continue
        for target in targets:
            head, _, rest = target.partition(".")
            is_ours = head == "aiotune"
            yield Import(rest if is_ours else head, is_ours)


def _target(module: str, name: str) -> str:
    """Return what `from module import name` loads: the submodule `name`, or `module`."""
    full = f"{module}.{name}"
    return full if full.removeprefix("aiotune.") in modules() else module


def unit(module: str) -> str:
    """Return the file or folder of the package that the module belongs to."""
    return module.split(".")[0]


def names() -> list[str]:
    return [name for name in modules() if name]


def test_every_module_has_a_layer() -> None:
    assert {unit(name) for name in names()} <= set(ORDER)


def test_the_design_has_the_same_layers() -> None:
    text = (ROOT / "docs" / "design.md").read_text(encoding="utf-8")
    line = text.split("Layers, ground first:")[1].split(". A test over the imports")[0]
    assert [" ".join(group.split()) for group in line.split("->")] == list(LAYERS)


@pytest.mark.parametrize("name", names())
def test_a_module_imports_from_lower_layers_only(name: str) -> None:
    place = ORDER.index(unit(name))
    higher = {
        each.module
        for each in imports_of(modules()[name])
        if each.is_ours
        and unit(each.module) not in ("", unit(name))
        and ORDER.index(unit(each.module)) > place
    }
    assert not higher, f"{name} must not import {higher}"


def test_no_import_goes_in_a_circle() -> None:
    graph = {
        name: {each.module for each in imports_of(tree) if each.is_ours}
        for name, tree in modules().items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(f"a circle of imports: {' -> '.join(error.args[1])}")


def test_oracles_store_and_devices_are_blind_to_one_another() -> None:
    peers = {"oracles", "store", "devices"}
    seen = {
        (name, each.module)
        for name in names()
        if unit(name) in peers
        for each in imports_of(modules()[name])
        if each.is_ours and unit(each.module) in peers - {unit(name)}
    }
    assert not seen


@pytest.mark.parametrize("name", names())
def test_a_third_party_package_has_one_home(name: str) -> None:
    for each in imports_of(modules()[name]):
        package = each.module
        if each.is_ours or package in sys.stdlib_module_names or package in EVERYWHERE:
            continue
        homes = HOMES.get(package, ())
        assert name in homes or unit(name) in homes, f"{name} imports {package}; its home: {homes}"


def test_frameworks_are_imported_when_a_function_is_called() -> None:
    """The caller's process may import these modules; it must load no framework by that."""
    frameworks = {"keras", "tensorflow", "jax", "torch", "sklearn", "tensorboard"}
    for name, tree in modules().items():
        at_import = ast.Module([node for node in tree.body if not _is_type_block(node)], [])
        loaded = {
            each.module
            for node in at_import.body
            if isinstance(node, ast.Import | ast.ImportFrom)
            for each in imports_of(ast.Module([node], []))
        }
        assert not loaded & frameworks, name


def _is_type_block(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def test_what_must_be_synchronous_is() -> None:
    awaiting = (ast.AsyncFunctionDef, ast.Await, ast.AsyncWith, ast.AsyncFor)
    for name in names():
        if unit(name) not in SYNCHRONOUS:
            continue
        loops = {"anyio", "asyncio"} & {each.module for each in imports_of(modules()[name])}
        assert not loops, name
        assert not any(isinstance(node, awaiting) for node in ast.walk(modules()[name])), name


def test_time_is_read_in_one_place() -> None:
    """Children read their own clock for what they send up; everybody else is given one."""
    readers = {
        name
        for name, tree in modules().items()
        if any(each.module == "time" for each in imports_of(tree))
    }
    assert {name for name in readers if unit(name) != "executors"} == {"clock"}


def test_private_names_stay_in_their_file() -> None:
    defined = {name: set(_private_definitions(tree)) for name, tree in modules().items()}
    strangers = [
        f"{name} uses {used}"
        for name, tree in modules().items()
        for used in _private_uses(tree)
        if used not in defined[name]
        and any(used in theirs for other, theirs in defined.items() if other != name)
    ]
    assert not strangers


def _private_definitions(tree: ast.Module) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case (
                ast.FunctionDef(name=name)
                | ast.AsyncFunctionDef(name=name)
                | ast.ClassDef(name=name)
            ):
                yield name
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name
            case _:
                pass


def _private_uses(tree: ast.Module) -> Iterator[str]:
    """Yield the private names that the module imports, or reads as an attribute."""
    for node in ast.walk(tree):
        match node:
            case ast.ImportFrom(names=aliases):
                yield from (alias.name for alias in aliases if _is_private(alias.name))
            case ast.Attribute(attr=name, ctx=ast.Load()) if _is_private(name):
                yield name
            case _:
                pass


def _is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def test_the_rules_see_what_they_forbid() -> None:
    """The tests above pass on an empty list, too: their eyes are tested here."""
    tree = ast.parse(
        "from aiotune.store import base\n"
        "def f():\n"
        "    import aiotune.tuner\n"
        "    from aiotune.trial import Trial, _hidden\n"
        "    return Trial._secret\n"
        "if TYPE_CHECKING:\n"
        "    import keras.layers\n"
    )
    assert set(imports_of(tree)) == {
        Import("store.base", True),
        Import("tuner", True),
        Import("trial", True),
        Import("keras", False),
    }
    assert set(_private_uses(tree)) == {"_hidden", "_secret"}
