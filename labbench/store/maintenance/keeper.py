"""Maintenance of a database: merge, import, repair, vacuum."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labbench.errors import InputError
from labbench.files import checkpoint_files, discard_checkpoints, files_folder
from labbench.store.connection import path_with_suffix, resolve_path, translate_sqlite_errors
from labbench.store.maintenance.external_runs import Import
from labbench.store.maintenance.health import Diagnosis, repair
from labbench.store.maintenance.merge import MergeResult, attach_read_only, merge
from labbench.store.queries.run_sql import IS_LOCAL, STATUS
from labbench.store.writer import Writer


@contextmanager
def open_for_import(path: Path) -> Iterator[MaintenanceWriter]:
    """Open a database, and delete it at the end if this call has created it and it has no runs.

    Raises:
        InputError: If the file is not a labbench database or cannot be written.
    """
    is_new = not path.exists()
    n_runs = 0
    try:
        with MaintenanceWriter(path) as writer:
            try:
                yield writer
            finally:
                n_runs = writer.count_runs()
    finally:
        if is_new and n_runs == 0:
            for suffix in ("", "-wal", "-shm"):
                path_with_suffix(resolve_path(path), suffix).unlink(missing_ok=True)


class MaintenanceWriter(Writer):
    """Writer for maintenance; opening it upgrades a database of an older version."""

    def count_runs(self) -> int:
        """Return the number of runs. Raises StoreError if the database cannot be read."""
        with translate_sqlite_errors(self.path):
            return int(self._connection.execute("SELECT count(*) FROM runs").fetchone()[0])

    def merge(self, other: Path) -> MergeResult:
        """Merge the runs of another database that are missing or older here, without their files.

        Raises:
            InputError: If `other` is not a labbench database, or has an invalid run key.
            StoreError: If the database cannot be written.
        """
        with attach_read_only(self._connection, other):
            return merge(self._connection, self._transaction)

    @contextmanager
    def importing(self) -> Iterator[Import]:
        """Import runs of another program in one transaction.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            importer = Import(connection)
            yield importer
            importer.finish()

    def repair(self, diagnosis: Diagnosis) -> None:
        """Repair the problems that `diagnose` found, as far as the points allow.

        Raises:
            StoreError: If the database cannot be written.
        """
        with self._transaction() as connection:
            repair(connection, diagnosis)

    def discard_kept_states(self) -> tuple[int, int]:
        """Delete the states that finished and pruned runs have kept, and return their number and size in bytes.

        Pruned runs then train from the start.

        Raises:
            InputError: If a key is invalid, or a run's folder is a link that points outside the folder of files.
            StoreError: If the database cannot be written.
        """
        files = files_folder(self.path)
        with self._transaction() as connection:
            query = "SELECT key FROM runs WHERE status IN ('finished', 'diverged', 'pruned') AND boundary > 0"
            keys = connection.execute(query).fetchall()
            connection.execute("UPDATE runs SET boundary = 0 WHERE status = 'pruned'")
        sizes = [path.stat().st_size for (key,) in keys for path in checkpoint_files(files, key)]
        for (key,) in keys:
            discard_checkpoints(files, key)
        return len(sizes), sum(sizes)

    def vacuum(self) -> None:
        """Return the space of deleted rows to the file system.

        While it runs, it locks the file and needs as much free disk space as the database takes.

        Raises:
            InputError: If runs are running.
            StoreError: If the database cannot be written.
        """
        query = f"SELECT count(*) FROM runs WHERE {STATUS} = 'running' AND {IS_LOCAL}"
        with translate_sqlite_errors(self.path):
            [running] = self._connection.execute(query).fetchone()
            if running:
                count = "1 run is" if running == 1 else f"{running} runs are"
                raise InputError(f"{self.path}: {count} running; vacuum once no run is running")
            self._connection.execute("VACUUM")
