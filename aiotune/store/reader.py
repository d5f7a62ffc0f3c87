"""Reading a project's facts synchronously: before a search, or beside one in progress."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from aiotune.errors import StoreUnreadable
from aiotune.events import Event, SearchOpened
from aiotune.store.database import reading, version_of
from aiotune.store.encoding import decode_all

__all__ = ["Meta", "read_facts", "read_meta"]


@dataclass(frozen=True, slots=True)
class Meta:
    """What can be said of a project without reading all its facts."""

    schema: int  # version of the tables; 0 if there are none yet
    facts: int  # how many
    opened: SearchOpened | None  # the latest opening


def read_facts(path: Path) -> list[Event]:
    """Return every fact in order; none if the file is not there. StoreUnreadable.

    One read-only look that sees a live writer's latest commit, never blocks it and changes nothing.
    """
    if not _is_there(path):
        return []
    with reading(path) as connection:
        if version_of(connection, path) == 0:
            return []
        rows = connection.execute("SELECT seq, kind, data FROM events ORDER BY seq")
        return list(decode_all(rows, path))


def read_meta(path: Path) -> Meta | None:
    """Return what `Meta` says of the project; None if the file is not there. StoreUnreadable."""
    if not _is_there(path):
        return None
    with reading(path) as connection:
        version = version_of(connection, path)
        if version == 0:
            return Meta(schema=0, facts=0, opened=None)
        facts = connection.execute("SELECT coalesce(max(seq), 0) FROM events").fetchone()[0]
        rows = connection.execute(
            "SELECT 1, kind, data FROM events WHERE kind = 'SearchOpened' ORDER BY seq DESC LIMIT 1"
        )
        openings = list(decode_all(rows, path))
    opened = openings[0] if openings and isinstance(openings[0], SearchOpened) else None
    return Meta(schema=version, facts=facts, opened=opened)


def _is_there(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise StoreUnreadable(
            f"{path} cannot be read ({error.strerror}): check its rights"
        ) from error
