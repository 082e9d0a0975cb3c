"""Figures for papers, drawn by matplotlib (the extra `plots`): curves with bands, intervals, and heat maps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labbench.charts.series import Floats
from labbench.errors import InputError
from labbench.files import write_atomically
from labbench.reports.answer_tables import rename
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
"""Minimum ratio of positive means for colours on a log scale."""
_ROTATION = 45
"""Rotation in degrees of the column labels that would overlap."""
_MAX_CELL_SHARE = 0.92
"""Maximum width of the text of a cell, relative to the cell."""
_MIN_LOG_TICK_DECADES, _MAX_DENSE_TICK_DECADES = 0.7, 3.0
"""Decades of a logarithmic axis: fewer have linear ticks, up to the second number ticks are also at 2 and 5."""
_LEGEND_LOCATIONS = ("upper right", "lower left", "lower right", "upper left", "center right", "center left")
_MAX_LEGEND_COLUMNS = 4
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
    font: str | None = None
    """Font family; None: matplotlib's, as in its file `matplotlibrc`."""
    x_label: str | None = None
    """None: the name of the axis; this also holds for `y_label`."""
    y_label: str | None = None
    y_limits: tuple[float, float] | None = None
    """Lower and upper end of the y axis of curves; None: all that is drawn."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Other words for names of metrics and keys in labels and legends."""


@dataclass(frozen=True, slots=True)
class FigureCurve:
    """Curve with an optional band; arrays of shape (N,)."""

    name: str
    x: Floats
    y: Floats
    low: Floats | None = None
    high: Floats | None = None


def draw_figure_curves(
    path: Path,
    curves: Sequence[FigureCurve],
    style: FigureStyle,
    *,
    labels: tuple[str, str],
    log: str = "",
    marked: bool = False,
) -> None:
    """Write a figure of curves and their bands; `labels` name the axes, `log` the logarithmic ones ("xy").

    Each point has a marker if `marked`.

    Raises:
        InputError: If matplotlib is not installed, or the ending of the file is no format of figures.
        OSError: If the file cannot be written.
    """

    def draw(axes: Any) -> None:
        _draw_series(axes, curves, style, marker="o" if marked else "")
        _label_axes(axes, style, labels)
        axes.margins(x=0)
        if style.y_limits is not None:
            axes.set_ylim(*style.y_limits)
        for name in log:
            _set_log_scale(axes, name)
        axes.spines[["top", "right"]].set_visible(False)
        if len(curves) > 1:
            _place_legend(axes)

    _save(path, style, draw)


