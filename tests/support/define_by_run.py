"""Random programs that declare names as they run, and by brute force the points that each can reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from aiotune.hyperparameters import HyperParameters
from aiotune.space import Scalar

Point = dict[str, Scalar]


@dataclass(frozen=True)
class Name:
    """Declares a name of a few values. It may occur in several places, with one range."""

    name: str
    size: int

    def run(self, hp: HyperParameters) -> Scalar:
        match self.size:
            case 1:
                return hp.Fixed(self.name, "one")  # type: ignore[no-any-return]
            case 2:
                return hp.Boolean(self.name, default=True)  # type: ignore[no-any-return]
            case _:
                return hp.Int(self.name, 1, self.size, default=2)  # type: ignore[no-any-return]

    @property
    def options(self) -> tuple[Scalar, ...]:
        match self.size:
            case 1:
                return ("one",)
            case 2:
                return (True, False)
            case _:
                return tuple(range(1, self.size + 1))

    def walk(self, point: Point, scope: str) -> Iterator[Point]:
        name = scope + self.name
        if name in point:
            yield point
        else:
            yield from (point | {name: option} for option in self.options)


@dataclass(frozen=True)
class Block:
    """Statements under a condition: a plain `if`, or a conditional scope with names of its own.

    In a scope names are declared whether it holds or not, as they are in programs.
    """

    parent: Name
    option: int
    is_scope: bool
    body: tuple[Statement, ...]

    @property
    def wanted(self) -> Scalar:
        return self.parent.options[self.option % len(self.parent.options)]

    def run(self, hp: HyperParameters) -> None:
        is_wanted = self.parent.run(hp) == self.wanted
        with ExitStack() as scopes:
            if self.is_scope:
                scopes.enter_context(hp.conditional_scope(self.parent.name, [self.wanted]))
                scopes.enter_context(hp.name_scope(self.parent.name))
            for each in self.body:
                if is_wanted or (self.is_scope and isinstance(each, Name)):
                    each.run(hp)

    def walk(self, point: Point, scope: str) -> Iterator[Point]:
        inner = f"{scope}{self.parent.name}/" if self.is_scope else scope
        for at in self.parent.walk(point, scope):
            is_wanted = at[scope + self.parent.name] == self.wanted
            yield from paths(self.body, at, inner) if is_wanted else [at]


@dataclass(frozen=True)
class Loop:
    """A name with a number for each round: the rounds are an Int."""

    name: str
    most: int
    body: Name

    def run(self, hp: HyperParameters) -> None:
        for index in range(hp.Int(self.name, 0, self.most)):
            Name(f"{self.body.name}_{index}", self.body.size).run(hp)

    def walk(self, point: Point, scope: str) -> Iterator[Point]:
        name = scope + self.name
        known = [point[name]] if name in point else range(self.most + 1)
        for rounds in known:
            assert isinstance(rounds, int)
            body = [Name(f"{self.body.name}_{index}", self.body.size) for index in range(rounds)]
            yield from paths(body, point | {name: rounds}, scope)


Statement = Name | Block | Loop


def paths(
    program: Sequence[Statement], point: Point | None = None, scope: str = ""
) -> Iterator[Point]:
    """Yield every point that the program can reach from `point`."""
    if not program:
        yield point or {}
        return
    for at in program[0].walk(point or {}, scope):
        yield from paths(program[1:], at, scope)


def declaration(program: Sequence[Statement]) -> Callable[[HyperParameters], None]:
    """Return the program as a function that declares its names."""

    def declare(hp: HyperParameters) -> None:
        for each in program:
            each.run(hp)

    return declare
