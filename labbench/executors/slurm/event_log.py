"""Append-only files through which a job reports its events to the driver, on a disk that both share.

A record is its length and the CRC-32 of its payload (8 bytes, little-endian), then the payload, JSON. A process that is
killed leaves an incomplete last record, which is never read.
"""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

from labbench.files import open_without_links, write_atomically

HEADER = struct.Struct("<II")

MAX_RECORD_BYTES = 2**28
"""Largest record; a longer one is damage."""

CHUNK_BYTES = 2**22
"""Bytes that are read at once, unless a record is longer."""


class EventFileWriter:
    """Writer of a new event file."""

    def __init__(self, path: Path, heading: bytes) -> None:
        """Create the file with its first record. Raises OSError if it cannot be created."""
        with write_atomically(path, mode=0o600) as file:
            file.write(_frame(heading))
        self._file = open_without_links(path, "ab", buffering=0)

    def append(self, payload: bytes) -> None:
        """Append a record. Raises OSError if the disk is full."""
        view = memoryview(_frame(payload))
        while view:
            view = view[self._file.write(view) :]

    def close(self) -> None:
        """Write the file to the disk and close it."""
        os.fsync(self._file.fileno())
        self._file.close()


def _frame(payload: bytes) -> bytes:
    return HEADER.pack(len(payload), zlib.crc32(payload)) + payload


def read_records(path: Path, start: int, end: int | None = None) -> list[tuple[bytes, int]]:
    """Return the complete records from a position on, each with the position after it.

    Each call opens the file, because an NFS client revalidates its cache only then. A record that is incomplete, or
    whose checksum differs because the client has not received all of it, is left for the next call. Records that end
    after the position `end` are not read.
    """
    try:
        with open_without_links(path, "rb") as file:
            file.seek(start)
            data = file.read(CHUNK_BYTES)
            if len(data) >= HEADER.size and (size := HEADER.unpack_from(data)[0]) <= MAX_RECORD_BYTES:
                data += file.read(max(0, HEADER.size + size - len(data)))
    except FileNotFoundError:
        return []
    records: list[tuple[bytes, int]] = []
    position = 0
    while len(data) - position >= HEADER.size:
        size, checksum = HEADER.unpack_from(data, position)
        first, last = position + HEADER.size, position + HEADER.size + size
        if last > len(data) or zlib.crc32(data[first:last]) != checksum or (end is not None and start + last > end):
            break
        records.append((data[first:last], start + last))
        position = last
    return records
