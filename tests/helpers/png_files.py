"""PNG files of every kind, written from the specification: https://www.w3.org/TR/png-3/."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from numpy.typing import NDArray

GREY, COLOURS, PALETTE, GREY_ALPHA, COLOURS_ALPHA = 0, 2, 3, 4, 6
"""PNG's colour types (section 11.2.1)."""
CHANNELS = {GREY: 1, COLOURS: 3, PALETTE: 1, GREY_ALPHA: 2, COLOURS_ALPHA: 4}
DEPTHS = {GREY: (1, 2, 4, 8, 16), COLOURS: (8, 16), PALETTE: (1, 2, 4, 8), GREY_ALPHA: (8, 16), COLOURS_ALPHA: (8, 16)}

ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""First column and row of each pass over an interlaced image, and the steps between them (section 8)."""


def png(
    samples: NDArray[np.integer],
    *,
    bits: int = 8,
    colour: int | None = None,
    filters: str = "01234",
    interlaced: bool = False,
    palette: NDArray[np.uint8] | None = None,
    transparency: bytes = b"",
) -> bytes:
    """Return a PNG of `samples`, shape (H, W, C), integers of `bits` bits.

    The lines are filtered by the types in `filters`, in turn. `colour` follows from C unless given; `palette` has
    shape (colours, 3); `transparency` is the content of the tRNS chunk.
    """
    height, width, channels = samples.shape
    if colour is None:
        colour = {1: GREY, 2: GREY_ALPHA, 3: COLOURS, 4: COLOURS_ALPHA}[channels]
    parts = [samples[y::dy, x::dx] for x, y, dx, dy in ADAM7] if interlaced else [samples]
    packed = zlib.compress(b"".join(filtered(packed_rows(part, bits), channels * bits, filters) for part in parts))
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, interlaced)), (b"tEXt", b"a\0text")]
    if palette is not None:
        chunks.append((b"PLTE", palette.tobytes()))
    if transparency:
        chunks.append((b"tRNS", transparency))
    chunks += [(b"IDAT", packed[:20]), (b"IDAT", packed[20:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(name, body) for name, body in chunks)


def chunk(name: bytes, body: bytes) -> bytes:
    """Return a chunk with its length and checksum (section 5.3)."""
    return struct.pack(">I4s", len(body), name) + body + struct.pack(">I", zlib.crc32(name + body))


def packed_rows(samples: NDArray[np.integer], bits: int) -> NDArray[np.uint8]:
    """Return the bytes of each row, shape (H, bytes): samples of less than 8 bits share a byte (section 7.2)."""
    rows = samples.reshape(len(samples), samples.shape[1] * samples.shape[2])
    if bits == 16:
        return rows.astype(">u2").view(np.uint8)
    single_bits = np.unpackbits(rows.astype(np.uint8)[..., None], axis=2)[..., 8 - bits :]
    return np.packbits(single_bits.reshape(len(rows), rows.shape[1] * bits), axis=1)


def filtered(rows: NDArray[np.uint8], bits_per_pixel: int, filters: str) -> bytes:
    """Return the rows as differences to the bytes on the left and above (section 9.2)."""
    count, size = rows.shape
    if size == 0:
        return b""
    step = max(1, bits_per_pixel // 8)
    padded = np.zeros((count + 1, size + step), np.int16)
    padded[1:, step:] = rows
    lines = b""
    for row in range(1, count + 1):
        left, up, corner = padded[row, :-step], padded[row - 1, step:], padded[row - 1, :-step]
        near = [np.abs(each - (left + up - corner)) for each in (left, up, corner)]
        paeth = np.where((near[0] <= near[1]) & (near[0] <= near[2]), left, np.where(near[1] <= near[2], up, corner))
        kind = int(filters[row % len(filters)])
        guess = [np.zeros_like(left), left, up, (left + up) // 2, paeth][kind]
        lines += bytes([kind]) + (padded[row, step:] - guess).astype(np.uint8).tobytes()
    return lines
