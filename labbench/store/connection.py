"""Open SQLite connections: journal mode, read-only access, network file systems, clear errors."""

from __future__ import annotations

import os
import sqlite3
import time
import warnings
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from operator import methodcaller
from pathlib import Path
from urllib.parse import quote

from labbench.errors import InputError, LabbenchError, StoreError
from labbench.files import database_command, expand_home
from labbench.metrics import is_loss
from labbench.store import schema
from labbench.store.file_systems import file_system_type, has_shared_memory, network_file_system
from labbench.store.guarded_connection import GuardedConnection, require_descriptors_of
from labbench.store.liveness import is_lost
from labbench.store.revisions import watch_changes
from labbench.store.series import overview

_IMMUTABLE = "mode=ro&immutable=1"

EXISTING_SIDE_FILES = "mode=ro&readonly_shm=1"
"""Options of a connection for reading that creates no `-shm` file."""

DAMAGE_ERRORS = (sqlite3.DatabaseError, UnicodeDecodeError)
"""Errors of SQLite; it quotes broken bytes of the file in a message, which Python then cannot decode."""

INSTRUCTIONS_PER_READ, INSTRUCTIONS_PER_BYTE = 2_000_000_000, 100
"""Limit of one read, in instructions of SQLite's virtual machine: in any case (about 20 s), and for each byte.

A damaged file may lead SQLite in circles. A check of a sound file takes 4 instructions for each byte, an export 1.
"""

_INSTRUCTIONS_PER_CHECK = 100_000
"""Instructions between two checks of the limit, about a millisecond."""

_MAX_VALUE_BYTES = 200_000_000
"""Maximum size of a text or blob that is read."""

BUSY_SECONDS = 10.0
"""Seconds to wait for the lock of another process; a transaction of labbench takes milliseconds."""


def resolve_path(path: Path | str) -> Path:
    """Return the absolute path, with `~` expanded and symbolic links resolved.

    Raises:
        InputError: If the name is invalid or a folder may not be read.
    """
    try:
        resolved = expand_home(path).resolve()
        resolved.exists()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: no database can be opened at this path: {reason}; pass another --db") from error
    return resolved


def open_for_writing(path: Path, *, temporary_files: bool = True) -> GuardedConnection:
    """Open a database for writing, in autocommit mode.

    Create it if it does not exist, upgrade it if it is older. Without `temporary_files`, SQLite keeps temporary data in
    memory.

    Raises:
        InputError: If the file is not a database of this or an earlier version of labbench, or cannot be written.
    """
    if not path.parent.is_dir():
        raise InputError(f"{path}: the folder {path.parent} does not exist; create it or pass another --db")
    if path.is_dir():
        raise InputError(f"{path}: this is a folder, not a database; pass another --db")
    if path.exists():
        open_for_reading(path, live=True, allow_empty=True).close()
    problem = _problem_of_file_system(path)
    with translate_sqlite_errors(path, opening=True):
        if problem and path.is_file() and _has_write_ahead_log(path):
            _remove_write_ahead_log(path)
        connection = _connect(path, "mode=rwc")
        try:
            if problem is None and not path.stat().st_size:
                connection.execute("PRAGMA synchronous = OFF")  # no data to lose yet: do not wait for the disk
            _create_or_upgrade(connection)  # before the switch to WAL, which would write a file without tables
            _set_journal(connection, path, problem)
            if not temporary_files:
                connection.execute("PRAGMA temp_store = MEMORY")  # drops the tables of `watch_changes`, if later
            watch_changes(connection)
        except BaseException:
            connection.close()
            raise
        return connection


def open_for_reading(path: Path, *, live: bool, allow_empty: bool = False) -> sqlite3.Connection:
    """Open a database for reading only.

    Args:
        live: See every commit; SQLite may then keep files beside the database until the connection is closed. If
            False, open the file as immutable: this leaves no files and sees no later change, and is only valid while
            no process writes.
        allow_empty: Accept a database without tables.

    Raises:
        InputError: If the file is not a database of this or an earlier version of labbench, or cannot be read.
    """
    if not path.is_file():
        problem = "not a file" if path.exists() else "no such database"
        raise InputError(
            f"{path}: {problem}; `{database_command(path)} run GRID.toml` creates one, `labbench demo` shows an example"
        )
    with translate_sqlite_errors(path, opening=True):
        if not live:
            try:
                return _check_connection(_connect(path, _IMMUTABLE), path, allow_empty=allow_empty)
            except DAMAGE_ERRORS:
                pass  # perhaps another process is writing: read with locks
        return _check_connection(_connect_seeing_commits(path), path, allow_empty=allow_empty)


