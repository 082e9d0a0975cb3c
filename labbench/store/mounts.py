"""Which file system a path lies on: write-ahead logging needs shared memory, which network file systems do not have."""

from __future__ import annotations

import re
from functools import lru_cache
from pathlib import Path

_NETWORK = {
    "9p", "acfs", "afs", "beegfs", "ceph", "cephfs", "cifs", "davfs", "fuse.ceph-fuse", "fuse.glusterfs", "fuse.sshfs",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "panfs", "smb3", "smbfs",
}  # fmt: skip
_MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path) -> str | None:
    """The type of the network file system that the path is on; None on a local one and where it cannot be known.

    It is known on Linux alone: other systems tell it only through programs that are slow to start.
    """
    kind = _file_system_of_folder(str(path.resolve().parent))
    return kind if kind in _NETWORK else None


@lru_cache(maxsize=64)  # a screen opens its database several times a second
def _file_system_of_folder(folder: str) -> str | None:
    try:
        return file_system(folder, _MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        return None


def file_system(path: str, mounts: str) -> str | None:
    """The type of the innermost mount above an absolute path, from the text of Linux's mountinfo."""
    kind, longest = None, 0
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        # the kernel writes a space in a path as \040, and tabs, line feeds and backslashes likewise
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]).rstrip("/") + "/"
        if len(mount) >= longest and f"{path}/".startswith(mount):  # of two on one folder the later one is seen
            kind, longest = source.split()[0], len(mount)
    return kind
