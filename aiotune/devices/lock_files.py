"""Lock files in a directory that any user of the machine may write into: what is found there is not trusted.

No link is followed, only plain files are opened, and what they say is shown, never obeyed.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Holder", "LockDirectory", "read_holder", "read_text", "try_lock", "write_holder"]

# A fifo would else be waited for.
_FLAGS = os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
_NOT_WRITABLE = (errno.EACCES, errno.EPERM, errno.EROFS)
_DIRECTORY_MODE = 0o1777  # anybody adds files, and deletes only their own
_FILE_MODE = 0o666
_TEXT_BYTES = 4096
_WORD_LENGTH = 64


class LockDirectory:
    """The directory of the lock files. It is made when it is first needed.

    OSError, with the name of the file that is at fault, from everything here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, name: str) -> int:
        """Return a descriptor of the file, which is made if it is not there."""
        with self._opened(makes=True) as folder:
            try:
                return self._open_existing(name, folder)
            except FileNotFoundError:
                return self._make(name, folder)

    def find(self, name: str) -> int | None:
        """Return a descriptor of the file; None if there is none."""
        try:
            with self._opened(makes=False) as folder:
                return self._open_existing(name, folder)
        except FileNotFoundError:
            return None

    def has(self, name: str, fd: int) -> bool:
        """Tell whether `fd` is of the file that has the name now: somebody may have deleted the other."""
        try:
            now = (self.path / name).lstat()
        except FileNotFoundError:
            return False
        return os.path.samestat(now, os.fstat(fd))

    @contextmanager
    def _opened(self, *, makes: bool) -> Iterator[int]:
        if makes:
            self._make_directory()
        try:
            folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | _FLAGS)
        except NotADirectoryError as error:
            raise OSError(error.errno, "it is no directory", str(self.path)) from None
        try:
            yield folder
        finally:
            os.close(folder)

    def _make_directory(self) -> None:
        with suppress(FileExistsError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.path.mkdir()
            self.path.chmod(_DIRECTORY_MODE)  # `mkdir` heeds the umask

    def _open_existing(self, name: str, folder: int) -> int:
        fd = self._open(name, folder, os.O_RDWR)
        try:
            self._check_plain(name, os.fstat(fd))
        except BaseException:
            os.close(fd)
            raise
        return fd

    def _open(self, name: str, folder: int, flags: int) -> int:
        try:
            return os.open(name, flags | _FLAGS, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError(error.errno, "it is a symbolic link", name) from None
            if flags == os.O_RDONLY or error.errno not in _NOT_WRITABLE:
                raise
            return self._open(name, folder, os.O_RDONLY)  # it can be locked all the same

    def _check_plain(self, name: str, found: os.stat_result) -> None:
        """OSError for what is no file, and for a file of somebody's under a second name: it is written to."""
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            raise OSError(0, "it is no plain file", name)

    def _make(self, name: str, folder: int) -> int:
        # Only if it is not there: a kernel that protects files of others in such directories (the setting
        # fs.protected_regular) refuses to open them with O_CREAT.
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS
        try:
            fd = os.open(name, flags, _FILE_MODE, dir_fd=folder)
        except FileExistsError:  # another process was faster
            return self._open_existing(name, folder)
        with suppress(OSError):
            os.fchmod(fd, _FILE_MODE)  # `open` heeds the umask
        return fd


def try_lock(fd: int, kind: int) -> bool:
    """Lock the open file, and tell whether that could be had at once. OSError where files have no locks.

    kind: fcntl.LOCK_EX or LOCK_SH.
    """
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@dataclass(frozen=True, slots=True)
class Holder:
    """The process that took a lock: what its file says."""

    pid: int
    user: str
    host: str
    program: str
    turn: str = ""  # tells one lock of a process from the next

    @classmethod
    def current(cls) -> Holder:
        """Return this process."""
        # The environment's word, for to look names up may mean to ask another machine.
        user = os.environ.get("USER") or f"user {os.getuid()}"
        program = Path(sys.argv[0]).name if sys.argv else ""
        turn = secrets.token_hex(4)
        return cls(os.getpid(), user, os.uname().nodename, program or "python", turn)

    def describe(self) -> str:
        """Return it in words."""
        who = f"process {self.pid} ({_clean(self.program)}, {_clean(self.user)})"
        if self.host != os.uname().nodename:
            return f"{who} on {_clean(self.host)}"
        if self.pid == os.getpid():
            return "a run of this process"
        return who if _is_alive(self.pid) else f"a run of {who}, which has ended"


def write_holder(fd: int, holder: Holder) -> None:
    """Say in the file who holds its lock; where it cannot be written, the lock counts all the same."""
    text = json.dumps(asdict(holder)).encode()
    with suppress(OSError):
        os.pwrite(fd, text, 0)
        os.ftruncate(fd, len(text))


def read_text(fd: int) -> bytes:
    """Return what the file says."""
    return os.pread(fd, _TEXT_BYTES, 0)


def read_holder(fd: int) -> str:
    """Return in words who holds the lock of the file, as it says."""
    try:
        said = json.loads(read_text(fd))
        holder = Holder(
            int(said["pid"]), *(str(said[each]) for each in ("user", "host", "program"))
        )
        return holder.describe()
    except (OSError, OverflowError, TypeError, ValueError, LookupError, RecursionError):
        return "another process"


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _clean(word: str) -> str:
    """Return a stranger's word fit for a terminal."""
    return "".join(each for each in word if each.isprintable())[:_WORD_LENGTH]