def is_new(path: Path) -> bool:
    """Return True if there is no file, or an SQLite database without tables.

    Raises:
        InputError: If the file is not a database of this or an earlier version of labbench, or cannot be read.
    """
    if not path.exists():
        return True
    with closing(open_for_reading(path, live=is_live(path), allow_empty=True)) as connection:
        return schema.read_state(connection) == "empty"


@contextmanager
def open_snapshot(path: Path) -> Iterator[sqlite3.Connection]:
    """Open a database for one long read, on a connection of its own.

    Raises:
        InputError: If the database cannot be opened.
        StoreError: If reading fails later on, or another user's database was changed during the read.
    """
    path = resolve_path(path)  # SQLite puts its side files beside what a link points to
    state = file_state(path)
    with closing(open_for_reading(path, live=True)) as connection, translate_sqlite_errors(path):
        accept_damaged_texts(connection)
        is_locked = has_side_files(path) or not belongs_to_other_user(path)
        connection.execute("BEGIN")
        yield connection
    if not is_locked and file_state(path) != state:
        raise StoreError(f"{path}: another user's process changed the database during the read; try again")


def file_state(path: Path) -> tuple[int, int, int]:
    """Return inode, modification time in ns and size of a file, (0, 0, 0) if there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return 0, 0, 0
    return stat.st_ino, stat.st_mtime_ns, stat.st_size


def file_id(path: Path) -> tuple[int, int] | None:
    """Return device and inode of a file, which no other file has; None if there is none."""
    try:
        stat = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return stat.st_dev, stat.st_ino


def is_live(path: Path) -> bool:
    """Return True if the file must be read with locks.

    True while a process writes to it, after such a process has crashed, on a network file system, and if the file has a
    rollback journal, because its readers do not see when a process writes.
    """
    if has_side_files(path) or network_file_system(path) is not None:
        return True
    return path.is_file() and not _has_write_ahead_log(path)


def has_side_files(path: Path) -> bool:
    """Return True if SQLite has a write-ahead log or a journal beside the file."""
    return any(map(os.path.exists, side_files(path)))


def side_files(path: Path) -> tuple[Path, Path]:
    """Return the paths of the write-ahead log and of the journal that SQLite puts beside the file."""
    return path_with_suffix(path, "-wal"), path_with_suffix(path, "-journal")


def path_with_suffix(path: Path, suffix: str) -> Path:
    """Return the path of a file beside the database, as SQLite names it: beside what a symbolic link points to."""
    return Path(os.path.realpath(path) + suffix)


@contextmanager
def translate_sqlite_errors(path: Path, *, opening: bool = False) -> Iterator[None]:
    """Translate SQLite's errors to labbench's.

    Raises:
        InputError: If the block fails with an error of the file and `opening` is set.
        StoreError: If the block fails with an error of the file later on.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise  # an error in labbench, not in the file
    except DAMAGE_ERRORS as error:
        kind: type[LabbenchError] = InputError if opening else StoreError
        raise kind(f"{path}: {_explain_error(error, path)}") from error


def accept_damaged_texts(connection: sqlite3.Connection) -> None:
    """Decode damaged bytes of texts to the replacement character, which takes Python twice as long."""
    connection.text_factory = _decode


_decode = methodcaller("decode", "utf-8", "replace")


