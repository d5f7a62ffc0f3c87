"""A fact as one line of strict JSON and back: what every store keeps."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from aiotune.errors import FatalTypeError, StoreUnreadable
from aiotune.events import Event, from_json, to_json

__all__ = ["decode_all", "encode"]


def encode(fact: Event) -> tuple[str, str]:
    """Return the fact's kind and its fields as JSON text, ASCII only.

    FatalTypeError for a fact that JSON cannot hold: it is refused before it is handed over.
    """
    kind, data = to_json(fact)
    try:
        return kind, json.dumps(data, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError) as error:
        raise FatalTypeError(
            f"{kind} cannot be stored: {error}. Use plain numbers, strings and lists: {data!r:.300}"
        ) from error


def decode_all(rows: Iterable[tuple[int, str, str]], source: object) -> Iterator[Event]:
    """Yield the fact of each (number, kind, JSON text), whose numbers must be 1, 2, 3, ...

    StoreUnreadable for a gap, a damaged fact, and a kind that only a newer version knows; it names
    `source`.
    """
    for expected, (number, kind, text) in enumerate(rows, start=1):
        if number != expected:
            raise StoreUnreadable(_damaged(source, f"fact {expected} is missing"))
        try:
            data = json.loads(text)
        except (TypeError, ValueError) as error:
            raise StoreUnreadable(_damaged(source, f"fact {number}: {error}")) from error
        try:
            yield from_json(kind, data)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise StoreUnreadable(
                f"{source}: fact {number} ({kind}) is unknown to this version of aiotune ({error})"
                f": upgrade aiotune, choose another project_name, or start over with overwrite=True"
            ) from error


def _damaged(source: object, what: str) -> str:
    return (
        f"{source} is damaged ({what}): restore a copy, choose another project_name, "
        f"or start over with overwrite=True"
    )
