"""Records of TensorBoard event files, with their checksums (TFRecord framing)."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from labbench.errors import InputError
from labbench.export.event_records import masked_crcs

_CHUNK_BYTES = 1 << 20
_MAX_RECORD_BYTES = 1 << 30
_LENGTH = struct.Struct("<Q")
_ZEROS = bytes(12)
"""No record begins with it: the checksum of a length is never 0 if the length is."""


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the data of the complete records of a file.

    A last record that is cut is ignored: the writer may be about to complete it. So are zeros, which a file system
    leaves at the end of a file that was not written completely before a crash.

    Raises:
        InputError: If the file cannot be read, or a checksum is wrong.
    """
    try:
        with path.open("rb") as file:
            offset, rest = 0, b""
            while chunk := file.read(_CHUNK_BYTES):
                data = rest + chunk
                spans, end = _find_records(data, path, offset)
                _check(data, spans, path, offset)
                for start, stop in spans:
                    yield data[start:stop]
                offset, rest = offset + end, data[end:]
                if rest.startswith(_ZEROS):
                    return
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _find_records(data: bytes, path: Path, offset: int) -> tuple[list[tuple[int, int]], int]:
    """Return the bounds of the data of each complete record, and the end of the last one."""
    spans, position = [], 0
    while position + 12 <= len(data):
        [size] = _LENGTH.unpack_from(data, position)
        if size > _MAX_RECORD_BYTES:
            raise InputError(f"{path}: byte {offset + position} begins no record: the file is damaged")
        if position + 16 + size > len(data) or data.startswith(_ZEROS, position):
            break
        spans.append((position + 12, position + 12 + size))
        position += 16 + size
    return spans, position


def _check(data: bytes, spans: Sequence[tuple[int, int]], path: Path, offset: int) -> None:
    """Check the checksums of records, records of equal length together. Raises InputError."""
    buffer = np.frombuffer(data, np.uint8)
    bounds = np.array(spans, dtype=np.int64).reshape(-1, 2)
    for size in np.unique(bounds[:, 1] - bounds[:, 0]).tolist():
        starts = bounds[bounds[:, 1] - bounds[:, 0] == size, 0]
        for first, length in ((-12, 8), (0, size)):
            content = buffer[(starts + first)[:, None] + np.arange(length)]
            stored = buffer[(starts + first + length)[:, None] + np.arange(4)].copy().view("<u4")[:, 0]
            wrong = np.flatnonzero(masked_crcs(content) != stored)
            if len(wrong):
                position = offset + int(starts[wrong[0]]) - 12
                raise InputError(f"{path}: the record at byte {position} has a wrong checksum: the file is damaged")
