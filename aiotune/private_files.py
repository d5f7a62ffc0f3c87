"""Files of a project: private to their owner, and never another file than the one that is named.

Directories are made with mode 0700 and files with 0600, whatever the umask allows beyond; what is there already
keeps its mode. Below a project's directory nothing is followed: a symbolic link, a second name of one file (a
hard link), a FIFO or a device in the place of a file of aiotune is refused with an OSError that says so, and
never opened in a way that could wait. The project's directory itself, and those above it, may be links.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from pathlib import Path
from typing import IO

from aiotune.errors import StoreUnwritable

__all__ = [
    "DIRECTORY_MODE",
    "FILE_MODE",
    "check_directory",
    "check_file",
    "create_file",
    "is_plain",
    "make_directories",
    "make_directory",
    "open_file",
    "open_log",
    "open_to_read",
    "read_bytes",
    "require_directory",
    "strangers",
]

DIRECTORY_MODE = 0o700
FILE_MODE = 0o600

# A FIFO without a writer would keep an ordinary `open` waiting for ever.
_SAFELY = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK


def make_directories(path: Path) -> None:
    """Make a directory, and those above it that are missing; links among those that exist are followed.

    FileExistsError or NotADirectoryError if something else is in the way, another OSError if it cannot be made.
    """
    missing = []
    while not path.is_dir():
        # Looked at once more: somebody else may have made it between the two looks.
        if os.path.lexists(path) and not path.is_dir():
            raise FileExistsError(errno.EEXIST, "something that is no directory is there", path)
        missing.append(path)
        path = path.parent
    for each in reversed(missing):
        with suppress(FileExistsError):  # made by somebody else just now; looked at by who uses it
            each.mkdir(DIRECTORY_MODE)


def make_directory(path: Path) -> None:
    """Make a directory below a project's, with those above it, or see that it is one; links are refused."""
    make_directories(path.parent)
    with suppress(FileExistsError):
        path.mkdir(DIRECTORY_MODE)
    check_directory(path)


def require_directory(path: Path) -> None:
    """Make a directory below a project's, or raise StoreUnwritable, which says why it cannot be had."""
    try:
        make_directory(path)
    except OSError as error:
        raise StoreUnwritable(
            f"{error.filename or path} cannot be made ({error.strerror}): check the rights, or choose another "
            "directory or project_name"
        ) from error


def check_directory(path: Path) -> None:
    """Raise NotADirectoryError if something else than a directory is there, a link to one included."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISDIR(mode):
        raise NotADirectoryError(
            errno.ENOTDIR, f"{_kind(mode)} is in the place of a directory", path
        )


def check_file(path: Path) -> None:
    """Raise OSError if something else than a plain file of one name is there. Nothing is opened."""
    with suppress(FileNotFoundError):
        _require_plain(path.lstat(), path, is_alone=True)


def is_plain(path: Path) -> bool:
    """Tell whether a plain file is there. It may have several names."""
    try:
        return stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def create_file(path: Path) -> int:
    """Return the descriptor of a new file, to read and write. FileExistsError if anything is there."""
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | _SAFELY, FILE_MODE)


def open_file(path: Path, flags: int) -> int:
    """Return the descriptor of a file to write to, made if `flags` have O_CREAT."""
    return _opened(path, flags, is_alone=True)


def open_to_read(path: Path) -> IO[bytes]:
    """Open a file to read it. It may have several names: checkpoints are linked, and never changed."""
    return os.fdopen(_opened(path, os.O_RDONLY, is_alone=False), "rb")


def open_log(path: Path) -> int:
    """Return the descriptor of a log to append to. A link, a FIFO or a socket in its place is removed first.

    Logs are for people to read, and nothing goes on from them: a link in the place of one ends no search.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
    try:
        fd = open_file(path, flags)
    except OSError as error:
        if error.errno not in (errno.ELOOP, errno.ENXIO) or _is_device(path):
            raise
        path.unlink(missing_ok=True)
        fd = open_file(path, flags | os.O_EXCL)
    os.set_blocking(fd, True)
    return fd


def read_bytes(path: Path, most: int) -> bytes:
    """Return a file's content. OSError (EFBIG) if it has more than `most` bytes."""
    with open_to_read(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most} bytes", path)
    return content


def strangers(directory: Path) -> str | None:
    """Return in words who else may change what is in a directory; None if only its user may, or root."""
    found = directory.stat()
    if found.st_uid not in (os.geteuid(), 0):
        return f"it belongs to the user with the number {found.st_uid}"
    if found.st_mode & stat.S_IWOTH:
        return "every user may write to it"
    return None


def _opened(path: Path, flags: int, *, is_alone: bool) -> int:
    """Open a plain file. What is none is an OSError, ELOOP for a link, ENXIO for the rest."""
    try:
        fd = os.open(path, flags | _SAFELY, FILE_MODE)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO, errno.ENODEV):
            raise _refusal(path.lstat().st_mode, path) from None
        raise
    try:
        _require_plain(os.fstat(fd), path, is_alone=is_alone)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _is_device(path: Path) -> bool:
    mode = path.lstat().st_mode
    return stat.S_ISCHR(mode) or stat.S_ISBLK(mode)


def _require_plain(found: os.stat_result, path: Path, *, is_alone: bool) -> None:
    if not stat.S_ISREG(found.st_mode):
        raise _refusal(found.st_mode, path)
    if is_alone and found.st_nlink > 1:
        raise OSError(
            errno.ELOOP, "it is a hard link: another name has the same file; copy it instead", path
        )


def _refusal(mode: int, path: Path) -> OSError:
    if stat.S_ISDIR(mode):
        return IsADirectoryError(errno.EISDIR, "a directory is in the place of a file", path)
    number = errno.ELOOP if stat.S_ISLNK(mode) else errno.ENXIO
    return OSError(number, f"{_kind(mode)} is in the place of a file", path)


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFLNK: "a symbolic link, which is not followed,",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFREG: "a file",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
