"""The files of checkpoints: what a trial has, and how parts of it are deleted. Everything here blocks.

Nothing is taken from a name that was stored: parts are found by looking, and links are never followed.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from aiotune.checkpoints import BEST, LAST, OWN, is_part
from aiotune.layout import BEST_FILES, LAST_STATE, UNFINISHED, Layout, reports_of

__all__ = ["DRAFT", "Key", "Pile", "TrialFiles", "forget_reports", "look", "remove", "tidy"]

DRAFT = "draft"  # of a file that was not finished, or is being written: no part, for nobody refers to it

Key = tuple[int, str]  # a repeat, and a part of its checkpoints

_REPEAT = re.compile(r"repeat-(\d{1,9})")
# A file with several names counts once, for the first of these.
_ORDER = (BEST, LAST, OWN)


@dataclass(slots=True)
class Pile:
    """The files of one part. largest: the bytes of the largest one."""

    bytes: int = 0
    largest: int = 0
    paths: list[Path] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class TrialFiles:
    """What a trial has on disk. directories: the repeats that have one."""

    piles: dict[Key, Pile]
    directories: frozenset[int] = frozenset()

    @property
    def bytes(self) -> int:
        """Of all files, drafts included."""
        return sum(pile.bytes for pile in self.piles.values())

    @property
    def keys(self) -> list[Key]:
        """The parts that are there, drafts excluded."""
        return sorted(key for key in self.piles if key[1] != DRAFT)

    @property
    def repeats(self) -> set[int]:
        return {repeat for repeat, _ in self.piles}

    def without_paths(self) -> TrialFiles:
        """Return the same to be kept: the sizes alone."""
        for pile in self.piles.values():
            pile.paths.clear()
        return self

    def bytes_of(self, repeat: int) -> int:
        """Of the finished files of a repeat."""
        return sum(self.piles[key].bytes for key in self.keys if key[0] == repeat)

    def largest_of(self, repeat: int) -> int:
        """Return the bytes of the largest finished file of a repeat."""
        return max((self.piles[key].largest for key in self.keys if key[0] == repeat), default=0)


def look(layout: Layout, trial_id: str) -> TrialFiles:
    """Return what the trial has on disk now. A file that vanishes meanwhile is left out."""
    piles: dict[Key, Pile] = {}
    seen: set[tuple[int, int]] = set()
    repeats = _repeats(layout.trial(trial_id))
    for repeat, directory in repeats:
        entries = ((_part_of(path), path) for path in _entries(directory))
        for part, path in sorted(entries, key=_place):
            pile = piles.setdefault((repeat, part), Pile())
            pile.paths.append(path)
            for size in _sizes(path, seen):
                pile.bytes += size
                pile.largest = max(pile.largest, size)
    return TrialFiles(piles, frozenset(repeat for repeat, _ in repeats))


def remove(layout: Layout, trial_id: str, keys: Collection[Key]) -> None:
    """Delete these parts of the trial's checkpoints, and directories of repeats that are then empty.

    OSError for the first file that cannot be deleted; the others are.
    """
    files = look(layout, trial_id)
    paths = [path for key in keys if key in files.piles for path in files.piles[key].paths]
    try:
        _remove(paths)
    finally:
        _remove_if_empty(layout, trial_id, {repeat for repeat, _ in keys})


def tidy(layout: Layout, trial_id: str, files: TrialFiles, repeats: Collection[int]) -> None:
    """Delete what was not finished in these repeats, whose runs are over, and directories without a file.

    OSError as in `remove`.
    """
    for repeat in files.directories.intersection(repeats):
        key = (repeat, DRAFT)
        if key in files.piles:
            _remove(files.piles[key].paths)
            del files.piles[key]
        if repeat not in files.repeats:
            _remove_if_empty(layout, trial_id, [repeat])


def forget_reports(layout: Layout, trial_id: str, runs: Iterable[int]) -> None:
    """Delete what these runs of the trial have kept of their reports. What cannot be deleted stays."""
    trial = layout.trial(trial_id)
    if not trial.is_symlink():
        for run in runs:
            with suppress(OSError):
                reports_of(trial, run).unlink()


def _remove_if_empty(layout: Layout, trial_id: str, repeats: Iterable[int]) -> None:
    for repeat in repeats:
        with suppress(OSError):  # something is in it, or it is not there
            layout.repeat(trial_id, repeat).rmdir()


def _remove(paths: Iterable[Path]) -> None:
    failure: OSError | None = None
    for path in paths:
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            failure = failure or error
    if failure is not None:
        raise failure


def _repeats(trial: Path) -> list[tuple[int, Path]]:
    """Return the directories of a trial's repeats, by number. Some 20 microseconds for a trial without any."""
    try:
        with os.scandir(trial) as entries:
            found = [
                (int(match[1]), Path(each.path))
                for each in entries
                if (match := _REPEAT.fullmatch(each.name)) and each.is_dir(follow_symlinks=False)
            ]
    except (FileNotFoundError, NotADirectoryError):
        return []
    return [] if found and trial.is_symlink() else sorted(found)


def _entries(directory: Path) -> list[Path]:
    try:
        return [directory / name for name in os.listdir(directory)]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _part_of(path: Path) -> str:
    name = path.name
    if name in BEST_FILES:
        return BEST
    if name == LAST_STATE:
        return LAST
    if name.startswith(UNFINISHED):
        return DRAFT
    return name if is_part(name) and name not in _ORDER else OWN


def _place(found: tuple[str, Path]) -> tuple[int, str]:
    part, path = found
    return (_ORDER.index(part) if part in _ORDER else len(_ORDER)), path.name


def _sizes(path: Path, seen: set[tuple[int, int]]) -> Iterator[int]:
    """Yield the bytes of a file, or of those below a directory; of a file with several names once."""
    try:
        status = path.lstat()
    except FileNotFoundError:
        return
    if stat.S_ISDIR(status.st_mode):
        for each in _entries(path):
            yield from _sizes(each, seen)
    elif status.st_nlink == 1 or (status.st_dev, status.st_ino) not in seen:
        seen.add((status.st_dev, status.st_ino))
        yield status.st_size
