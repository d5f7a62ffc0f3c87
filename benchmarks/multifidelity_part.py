"""What each part of the benchmark gives: tables, figures, results to keep, a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from common import Figure, machine, publish

__all__ = ["Part", "Rows", "keep", "print_table", "show"]

Rows = Sequence[Sequence[str]]  # the first one is the head


@dataclass(frozen=True, slots=True)
class Part:
    """One part that was measured. `name` names its files; `results` is plain JSON; `picture` is SVG."""

    name: str
    title: str
    figures: Sequence[Figure]
    tables: Sequence[Rows] = ()
    notes: Sequence[str] = ()
    results: Mapping[str, Any] = field(default_factory=dict)
    picture: str | None = None


def show(part: Part) -> None:
    """Print the tables, then the figures beside their targets."""
    print()
    for table in part.tables:
        print_table(table)
    publish(part.title, part.figures, None, part.notes)


def keep(part: Part, folder: Path) -> None:
    """Write the part's figures and results as JSON, and its picture."""
    folder.mkdir(exist_ok=True)
    content = {
        "title": part.title,
        "machine": machine(),
        "figures": [_plain(each) for each in part.figures],
        "notes": list(part.notes),
        "results": dict(part.results),
    }
    (folder / f"{part.name}.json").write_text(json.dumps(content, indent=1) + "\n")
    if part.picture is not None:
        (folder / f"{part.name}.svg").write_text(part.picture)


def _plain(figure: Figure) -> dict[str, Any]:
    """Return the figure for JSON, which has no infinity."""
    value = figure.value if math.isfinite(figure.value) else None
    return asdict(figure) | {"value": value, "verdict": figure.verdict}


def print_table(rows: Rows) -> None:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    print()