def limit_read(connection: sqlite3.Connection, path: Path) -> None:
    """Make a read that begins now fail once it takes more instructions than a sound file of this size needs.

    Seconds would depend on the disk, and on the caller that reads the rows of a stream one by one.
    """
    _, _, n_bytes = file_state(path)
    remaining_checks = count((INSTRUCTIONS_PER_READ + INSTRUCTIONS_PER_BYTE * n_bytes) // _INSTRUCTIONS_PER_CHECK, -1)
    connection.set_progress_handler(lambda: next(remaining_checks) < 0, _INSTRUCTIONS_PER_CHECK)


def _explain_error(error: Exception, path: Path) -> str:
    text = "malformed" if isinstance(error, UnicodeDecodeError) else str(error)
    if text.startswith("no such"):
        return f"another program has changed the tables of this database ({text})"
    if "unable to open" in text:
        return _explain_failure_to_open(path)
    if "disk I/O" in text or "locking protocol" in text:
        return (
            f"the file system of {path.parent} ({file_system_type(path) or 'unknown type'}) fails to read, write or "
            "lock the database; move it to a local disk"
        )
    matches = (explanation for part, explanation in _explanations().items() if part in text)
    return next(matches, f"SQLite reports: {text}")


def _explanations() -> dict[str, str]:
    """Return the explanations of errors, each by a part of SQLite's message."""
    return {
        "descriptors": (
            "the program has closed the file descriptors of the database, as `os.closerange` does; become a daemon "
            "before the first use of labbench, or fork a process for it"
        ),
        "interrupted": (
            "a query took more steps than a database of this size can need: the database is damaged; "
            "the command `doctor` checks it"
        ),
        "too big": f"a value is larger than {_MAX_VALUE_BYTES / 1e6:.0f} MB, which labbench does not write",
        "not a database": "this is not an SQLite database",
        "malformed": (
            "the database is damaged; `sqlite3 DB .recover` recovers the readable part. A copy of a database in use "
            "needs its `-wal` file too: copy with `labbench backup`"
        ),
        "readonly": "the database or its folder is read-only; copy it to a writable folder, or pass another --db",
        "locked": (
            f"another process has locked the database for more than {BUSY_SECONDS:g} s, "
            "for instance by a long query or a copy; try again when it has ended"
        ),
        "full": "the disk is full; free some space and start again (the recorded data is intact)",
    }


def _explain_failure_to_open(path: Path) -> str:
    if has_side_files(path) and belongs_to_other_user(path):
        return (
            f"another user's database whose `-wal` file can only be read beside a `-shm` file; copy {path.name} and "
            f"{path.name}-wal to a folder of your own and open the copy"
        )
    try:
        os.close(os.open(os.devnull, os.O_RDONLY))  # not the database: closing it would release SQLite's locks
    except OSError as error:
        return f"the database cannot be opened: {error.strerror}; close files, or raise the limit with `ulimit -n`"
    return f"the database cannot be opened; check the permissions of the file and of the folder {path.parent}"


def _connect(path: Path, options: str) -> GuardedConnection:
    require_descriptors_of(file_id(path))
    uri = f"file:{quote(os.fsencode(path.absolute()))}?{options}"
    # isolation_level None: transactions begin and end explicitly. check_same_thread False: several threads share the
    # connection of a reader, under a lock.
    connection = sqlite3.connect(
        uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False, factory=GuardedConnection
    )
    connection.protect(file_id(path))
    connection.execute("PRAGMA cell_size_check = ON")  # detect damaged pages before they are read
    connection.create_function("is_lost", 6, is_lost)
    connection.create_function("is_loss", 1, _is_loss)
    connection.create_function("has_part", 2, _contains_ignoring_case)
    return connection


def _is_loss(metric: object) -> bool:
    return isinstance(metric, str) and is_loss(metric)


def _contains_ignoring_case(text: object, part: str) -> bool:
    return isinstance(text, str) and part.lower() in text.lower()  # SQLite's lower() handles only ASCII


def _connect_seeing_commits(path: Path) -> sqlite3.Connection:
    """Connect so that every commit is seen, if that needs no new files beside another user's database.

    Connects with write access if possible: without it, the last connection to close cannot delete the `-wal` file.
    """
    modes = _reading_modes(path)
    while True:
        connection = _connect(path, modes.pop(0))
        try:
            connection.execute("PRAGMA query_only = 1")
            connection.execute("SELECT 1 FROM sqlite_master").fetchone()
        except DAMAGE_ERRORS as error:
            connection.close()
            if not modes or not isinstance(error, sqlite3.OperationalError):
                raise
            # the file or its folder may be read-only: try the next mode
        else:
            return connection


def _reading_modes(path: Path) -> list[str]:
    """Return the options of a connection for reading, in the order in which to try them.

    SQLite creates side files even for reading. Beside another user's database, they could lock out that user.
    """
    immutable = [] if has_side_files(path) else [_IMMUTABLE]
    if belongs_to_other_user(path) and _has_write_ahead_log(path):
        return immutable or [EXISTING_SIDE_FILES]
    return ["mode=rw", "mode=ro", *immutable]


def incomplete_copy_hint(path: Path) -> str:
    """Return a hint for a database without runs if it may be a copy whose `-wal` file was left behind, else ""."""
    if has_side_files(path) or not _has_write_ahead_log(path):
        return ""
    return (
        f"; if {path} is a copy of a database in use, copy its file {path.name}-wal too, or copy with `labbench backup`"
    )


def belongs_to_other_user(path: Path) -> bool:
    """Return True if the file exists and belongs to another user than the one this process runs as."""
    return hasattr(os, "geteuid") and path.exists() and path.stat().st_uid != os.geteuid()


def _has_write_ahead_log(path: Path) -> bool:
    """Return True if the header of the file says that its journal is a write-ahead log (sqlite.org/fileformat)."""
    with path.open("rb") as file:
        return file.read(20)[18:] == b"\2\2"


def _check_connection(connection: sqlite3.Connection, path: Path, *, allow_empty: bool) -> sqlite3.Connection:
    """Return the connection if it is to a labbench database.

    Otherwise close it and raise InputError.
    """
    try:
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, _MAX_VALUE_BYTES)
        limit_read(connection, path)
        state = schema.read_state(connection)
        if state == "altered":
            raise InputError(
                f"{path}: another program has replaced tables of labbench by views; export them with that program, or "
                "pass another --db"
            )
        if state == "foreign":
            raise InputError(f"{path}: this SQLite database belongs to another program; pass another --db")
        if state == "newer":
            raise InputError(
                f"{path}: written by a newer version of labbench; upgrade with `pip install -U labbench-ml`"
            )
        if state == "empty" and not allow_empty:
            raise InputError(
                f"{path}: the database is empty; `{database_command(path)} run GRID.toml` records runs in it"
            )
        if state == "older":
            [query_only] = connection.execute("PRAGMA query_only").fetchone()
            connection.execute("PRAGMA query_only = 0")  # for the temporary views
            schema.add_missing_columns(connection)
            connection.execute(f"PRAGMA query_only = {query_only}")
    except BaseException:
        connection.close()
        raise
    return connection


