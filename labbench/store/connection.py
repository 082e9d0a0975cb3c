"""Open SQLite connections: journal mode, read-only access, network file systems, clear errors."""

from __future__ import annotations

import os
import re
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from urllib.parse import quote

from labbench.errors import InputError, LabbenchError, StoreError
from labbench.store import schema
from labbench.store.liveness import is_lost

_IMMUTABLE = "mode=ro&immutable=1"


BUSY_SECONDS = 10.0
"""How long to wait for another process's transaction; labbench's own take milliseconds."""


def resolve_path(path: Path | str) -> Path:
    """The file that a path leads to. Raises InputError where none can be there, or where one may not look."""
    try:
        found = Path(path).resolve()
        found.exists()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: no database can be opened there: {reason}; pass another --db") from error
    return found


def open_for_writing(path: Path) -> sqlite3.Connection:
    """A connection in autocommit mode to an up-to-date database, which is created if it is not there.

    Raises InputError for a file that is not (or not yet) a labbench database or cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: there is no folder {path.parent}")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, not a database")
    if path.exists():
        open_for_reading(path, live=True, empty_is_fine=True).close()
    with translate_sqlite_errors(path, opening=True):
        connection = _connect(path, "mode=rwc")
        try:
            _set_journal(connection, path)
            _create_or_upgrade(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def open_for_reading(path: Path, *, live: bool, empty_is_fine: bool = False) -> sqlite3.Connection:
    """A connection that cannot write. Raises InputError where there is no labbench database of this version or older.

    A `live` one sees every commit, but may have files beside the database until it is closed. The other opens the
    file as immutable: it leaves nothing, sees no later change, and must not be asked for while somebody writes.
    """
    if not path.is_file():
        what = "this is no file" if path.exists() else "no such database"
        raise InputError(f"{path}: {what}; `labbench run GRID.toml` makes one, `labbench demo` shows an example")
    with translate_sqlite_errors(path, opening=True):
        if not live:
            try:
                return _check_connection(_connect(path, _IMMUTABLE), path, empty_is_fine=empty_is_fine)
            except sqlite3.DatabaseError:
                pass  # perhaps caught in the middle of a write: look again with locks
        return _check_connection(_connect_seeing_commits(path), path, empty_is_fine=empty_is_fine)


def is_live(path: Path) -> bool:
    """Whether the file must be read with locks: somebody is, or was when they died, in the middle of writing it."""
    return has_side_files(path) or network_file_system(path) is not None


def has_side_files(path: Path) -> bool:
    """Whether SQLite keeps something beside the file: a transaction, or commits that are not in the file yet."""
    return path_with_suffix(path, "-wal").exists() or path_with_suffix(path, "-journal").exists()


def path_with_suffix(path: Path, suffix: str) -> Path:
    """The path with something appended to the file's whole name, as SQLite names its side files."""
    return path.with_name(path.name + suffix)


@contextmanager
def translate_sqlite_errors(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Turn SQLite's errors into ours; while opening, what is wrong with the file is the caller's bad input."""
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # a mistake of ours, not of the file
    except sqlite3.DatabaseError as error:
        kind: type[LabbenchError] = InputError if opening else StoreError
        raise kind(f"{path}: {_explain_error(error, path)}") from error


def _explain_error(error: sqlite3.DatabaseError, path: Path) -> str:
    text = str(error)
    if "not a database" in text:
        return "this is not an SQLite database"
    if "malformed" in text:
        return "the database is damaged; `sqlite3 DB .recover` saves what can be read"
    if "readonly" in text:
        return "the database or its folder is read-only; copy it to where you may write, or pass another --db"
    if "locked" in text:
        return "another process has locked the database for seconds; is a long query or a copy going on?"
    if "unable to open" in text:
        return f"the database cannot be opened; may you read and write in {path.parent}?"
    if "full" in text:
        return "the disk is full: make room, and start again; what was recorded is kept"
    return f"SQLite says: {text}"


def _connect(path: Path, options: str) -> sqlite3.Connection:
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{options}"
    # isolation_level None: transactions are begun and ended where the code says so. Readers lend a connection
    # to several threads under a lock, which Python would otherwise refuse.
    connection = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    connection.create_function("is_lost", 3, is_lost)
    connection.create_function("has_part", 2, _contains_words)
    return connection


def _contains_words(text: str, part: str) -> bool:
    return part.lower() in text.lower()  # SQLite's own lower() knows ASCII alone


def _connect_seeing_commits(path: Path) -> sqlite3.Connection:
    """See every commit. With write access where there is any, so that the last to leave can remove the `-wal` file."""
    ways = ["mode=rw", "mode=ro"] + ([] if has_side_files(path) else [_IMMUTABLE])
    while True:
        connection = _connect(path, ways.pop(0))
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except sqlite3.DatabaseError as error:
            connection.close()
            if not ways or not isinstance(error, sqlite3.OperationalError):
                raise
            # otherwise the file or its folder may be read-only
        else:
            return connection


def _check_connection(connection: sqlite3.Connection, path: Path, *, empty_is_fine: bool) -> sqlite3.Connection:
    """The connection, if what it is connected to is ours; closed if not."""
    try:
        state = schema.read_state(connection)
        if state == "foreign":
            raise InputError(f"{path}: an SQLite database, but of another program; pass another --db")
        if state == "newer":
            raise InputError(f"{path}: written by a newer labbench; upgrade with `pip install -U labbench-ml`")
        if state == "empty" and not empty_is_fine:
            raise InputError(f"{path}: an empty database; `labbench run GRID.toml` fills one")
        if state == "older":
            [query_only] = connection.execute("PRAGMA query_only").fetchone()
            connection.execute("PRAGMA query_only = 0")  # for the temporary views
            schema.complete(connection)
            connection.execute(f"PRAGMA query_only = {query_only}")
    except BaseException:
        connection.close()
        raise
    return connection


def _set_journal(connection: sqlite3.Connection, path: Path) -> None:
    network = network_file_system(path)
    if network:
        warnings.warn(
            f"{path} is on a network file system ({network}): writing is slower there, and only safe from one machine "
            "at a time; a database on a local disk is better",
            stacklevel=4,
        )
    mode = "delete" if network else "wal"
    if mode == "wal" and not path.stat().st_size:
        connection.execute("PRAGMA synchronous = OFF")  # nothing to lose yet: no need to wait for the disk
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            break
        except sqlite3.OperationalError as error:
            # SQLite does not wait by itself when several processes switch one new file to WAL
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    connection.execute("PRAGMA synchronous = NORMAL" if mode == "wal" else "PRAGMA synchronous = FULL")


def _create_or_upgrade(connection: sqlite3.Connection) -> None:
    """Create or upgrade the tables. Begins to write even where nothing is to be done: so it is known that it can."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        state = schema.read_state(connection)  # in the transaction: another process may have been quicker
        if state == "empty":
            schema.create_tables(connection)
        elif state == "older":
            schema.upgrade_tables(connection)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has ended it already
            connection.execute("ROLLBACK")
        raise


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
