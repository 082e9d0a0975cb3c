"""Framing of TensorBoard's event files (TFRecord) and the protocol buffer messages in them, for writing.

Each record is its length (8 bytes), the masked CRC-32C of the length (4 bytes), the data, and the masked CRC-32C of the
data (4 bytes), little-endian. Source: https://www.tensorflow.org/tutorials/load_data/tfrecord
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

_LENGTH = struct.Struct("<Q")
_CRC = struct.Struct("<I")


def _crc_table() -> NDArray[np.uint32]:
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ 0x82F6_3B78 * (crc & 1) for crc in table]
    return np.array(table, dtype=np.uint32)


_CRC_TABLE = _crc_table()


def masked_crcs(records: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return the masked CRC-32C of each of N records of L bytes, uint32, shape (N,); `records` has shape (N, L)."""
    crcs = np.full(len(records), 0xFFFF_FFFF, dtype=np.uint32)
    for column in records.T:
        crcs = _CRC_TABLE[(crcs ^ column) & 0xFF] ^ (crcs >> 8)
    crcs ^= np.uint32(0xFFFF_FFFF)
    return (((crcs >> 15) | (crcs << 17)) + np.uint32(0xA282_EAD8)).astype(np.uint32)


def frame_records(records: Sequence[bytes]) -> bytes:
    """Return records with their lengths and checksums, one after the other."""
    indices: dict[int, list[int]] = defaultdict(list)
    for index, record in enumerate(records):
        indices[len(record)].append(index)
    framed = [b""] * len(records)
    for size, of_size in indices.items():
        content = np.frombuffer(b"".join(records[index] for index in of_size), np.uint8).reshape(len(of_size), size)
        length = _LENGTH.pack(size)
        head = length + _crc(length)
        for index, crc in zip(of_size, masked_crcs(content).tolist(), strict=True):
            framed[index] = head + records[index] + _CRC.pack(crc)
    return b"".join(framed)


def _crc(data: bytes) -> bytes:
    return _CRC.pack(int(masked_crcs(np.frombuffer(data, np.uint8)[None])[0]))


def varint(value: int) -> bytes:
    """Return a signed 64-bit integer as a varint."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])


def integer_field(number: int, value: int) -> bytes:
    """Return a field that holds an integer."""
    return varint(number << 3) + varint(value)


def double_field(number: int, value: float) -> bytes:
    """Return a field that holds a number of 8 bytes."""
    return varint(number << 3 | 1) + struct.pack("<d", value)


def bytes_field(number: int, content: bytes | str) -> bytes:
    """Return a field that holds a text or a message."""
    content = content.encode("utf-8", "replace") if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def struct_value(value: Any) -> bytes:
    """Return a number, truth value or text as a `google.protobuf.Value`; anything else as its text."""
    if isinstance(value, bool):
        return integer_field(4, int(value))
    if isinstance(value, int | float):
        return double_field(2, float(value))
    return bytes_field(3, value if isinstance(value, str) else repr(value))
