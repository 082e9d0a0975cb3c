"""Image data sets from a folder with one subfolder per class."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from labbench.errors import InputError
from labbench.train.data.dataset import Split

if TYPE_CHECKING:
    from PIL.Image import Image

ImageArray = NDArray[np.uint8]
"""uint8, shape (H, W, C); C = 1 for grey, 3 for colours (RGB)."""

IMAGE_SUFFIXES = (".png", ".pgm", ".ppm", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp")
FORMATS = ("PNG", "PPM", "JPEG", "BMP", "GIF", "TIFF", "WEBP")
"""Formats that Pillow may open, by Pillow's names; others, such as EPS, would start external programs."""
GREY_16_BIT_MODES = ("I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes of grey images of 16 bits."""
UNBOUNDED_MODES = ("I", "F")
"""Pillow's modes of grey images of 32 bits; `convert("L")` clips their values to [0, 255]."""
GREY_MODES = ("1", "L", "LA", *UNBOUNDED_MODES)
"""Pillow's modes without colours."""


def read_folder(folder: Path) -> Split:
    """Read images, uint8 (N, C, H, W), and their classes, int64 (N,).

    Classes are numbered by the sorted names of the subfolders.

    Raises:
        InputError: If there are fewer than two classes, or an image cannot be read or differs in size or channels.
    """
    classes = sorted(path for path in folder.iterdir() if path.is_dir() and any(list_images(path)))
    if len(classes) < 2:
        raise InputError(
            f"{folder} must have at least two subfolders of images, one per class ({', '.join(IMAGE_SUFFIXES)})"
        )
    files = [(file, number) for number, subfolder in enumerate(classes) for file in list_images(subfolder)]
    images = [read_image(file) for file, _ in files]
    for (file, _), image in zip(files, images, strict=True):
        if image.shape != images[0].shape:
            sizes = " and ".join(format_size(each) for each in (image, images[0]))
            raise InputError(
                f"{file} and {files[0][0]} differ, {sizes}: all images must have the same size and number of channels"
            )
    inputs = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return inputs, torch.tensor([number for _, number in files])


def list_images(folder: Path) -> Iterator[Path]:
    """Yield the image files of a folder, sorted by name."""
    return (path for path in sorted(folder.iterdir()) if path.suffix.lower() in IMAGE_SUFFIXES)


def format_size(image: ImageArray) -> str:
    """Return size and kind of an image (H, W, C), such as `28x28 in grey`."""
    height, width, channels = image.shape
    return f"{width}x{height} in {'grey' if channels == 1 else 'colours'}"


def read_image(path: Path) -> ImageArray:
    """Return one image as uint8 (H, W, C), without transparency.

    C is 1 for grey and 3 for colours. Values of 16 bits are reduced to their high byte.

    Raises:
        InputError: If the file cannot be read, its values do not fit into 8 bits, or Pillow is not installed.
    """
    try:
        import PIL.Image  # imported here: only images need it
    except ImportError:
        raise InputError(f"{path}: reading images needs Pillow: pip install pillow") from None
    try:
        with PIL.Image.open(path, formats=FORMATS) as image:
            image.info.pop("transparency", None)  # else Pillow warns that the transparency of a palette is lost
            values = _high_bytes(image) if _is_grey_of_16_bits(image) else _values_of_8_bits(image)
    except PIL.UnidentifiedImageError:
        formats = ", ".join(FORMATS)
        raise InputError(f"{path} cannot be read: it is damaged, or not an image in one of {formats}") from None
    except (OSError, SyntaxError, ValueError, PIL.Image.DecompressionBombError) as error:  # SyntaxError: a damaged PNG
        raise InputError(f"{path} cannot be read: {error}") from None
    return values.reshape(*values.shape[:2], -1)


def _is_grey_of_16_bits(image: Image) -> bool:
    # Pillow opens a PGM of 16 bits in a mode of 32 bits, an older Pillow also a PNG
    return image.mode in GREY_16_BIT_MODES or (image.mode == "I" and image.format in ("PNG", "PPM"))


def _high_bytes(image: Image) -> ImageArray:
    """Return the high bytes of grey values of 16 bits, uint8 (H, W).

    Raises ValueError if they would be black although the values are not.
    """
    values = np.asarray(image)
    high = (values >> 8).astype(np.uint8)
    if values.any() and not high.any():
        raise ValueError("its grey values have 16 bits, but none exceeds 255 of 65535; convert it to 8 bits")
    return high


def _values_of_8_bits(image: Image) -> ImageArray:
    """Return grey values, uint8 (H, W), or colours, uint8 (H, W, 3).

    Raises ValueError if they do not fit into 8 bits.
    """
    values = np.array(image.convert("L" if image.mode in GREY_MODES else "RGB"))
    if image.mode in UNBOUNDED_MODES and not np.array_equal(values, np.asarray(image)):
        raise ValueError("its grey values are not integers from 0 to 255; convert it to 8 bits")
    return values
