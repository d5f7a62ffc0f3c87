from __future__ import annotations

from pathlib import Path

import pytest

from aiotune.store.filesystem import is_shared, kind_of, read_mount_table

TABLE = """\
22 27 0:21 / /proc rw,relatime - proc proc rw
27 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw
30 27 0:30 / /home rw shared:3 master:1 - nfs4 server:/home rw
31 30 8:1 / /home/me/scratch rw - xfs /dev/sdb rw
32 27 0:32 / /mnt/my\\040share rw - cifs //server/share rw
33 27 0:33 / /mnt/over rw - ext4 /dev/vdc rw
34 33 0:34 / /mnt/over rw - fuse.sshfs me@server: rw
35 27 0:35 / /mnt/layers rw - fuse.fuse-overlayfs none rw
36 27 0:36 / /mnt/block rw - fuseblk /dev/sdc rw
a line that is cut
"""


def on(kind: str) -> str:
    return f"27 1 254:0 / / rw - {kind} source rw\n"


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/anywhere/study.db", "ext4"),
        ("/home/me/study.db", "nfs4"),
        ("/home", "nfs4"),
        ("/homework/study.db", "ext4"),
        ("/home/me/scratch/study.db", "xfs"),
        ("/mnt/my share/study.db", "cifs"),
        ("/mnt/over/study.db", "fuse.sshfs"),  # of two mounts in one place the later one
    ],
)
def test_file_system_is_that_of_the_nearest_mount(path: str, kind: str) -> None:
    assert kind_of(Path(path), TABLE) == kind


SHARED = (
    "nfs nfs4 cifs smb3 9p virtiofs lustre gpfs beegfs glusterfs ceph fuse fuse.sshfs fuse.gcsfuse"
)
OWN = "ext4 xfs btrfs zfs tmpfs overlay fuseblk fuse.fuse-overlayfs fuse.ntfs-3g"


@pytest.mark.parametrize("kind", SHARED.split())
def test_file_systems_of_several_machines(kind: str) -> None:
    assert is_shared(Path("/some/study.db"), lambda: on(kind))


@pytest.mark.parametrize("kind", OWN.split())
def test_file_systems_of_one_machine(kind: str) -> None:
    assert not is_shared(Path("/some/study.db"), lambda: on(kind))


def test_link_is_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "near").symlink_to(tmp_path / "far")
    table = f"{on('ext4')}30 27 0:30 / {tmp_path.resolve()}/far rw - nfs4 server:/ rw\n"
    assert is_shared(tmp_path / "near" / "study.db", lambda: table)


def test_without_a_mount_table_every_disk_is_a_local_one() -> None:
    assert kind_of(Path("/some/study.db"), "") is None
    assert not is_shared(Path("/some/study.db"), lambda: "")


def test_this_machine_has_a_table_that_is_understood(tmp_path: Path) -> None:
    if not read_mount_table():
        pytest.skip("no /proc/self/mountinfo here")
    assert kind_of(tmp_path, read_mount_table())
