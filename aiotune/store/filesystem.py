"""On what kind of file system a file lies: a write-ahead log wants one that no other machine writes to.

Its index is memory that all processes share which have the database open. Over a network each machine has a
memory of its own, and what one writes there damages what the other reads.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

__all__ = ["MOUNT_TABLE", "is_shared", "kind_of", "read_mount_table"]

MOUNT_TABLE = Path("/proc/self/mountinfo")  # Linux only; elsewhere every disk counts as a local one

# Served by another machine, by the host of a virtual one, or a disk that several machines write to.
_SHARED = """
    nfs nfs4 cifs smb smb2 smb3 smbfs ncp ncpfs afs auristorfs coda davfs 9p virtiofs vboxsf vmhgfs prl_fs
    lustre gpfs beegfs fhgfs glusterfs ceph orangefs pvfs2 panfs wekafs acfs gfs2 ocfs2 quobyte
"""
# In user space most are of the network (sshfs, s3fs, gcsfuse, rclone, ...); these lie on a disk of this one.
_LOCAL_FUSE = """
    fuse-overlayfs bindfs encfs gocryptfs cryfs mergerfs unionfs unionfs-fuse ntfs ntfs-3g exfat ext2 ext3 ext4
    zfs squashfuse lxcfs
"""
_ESCAPE = re.compile(r"\\([0-7]{3})")


def read_mount_table() -> str:
    """Return the mount table of this process; "" where there is none to read."""
    try:
        return MOUNT_TABLE.read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return ""


def is_shared(path: Path, mount_table: Callable[[], str] = read_mount_table) -> bool:
    """Tell whether other machines may write to the file system of `path`, which need not exist yet."""
    kind = kind_of(path, mount_table())
    if kind is None:
        return False
    family, _, of_user_space = kind.partition(".")
    if family == "fuse":
        return of_user_space not in _LOCAL_FUSE.split()
    return kind in _SHARED.split()


def kind_of(path: Path, mount_table: str) -> str | None:
    """Return the type of the file system that `path` is on, as the table names it; None if it does not tell.

    mount_table: as in proc(5), /proc/pid/mountinfo. Of mounts one over the other the last one holds.
    """
    real = os.path.realpath(path)
    found, kind = "", None
    for line in mount_table.splitlines():
        before, _, after = line.partition(" - ")
        places, kinds = before.split(" "), after.split(" ")
        if len(places) < 5 or not kinds[0]:
            continue
        place = _ESCAPE.sub(lambda octal: chr(int(octal[1], 8)), places[4])
        if len(place) >= len(found) and _is_at_or_below(real, place):
            found, kind = place, kinds[0]
    return kind


def _is_at_or_below(path: str, place: str) -> bool:
    return path == place or path.startswith(place.rstrip("/") + "/")
