"""File system of a database: whether it is on a network, and whether it has the shared memory of a write-ahead log."""

from __future__ import annotations

import fcntl
import mmap
import os
import re
from functools import lru_cache
from pathlib import Path

from labbench.files import UNFINISHED, remove_abandoned_drafts

_NETWORK = {
    "9p", "acfs", "afs", "beegfs", "ceph", "cephfs", "cifs", "cvmfs2", "davfs", "drvfs", "fuse", "fuse.alluxio-fuse",
    "fuse.blobfuse", "fuse.blobfuse2", "fuse.ceph-fuse", "fuse.cosfs", "fuse.davfs2", "fuse.dbfs", "fuse.gcsfuse",
    "fuse.glusterfs", "fuse.goofys", "fuse.grpcfuse", "fuse.juicefs", "fuse.mfs", "fuse.mountpoint-s3", "fuse.osxfs",
    "fuse.ossfs", "fuse.quobyte", "fuse.rclone", "fuse.s3fs", "fuse.seaweedfs", "fuse.sshfs", "fuse.vmhgfs-fuse",
    "glusterfs", "gpfs", "lustre", "ncpfs", "nfs", "nfs4", "ocfs2", "orangefs", "panfs", "prl_fs", "pvfs2", "smb2",
    "smb3", "smbfs", "vboxsf", "virtiofs", "vmhgfs", "wekafs",
}  # fmt: skip
"""Types that several machines, or a virtual machine and its host, write to. Colab mounts Google Drive as `fuse`."""

_MOUNTS = Path("/proc/self/mountinfo")


def network_file_system(path: Path) -> str | None:
    """Return the type of the network file system that holds the path.

    Returns None on a local or unknown file system, and on every system but Linux, where finding out would mean running
    a slow program.
    """
    file_system = file_system_type(path)
    return file_system if file_system in _NETWORK else None


def file_system_type(path: Path) -> str | None:
    """Return the type of the file system that holds the path; None if it is unknown."""
    return _file_system_of_folder(str(path.resolve().parent))


@lru_cache(maxsize=64)  # a screen opens its database several times a second
def _file_system_of_folder(folder: str) -> str | None:
    try:
        return find_file_system(folder, _MOUNTS.read_text(errors="surrogateescape"))
    except OSError:
        return None


def find_file_system(path: str, mounts: str) -> str | None:
    """Return the file system type of the innermost mount above an absolute path.

    `mounts` is the text of /proc/self/mountinfo, see proc_pid_mountinfo(5).
    """
    file_system, longest = None, 0
    for line in mounts.splitlines():
        fields, _, source = line.partition(" - ")
        # the kernel escapes spaces, tabs, line feeds and backslashes in paths in octal, a space as \040
        mount = re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), fields.split()[4]).rstrip("/") + "/"
        if len(mount) >= longest and f"{path}/".startswith(mount):  # a later mount on a folder hides the earlier one
            file_system, longest = source.split()[0], len(mount)
    return file_system


def has_shared_memory(folder: Path) -> bool:
    """Return False if processes cannot share memory through a file in the folder, or cannot lock it.

    Many FUSE and virtual file systems cannot. A write-ahead log needs both; a rollback journal needs no shared memory.
    Tries it with a temporary file; where none can be written, the result is True. Such files of killed processes are
    removed.
    """
    remove_abandoned_drafts(folder)
    file = folder / f"{UNFINISHED}{os.urandom(8).hex()}-shm"  # as SQLite names the file
    try:
        first = os.open(file, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return True
    try:
        # allocated before it is mapped: on a full disk, the first access to a hole in a mapped file kills the process
        if os.write(first, bytes(mmap.PAGESIZE)) < mmap.PAGESIZE:
            return True
    except OSError:
        return True
    else:
        return _share_memory(first, file)
    finally:
        os.close(first)
        file.unlink(missing_ok=True)


def _share_memory(first: int, file: Path) -> bool:
    try:
        second = os.open(file, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.lockf(first, fcntl.LOCK_EX | fcntl.LOCK_NB)
        with mmap.mmap(first, mmap.PAGESIZE) as one, mmap.mmap(second, mmap.PAGESIZE) as other:
            one[0] = 1
            return other[0] == 1
    except OSError:
        return False
    finally:
        os.close(second)
