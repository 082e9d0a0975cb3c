"""`WritableDatabase`: a database that is open for writing: transactions, closing, and files that were replaced."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from labbench.errors import LabbenchError, StoreError
from labbench.store.connection import file_id, open_for_writing, path_with_suffix, resolve_path, translate_sqlite_errors
from labbench.store.revisions import raise_revisions
from labbench.store.scripts.spill import merge_spill_files


class WritableDatabase:
    """Database that is open for writing, for one thread.

    Close it, or use it in a `with` block. Every method raises StoreError if the database cannot be written.
    """

    def __init__(self, path: Path | str, *, temporary_files: bool = True) -> None:
        """Open or create a database and merge spill files.

        Without `temporary_files`, SQLite keeps temporary data in memory, for instance a copy of a large row that it
        changes.

        Raises InputError if the file is not a labbench database or cannot be written.
        """
        self.path = resolve_path(path)
        self._connection = open_for_writing(self.path, temporary_files=temporary_files)
        self._closed = self._is_abandoned = False
        try:
            self.merge_spilled()
            # identity of the open files, in case the path later refers to another file
            self._file_id = file_id(self.path)
            with translate_sqlite_errors(self.path, opening=True):  # the first access creates the log
                self._connection.execute("SELECT 1 FROM runs LIMIT 1").fetchone()
        except BaseException:
            self._connection.close()
            raise
        self._log_id = file_id(path_with_suffix(self.path, "-wal"))

    def set_busy_timeout(self, seconds: float) -> None:
        """Set how many seconds to wait for a lock; the default is `connection.BUSY_SECONDS`."""
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def has_descriptors(self) -> bool:
        """Return False once the program has closed the descriptors of the database, which is then left alone."""
        return self._connection.has_descriptors()

    def is_in_place(self) -> bool:
        """Return True if the path still refers to the open file: SQLite keeps writing to a deleted one."""
        return file_id(self.path) == self._file_id

    def abandon(self) -> None:
        """Close a file that was deleted or replaced.

        Also deletes its write-ahead log, if that is still in place: SQLite would apply it to the new file at the path.
        """
        self._is_abandoned = True
        with suppress(LabbenchError):
            self.close()
        log = path_with_suffix(self.path, "-wal")
        if self._log_id is not None and file_id(log) == self._log_id:
            for side_file in (log, path_with_suffix(self.path, "-shm")):
                side_file.unlink(missing_ok=True)

    def copy_runs(self, copy: Path, keys: Sequence[str]) -> None:
        """Copy runs of the open file, which may have been deleted, to a new database at `copy`.

        Raises:
            InputError: If `copy` cannot be created.
            StoreError: If the open file cannot be read.
        """
        from labbench.store.maintenance.merge import copy_runs  # needed only after a file was deleted

        open_for_writing(copy).close()
        with translate_sqlite_errors(copy):
            copy_runs(self._connection, copy, keys)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        is_in_place = self.is_in_place()
        self.close()
        if kind is None and not is_in_place and not self._is_abandoned:
            raise StoreError(f"{self.path} was deleted or replaced while it was written to; do the same again")

    def close(self) -> None:
        """Close the database after a WAL checkpoint; the last connection also deletes SQLite's side files.

        Without room for the checkpoint everything stays in the write-ahead log, where readers find it.
        """
        with translate_sqlite_errors(self.path):
            if not self._closed:
                self._closed = True
                if self.has_descriptors():
                    with suppress(sqlite3.OperationalError):
                        self._connection.execute("PRAGMA wal_checkpoint")
                self._connection.close()

    def merge_spilled(self) -> None:
        """Merge the spill files that scripts wrote while the database was locked or its disk full."""
        with translate_sqlite_errors(self.path, opening=True):
            merge_spill_files(self._connection, self.path)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        with translate_sqlite_errors(self.path):
            connection.require_descriptors()
        if not self.is_in_place():
            raise StoreError(f"{self.path} was deleted or replaced while it was open; nothing more is written to it")
        with translate_sqlite_errors(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                raise_revisions(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # a full disk has rolled it back already
                    connection.execute("ROLLBACK")
                raise
