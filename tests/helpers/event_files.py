"""Write small TensorBoard event files, for the tests of their import."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from pathlib import Path

from labbench.export.event_records import bytes_field, double_field, frame_records, integer_field


def write_event_file(folder: Path, scalars: Iterable[tuple[str, int, float]]) -> Path:
    """Write one event per (tag, step, value) to the event file of a folder, one second apart, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "events.out.tfevents.1.host.1.0"
    path.write_bytes(frame_records([_event(number, *scalar) for number, scalar in enumerate(scalars)]))
    return path


def _event(number: int, tag: str, step: int, value: float) -> bytes:
    scalar = bytes_field(1, tag) + b"\x15" + struct.pack("<f", value)
    return double_field(1, 1e9 + number) + integer_field(2, step) + bytes_field(5, bytes_field(1, scalar))
