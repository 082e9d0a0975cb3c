"""Figures for papers, drawn by matplotlib (the extra `plots`): curves with bands, and heat maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.charts.series import Floats
from labbench.errors import InputError
from labbench.files import write_atomically
from labbench.text import format_setting

if TYPE_CHECKING:
    from labbench.analysis.answer import HeatMap
    from labbench.analysis.effects import TwoWayCell
    from labbench.analysis.intervals import Interval

FIGURE_FORMATS = ("svg", "pdf", "png")
COLUMN_WIDTH, PAGE_WIDTH = 3.25, 6.75
"""Widths in inches of a column and of both columns of a paper, as in the templates of ICML and NeurIPS."""

_COLOURS = ("#0072b2", "#c55a00", "#111418", "#5c4c77", "#55120b", "#1f2d79", "#9a646e", "#843c3b")
"""Colours of the series on a light background, as in the terminal."""
_STEEP_RATIO = 20
"""Minimum ratio of positive means for colours of a heat map on a log scale."""
_LINE_STYLES = ("-", "--", ":", "-.")
"""Line styles, one more for each round of the colours, so that colour is not the only cue."""


@dataclass(frozen=True, slots=True)
class FigureStyle:
    """Size and text of a figure."""

    width: float = COLUMN_WIDTH
    """In inches."""
    height: float | None = None
    """In inches; None: the golden ratio."""
    font_size: float = 8.0
    """In points."""
    title: str | None = None


@dataclass(frozen=True, slots=True)
class FigureCurve:
    """Curve with an optional band; arrays of shape (N,)."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


def draw_figure_curves(
    path: Path, curves: Sequence[FigureCurve], style: FigureStyle, *, labels: tuple[str, str], log: str = ""
) -> None:
    """Write a figure of curves and their bands; `labels` name the axes, `log` the logarithmic ones ("xy").

    Raises:
        InputError: If matplotlib is not installed, or the ending of the file is no format of figures.
        OSError: If the file cannot be written.
    """

    def draw(axes: Any) -> None:
        for index, curve in enumerate(curves):
            colour = _COLOURS[index % len(_COLOURS)]
            line_style = _LINE_STYLES[index // len(_COLOURS) % len(_LINE_STYLES)]
            axes.plot(curve.x, curve.y, line_style, color=colour, linewidth=1.0, label=curve.name)
            if curve.low is not None and curve.high is not None:
                axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        for name in log:
            _set_log_scale(axes, name)
        axes.margins(x=0)
        axes.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            axes.legend(frameon=False, fontsize="small")

    _save(path, style, draw)


def draw_intervals(
    path: Path, rows: Sequence[tuple[str, Interval]], style: FigureStyle, *, labels: tuple[str, str], log: bool = False
) -> None:
    """Write a figure of means with their intervals, one row each, the first one on top.

    `labels` name the axis of values and the axis of rows; `log` is True for a logarithmic axis of values.

    Raises:
        InputError: If matplotlib is not installed, or the ending of the file is no format of figures.
        OSError: If the file cannot be written.
    """

    def draw(axes: Any) -> None:
        for index, (_, interval) in enumerate(rows):
            if interval.low is not None and interval.high is not None:
                axes.plot([interval.low, interval.high], [index, index], color=_COLOURS[0], linewidth=1.0)
            axes.plot([interval.mean], [index], "o", color=_COLOURS[0], markersize=4)
        if log:
            _set_log_scale(axes, "x")
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.5 / max(1, len(rows)))
        axes.set_xlabel(labels[0])
        axes.set_ylabel(labels[1])
        axes.spines[["top", "right"]].set_visible(False)

    _save(path, style, draw)


def draw_heat_map(path: Path, heat_map: HeatMap, style: FigureStyle, *, metric: str) -> None:
    """Write a figure of means by two parameters, with the mean in each cell; diverged cells are marked.

    Raises:
        InputError: If matplotlib is not installed, or the ending of the file is no format of figures.
        OSError: If the file cannot be written.
    """
    table = heat_map.table

    def draw(axes: Any) -> None:
        means = [[cell.interval.mean for cell in row] for row in table.cells]
        finite = [mean for row in means for mean in row if math.isfinite(mean)]
        is_steep = bool(finite) and min(finite) > 0 and max(finite) > _STEEP_RATIO * min(finite)
        image = axes.imshow(means, cmap="viridis", aspect="auto", norm="log" if is_steep else "linear")
        for i, row in enumerate(table.cells):
            for j, cell in enumerate(row):
                mean = cell.interval.mean
                is_dark = math.isfinite(mean) and image.norm(mean) < 0.5
                colour = "white" if is_dark else "black"
                axes.text(j, i, _cell_text(cell), ha="center", va="center", color=colour, fontsize="small")
        axes.set_xticks(range(len(table.columns)), [format_setting(value) for value in table.columns])
        axes.set_yticks(range(len(table.rows)), [format_setting(value) for value in table.rows])
        axes.set_xlabel(heat_map.names[1])
        axes.set_ylabel(heat_map.names[0])
        axes.figure.colorbar(image, ax=axes, label=metric)

    _save(path, style, draw)


def _set_log_scale(axes: Any, name: str) -> None:
    """Make the x or y axis logarithmic, with plain numbers such as 0.003 at its ticks."""
    from matplotlib.ticker import LogFormatter

    class NumberFormatter(LogFormatter):
        def __call__(self, x: float, pos: int | None = None) -> str:
            return format_setting(float(f"{x:.4g}")) if super().__call__(x, pos) else ""

    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    axis.set_major_formatter(NumberFormatter())
    axis.set_minor_formatter(NumberFormatter(labelOnlyBase=False))


def _cell_text(cell: TwoWayCell) -> str:
    if math.isfinite(cell.interval.mean):
        return f"{cell.interval.mean:.3g}"
    return f"{cell.diverged}/{cell.runs} diverged" if cell.runs else ""


def _save(path: Path, style: FigureStyle, draw: Callable[[Any], None]) -> None:
    """Draw on the axes of a new figure and write it to a file. Raises InputError and OSError."""
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in FIGURE_FORMATS:
        raise InputError(f"{path}: a figure's name must end in {', '.join(f'.{each}' for each in FIGURE_FORMATS)}")
    with _settings(style):
        from matplotlib.figure import Figure

        height = style.height or style.width * 0.618
        figure = Figure(figsize=(style.width, height), layout="constrained")
        axes = figure.add_subplot()
        draw(axes)
        if style.title:
            axes.set_title(style.title)
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[file_format]
        with write_atomically(path) as file:
            figure.savefig(file, format=file_format, dpi=300, metadata=metadata)


@contextmanager
def _settings(style: FigureStyle) -> Iterator[None]:
    """Set matplotlib's parameters for a figure, with texts that stay texts in vector formats.

    Raises InputError if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("figures need matplotlib: pip install matplotlib") from None
    parameters: Any = {
        "font.size": style.font_size,
        "axes.titlesize": style.font_size,
        "axes.linewidth": 0.6,
        "svg.fonttype": "none",
        "svg.hashsalt": "labbench",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(parameters):
        yield
