"""Which modules an object that is being pickled refers to, directly or through the module it lives in."""

from __future__ import annotations

import dis
import sys
from collections.abc import Iterator
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType

__all__ = ["FRAMEWORKS", "mentioned_frameworks"]

FRAMEWORKS = frozenset({"tensorflow", "keras", "jax", "torch", "sklearn"})


def mentioned_frameworks(thing: object) -> Iterator[str]:
    """Yield the frameworks that one pickled object names; it does not descend into the object.

    A function or class of the user's own module counts for what that module has imported: the child imports
    the module as a whole.
    """
    for module in _modules(thing):
        name = module.partition(".")[0]
        if name in FRAMEWORKS:
            yield name
        elif module != "__main__" and name not in sys.stdlib_module_names and name != "aiotune":
            yield from _imported_by(module)


def _modules(thing: object) -> Iterator[str]:
    match thing:
        case ModuleType():
            yield thing.__name__
        case CodeType():
            for instruction in dis.get_instructions(thing):
                if instruction.opname == "IMPORT_NAME":
                    yield str(instruction.argval)
        case type() | FunctionType() | BuiltinFunctionType():
            yield str(thing.__module__ or "")


def _imported_by(module: str) -> Iterator[str]:
    """Yield the frameworks that the globals of a loaded module come from."""
    for value in list(vars(sys.modules.get(module, ModuleType(""))).values()):
        origin = value.__name__ if isinstance(value, ModuleType) else _home_of(value)
        name = origin.partition(".")[0]
        if name in FRAMEWORKS:
            yield name


def _home_of(value: object) -> str:
    is_definition = isinstance(value, type | FunctionType)
    return str(getattr(value, "__module__", None) or "") if is_definition else ""
