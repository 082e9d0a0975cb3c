"""Picture of a chart's curves in place of their braille characters.

The chart is drawn in braille first, so that keys are answered as fast as on other terminals. When nothing has changed
for a moment its curves are painted in a thread, and the picture takes the place of the cells without a text. It stays
while the axes stay, until the next one is ready.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from textual.color import Color
from textual.timer import Timer
from textual.widget import Widget
from textual.worker import get_current_worker

from labbench import text
from labbench.charts import palette
from labbench.tui.graphics.board import Picture
from labbench.tui.graphics.detection import measure_cell
from labbench.tui.theme import series_colours

if TYPE_CHECKING:  # numpy is not imported before the first paint
    from labbench.charts.plot.braille import InkRun
    from labbench.charts.plot.pixel_canvas import Plot
    from labbench.tui.graphics.indexed_image import IndexedImage
    from labbench.tui.graphics.output import PictureOutput

_QUIET_SECONDS = 0.08
"""Seconds without a change before curves are painted."""
_MAX_CELL = (8, 16)
"""Largest cell in pixels of an image that the terminal scales."""
_MIN_CELL = (4, 8)
"""Smallest cell in pixels that is worth an image."""
_PAGE_BYTES = 100_000
"""Maximum bytes of the images of a page of charts; their cells take up to 40,000 more on a screen of 200 x 50."""
_OPACITIES = {palette.BAND: 0.25, palette.LINE: 0.9, palette.BRIGHT: 1.0}
_OTHER_OPACITY = 0.4
_DRAWN = re.compile("[⠀-⣿ ]+")
"""Braille characters and spaces, which the picture replaces."""

_Colours: TypeAlias = Mapping[int, tuple[int, int, int, float]]
"""Red, green, blue and opacity of each ink."""


@dataclass(frozen=True, slots=True)
class _Request:
    """Image to be painted."""

    plot: Plot
    colours: tuple[tuple[int, tuple[int, int, int, float]], ...]
    cell: tuple[int, int]


class ChartPicture:
    """Picture of the curves of one chart."""

    def __init__(self, chart: Widget, redraw: Callable[[], None], output: PictureOutput) -> None:
        """`redraw` draws the chart again, with the cells of a new picture."""
        self._chart, self._redraw = chart, redraw
        self._output = output
        self._requested: _Request | None = None
        self._timer: Timer | None = None
        self._shown: tuple[Plot, Picture] | None = None

    def cover(self, rows: Sequence[list[InkRun]], plot: Plot | None, top: int) -> Sequence[list[InkRun]]:
        """Return the rows of a chart, with the cells of its picture if there is one for these axes.

        Requests a new picture if the plot has changed; `top` is the number of rows above the plot.
        """
        if plot is None or max(plot.frame.width, plot.frame.height) > self._output.max_cells:
            self.remove()
            return rows
        self._request(plot)
        if self._shown is None or self._shown[0].frame != plot.frame:
            return rows
        picture, covered = self._shown[1], list(rows)
        for row in range(plot.frame.height):
            covered[top + row] = list(_cover_row(rows[top + row], plot.frame.column, picture, row))
        return covered

    def remove(self) -> None:
        """Show no picture."""
        if self._timer is not None:
            self._timer.stop()
        if self._shown is not None:
            self._output.board.remove(self._shown[1])
        self._requested = self._timer = self._shown = None

    def _request(self, plot: Plot) -> None:
        request = _Request(plot, tuple(self._colours().items()), self._cell())
        if request != self._requested:
            self._requested = request
            if self._timer is not None:
                self._timer.stop()
            self._timer = self._chart.set_timer(_QUIET_SECONDS, self._paint)

    def _paint(self) -> None:
        if (request := self._requested) is not None:
            work = partial(self._paint_in_thread, request)
            self._chart.run_worker(work, thread=True, exclusive=True, group="picture")

    def _paint_in_thread(self, request: _Request) -> None:
        n_charts = sum(sibling.display for sibling in self._chart.siblings) + 1
        max_bytes = _PAGE_BYTES / n_charts
        image = _paint_within(request.plot, request.cell, dict(request.colours), self._output, max_bytes)
        if not get_current_worker().is_cancelled:
            self._chart.app.call_from_thread(self._show, request, image)

    def _show(self, request: _Request, image: IndexedImage | None) -> None:
        if request != self._requested:
            return
        frame, previous = request.plot.frame, self._shown[1] if self._shown else None
        if image is None and previous is not None:
            self._output.board.remove(previous)
        picture = None if image is None else self._output.board.place(image, frame.width, frame.height, previous)
        self._shown = None if picture is None else (request.plot, picture)
        self._redraw()

    def _cell(self) -> tuple[int, int]:
        """Return the size of a cell in pixels."""
        width, height = measure_cell()
        if not self._output.scales:
            return width, height
        return min(width, _MAX_CELL[0]), min(height, _MAX_CELL[1])

    def _colours(self) -> _Colours:
        """Return the colours of the inks in the current theme."""
        app = self._chart.app
        secondary, primary = (Color.parse(app.theme_variables[name]).rgb for name in ("secondary", "primary"))
        colours = {palette.OTHER: (*secondary, _OTHER_OPACITY)}
        for index, ink in enumerate(palette.DENSITY, start=1):
            colours[ink] = (*primary, index / len(palette.DENSITY))
        for slot, name in enumerate(series_colours(app)):
            for style, opacity in _OPACITIES.items():
                colours[palette.line_ink(slot, style)] = (*Color.parse(name).rgb, opacity)
        return colours


def _cover_row(runs: Sequence[InkRun], left: int, picture: Picture, row: int) -> Iterator[InkRun]:
    """Yield a row of the chart with the cells of a picture, from column `left` on, in place of braille and spaces."""
    column, right = 0, left + picture.columns
    for part, ink in runs:
        position = 0
        for match in _DRAWN.finditer(part):
            before = part[position : match.start()]
            column += text.cell_width(before)
            first, last = (min(max(edge, left), right) for edge in (column, column + len(match[0])))
            yield before + match[0][: first - column], ink
            yield picture.text(row, first - left, last - first), ink & palette.GROUNDS
            yield match[0][last - column :] if last > column else "", ink
            column, position = column + len(match[0]), match.end()
        yield part[position:], ink
        column += text.cell_width(part[position:])


def _paint_within(
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
    from labbench.charts.plot.pixel_canvas import paint_plot
    from labbench.tui.graphics.indexed_image import IndexedImage

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
