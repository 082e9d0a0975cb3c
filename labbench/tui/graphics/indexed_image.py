"""Image with a palette of 255 colours and transparency, small enough to be sent to a terminal at every change."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Pixels: TypeAlias = NDArray[np.uint8]
"""Red, green, blue and opacity, 0 to 255, shape (height, width, 4)."""

_MAX_COLOURS = 255
_KEY_BITS = 15
"""4 bits of each colour and 3 of the opacity."""
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PALETTE_COLOURS = 3
"""Colour type of the PNG format."""


@dataclass(frozen=True, slots=True, eq=False)
class IndexedImage:
    """Image of at most 256 colours."""

    indices: NDArray[np.uint8]
    """Index of each pixel's colour, shape (height, width); 0 is transparent."""
    palette: NDArray[np.uint8]
    """Red, green, blue and opacity of each colour, shape (colours, 4); the first is transparent."""

    @classmethod
    def from_pixels(cls, pixels: Pixels) -> IndexedImage:
        """Return an image with the most frequent colours; other pixels get the most similar one."""
        red, green, blue, opacity = (pixels[..., channel].astype(np.int32) for channel in range(4))
        keys = (red >> 4 << 11) | (green >> 4 << 7) | (blue >> 4 << 3) | opacity >> 5
        keys[opacity == 0] = 0
        counts = np.bincount(keys.ravel(), minlength=1 << _KEY_BITS)
        counts[0] = 0
        present = np.flatnonzero(counts)
        chosen = present[np.argsort(counts[present], kind="stable")[::-1][:_MAX_COLOURS]]
        colours = _mean_colours(pixels, keys, present)
        palette = np.zeros((len(chosen) + 1, 4), np.uint8)
        palette[1:] = colours[chosen]
        index_of_key = np.zeros(1 << _KEY_BITS, np.uint8)
        distances = ((colours[present][:, None] - colours[chosen][None]) ** 2).sum(axis=2)
        index_of_key[present] = distances.argmin(axis=1) + 1 if len(present) else 0
        return cls(index_of_key[keys], palette)

    @classmethod
    def from_rgb(cls, pixels: NDArray[np.uint8]) -> IndexedImage:
        """Return an opaque image of red, green and blue, shape (height, width, 3)."""
        return cls.from_pixels(np.concatenate([pixels, np.full_like(pixels[..., :1], 255)], axis=2))

    def resize(self, height: int, width: int) -> IndexedImage:
        """Return the image with other numbers of pixels, each with the colour of the nearest one."""
        if self.indices.shape == (height, width):
            return self
        rows = np.arange(height) * len(self.indices) // height
        columns = np.arange(width) * self.indices.shape[1] // width
        return IndexedImage(self.indices[np.ix_(rows, columns)], self.palette)

    def to_pixels(self) -> Pixels:
        """Return the pixels."""
        pixels: Pixels = self.palette[self.indices]
        return pixels

    def to_png(self) -> bytes:
        """Return the image as a PNG file (https://www.w3.org/TR/png-3/)."""
        height, width = self.indices.shape
        rows = np.concatenate([np.zeros((height, 1), np.uint8), self.indices], axis=1)  # filter 0: the bytes themselves
        chunks = [
            (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, _PALETTE_COLOURS, 0, 0, 0)),
            (b"PLTE", self.palette[:, :3].tobytes()),
            (b"tRNS", self.palette[:, 3].tobytes()),
            (b"IDAT", zlib.compress(rows.tobytes(), 6)),
            (b"IEND", b""),
        ]
        return _PNG_SIGNATURE + b"".join(_encode_chunk(name, data) for name, data in chunks)


def _mean_colours(pixels: Pixels, keys: NDArray[np.int32], present: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean colour of the pixels of each key, shape (keys, 4)."""
    means = np.zeros((1 << _KEY_BITS, 4))
    flat = keys.ravel()
    drawn = np.flatnonzero(flat)
    counts = np.bincount(flat[drawn], minlength=1 << _KEY_BITS)
    for channel in range(4):
        sums = np.bincount(flat[drawn], pixels[..., channel].ravel()[drawn], minlength=1 << _KEY_BITS)
        means[present, channel] = np.rint(sums[present] / counts[present])
    return means


def _encode_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
