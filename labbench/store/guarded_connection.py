"""`GuardedConnection`: SQLite connection that stops once the program has closed its file descriptors.

A program that becomes a daemon closes all file descriptors (`os.closerange(3, 65536)`), also those that SQLite uses.
Files that it opens later get the same numbers, and SQLite would write the database into them, even while it closes
(https://www.sqlite.org/howtocorrupt.html, section 1.1). Nor can this process open the database again: SQLite shares
locks, which are lost, among all connections of a process.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from typing import Any
from weakref import WeakSet

Identity = tuple[int, int]
"""Device and inode of a file."""


def identity_of_descriptor(descriptor: int) -> Identity | None:
    """Return device and inode of an open file; None if the descriptor is closed."""
    try:
        stat = os.fstat(descriptor)
    except OSError:
        return None
    return stat.st_dev, stat.st_ino


class GuardedConnection(sqlite3.Connection):
    """Connection with a file descriptor of its own, the guard, which is closed whenever all descriptors are."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._guard: int | None = None
        super().__init__(*arguments, **options)
        try:
            self._guard, writer = os.pipe()
        except OSError as error:  # too many open files
            raise sqlite3.OperationalError(f"unable to open a pipe: {error}") from error
        os.close(writer)
        self._guard_identity = identity_of_descriptor(self._guard)
        self._file: Identity | None = None

    def protect(self, file: Identity | None) -> None:
        """Set the database file; see `require_descriptors_of`."""
        self._file = file
        _connections.add(self)

    def has_descriptors(self) -> bool:
        """Return False once the program has closed the descriptors: the connection must not be used any more."""
        return self._guard is None or identity_of_descriptor(self._guard) == self._guard_identity

    def require_descriptors(self) -> None:
        """Raise sqlite3.OperationalError if the program has closed the descriptors."""
        if not self.has_descriptors():
            raise sqlite3.OperationalError("file descriptors were closed")

    def close(self) -> None:
        """Close the connection, unless the program has closed its descriptors."""
        if not self.has_descriptors():
            _keep_open(self)
            return
        guard, self._guard = self._guard, None
        super().close()
        if guard is not None:
            os.close(guard)

    def __del__(self) -> None:
        with suppress(Exception):  # at the end of the interpreter
            if self._guard is not None:
                self.close()


_connections: WeakSet[GuardedConnection] = WeakSet()


def require_descriptors_of(file: Identity | None) -> None:
    """Raise sqlite3.OperationalError if the program has closed the descriptors of a connection to this file."""
    for connection in list(_connections):
        if connection._file == file:
            connection.require_descriptors()


def _keep_open(connection: GuardedConnection) -> None:
    """Keep a connection until the process ends: to deallocate it would close it."""
    import ctypes  # needed only here

    _connections.add(connection)
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))
