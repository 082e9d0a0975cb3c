"""Messages of a worker process, received without waiting for the rest of an incomplete one.

A worker may be killed or suspended in the middle of a message, and a process that a task has forked keeps the worker's
end of the connection open. `Connection.recv` would then wait forever.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
from multiprocessing.connection import Connection
from typing import Any

CHUNK_BYTES = 2**20


class MessageReader:
    """Receiver of the objects that the other end of a connection sends with `Connection.send`."""

    def __init__(self, connection: Connection) -> None:
        self._socket = socket.socket(fileno=os.dup(connection.fileno()))
        self._buffer = bytearray()
        self.is_closed = False
        """True after the other end was closed, or has sent something else than messages."""

    def take(self) -> list[Any]:
        """Return the complete messages that have arrived."""
        try:
            data = self._socket.recv(CHUNK_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return []
        except OSError:
            data = b""
        self.is_closed = not data
        self._buffer += data
        messages, start = [], 0
        while (bounds := _find_message(self._buffer, start)) is not None:
            first, start = bounds
            try:
                messages.append(pickle.loads(self._buffer[first:start]))
            except Exception:
                self.is_closed = True
                break
        del self._buffer[:start]
        return messages

    def close(self) -> None:
        """Close this end."""
        self._socket.close()


def _find_message(buffer: bytearray, start: int) -> tuple[int, int] | None:
    """Return start and end of the message whose header is at `start`; None if it is incomplete.

    The header is its length, as `multiprocessing.connection.Connection` writes it.
    """
    first = start + 4
    if len(buffer) < first:
        return None
    (size,) = struct.unpack_from("!i", buffer, start)
    if size == -1:  # 2 GiB or more
        first += 8
        if len(buffer) < first:
            return None
        (size,) = struct.unpack_from("!Q", buffer, start + 4)
    return (first, first + size) if len(buffer) >= first + size else None
