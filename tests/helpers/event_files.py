"""Write small TensorBoard event files, for the tests of their import."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from labbench.importing.file_types.event_file import masked_crcs


def write_event_file(folder: Path, scalars: Iterable[tuple[str, int, float]]) -> Path:
    """Write one event per (tag, step, value) to the event file of a folder, one second apart, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.1.host.1.0"
    path.write_bytes(b"".join(_record(number, *scalar) for number, scalar in enumerate(scalars)))
    return path


def _record(number: int, tag: str, step: int, value: float) -> bytes:
    scalar = _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)
    summary = _field(1, scalar)
    event = b"\x09" + struct.pack("<d", 1e9 + number) + b"\x10" + _varint(step) + _field(5, summary)
    length = struct.pack("<Q", len(event))
    return length + _crc(length) + event + _crc(event)


def _crc(data: bytes) -> bytes:
    return struct.pack("<I", int(masked_crcs(np.frombuffer(data, np.uint8)[None])[0]))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= 0x80:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*encoded, value])
