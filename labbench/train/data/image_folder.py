"""A folder of images, with a folder for each class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from labbench.errors import InputError
from labbench.train.data.dataset import Split

Picture = NDArray[np.uint8]
"""(H, W, C), C 1 for grey, 3 for colours."""

IMAGE_SUFFIXES = (".png", ".pgm", ".ppm", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "PPM", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Pillow's names of the formats that it may take a file for; others, such as EPS, start programs of the system."""
DEEP_MODES = ("I", "I;16", "F")
"""Pillow's modes of grey images with more than 8 bits; `convert("L")` clips their values at 0 and 255."""
GREY_MODES = ("1", "L", "LA", *DEEP_MODES)
"""Pillow's modes without colours."""


def read_folder(folder: Path) -> Split:
    """Inputs uint8 (N, C, H, W), classes by the order of their folders' names. All images must be of one size.

    Raises InputError with the file that cannot be used.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and any(list_pictures(path)))
    if len(classes) < 2:
        raise InputError(
            f"{folder} must have a folder of images for each class, at least two ({', '.join(IMAGE_SUFFIXES)})"
        )
    files = [(file, number) for number, each in enumerate(classes) for file in list_pictures(each)]
    pictures = [read_image(file) for file, _ in files]
    for (file, _), picture in zip(files, pictures, strict=True):
        if picture.shape != pictures[0].shape:
            sizes = " and ".join(format_size(each) for each in (picture, pictures[0]))
            raise InputError(f"{file} and {files[0][0]} differ, {sizes}: all images must be of one size and kind")
    inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous()
    return inputs, torch.tensor([number for _, number in files])


def list_pictures(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES)


def format_size(picture: Picture) -> str:
    height, width, channels = picture.shape
    return f"{width}x{height} in {'grey' if channels == 1 else 'colours'}"


def read_image(path: Path) -> Picture:
    """Return one image, grey or in colours, without its transparency.

    Of 16-bit colours the high byte is taken. Raises InputError for a file that cannot be read, or whose grey values do
    not fit into 8 bits.
    """
    try:
        from PIL import Image, UnidentifiedImageError  # imported here: only images need it
    except ImportError:
        raise InputError(f"{path}: reading images needs Pillow: pip install pillow") from None
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.info.pop("transparency", None)  # Pillow warns of losing that of a palette
            values = np.array(image.convert("L" if image.mode in GREY_MODES else "RGB"))
            if image.mode in DEEP_MODES and not np.array_equal(values, np.asarray(image)):
                raise ValueError("its grey values are not whole numbers from 0 to 255; convert it to 8 bits")
    except UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise InputError(f"{path} cannot be read: it is broken, or not an image in one of {formats}") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # SyntaxError: a broken PNG
        raise InputError(f"{path} cannot be read: {error}") from None
    return values.reshape(*values.shape[:2], -1)
