"""A fact as one line of strict JSON and back: what every store keeps."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

from aiotune.decoding import parse_json
from aiotune.errors import FatalTypeError, StoreUnreadable
from aiotune.events import Event, from_json, to_json

__all__ = ["decode_all", "encode"]

_Row = tuple[int, str, str]  # number, kind, JSON text

_NOT_UNDERSTOOD = (AttributeError, KeyError, TypeError, ValueError)
_AT_ONCE = 1000  # facts whose text is parsed together
# Between the texts. Nobody who writes a file knows it, so that no two texts can be made to pass for three.
_BETWEEN = secrets.token_hex(8)


def encode(fact: Event) -> tuple[str, str]:
    """Return the fact's kind and its fields as JSON text, ASCII only.

    FatalTypeError for a fact that JSON cannot hold, or that `decode_all` would refuse: no search could be
    resumed from it. So it is refused before it is handed over.
    """
    kind, data = to_json(fact)
    try:
        text = json.dumps(data, allow_nan=False, separators=(",", ":"))
        from_json(kind, parse_json(text))
        return kind, text
    except _NOT_UNDERSTOOD as error:
        raise FatalTypeError(
            f"{kind} cannot be stored: {error}. Use plain numbers, strings and lists: {data!r:.300}"
        ) from error


def decode_all(rows: Iterable[_Row], source: object) -> Iterator[Event]:
    """Yield the fact of each (number, kind, JSON text), whose numbers must be 1, 2, 3, ...

    StoreUnreadable for a gap, a damaged fact, and a kind that only a newer version knows; it names
    `source`.
    """
    remaining, first = iter(rows), 1
    while piece := list(islice(remaining, _AT_ONCE)):
        yield from _decoded_together(piece, first) or _decoded_alone(piece, first, source)
        first += len(piece)


def _decoded_together(piece: Sequence[_Row], first: int) -> list[Event] | None:
    """Return the facts, or None if something is wrong with one of them."""
    parsed = _parsed_together([text for _, _, text in piece])
    if parsed is None or [number for number, _, _ in piece] != list(
        range(first, first + len(piece))
    ):
        return None
    try:
        return [from_json(kind, data) for (_, kind, _), data in zip(piece, parsed, strict=True)]
    except _NOT_UNDERSTOOD:
        return None


def _decoded_alone(piece: Sequence[_Row], first: int, source: object) -> Iterator[Event]:
    """Yield fact after fact, up to the one that is wrong: StoreUnreadable, which names it."""
    for expected, (number, kind, text) in enumerate(piece, start=first):
        if number != expected:
            raise StoreUnreadable(_damaged(source, f"fact {expected} is missing"))
        yield _fact(kind, _parsed(text, number, source), number, source)


def _parsed_together(texts: Sequence[str]) -> list[Any] | None:
    """Return what each text holds, or None if one of them is damaged.

    Together they take half of the time that they take alone, and their names are kept once for all: a
    search has some hundred thousand reports, and the same names of metrics in each.
    """
    try:
        parsed = parse_json(f'["{_BETWEEN}",' + f',"{_BETWEEN}",'.join(texts) + "]")
    except (TypeError, ValueError):
        return None
    is_whole = len(parsed) == 2 * len(texts) and parsed[::2].count(_BETWEEN) == len(texts)
    return parsed[1::2] if is_whole else None


def _parsed(text: str, number: int, source: object) -> Any:
    try:
        return parse_json(text)
    except (TypeError, ValueError) as error:
        raise StoreUnreadable(_damaged(source, f"fact {number}: {error}")) from error


def _fact(kind: str, data: Any, number: int, source: object) -> Event:
    try:
        return from_json(kind, data)
    except _NOT_UNDERSTOOD as error:
        raise StoreUnreadable(
            f"{source}: fact {number} ({kind}) is unknown to this version of aiotune ({error})"
            f": upgrade aiotune, choose another project_name, or start over with overwrite=True"
        ) from error


def _damaged(source: object, what: str) -> str:
    return (
        f"{source} is damaged ({what}): restore a copy, choose another project_name, "
        f"or start over with overwrite=True"
    )
