"""Canvas of pixels for the curves of a plot: anti-aliased lines and translucent bands, as an image.

It takes the same vertical spans as the braille canvas, measured in columns of one pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.charts.axes import Frame
from labbench.charts.lines import PreparedLines
from labbench.charts.plot.braille import Canvas
from labbench.charts.plot.curves import draw_curves
from labbench.charts.view import ChartView

InkColours: TypeAlias = Callable[[int], tuple[int, int, int, float]]
"""Red, green and blue, 0 to 255, and opacity, 0 to 1, of an ink."""
Pixels: TypeAlias = NDArray[np.uint8]
"""Red, green, blue and opacity, 0 to 255, shape (height, width, 4)."""

_LINE_SHARE = 0.09
"""Thickness of a line as a share of the height of a cell."""
_MAX_STEEPNESS = 3.0
"""Maximum vertical thickness of a steep line, as a multiple of a flat one's."""
_LEVELS = 7
"""Steps of opacity at the edges of lines; few of them compress well."""


@dataclass(frozen=True, slots=True)
class Plot:
    """Plot of a drawn chart; another thread can paint its image."""

    frame: Frame
    lines: PreparedLines
    view: ChartView


def paint_plot(plot: Plot, cell: tuple[int, int], colours: InkColours) -> Pixels:
    """Return the image of a plot, transparent where nothing is drawn; `cell` is the pixels of a cell, (width, height).

    The image covers the `frame.width` x `frame.height` cells of the plot.
    """
    canvas = PixelCanvas(plot.frame.width, plot.frame.height, cell, colours)
    draw_curves(canvas, plot.frame, PreparedLines(plot.lines.lines, plot.lines.prepared), plot.view)
    return canvas.pixels()


class PixelCanvas(Canvas):
    """Image of `width` x `height` cells; its dots are pixels, and it ignores texts."""

    def __init__(self, width: int, height: int, cell: tuple[int, int], colours: InkColours) -> None:
        super().__init__(0, 0)
        self.dots = cell
        self._size = height * cell[1], width * cell[0]
        self._colours = colours
        self._image = np.zeros((self._size[0] * self._size[1], 4), np.float32)  # colours are multiplied by opacity

    def draw(
        self,
        tops: NDArray[np.float64],
        bottoms: NDArray[np.float64],
        inks: NDArray[np.int32],
        *,
        left: int = 0,
        rows: int | None = None,
    ) -> None:
        """Draw layers of spans, one above the other; `tops` and `bottoms`, (layers, columns), are rows of pixels."""
        half = _LINE_SHARE * self.dots[1] / 2
        for top, bottom, ink in zip(tops, bottoms, inks.tolist(), strict=True):
            column = np.flatnonzero(~np.isnan(top))
            highest, lowest = top[column], bottom[column]
            with np.errstate(invalid="ignore"):
                reach = half * np.minimum(np.hypot(1.0, lowest - highest), _MAX_STEEPNESS)
            pixels, coverage = _cover(column, highest + 0.5 - reach, lowest + 0.5 + reach, self._size)
            self._blend(pixels, coverage, ink)

    def shade(self, counts: NDArray[np.int64], inks: Sequence[int], *, left: int = 0) -> None:
        """Draw pixels in the ink of the number of lines that cover them; counts: (height, width)."""
        covering = counts.reshape(-1)
        pixels = np.flatnonzero(covering)
        fraction = np.log(covering[pixels]) / max(1e-9, math.log(max(2, int(covering.max(initial=0)))))
        level = np.minimum((fraction * len(inks)).astype(np.int64), len(inks) - 1)
        for index, ink in enumerate(inks):
            at_level = pixels[level == index]
            self._blend(at_level, np.ones(len(at_level)), ink)

    def pixels(self) -> Pixels:
        """Return the image with 8 bits per channel; its colours are not multiplied by the opacity."""
        opacity = self._image[:, 3:]
        pixels = np.zeros(self._image.shape, np.uint8)
        drawn = np.flatnonzero(opacity[:, 0])
        pixels[drawn, :3] = np.rint(np.minimum(self._image[drawn, :3] / opacity[drawn], 255))
        pixels[drawn, 3] = np.rint(np.minimum(opacity[drawn, 0], 1) * 255)
        return pixels.reshape(*self._size, 4)

    def _blend(self, pixels: NDArray[np.int64], coverage: NDArray[np.float64], ink: int) -> None:
        """Draw an ink over pixels, shape (N,); `coverage` is the covered share of each pixel, shape (N,)."""
        *colour, opacity = self._colours(ink)
        source = np.empty((len(pixels), 4), np.float32)
        source[:, 3] = coverage * opacity
        source[:, :3] = np.array(colour, np.float32) * source[:, 3:]
        self._image[pixels] = source + self._image[pixels] * (1 - source[:, 3:])


def _cover(
    column: NDArray[np.int64], top: NDArray[np.float64], bottom: NDArray[np.float64], size: tuple[int, int]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the indices of the pixels that spans from `top` to `bottom` touch, and the covered share of each.

    column, top, bottom: (spans,); the returned arrays have shape (pixels touched,). size: (height, width).
    """
    height, width = size
    first = np.clip(np.floor(top), 0, height).astype(np.int64)
    after = np.clip(np.ceil(bottom), 0, height).astype(np.int64)
    counts = np.maximum(after - first, 0)
    span = np.repeat(np.arange(len(counts)), counts)
    row = first[span] + np.arange(len(span)) - np.repeat(np.cumsum(counts) - counts, counts)
    coverage = np.minimum(bottom[span], row + 1) - np.maximum(top[span], row)
    return row * width + column[span], np.ceil(coverage * _LEVELS) / _LEVELS