def _problem_of_file_system(path: Path) -> str | None:
    """Return the reason why a database at this path cannot have a write-ahead log; None if it can."""
    network = network_file_system(path)
    if network:
        return f"a network file system ({network})"
    if not has_shared_memory(path.parent):
        return f"a file system without shared memory or locks ({file_system_type(path) or 'of unknown type'})"
    return None


def _remove_write_ahead_log(path: Path) -> None:
    """Give a database that was moved to this file system a rollback journal.

    An exclusive connection needs no shared memory. Raises sqlite3.OperationalError while another process has the
    database open.
    """
    with closing(_connect(path, "mode=rw")) as connection:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        connection.execute("PRAGMA journal_mode = DELETE")


def _set_journal(connection: sqlite3.Connection, path: Path, problem: str | None) -> None:
    if problem:
        warnings.warn(
            f"{path} is on {problem}: writing is slow and only safe from one machine at a time; prefer a database on a "
            "local disk",
            stacklevel=4,
        )
    mode = "delete" if problem else "wal"
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute(f"PRAGMA journal_mode = {mode}")
            break
        except sqlite3.OperationalError as error:
            # SQLite's busy timeout does not apply when several processes switch a new file to WAL
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.005)
    connection.execute("PRAGMA synchronous = NORMAL" if mode == "wal" else "PRAGMA synchronous = FULL")


def _create_or_upgrade(connection: sqlite3.Connection) -> None:
    """Create or upgrade the tables.

    Always starts a write transaction, so that opening a read-only file fails.
    """
    connection.execute("BEGIN IMMEDIATE")
    try:
        state = schema.read_state(connection)  # inside the transaction: another process may have created the tables
        if state == "empty":
            schema.create_tables(connection)
        elif state == "older":
            schema.upgrade_tables(connection)
            overview.add_missing(connection, overview.MAX_POINTS_AT_UPGRADE)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has rolled it back already
            connection.execute("ROLLBACK")
        raise
