"""Decoding of protocol buffer messages without their schema.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
"""Wire types."""

_DOUBLE, _FLOAT = struct.Struct("<d"), struct.Struct("<f")


class ProtobufError(ValueError):
    """Bytes that are not a protocol buffer message."""


def read_fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Yield number and value of each field.

    The value is an integer for a varint, else the bytes: the content of a string, bytes or message, and the 4 or 8
    bytes of a number of fixed size.

    Raises:
        ProtobufError: If the bytes are not a message.
    """
    position, end = 0, len(message)
    while position < end:
        key, position = read_varint(message, position)
        number, wire_type = key >> 3, key & 7
        if wire_type == VARINT:
            value, position = read_varint(message, position)
            yield number, value
            continue
        if wire_type == LENGTH:
            size, position = read_varint(message, position)
        elif wire_type in (FIXED32, FIXED64):
            size = 4 if wire_type == FIXED32 else 8
        else:
            raise ProtobufError(f"wire type {wire_type}")
        if position + size > end:
            raise ProtobufError("a field is longer than its message")
        yield number, message[position : position + size]
        position += size


def read_varint(message: bytes, position: int) -> tuple[int, int]:
    """Return the varint at a position, as an unsigned integer, and the position after it.

    Raises:
        ProtobufError: If it does not end within 10 bytes.
    """
    if position < len(message) and message[position] < 0x80:  # the usual case
        return message[position], position + 1
    result = shift = 0
    while shift < 70 and position < len(message):
        byte = message[position]
        position += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
    raise ProtobufError("an invalid varint")


def read_message(message: bytes) -> dict[int, list[int | bytes]]:
    """Return the values of each field. Raises ProtobufError if the bytes are not a message."""
    fields: dict[int, list[int | bytes]] = {}
    for number, value in read_fields(message):
        fields.setdefault(number, []).append(value)
    return fields


def to_signed(value: int) -> int:
    """Return a varint as a signed 64-bit integer."""
    return value - (1 << 64) if value >> 63 else value


def to_double(value: int | bytes) -> float:
    """Return a field of 8 bytes as a number. Raises ProtobufError if it is another field."""
    if isinstance(value, int) or len(value) != 8:
        raise ProtobufError("a number of 8 bytes was expected")
    number: float = _DOUBLE.unpack(value)[0]
    return number


def to_float(value: int | bytes) -> float:
    """Return a field of 4 bytes as a number. Raises ProtobufError if it is another field."""
    if isinstance(value, int) or len(value) != 4:
        raise ProtobufError("a number of 4 bytes was expected")
    number: float = _FLOAT.unpack(value)[0]
    return number


def to_text(value: int | bytes) -> str:
    """Return a field as text. Raises ProtobufError if it is a number."""
    if isinstance(value, int):
        raise ProtobufError("text was expected")
    return value.decode("utf-8", "replace")


def to_bytes(value: int | bytes) -> bytes:
    """Return the bytes of a string or message. Raises ProtobufError if the field is a varint."""
    if isinstance(value, int):
        raise ProtobufError("a message was expected")
    return value
