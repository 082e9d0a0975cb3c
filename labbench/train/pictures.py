"""A folder of images, with a folder for each class. PNG, PGM and PPM are read here; anything else takes Pillow."""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from labbench.errors import InputError
from labbench.train.data import Split

Picture = NDArray[np.uint8]
"""(H, W, C), C 1 for grey, 3 for colours."""

WITH_PILLOW = (".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
SUFFIXES = (".png", ".pgm", ".ppm", *WITH_PILLOW)


def read_folder(folder: Path) -> Split:
    """Inputs uint8 (N, C, H, W), classes by the order of their folders' names. All images must be of one size.

    Raises InputError with the file that cannot be used.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and any(pictures_in(path)))
    if len(classes) < 2:
        raise InputError(f"{folder} must have a folder of images for each class, at least two ({', '.join(SUFFIXES)})")
    files = [(file, number) for number, each in enumerate(classes) for file in pictures_in(each)]
    pictures = [read_picture(file) for file, _ in files]
    for (file, _), picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            sizes = " and ".join(described(each) for each in (picture, pictures[0]))
            raise InputError(f"{file} and {files[0][0]} differ, {sizes}: all images must be of one size and kind")
    inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return inputs, torch.tensor([number for _, number in files])


def pictures_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)


def described(picture: Picture) -> str:
    height, width, channels = picture.shape
    return f"{width}x{height} in {'grey' if channels == 1 else 'colours'}"


def read_picture(path: Path) -> Picture:
    """One image. Raises InputError where it cannot be read."""
    suffix = path.suffix.lower()
    if suffix not in WITH_PILLOW:
        try:
            return (read_png if suffix == ".png" else read_pnm)(path.read_bytes())
        except (ValueError, struct.error, zlib.error) as error:
            if find_spec("PIL") is None:
                raise InputError(f"{path} cannot be read: {error}; Pillow may read it: pip install pillow") from None
    elif find_spec("PIL") is None:
        raise InputError(f"{path}: to read {suffix} takes Pillow: pip install pillow; .png needs nothing")
    return read_by_pillow(path)


def read_by_pillow(path: Path) -> Picture:
    from PIL import Image, UnidentifiedImageError  # not everybody has it

    try:
        with Image.open(path) as image:
            grey = image.mode in ("1", "L", "LA", "I", "I;16", "F")
            values = np.asarray(image.convert("L" if grey else "RGB"))
    except (OSError, UnidentifiedImageError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    return values.reshape(*values.shape[:2], -1)


def read_pnm(content: bytes) -> Picture:
    """The binary forms P5 (grey) and P6 (colours) with values up to 255."""
    comment = rb"(?:\s|#[^\n]*\n)+"
    header = re.match(rb"P([56])" + comment + rb"(\d+)" + comment + rb"(\d+)" + comment + rb"255\s", content)
    if header is None:
        raise ValueError("it is no binary PGM or PPM of 8 bits")
    kind, width, height = (int(group) for group in header.groups())
    shape = height, width, 1 if kind == 5 else 3
    return np.frombuffer(content, np.uint8, height * width * shape[2], header.end()).reshape(shape)


CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
"""Of PNG's colour types; 2 and 4 end with transparency, which is left out."""


def read_png(content: bytes) -> Picture:
    """The common form: 8 bits, grey or colours, not interlaced, without a palette."""
    if content[:8] != b"\x89PNG\r\n\x1a\n":
        raise ValueError("it is no PNG")
    width, height, bits, colour, _, _, interlaced = struct.unpack(">IIBBBBB", content[16:29])
    if bits != 8 or colour not in CHANNELS or interlaced:
        raise ValueError("it is a PNG with a palette, interlaced, or not of 8 bits")
    channels = CHANNELS[colour]
    packed = b"".join(chunk for name, chunk in png_chunks(content) if name == b"IDAT")
    lines = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, 1 + width * channels)
    pixels = np.zeros((height + 1, width + 1, channels), np.uint8)  # above and left of the image are zeros
    for row, line in enumerate(lines, start=1):
        undo_filter(int(line[0]), line[1:].reshape(width, channels), pixels[row], pixels[row - 1])
    return pixels[1:, 1:, : 1 if channels < 3 else 3]


def png_chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 8
    while place < len(content):
        length, name = struct.unpack(">I4s", content[place : place + 8])
        yield name, content[place + 8 : place + 8 + length]
        place += length + 12


def undo_filter(kind: int, line: Picture, into: Picture, above: Picture) -> None:
    """A line of pixels (W, C) from its differences to what is left and above; `into` and `above` are (1 + W, C)."""
    if kind == 0:
        into[1:] = line
    elif kind == 1:
        into[1:] = line.cumsum(axis=0, dtype=np.uint8)
    elif kind == 2:
        into[1:] = line + above[1:]
    elif kind in (3, 4):
        for x in range(1, len(into)):
            left, up, corner = (each.astype(np.int16) for each in (into[x - 1], above[x], above[x - 1]))
            guess = (left + up) // 2 if kind == 3 else paeth(left, up, corner)
            into[x] = (line[x - 1] + guess).astype(np.uint8)
    else:
        raise ValueError(f"it has a line of filter type {kind}, which there is not")


def paeth(left: NDArray[np.int16], up: NDArray[np.int16], corner: NDArray[np.int16]) -> NDArray[np.int16]:
    """Which of the three is nearest to left + up - corner, in this order."""
    guess = left + up - corner
    distances = np.abs(np.stack([left, up, corner]) - guess)
    nearest: NDArray[np.int16] = np.choose(distances.argmin(axis=0), [left, up, corner])
    return nearest
