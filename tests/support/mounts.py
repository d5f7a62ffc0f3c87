"""Mount tables for tests: what `aiotune.store.filesystem` reads of the machine."""

from __future__ import annotations


def of_a_network() -> str:
    """Return the table of a machine whose disks are all another machine's."""
    return "27 1 0:27 / / rw,relatime - nfs4 server:/export rw\n"


def of_one_disk() -> str:
    return "27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
