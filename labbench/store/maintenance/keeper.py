"""The rarer things that are done to a whole database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labbench.errors import InputError
from labbench.store.connection import translate_sqlite_errors
from labbench.store.maintenance.external_runs import Import
from labbench.store.maintenance.health import Diagnosis, repair
from labbench.store.maintenance.merge import MergeResult, attach_read_only, merge
from labbench.store.queries.run_rows import STATUS
from labbench.store.writer import Writer


class MaintenanceWriter(Writer):
    """Keeps a database in order. To open it for writing upgrades one of an older version."""

    def merge(self, other: Path) -> MergeResult:
        """Bring in the runs of another database that are not here or have gone on there, but not their files."""
        with attach_read_only(self._connection, other), self._transaction() as connection:
            return merge(connection)

    @contextmanager
    def importing(self) -> Iterator[Import]:
        """A transaction in which runs of another program come in, all or none."""
        with self._transaction() as connection:
            yield Import(connection)

    def repair(self, diagnosis: Diagnosis) -> None:
        """Put right what `examine` found, as far as it can be told from the points."""
        with self._transaction() as connection:
            repair(connection, diagnosis)

    def vacuum(self) -> None:
        """Give the space of what was deleted back to the disk; needs as much of it again meanwhile.

        Raises InputError while runs are driven: the file is locked for as long as it takes.
        """
        query = f"SELECT count(*) FROM runs WHERE {STATUS} = 'running'"
        with translate_sqlite_errors(self.path):
            [running] = self._connection.execute(query).fetchone()
            if running:
                raise InputError(f"{self.path}: {running} runs are running; vacuum when they are done")
            self._connection.execute("VACUUM")
