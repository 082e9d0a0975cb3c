"""Read-only access to the SQLite databases of other programs."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

from labbench.errors import InputError


class ForeignDatabase:
    """Open database of another program."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self.path = path
        query = "SELECT name FROM sqlite_master WHERE type = 'table'"  # a view may compute without end
        self.tables = {name for (name,) in self.rows(query)}

    def has_columns(self, table: str, *columns: str) -> bool:
        """Return True if a table exists and has the columns."""
        if table not in self.tables:
            return False
        return {*columns} <= {name for (name,) in self.rows("SELECT name FROM pragma_table_info(?)", table)}

    def rows(self, query: str, *parameters: Any) -> Iterator[tuple[Any, ...]]:
        """Yield the rows of a query. Raises InputError if the file is damaged."""
        try:
            yield from self._connection.execute(query, parameters)
        except (sqlite3.Error, UnicodeError) as error:  # SQLite quotes damaged bytes in its messages
            raise InputError(f"{self.path}: cannot be read: {error}") from error


@contextmanager
def open_foreign(path: Path) -> Iterator[ForeignDatabase]:
    """Open a database that another process may be writing to, for reading.

    Raises:
        InputError: If the file is not an SQLite database.
    """
    try:
        with path.open("rb") as file:
            if file.read(16) != b"SQLite format 3\0":
                raise InputError(f"{path}: not an SQLite database")
        connection = sqlite3.connect(f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, timeout=10.0)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    with closing(connection):
        connection.text_factory = lambda data: data.decode("utf-8", "replace")
        connection.execute("PRAGMA trusted_schema = OFF")
        yield ForeignDatabase(connection, path)
