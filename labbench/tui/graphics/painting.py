"""Painting of plots as images that are small enough to be sent."""

from __future__ import annotations

import math
from collections.abc import Mapping

from labbench.charts.plot.pixel_canvas import Plot, paint_plot
from labbench.tui.graphics.indexed_image import IndexedImage
from labbench.tui.graphics.output import PictureOutput

_MIN_CELL = (4, 8)
"""Smallest cell in pixels that is worth an image."""


def paint_within(
    plot: Plot,
    cell: tuple[int, int],
    colours: Mapping[int, tuple[int, int, int, float]],
    output: PictureOutput,
    max_bytes: float,
) -> IndexedImage | None:
    """Return the image of a plot in at most `max_bytes`, if need be with fewer pixels; None if that is impossible.

    Args:
        plot: Plot to paint.
        cell: Width and height of a cell in pixels.
        colours: Red, green, blue and opacity of each ink.
        output: Output that sends the image.
        max_bytes: Maximum bytes to send.
    """
    size = plot.frame.height * cell[1], plot.frame.width * cell[0]
    while min(cell[0] / _MIN_CELL[0], cell[1] / _MIN_CELL[1]) >= 1:
        image = IndexedImage.from_pixels(paint_plot(plot, cell, colours.__getitem__))
        if not output.scales:
            image = image.resize(*size)
        excess = output.count_bytes(image) / max_bytes
        if excess <= 1:
            return image
        factor = min(0.8, 1 / math.sqrt(excess))
        cell = math.floor(cell[0] * factor), math.floor(cell[1] * factor)
    return None
