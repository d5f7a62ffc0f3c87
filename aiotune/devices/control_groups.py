"""Reading Linux control groups, of both versions, and the figures of /proc."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

__all__ = ["NO_LIMIT", "groups", "read_field", "read_lines", "read_number", "read_words"]

NO_LIMIT = 2**62  # bytes: version 1 writes "no limit" as a number about as large as this


def groups(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folders of the process's group and its ancestors; controller "" is version 2.

    In a container the group's path may be the host's, while the container's own group is the
    mount's root: folders that do not exist are harmless, for their files read as absent.
    """
    for line in read_lines(root / "proc/self/cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller not in controllers.split(","):
            continue
        inner = PurePosixPath(path.strip().lstrip("/"))
        paths = [PurePosixPath()] if ".." in inner.parts else [inner, *inner.parents]
        mounts = {"", "unified"} if controller == "" else {controller, controllers}
        for mount in mounts:
            yield from (root / "sys/fs/cgroup" / mount / each for each in dict.fromkeys(paths))


def read_lines(path: Path) -> list[str]:
    """Return the lines of a file; none if it is not there."""
    try:
        return path.read_text().splitlines()
    except (OSError, ValueError):
        return []


def read_words(path: Path) -> list[str]:
    """Return the words of a file; none if it is not there."""
    return " ".join(read_lines(path)).split()


def read_number(path: Path) -> int | None:
    """Return the number that a file holds and nothing else, or None."""
    try:
        return int(" ".join(read_words(path)))
    except ValueError:
        return None


def read_field(path: Path, name: str) -> int:
    """Return the number behind `name` in a file of lines "name number ...", or 0."""
    for line in read_lines(path):
        match line.split():
            case [first, number, *_] if first == name and number.isdigit():
                return int(number)
    return 0
