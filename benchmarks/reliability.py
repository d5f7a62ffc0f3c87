"""Writes the figures of docs/reliability.md, from what the tests of fault injection have counted.

    python -m pytest tests/chaos --chaos --chaos-report=REPORT
    python benchmarks/reliability.py REPORT

`make chaos` does both. Only a whole run of the long versions in which nothing failed, and nothing was lost, is
written down; anything else leaves the page as it is, and ends with an error. What stands between the two marks
of the page is its own work: the last mark has a digest of it, and a test compares the two.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import re
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from common import machine

__all__ = ["PAGE", "Refusal", "figures_of", "is_untouched", "promises_of", "rendered", "replaced"]

PAGE = Path(__file__).parents[1] / "docs" / "reliability.md"

_BEGIN = "<!-- The figures: written by `make chaos`, never by hand. -->"
_END = "<!-- The end of the figures: {digest} -->"
_FIGURES = re.compile(
    f"{re.escape(_BEGIN)}\n(.*?){re.escape(_END).replace(re.escape('{digest}'), '([0-9a-f]*)')}",
    re.S,
)
_HEADING = re.compile(r"^## (.+)$", re.M)
_NO_PROMISES = {"Figures", "Replay"}  # headings of the page

Report = Mapping[str, Any]  # what `tests/support/chaos.py` writes


class Refusal(Exception):
    """The report is not one to be written down, and why."""


# --- the page ---


def promises_of(page: str) -> list[str]:
    """Return the headings under which the page makes promises."""
    return [each for each in _HEADING.findall(page) if each not in _NO_PROMISES]


def figures_of(page: str) -> str:
    """Return the part of the page that is written by this program."""
    return _parts(page)[0]


def is_untouched(page: str) -> bool:
    """Tell whether the figures are as this program has written them."""
    figures, digest = _parts(page)
    return digest == _digest(figures)


def replaced(page: str, figures: str) -> str:
    """Return the page with these figures in the place of its former ones."""
    _parts(page)  # there must be some
    new = f"{_BEGIN}\n{figures}{_END.format(digest=_digest(figures))}"
    return _FIGURES.sub(lambda _: new, page)


def _parts(page: str) -> tuple[str, str]:
    found = _FIGURES.search(page)
    if found is None:
        raise Refusal("the page has no place for figures: restore its two marks")
    return found[1], found[2]


def _digest(figures: str) -> str:
    return hashlib.sha256(figures.encode()).hexdigest()[:16]


# --- the figures ---


def rendered(report: Report, promises: Sequence[str], where: str, day: str) -> str:
    """Return the figures as Markdown. Refusal if the report is none of a whole, long run without losses."""
    _check(report, promises)
    session, tallies = report["session"], [(each, report["promises"][each]) for each in promises]
    parts = [
        [
            f"Last run: {day}, {session['seconds'] / 60:.0f} minutes, on {where}. All tests passed.",
            f"Seed: `--chaos-seed={session['seed']}`.",
        ],
        _table(("promise", "proven by", "faults and cases", "losses"), _summary(tallies)),
        _table(("promise", "fault or case", "times"), _faults(tallies)),
        _table(("promise", "figure", "value", "target", ""), _measures(tallies)),
    ]
    if session["skipped"]:
        names = ", ".join(f"`{each.rpartition('::')[2]}`" for each in session["skipped"])
        parts.append([f"Not possible on that machine: {names}."])
    return "".join("\n" + "\n".join(part) + "\n" for part in parts) + "\n"


def _check(report: Report, promises: Sequence[str]) -> None:
    session, tallies = report["session"], report["promises"]
    if not session["has_passed"]:
        raise Refusal("tests have failed")
    if not session["is_long"]:
        raise Refusal("these were the quick versions: run pytest with --chaos")
    if missing := [each for each in promises if each not in tallies]:
        raise Refusal(
            f"nothing was counted for {', '.join(map(repr, missing))}: run all of tests/chaos"
        )
    if lost := [each for each in promises if tallies[each]["losses"]]:
        raise Refusal(f"something was lost: {', '.join(map(repr, lost))}")


def _summary(tallies: Iterable[tuple[str, Any]]) -> Iterator[Sequence[str]]:
    for promise, tally in tallies:
        files = Counter(each.partition("::")[0] for each in tally["tests"])
        proof = ", ".join(f"`{path}` ({count})" for path, count in sorted(files.items()))
        total = sum(tally["faults"].values())
        yield f"[{promise}]({_anchor(promise)})", proof, f"{total:,}", str(tally["losses"])


def _faults(tallies: Iterable[tuple[str, Any]]) -> Iterator[Sequence[str]]:
    for promise, tally in tallies:
        for fault, times in sorted(tally["faults"].items()):
            if times:
                yield promise, fault, f"{times:,}"


def _measures(tallies: Iterable[tuple[str, Any]]) -> Iterator[Sequence[str]]:
    verdicts = {True: "met", False: "**missed**", None: ""}
    for promise, tally in tallies:
        for each in tally["measures"]:
            verdict = verdicts[each["is_met"]]
            yield promise, each["name"], each["value"], each["target"] or "", verdict


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(each.replace('|', '/') for each in row)} |" for row in lines]


def _anchor(heading: str) -> str:
    return "#" + heading.lower().replace(" ", "-")


# --- the command ---


def _where() -> str:
    told = machine()
    kernel = ".".join(platform.release().split(".")[:2])
    return (
        f"{told['cores']} cores of {told['processor']}, {platform.system()} {kernel}, Python "
        f"{told['python']}, SQLite {sqlite3.sqlite_version}, aiotune {told['aiotune']}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("report", type=Path, help="what pytest wrote for --chaos-report")
    parser.add_argument("--page", type=Path, default=PAGE)
    given = parser.parse_args()
    page = given.page.read_text()
    today = datetime.now(UTC).date().isoformat()
    try:
        figures = rendered(json.loads(given.report.read_text()), promises_of(page), _where(), today)
        written = replaced(page, figures)
    except Refusal as refusal:
        raise SystemExit(f"{given.page} is left as it is: {refusal}") from refusal
    unfinished = given.page.with_suffix(".new")
    unfinished.write_text(written)
    os.replace(unfinished, given.page)
    print(f"{given.page} has the figures of {today}")


if __name__ == "__main__":
    main()
