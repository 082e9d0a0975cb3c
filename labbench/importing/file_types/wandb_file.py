"""Records of the `.wandb` files that W&B writes: the framing of LevelDB's log with a header of its own.

A file is a header of 7 bytes and blocks of 32 KiB. A block holds chunks of a CRC-32 (4 bytes), a length (2 bytes), a
type (1 byte) and the data; a record is one chunk or several. Source:
https://github.com/google/leveldb/blob/main/doc/log_format.md
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from labbench.errors import InputError

_MAGIC = b":W&B"
_HEADER_SIZE = 7
_VERSION = 0
"""Last byte of the header."""
_BLOCK_SIZE = 32768
_CHUNK_HEADER = struct.Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4
_CRC_OF_TYPE = {kind: zlib.crc32(bytes([kind])) for kind in (_FULL, _FIRST, _MIDDLE, _LAST)}


def read_records(path: Path) -> Iterator[bytes]:
    """Yield the complete records of a file; a last one that is cut is ignored.

    Raises:
        InputError: If the file cannot be read, is not a `.wandb` file, or a checksum is wrong.
    """
    try:
        with path.open("rb") as file:
            header = file.read(_HEADER_SIZE)
            if header[: len(_MAGIC)] != _MAGIC:
                raise InputError(f"{path}: not a .wandb file: it does not begin with {_MAGIC.decode()}")
            if header[-1] != _VERSION:
                raise InputError(f"{path}: a .wandb file of version {header[-1]}; version {_VERSION} can be read")
            record = b""
            for kind, data in _read_chunks(file, path):
                record = data if kind in (_FULL, _FIRST) else record + data
                if kind in (_FULL, _LAST):
                    yield record
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error


def _read_chunks(file: BinaryIO, path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield type and data of each chunk up to the end of the file or the first that is cut. Raises InputError."""
    start, position = 0, _HEADER_SIZE
    block = bytes(_HEADER_SIZE) + file.read(_BLOCK_SIZE - _HEADER_SIZE)
    while block:
        last = len(block) - _CHUNK_HEADER.size  # a block ends with zeros that no chunk's header fits in
        while position <= last:
            crc, size, kind = _CHUNK_HEADER.unpack_from(block, position)
            end = position + _CHUNK_HEADER.size + size
            if end > len(block) or not (crc or size or kind):  # cut, or space that is not yet written
                return
            data = block[end - size : end]
            if kind not in _CRC_OF_TYPE or zlib.crc32(data, _CRC_OF_TYPE[kind]) != crc:
                byte = start + position
                raise InputError(f"{path}: the record at byte {byte} has a wrong checksum: the file is damaged")
            yield kind, data
            position = end
        start += len(block)
        position, block = 0, file.read(_BLOCK_SIZE)