def _draw_series(axes: Any, curves: Sequence[FigureCurve], style: FigureStyle, *, marker: str) -> None:
    """Draw curves with their bands, each in a colour and a line style of its own."""
    colours = _series_colours()
    for index, curve in enumerate(curves):
        colour = colours[index % len(colours)]
        line_style = _LINE_STYLES[index // len(colours) % len(_LINE_STYLES)]
        name = rename(curve.name, style.names)
        axes.plot(curve.x, curve.y, line_style, color=colour, marker=marker, markersize=3, label=name)
        if curve.low is not None and curve.high is not None:
            axes.fill_between(curve.x, curve.low, curve.high, color=colour, alpha=0.2, linewidth=0)


def _series_colours() -> Sequence[Any]:
    """Return the colours of the series: those of matplotlib's cycle, which its file or `_settings` has set."""
    import matplotlib

    return [each["color"] for each in matplotlib.rcParams["axes.prop_cycle"] if "color" in each] or _COLOURS


def _label_axes(axes: Any, style: FigureStyle, labels: tuple[str, str]) -> None:
    """Label the axes with the texts of the style, by default with `labels`."""
    axes.set_xlabel(rename(labels[0], style.names) if style.x_label is None else style.x_label)
    axes.set_ylabel(rename(labels[1], style.names) if style.y_label is None else style.y_label)


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
                axes.plot([interval.low, interval.high], [index, index], color=_series_colours()[0])
            axes.plot([interval.mean], [index], "o", color=_series_colours()[0], markersize=4)
        if log:
            _set_log_scale(axes, "x")
        axes.set_yticks(range(len(rows)), [name for name, _ in rows])
        axes.invert_yaxis()
        axes.margins(y=0.5 / max(1, len(rows)))
        _label_axes(axes, style, labels)
        axes.spines[["top", "right"]].set_visible(False)

    _save(path, style, draw)


def _place_legend(axes: Any) -> None:
    """Add a legend where it covers no curve and no band: inside of the axes, else below them on a higher figure."""
    figure = axes.figure
    figure.draw_without_rendering()
    drawn = [path.transformed(axes.transData) for artist in (*axes.lines, *axes.collections) for path in _paths(artist)]
    for location in _LEGEND_LOCATIONS:
        legend = axes.legend(loc=location, frameon=False, fontsize="small")
        box = legend.get_window_extent()
        if axes.bbox.containsx(box.x0) and not any(path.intersects_bbox(box) for path in drawn):
            return
    handles, names = axes.get_legend_handles_labels()
    legend.remove()
    columns = int(min(len(names), max(1, figure.bbox.width // box.width), _MAX_LEGEND_COLUMNS))
    height = box.height * math.ceil(len(names) / columns) / len(names)
    figure.set_figheight(figure.get_figheight() + height / figure.dpi)
    figure.legend(handles, names, loc="outside lower center", ncols=columns, frameon=False, fontsize="small")


def _paths(artist: Any) -> Sequence[Any]:
    """Return the paths of a line or of a band, in the coordinates of the data."""
    return [artist.get_path()] if hasattr(artist, "get_path") else artist.get_paths()


def draw_heat_map(path: Path, heat_map: HeatMap, style: FigureStyle, *, metric: str) -> None:
    """Write a figure of means by two parameters, with the mean in each cell; diverged cells are marked.

    Raises:
        InputError: If matplotlib is not installed, or the ending of the file is no format of figures.
        OSError: If the file cannot be written.
    """
    table = heat_map.table
    means = [[cell.interval.mean for cell in row] for row in table.cells]
    finite = [mean for row in means for mean in row if math.isfinite(mean)]
    is_steep = bool(finite) and min(finite) > 0 and max(finite) > _STEEP_RATIO * min(finite)
    decimals = None if is_steep else _decimals(finite)

    def draw(axes: Any) -> None:
        image = axes.imshow(means, cmap="viridis", aspect="auto", norm="log" if is_steep else "linear")
        texts = []
        for i, row in enumerate(table.cells):
            for j, cell in enumerate(row):
                mean = cell.interval.mean
                is_dark = math.isfinite(mean) and image.norm(mean) < 0.5
                colour, text = "white" if is_dark else "black", _cell_text(cell, decimals)
                texts.append(axes.text(j, i, text, ha="center", va="center", color=colour, fontsize="small"))
        axes.set_xticks(range(len(table.columns)), _labels(table.columns))
        axes.set_yticks(range(len(table.rows)), _labels(table.rows))
        _label_axes(axes, style, (heat_map.names[1], heat_map.names[0]))
        axes.figure.colorbar(image, ax=axes, label=metric)
        _separate_labels(axes)
        _fit_texts(axes, texts, len(table.columns))

    _save(path, style, draw)


def _labels(values: Sequence[Any]) -> list[str]:
    """Return the values as labels: numbers with three digits, unless labels would become equal."""
    exact = [format_setting(value) for value in values]
    short = [
        format_setting(float(f"{value:.3g}")) if isinstance(value, float) else format_setting(value) for value in values
    ]
    return short if len({*short}) == len({*exact}) else exact


def _decimals(values: Sequence[float]) -> int | None:
    """Return the number of decimals that gives the largest value three digits; None for very large or small values."""
    largest = max(map(abs, values), default=0.0)
    return max(0, 2 - math.floor(math.log10(largest))) if 1e-3 <= largest < 1e5 else None


def _cell_text(cell: TwoWayCell, decimals: int | None) -> str:
    mean = cell.interval.mean
    if math.isfinite(mean):
        return f"{mean:.3g}" if decimals is None else f"{mean:.{decimals}f}"
    return f"{cell.diverged}/{cell.runs} diverged" if cell.runs else ""


def _separate_labels(axes: Any) -> None:
    """Rotate the labels of columns that would overlap; then leave out every second one, third one, and so on."""
    axes.figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    if any(right.x0 < left.x1 for left, right in pairwise(boxes)):
        for label in axes.get_xticklabels():
            label.set(rotation=_ROTATION, ha="right", rotation_mode="anchor")
        axes.figure.draw_without_rendering()
        height = max(box.height for box in boxes) / math.sin(math.radians(_ROTATION))
        _thin_labels(axes.xaxis, height, axes.bbox.width)
    heights = [label.get_window_extent().height for label in axes.get_yticklabels()]
    _thin_labels(axes.yaxis, max(heights, default=0.0), axes.bbox.height)


def _thin_labels(axis: Any, size: float, length: float) -> None:
    """Leave out labels of an axis that is too short for all; `size` of a label and `length` are in pixels."""
    labels = [label.get_text() for label in axis.get_ticklabels()]
    step = max(1, math.ceil(size * len(labels) / length))
    axis.set_ticklabels([label if index % step == 0 else "" for index, label in enumerate(labels)])


def _fit_texts(axes: Any, texts: Sequence[Any], columns: int) -> None:
    """Shrink the texts of the cells, all alike, until the widest fits into a cell."""
    axes.figure.draw_without_rendering()
    widest = max((text.get_window_extent().width for text in texts if text.get_text()), default=0.0)
    width = _MAX_CELL_SHARE * axes.bbox.width / columns
    if widest > width:
        for text in texts:
            text.set_fontsize(text.get_fontsize() * width / widest)


def _set_log_scale(axes: Any, name: str) -> None:
    """Make the x or y axis logarithmic, with plain numbers such as 0.003 at its ticks.

    Ticks are at 1, 2 and 5 times powers of ten on an axis of at most three decades.
    """
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

    axes.set(**{f"{name}scale": "log"})
    axis = getattr(axes, f"{name}axis")
    low, high = sorted(axis.get_view_interval())
    decades = math.log10(high / low) if low > 0 else math.inf
    if decades < _MIN_LOG_TICK_DECADES:
        axis.set_major_locator(MaxNLocator(nbins=5, steps=[1, 2, 5, 10]))
    elif decades <= _MAX_DENSE_TICK_DECADES:
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: format_setting(float(f"{value:.4g}"))))
    axis.set_minor_formatter(NullFormatter())


def _save(path: Path, style: FigureStyle, draw: Callable[[Any], None]) -> None:
    """Draw on the axes of a new figure and write it to a file.

    Raises:
        InputError: If matplotlib or the font is not installed, or the ending of the file is no format of figures.
        OSError: If the file cannot be written.
    """
    file_format = path.suffix.lower().removeprefix(".")
    if file_format not in FIGURE_FORMATS:
        raise InputError(f"{path}: a figure's name must end in {', '.join(f'.{each}' for each in FIGURE_FORMATS)}")
    with _settings(style):
        from matplotlib.figure import Figure

        height = style.height or style.width * 0.618
        figure = Figure(figsize=(style.width, height), layout="constrained")
        axes = figure.add_subplot()
        if style.title:
            axes.set_title(style.title)
        draw(axes)
        metadata: dict[str, Any] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}[file_format]
        with write_atomically(path) as file:
            figure.savefig(file, format=file_format, dpi=300, metadata=metadata)


def _names_in_file() -> set[str]:
    """Return the names of the parameters that the user's file `matplotlibrc` sets; matplotlib's own sets none."""
    import matplotlib

    path = Path(matplotlib.matplotlib_fname())
    if path.is_relative_to(matplotlib.get_data_path()):
        return set()
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return set()
    return {line.partition(":")[0].strip() for line in lines if not line.lstrip().startswith("#")}


@contextmanager
def _settings(style: FigureStyle) -> Iterator[None]:
    """Set matplotlib's parameters for a figure, with texts that stay texts in vector formats.

    Raises InputError if matplotlib or the font is not installed.
    """
    try:
        import matplotlib
    except ImportError:
        raise InputError("figures need matplotlib: pip install matplotlib") from None
    from cycler import cycler
    from matplotlib.font_manager import findfont

    ours = {"axes.prop_cycle": cycler(color=_COLOURS), "lines.linewidth": 1.0}
    parameters: Any = {
        **{name: value for name, value in ours.items() if name not in _names_in_file()},
        "font.size": style.font_size,
        "axes.titlesize": style.font_size,
        "axes.linewidth": 0.6,
        "svg.fonttype": "none",
        "svg.hashsalt": "labbench",
        "pdf.fonttype": 42,
    }
    if style.font is not None:
        try:
            findfont(style.font, fallback_to_default=False)
        except ValueError:
            raise InputError(
                f"--font {style.font}: no such font is installed; serif, sans-serif and monospace always work"
            ) from None
        parameters["font.family"] = style.font
    with matplotlib.rc_context(parameters):
        yield
