"""`labbench.Image`: an image for `run.log`, written as a PNG file by the writer thread."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.errors import InputError, LabbenchError
from labbench.files import expand_home
from labbench.messages import warn_once
from labbench.records import Artifact

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


_LEAST_BYTE_MAXIMUM = 16
"""Floats of at least 0 with this maximum or a larger one are taken as 0 to 255; with a lower one, as unscaled."""


class Image:
    """Copy of an image for `run.log({"samples": labbench.Image(pixels)}, step=10)`.

    Args:
        data: An array of shape (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), or a torch tensor of shape (H, W) or
            (C, H, W): uint8, booleans, or floats in [0, 1] or [0, 255]. Other floats, such as normalised inputs, are
            rescaled with a warning: from their minimum if it is negative, else from 0, to their maximum. Or an image
            of Pillow, a figure of matplotlib, or the path of a file.

    An image with more than 1,024 rows or columns is stored smaller.

    Raises:
        InputError: If it is no image, or the file cannot be read.
    """

    def __init__(self, data: Any) -> None:
        self.pixels: NDArray[np.uint8] = _to_pixels(data)
        """Shape (H, W, C), with C = 1, 3 or 4."""

    def __repr__(self) -> str:
        height, width, _ = self.pixels.shape
        return f"Image({width} x {height})"


def _to_pixels(data: Any) -> NDArray[np.uint8]:
    import numpy as np  # loaded with the first image: `import labbench` costs the standard library

    from labbench.portraits.logged_images import MAX_SIDE
    from labbench.portraits.png_file import read_image_file, shrink

    if isinstance(data, str | Path):
        return shrink(read_image_file(expand_home(data)), MAX_SIDE)
    if callable(getattr(data, "savefig", None)):
        data = _draw_figure(data)
    elif callable(getattr(data, "convert", None)) and hasattr(data, "mode"):
        data = np.asarray(data if data.mode in ("L", "RGB", "RGBA") else data.convert("RGB"))
    elif callable(getattr(data, "detach", None)):
        data = data.detach().cpu()
        data = (data.float() if data.is_floating_point() else data).numpy()
        if data.ndim == 3:
            data = data.transpose(1, 2, 0)
    pixels = np.asarray(data)
    if pixels.ndim == 2:
        pixels = pixels[..., None]
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3, 4) or not pixels.size:
        raise InputError(
            "labbench.Image takes an array of shape (H, W) or (H, W, C), or a tensor of shape (C, H, W), "
            f"with C = 1, 3 or 4, not of shape {np.shape(data)}"
        )
    return shrink(_to_bytes(pixels), MAX_SIDE).copy()


def _to_bytes(pixels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return pixels as uint8; floats are scaled to 0 to 255, and NaN becomes 0."""
    import numpy as np

    if pixels.dtype == np.uint8:
        return pixels
    if pixels.dtype == np.bool_:
        return pixels.astype(np.uint8) * np.uint8(255)
    if np.issubdtype(pixels.dtype, np.floating):
        low, high = _float_range(pixels)
        shares = (pixels.astype(np.float64) - low) / (high - low)
        scaled: NDArray[np.uint8] = (np.nan_to_num(shares.clip(0, 1)) * 255).round().astype(np.uint8)
        return scaled
    if np.issubdtype(pixels.dtype, np.integer):
        return pixels.clip(0, 255).astype(np.uint8)
    raise InputError(f"labbench.Image takes pixels of uint8 or floats, not of {pixels.dtype}")


def _float_range(pixels: NDArray[np.floating]) -> tuple[float, float]:
    """Return the values that become black and white.

    Negative values are rescaled as by wandb up to 0.19 (`wandb.Image.to_uint8`); newer versions wrap them around.
    """
    import numpy as np

    finite = pixels[np.isfinite(pixels)]
    low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 1.0)
    if low >= 0 and high <= 1:
        return 0.0, 1.0
    if low >= 0 and _LEAST_BYTE_MAXIMUM <= high <= 255:
        return 0.0, 255.0
    warn_once(
        "images of floats outside [0, 1], such as normalised inputs, are rescaled, each to its own range; "
        "pass floats in [0, 1] to compare their brightness"
    )
    low = min(low, 0.0)
    return low, high if high > low else low + 1


def _draw_figure(figure: Any) -> NDArray[np.uint8]:
    """Return the pixels of a figure of matplotlib, or of its current figure for the module `pyplot`."""
    import numpy as np

    figure = figure.gcf() if hasattr(figure, "gcf") else figure
    if not hasattr(figure.canvas, "buffer_rgba"):
        raise InputError("labbench.Image draws figures of matplotlib with an Agg backend")
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())


class ImageWriter:
    """Writes the images of a run; for one thread."""

    def __init__(self, database: Path, run: str) -> None:
        self._database, self._run = database, run
        self._n_images: int | None = None

    def write(self, images: Sequence[tuple[str, int, Image]]) -> list[Artifact]:
        """Write images, given as name, step and image, and return their records.

        An image that cannot be written, or exceeds the number of a run, is left out with a warning.
        """
        from labbench.portraits.logged_images import MAX_IMAGES, count_images, write_image
        from labbench.portraits.png_file import encode_png

        if self._n_images is None:
            self._n_images = count_images(self._database, self._run)
        artifacts = []
        for name, step, image in images:
            if self._n_images >= MAX_IMAGES:
                warn_once(f"run {self._run} has {MAX_IMAGES:,} images: further ones are not recorded")
                break
            try:
                artifacts.append(write_image(self._database, self._run, name, step, encode_png(image.pixels)))
            except (OSError, LabbenchError) as error:
                warn_once(f"the image `{name}` could not be written: {error}")
            else:
                self._n_images += 1
        return artifacts
