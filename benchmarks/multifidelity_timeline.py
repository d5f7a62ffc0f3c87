"""From the stamps of a sweep to where its time went. Pure functions; seconds since the start of the program."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

__all__ = ["PARTS", "Interval", "Sweep", "Training", "sweep_of", "trainings"]

Stamp = Mapping[str, Any]
Interval = tuple[float, float]

# The phases of a sweep. Those of slots are divided by their number, so that all add up to the whole.
PARTS = {
    "imports": "start of the program to the first build: imports, data",
    "opening": "first build to the first run",
    "build": "building models",
    "trace": "tracing: symbolic build, first batches of training and validation",
    "train": "training and validation",
    "checkpoint": "end of each epoch to what comes next: keeping weights and states",
    "around": "in a run, but not between its build and the end of its fit; between the trials of one process",
    "idle": "slots without a run, up to the end of the last run",
    "closing": "end of the last run to the end of the program",
}


@dataclass(slots=True)
class Training:
    """One call of `fit`, and the build before it."""

    lane: str  # the cores that it had
    build: float
    built: float = 0.0
    fit: float = 0.0
    traced: float = 0.0  # where its second batch began
    end: float = 0.0
    validation: Interval = (0.0, 0.0)  # its first validation's first batch
    begins: list[float] = field(default_factory=list)  # of epochs
    epochs: list[tuple[float, float]] = field(default_factory=list)  # ends and scores

    @property
    def checkpointing(self) -> list[Interval]:
        ends = [at for at, _ in self.epochs]
        return list(zip(ends, [*self.begins[1:], self.end], strict=True))

    def parts(self) -> dict[str, float]:
        """Return the seconds of its phases."""
        trace = self.traced - self.built + self.validation[1] - self.validation[0]
        kept = sum(end - begin for begin, end in self.checkpointing)
        build = self.built - self.build
        train = self.end - self.build - build - trace - kept
        return {"build": build, "trace": trace, "train": train, "checkpoint": kept}


@dataclass(frozen=True, slots=True)
class Sweep:
    """What one sweep took and found. `parts` add up to `seconds`."""

    side: str
    seed: int
    seconds: float
    cpu_seconds: float  # of all its processes
    goal_seconds: float | None  # until the goal was reached; None: it was not
    best: float
    trials: int
    runs: int
    epochs: int
    parts: Mapping[str, float]
    curve: Sequence[tuple[float, float]]  # when a better score was there, and which
    lanes: Mapping[str, Sequence[tuple[str, float, float]]]  # by slot: phase, from, to


def sweep_of(
    side: str, seed: int, stamps: Sequence[Stamp], span: Interval, cpu_seconds: float, goal: float
) -> Sweep:
    """Return what the stamps say. `span`: when the program started and ended, by the same clock.

    ValueError if a training has no end, or if there is none.
    """
    start, end = span
    found = trainings(stamps, start)
    if not found:
        raise ValueError("no model was trained")
    (done,) = (each for each in stamps if each["what"] == "done")
    epochs = sorted(epoch for each in found for epoch in each.epochs)
    runs = [(begin - start, end - start) for begin, end, _ in done.get("runs", ())]
    first_build = min(each["at"] for each in stamps if each["what"] == "build") - start
    return Sweep(
        side,
        seed,
        end - start,
        cpu_seconds,
        next((at for at, score in epochs if score >= goal), None),
        done["best"],
        done["trials"],
        len(found),
        len(epochs),
        _parts(found, runs, first_build, end - start),
        list(_improvements(epochs)),
        _lanes(found),
    )


def trainings(stamps: Iterable[Stamp], start: float) -> list[Training]:
    """Return the trainings in the order of their builds. A build that no training follows is left out.

    ValueError for one that has begun and not ended.
    """
    by_process: dict[int, list[Stamp]] = defaultdict(list)
    for each in sorted(stamps, key=lambda each: float(each["at"])):
        by_process[each["pid"]].append(each)
    found = [one for each in by_process.values() for one in _of_process(each, start) if one.fit]
    if not all(each.end for each in found):
        raise ValueError("a training did not end")
    return sorted(found, key=lambda each: each.build)


def _of_process(stamps: Iterable[Stamp], start: float) -> Iterator[Training]:
    current: Training | None = None
    for each in stamps:
        at = each["at"] - start
        if each["what"] == "build":
            if current is not None:
                yield current
            current = Training(",".join(map(str, each["cores"])), at)
        elif current is not None:
            _take(current, each, at)
    if current is not None:
        yield current


def _take(training: Training, each: Stamp, at: float) -> None:
    match each["what"]:
        case "built":
            training.built = at
        case "fit":
            training.fit = at
        case "second batch":
            training.traced = at
        case "validation":
            training.validation = at, at
        case "second validation batch":
            training.validation = training.validation[0], at
        case "epoch begins":
            training.begins.append(at)
        case "epoch":
            training.epochs.append((at, each["score"]))
        case "end":
            training.end = at
        case _:
            pass  # of the program, not of a training


def _parts(
    found: Sequence[Training], runs: Sequence[Interval], first_build: float, seconds: float
) -> dict[str, float]:
    """Return the seconds of each phase. Without `runs` everything went on in one slot, without a gap."""
    slots = len({each.lane for each in found}) if runs else 1
    runs = runs or [(found[0].build, max(each.end for each in found))]
    begin, end = min(begin for begin, _ in runs), max(end for _, end in runs)
    in_runs = sum(end - begin for begin, end in runs)
    parts = dict.fromkeys(PARTS, 0.0)
    for each in found:
        for name, part in each.parts().items():
            parts[name] += part / slots
    parts["around"] = (in_runs - sum(each.end - each.build for each in found)) / slots
    parts["idle"] = (end - begin) - in_runs / slots
    parts |= {"imports": first_build, "opening": begin - first_build, "closing": seconds - end}
    return parts


def _improvements(epochs: Iterable[tuple[float, float]]) -> Iterator[tuple[float, float]]:
    best = float("-inf")
    for at, score in epochs:
        if score > best:
            best = score
            yield at, score


def _lanes(found: Iterable[Training]) -> dict[str, list[tuple[str, float, float]]]:
    """Return what is drawn of each slot, phases that follow each other as one."""
    lanes: dict[str, list[tuple[str, float, float]]] = defaultdict(list)
    for each in found:
        lane = lanes[each.lane]
        lane += [("build", each.build, each.built), ("trace", each.built, each.traced)]
        edges = [each.traced, *each.validation]
        for begin, end in each.checkpointing:
            edges += [begin, end]
        names = ("train", "trace", *("train", "checkpoint") * len(each.epochs))
        lane += [(name, *edge) for name, edge in zip(names, pairwise(edges), strict=True)]
    return dict(lanes)
