"""PNG files of 8 bits per channel: an encoder, and a decoder of what it writes; Pillow decodes any other file.

Source: https://www.w3.org/TR/png-3/
"""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from labbench.errors import InputError
from labbench.portraits.pixels import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_HEADER = struct.Struct(">IIBBBBB")
_COLOUR_TYPES = {1: 0, 3: 2, 4: 6}
"""Colour types of the format by number of channels: grey, RGB, RGB with opacity."""
_CHANNELS = {colour_type: channels for channels, colour_type in _COLOUR_TYPES.items()}
_NONE, _UP = 0, 2
"""Filters of a row: its bytes, or their differences to the row above."""
_MAX_PIXELS = 1 << 24
_FORMATS = ("PNG", "JPEG", "BMP", "GIF", "WEBP", "TIFF")
"""Formats that Pillow may open; others, such as EPS, would start external programs."""


def encode_png(pixels: NDArray[np.uint8]) -> bytes:
    """Return a PNG file of pixels, shape (H, W, C), with C = 1, 3 or 4."""
    height, width, channels = pixels.shape
    rows = pixels.reshape(height, width * channels)
    differences = np.diff(rows, axis=0, prepend=np.zeros((1, rows.shape[1]), np.uint8))
    filtered = np.concatenate([np.full((height, 1), _UP, np.uint8), differences], axis=1)
    header = _HEADER.pack(width, height, 8, _COLOUR_TYPES[channels], 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(filtered.tobytes(), 6)), (b"IEND", b"")]
    return _SIGNATURE + b"".join(_encode_chunk(name, data) for name, data in chunks)


def _encode_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def is_png(content: bytes) -> bool:
    """Return True for the content of a PNG file."""
    return content.startswith(_SIGNATURE)


def read_image_file(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of an image file, shape (H, W, C), with C = 1, 3 or 4.

    Raises:
        InputError: If the file cannot be read, or only by Pillow, which is not installed.
    """
    try:
        pixels = _decode_png(path.read_bytes())
        return _read_with_pillow(path) if pixels is None else pixels
    except ImportError as error:
        raise InputError(f"{path}: this kind of image is read by Pillow: pip install pillow") from error
    except (OSError, ValueError, SyntaxError, zlib.error, struct.error) as error:  # SyntaxError: a broken PNG
        raise InputError(f"{path}: the image cannot be read: {error}") from error


def _decode_png(content: bytes) -> NDArray[np.uint8] | None:
    """Return the pixels of a file as `encode_png` writes it; None for any other.

    Raises ValueError, zlib.error or struct.error if the file is damaged.
    """
    if not is_png(content) or len(content) < 33:
        return None
    width, height, bits, colour_type, _, _, interlaced = _HEADER.unpack_from(content, 16)
    if bits != 8 or interlaced or colour_type not in _CHANNELS or not 0 < width * height <= _MAX_PIXELS:
        return None
    channels, position, packed = _CHANNELS[colour_type], len(_SIGNATURE), b""
    while position + 12 <= len(content):
        [size] = struct.unpack_from(">I", content, position)
        name = content[position + 4 : position + 8]
        packed += content[position + 8 : position + 8 + size] if name == b"IDAT" else b""
        position += 12 + size
    n_bytes = height * (1 + width * channels)
    rows = np.frombuffer(zlib.decompressobj().decompress(packed, n_bytes), np.uint8).reshape(height, -1)
    if not np.isin(rows[:, 0], (_NONE, _UP)).all():
        return None
    pixels = rows[:, 1:].copy()
    starts = np.flatnonzero(rows[:, 0] == _NONE).tolist()
    for first, end in zip([0, *starts], [*starts, height], strict=True):  # sums of the rows since one without a filter
        pixels[first:end] = np.cumsum(pixels[first:end], axis=0, dtype=np.uint8)
    return pixels.reshape(height, width, channels)


def _read_with_pillow(path: Path) -> NDArray[np.uint8]:
    """Return the pixels of any image file.

    Raises ImportError without Pillow, OSError or ValueError if the file cannot be read.
    """
    import PIL.Image

    with PIL.Image.open(path, formats=_FORMATS) as image:
        if image.width * image.height > _MAX_PIXELS:
            raise ValueError(f"it has more than {_MAX_PIXELS:,} pixels")
        mode = image.mode if image.mode in ("L", "RGB", "RGBA") else "RGBA" if "A" in image.mode else "RGB"
        pixels = np.asarray(image.convert(mode))
    return pixels[..., None] if pixels.ndim == 2 else pixels


def shrink(pixels: NDArray[np.uint8], max_side: int) -> NDArray[np.uint8]:
    """Return pixels, shape (H, W, C), with at most `max_side` rows and columns: means of square blocks."""
    height, width, channels = pixels.shape
    block = -(-max(height, width) // max_side)
    if block == 1:
        return pixels
    padded = np.pad(pixels, ((0, -height % block), (0, -width % block), (0, 0)), mode="edge")
    blocks = padded.reshape(padded.shape[0] // block, block, padded.shape[1] // block, block, channels)
    means: NDArray[np.uint8] = blocks.mean(axis=(1, 3)).round().astype(np.uint8)
    return means


def to_rgb(pixels: NDArray[np.uint8]) -> Image:
    """Return pixels, shape (H, W, C) with C = 1, 3 or 4, as RGB on black, shape (H, W, 3)."""
    if pixels.shape[2] == 4:
        blended: Image = (pixels[..., :3] * (pixels[..., 3:] / 255)).round().astype(np.uint8)
        return blended
    return np.broadcast_to(pixels, (*pixels.shape[:2], 3))
