"""Frames on the connection between a mirror and its source: JSON or raw numbers, each with its length.

A frame is its length (4 bytes, big-endian), its kind (`J` or `P`) and its content: UTF-8 text, or the steps, times and
values of points as little-endian numbers of 64 bits. Nothing that arrives is executed.
"""

from __future__ import annotations

import json
import os
import select
import struct
import sys
from array import array
from typing import Any

from labbench.errors import StoreError
from labbench.store.sharing.changes import MirroredPoints

MAX_FRAME = 64 << 20
"""Maximum size of a frame in bytes."""

MARKER = b"\0labbench-changes\0"
"""Start of the answers; what comes before is text that the login shell printed."""

_MAX_BANNER = 1 << 20
_HEADER = struct.Struct(">Ic")
_POINT_BYTES = 24


class ConnectionCut(StoreError):
    """The other end of a connection has closed it, or does not answer."""


class FrameConnection:
    """Connection on two file descriptors, which stay open."""

    def __init__(self, input_: int, output: int, *, timeout: float | None = None) -> None:
        """Use a pair of descriptors; `timeout` is the longest wait for data in seconds, None: for ever."""
        self._input, self._output, self._timeout = input_, output, timeout
        self._buffer = bytearray()

    def send(self, message: Any) -> None:
        """Send a JSON document. Raises ConnectionCut if the other end is closed."""
        self._write(b"J", json.dumps(message, ensure_ascii=True, allow_nan=False).encode())

    def send_points(self, points: MirroredPoints) -> None:
        """Send points. Raises ConnectionCut if the other end is closed."""
        self._write(b"P", b"".join(_little_endian(column) for column in (points.steps, points.times, points.values)))

    def send_marker(self) -> None:
        """Send what `skip_to_marker` waits for."""
        self._write_all(MARKER)

    def skip_to_marker(self) -> None:
        """Skip text up to the marker.

        Raises:
            ConnectionCut: If there is no marker in the first MiB.
        """
        while (start := self._buffer.find(MARKER)) < 0:
            if len(self._buffer) > _MAX_BANNER:
                raise ConnectionCut("the answer is not that of labbench")
            self._fill()
        del self._buffer[: start + len(MARKER)]

    def receive(self) -> Any:
        """Return a JSON document, or `MirroredPoints`.

        Raises:
            ConnectionCut: If the other end closes the connection or sends nothing for too long.
            StoreError: If what arrives is not a frame, or too large.
        """
        length, kind = _HEADER.unpack(self._read(_HEADER.size))
        if length > MAX_FRAME or kind not in (b"J", b"P"):
            raise StoreError(f"the other end sent what is not a frame of labbench: {length} bytes of the kind {kind!r}")
        content = self._read(length)
        if kind == b"J":
            try:
                return json.loads(content, parse_constant=_reject_constant)
            except (ValueError, RecursionError) as error:
                raise StoreError(f"the other end sent a frame that is not JSON: {error}") from error
        if length % _POINT_BYTES:
            raise StoreError("the other end sent points that are not complete")
        size = length // 3
        columns = [content[start : start + size] for start in range(0, length, size)] if length else [b"", b"", b""]
        return MirroredPoints(_array("q", columns[0]), _array("q", columns[1]), _array("d", columns[2]))

    def _read(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._fill()
        content = bytes(self._buffer[:size])
        del self._buffer[:size]
        return content

    def _fill(self) -> None:
        if self._timeout is not None and not select.select([self._input], [], [], self._timeout)[0]:
            raise ConnectionCut(f"no answer for {self._timeout:g} s")
        data = os.read(self._input, 1 << 18)
        if not data:
            raise ConnectionCut("the connection was cut")
        self._buffer += data

    def _write(self, kind: bytes, content: bytes) -> None:
        if len(content) > MAX_FRAME:
            raise StoreError(f"a run has values of {len(content)} bytes, and {MAX_FRAME} can be sent")
        self._write_all(_HEADER.pack(len(content), kind) + content)

    def _write_all(self, data: bytes) -> None:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._output, view) :]
        except BrokenPipeError as error:
            raise ConnectionCut("the connection was cut") from error


def _little_endian(column: array[Any]) -> bytes:
    if sys.byteorder == "big":
        column = array(column.typecode, column)
        column.byteswap()
    return column.tobytes()


def _array(typecode: Any, data: bytes) -> array[Any]:
    column = array(typecode, data)
    if sys.byteorder == "big":
        column.byteswap()
    return column


def _reject_constant(name: str) -> float:
    raise ValueError(f"{name} is not a number of JSON")
