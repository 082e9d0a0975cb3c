"""Which file system a path lies on: write-ahead logging needs shared memory, which network file systems do not have."""

from __future__ import annotations

import re
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
    try:
        mounts = _MOUNTS.read_text(errors="surrogateescape")
    except OSError:
        return None
    kind = file_system(path.resolve(), mounts)
    return kind if kind in _NETWORK else None


def file_system(path: Path, mounts: str) -> str | None:
    """The type of the innermost mount above an absolute path, from the text of Linux's mountinfo."""
    kind, depth = None, 0
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        # the kernel writes a space in a path as \040, and tabs, line feeds and backslashes likewise
        mount = Path(re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]))
        if len(mount.parts) >= depth and path.is_relative_to(mount):  # of two on one folder the later one is seen
            kind, depth = source.split()[0], len(mount.parts)
    return kind
