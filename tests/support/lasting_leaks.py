"""What a program that went on for long holds more of than before, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.support.lasting import Snapshot

__all__ = ["MOST_GROWTH_BYTES", "Findings", "growing", "left_over", "swollen"]

MOST_GROWTH_BYTES = 20e6  # of the caller, from the first look to the last
MOST_HELPER_GROWTH_BYTES = 5e6
MOST_WORKERS = 40  # threads that anyio keeps for a while

# Of what is in flight at one moment, and not at another.
OBJECTS_IN_FLIGHT = 40
DESCRIPTORS_IN_FLIGHT = 4
OBJECTS_OF_A_WORKER = 8  # locks, queue, context

# Classes remember which others they were compared with, and weak references to tasks go some time after those.
UNCOUNTED = {"weakref.ReferenceType", "builtins.builtin_function_or_method"}
# A search keeps its facts, and what follows from them, in memory: so much of each trial.
FACTS = (
    *("aiotune.trial.", "aiotune.observations.", "aiotune.events."),
    *("aiotune.oracles.tried.", "aiotune.oracles.ladder.", "aiotune.oracles.hyperband."),
    "aiotune.pruners.standings.",
    *("builtins.dict", "builtins.list", "builtins.tuple"),
)


@dataclass(frozen=True)
class Findings:
    """What a program has told. times: milliseconds of a trial, of the first and of the last, in turns."""

    faults: Mapping[str, int]
    wrong: Sequence[str]
    before: Snapshot
    between: Sequence[Snapshot]
    after: Snapshot
    times: Sequence[tuple[float, float]]


def left_over(found: Findings) -> Iterator[str]:
    """Yield, in words, what the process holds after its work that it did not hold before."""
    before, after = found.before, found.after
    for name in ("descriptors", "threads", "tasks"):
        if getattr(before, name) != getattr(after, name):
            yield f"{name}: {getattr(before, name)}, and then {getattr(after, name)}"
    if after.runs:
        yield f"{after.runs} processes of runs"
    if after.workers > MOST_WORKERS:
        yield f"{after.workers} threads of the pool"
    if before.helpers.keys() != after.helpers.keys():
        yield f"helpers: {sorted(before.helpers)}, and then {sorted(after.helpers)}"
    for name in before.helpers.keys() & after.helpers.keys():
        former, helper = before.helpers[name], after.helpers[name]
        if (helper.descriptors, helper.threads) != (former.descriptors, former.threads):
            yield f"{name}: {former}, and then {helper}"
    new_workers = max(0, after.workers - before.workers)
    most = min(max(after.done // 2, 4), OBJECTS_IN_FLIGHT) + OBJECTS_OF_A_WORKER * new_workers
    for kind, growth in grown(before, after).items():
        if growth > most:
            yield f"{growth} more of {kind}"


def growing(found: Findings) -> Iterator[str]:
    """Yield, in words, what a search holds more of with each trial, but for facts."""
    first, last = found.between[0], found.between[-1]
    for kind, growth in grown(first, last).items():
        if growth > OBJECTS_IN_FLIGHT and not kind.startswith(FACTS):
            yield f"{growth} more of {kind} in the search"
    half = len(found.between) // 2
    early, late = found.between[:half], found.between[half:]
    for name, tolerance in {"descriptors": DESCRIPTORS_IN_FLIGHT, "threads": 0, "tasks": 4}.items():
        numbers = [min(number_of(each, name) for each in part) for part in (early, late)]
        if numbers[1] > numbers[0] + tolerance:
            yield f"{name} in the search: {numbers[0]}, and later {numbers[1]}"
    for name in first.helpers.keys() & last.helpers.keys():
        fewest = [min(each.helpers[name].descriptors for each in part) for part in (early, late)]
        if fewest[1] > fewest[0] + DESCRIPTORS_IN_FLIGHT:
            yield f"descriptors of the {name}: {fewest[0]}, and later {fewest[1]}"


def grown(before: Snapshot, after: Snapshot) -> dict[str, int]:
    """Return how many objects of each type are there more."""
    return {
        kind: number - before.objects.get(kind, 0)
        for kind, number in after.objects.items()
        if number > before.objects.get(kind, 0) and kind not in UNCOUNTED
    }


def number_of(snapshot: Snapshot, name: str) -> int:
    held = getattr(snapshot, name)
    return sum(held.values()) if name == "descriptors" else held if name == "tasks" else len(held)


def swollen(found: Findings) -> Iterator[str]:
    """Yield, in words, whose memory has grown beyond what is promised."""
    first, last = found.between[0], found.between[-1]
    growth = last.rss_bytes - first.rss_bytes
    if growth > MOST_GROWTH_BYTES:
        yield f"the caller has grown by {growth / 1e6:.1f} MB"
    for name in first.helpers.keys() & last.helpers.keys():
        growth = last.helpers[name].rss_bytes - first.helpers[name].rss_bytes
        if growth > MOST_HELPER_GROWTH_BYTES:
            yield f"the {name} has grown by {growth / 1e6:.1f} MB"
