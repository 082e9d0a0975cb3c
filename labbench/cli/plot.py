"""`labbench plot`: draw a metric as text, or as a figure for a paper."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import FILE_PATH, Command, all_code, database, filters, renames
from labbench.cli.output import echo, print_name_notes, require_filters
from labbench.cli.setup.completion import complete_keys, complete_metrics
from labbench.errors import InputError
from labbench.text import clean, prints_no_color

if TYPE_CHECKING:
    from labbench.charts.groups import SpreadKind
    from labbench.charts.plotext_chart import PlotCanvas
    from labbench.filters.parser import Filter
    from labbench.reports.figures import FigureStyle
    from labbench.reports.metric_curves import FigureNotes, MetricSelection, PlotOptions
    from labbench.store.reader import Reader

    AnswerFigure: TypeAlias = Callable[[Path, MetricSelection, FigureStyle], FigureNotes]


@dataclass(frozen=True, slots=True)
class AnswerFigureOptions:
    """Options of figures that are drawn instead of curves."""

    heat_map: tuple[str, str] | None
    tuned: str | None
    tune_on: str | None
    best_of: str | None
    mean: bool


def figure_options(command: Command) -> Command:
    """Add the options of figures."""
    options: list[Callable[[Command], Command]] = [
        click.option("-o", "output", metavar="FILE", type=FILE_PATH, help="Write a figure: .svg, .pdf or .png."),
        click.option(
            "--spread",
            type=click.Choice(["95 %", "std", "range"]),
            default="95 %",
            show_default=True,
            help="Band around the means of --group in a figure.",
        ),
        answer_options,
        click.option("--width", default="column", metavar="WIDTH", help="column (3.25), page (6.75) or inches."),
        click.option("--font-size", type=click.FloatRange(4, 40), default=8.0, show_default=True, help="In points."),
        click.option("--font", metavar="FAMILY", help="Font family, such as serif.  [matplotlib's]"),
        click.option("--title", metavar="TEXT", help="Title of the figure.  [none]"),
        click.option("--xlabel", "x_label", metavar="TEXT", help="Label of the x axis.  [its name]"),
        click.option("--ylabel", "y_label", metavar="TEXT", help="Label of the y axis.  [its name]"),
        renames,
        click.option("--ylim", "y_limits", metavar="LOW,HIGH", help="Range of the y axis.  [all values]"),
    ]
    return _add_options(command, options)


def answer_options(command: Command) -> Command:
    """Add the options of figures that are drawn instead of curves, the fields of `AnswerFigureOptions`."""
    options: list[Callable[[Command], Command]] = [
        click.option(
            "--heatmap", "heat_map", nargs=2, metavar="ROW COLUMN", help="Draw means by two configuration keys instead."
        ),
        click.option(
            "--tuned",
            metavar="KEY",
            shell_complete=complete_keys,
            help="Draw each value of KEY at its own best setting instead.",
        ),
        click.option(
            "--tune-on",
            metavar="METRIC",
            shell_complete=complete_metrics,
            help="Choose the settings of --tuned by this metric.",
        ),
        click.option(
            "--best-of", metavar="KEY", help="Draw the best of n random configurations by KEY, or of `all`, instead."
        ),
        click.option("--mean", is_flag=True, help="Draw the mean of --best-of, which has no band, not the median."),
    ]
    return _add_options(command, options)


def _add_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    epilog=examples(
        "labbench plot val/accuracy --group lr --x epoch",
        "labbench plot val/loss optimizer=adam --log",
        "labbench plot val/accuracy --group optimizer -o curves.pdf",
    )
    + FILTER_HELP
)
@click.argument("metric", shell_complete=complete_metrics)
@filters
@click.option("--x", "axis", default="step", show_default=True, help="step, time, a metric, or a configuration key.")
@click.option(
    "--smooth",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.0,
    metavar="WEIGHT",
    help="Weight of an exponential moving average.",
)
@click.option("--log", "scale", flag_value="log", help="Logarithmic y axis; the default as text for steep losses.")
@click.option("--linear", "scale", flag_value="linear", help="Linear y axis.")
@click.option(
    "--group",
    "--by",
    "groups",
    multiple=True,
    metavar="KEY[,KEY]",
    shell_complete=complete_keys,
    help="One curve per value of these configuration keys: the mean of its runs.",
)
@figure_options
@all_code
@database
def plot(
    db: Path,
    metric: str,
    filters: Sequence[str],
    *,
    axis: str,
    smooth: float,
    scale: str | None,
    groups: Sequence[str],
    all_code: bool,
    output: Path | None,
    **figure: Any,
) -> None:
    """Draw METRIC of the matching runs as text, or as a figure.

    At most 30 curves. The means of --group leave out runs of older code, and pruned ones. A figure with -o has 95 %
    intervals around the means; it needs matplotlib.
    \f
    Raises:
        InputError: --heatmap, --tuned or --best-of without -o or together, --tune-on without --tuned, or matplotlib is
            not installed.
    """
    from labbench.reports.metric_curves import PlotOptions
    from labbench.reports.metric_figures import draw_metric
    from labbench.store.reader import Reader

    log = None if scale is None else scale == "log"
    answer = AnswerFigureOptions(**{field.name: figure.pop(field.name) for field in fields(AnswerFigureOptions)})
    answer_figure = _answer_figure(output, answer, log=bool(log))
    with Reader(db) as reader:
        options = PlotOptions(axis, smooth, log, _split_keys(reader, groups))
        selection = _select_metric(reader, metric, filters, options, answer.heat_map or (), all_code=all_code)
        if selection is None:
            return
        if answer_figure is None:
            _print_notes(selection, options)
        if output is None:
            click.echo(draw_metric(selection, options, _terminal_canvas()))
        else:
            _write_figure(output, selection, options, answer_figure, _figure_style(**figure), figure["spread"])


def _select_metric(
    reader: Reader,
    metric: str,
    filters: Sequence[str],
    options: PlotOptions,
    heat_map_keys: Sequence[str],
    *,
    all_code: bool,
) -> MetricSelection | None:
    """Return the metric of the runs to draw; None, with a note, if a name is unknown.

    Raises InputError for words that are no filters, and for an invalid filter.
    """
    from labbench.filters.parser import parse
    from labbench.reports.metric_curves import MetricSelection
    from labbench.reports.setting_axis import is_setting

    require_filters(
        reader,
        filters,
        "`plot` draws a curve for each value of a key with --group KEY",
        ", and plot it with a command of its own, or as the x axis with --x METRIC",
    )
    axis = options.axis
    keys = [*options.group, *heat_map_keys, *([axis] if is_setting(reader, axis) else [])]
    run_filter = _filter_of_means(parse(filters), options, all_code=all_code or not keys)
    metrics = [metric, *({axis} - {"step", "time", *keys})]
    if print_name_notes(reader.check_names(run_filter, metrics=metrics, columns=keys)):
        return None
    return MetricSelection(reader, metric, run_filter)


def _filter_of_means(run_filter: Filter | None, options: PlotOptions, *, all_code: bool) -> Filter | None:
    """Return the filter without runs of older code, unless `all_code`, and for mean curves without pruned runs."""
    from labbench.filters.parser import present_code, without_pruned

    run_filter = run_filter if all_code else present_code(run_filter)
    return without_pruned(run_filter) if options.group else run_filter


def _split_keys(reader: Reader, texts: Sequence[str]) -> tuple[str, ...]:
    """Return the configuration keys of the words of --group, which are single keys or lists with commas."""
    known = frozenset(reader.config_keys()) if any("," in text for text in texts) else frozenset()
    keys = [key for text in texts for key in ([text] if text in known else text.split(","))]
    return tuple(dict.fromkeys(key.strip() for key in keys))


def _print_notes(selection: MetricSelection, options: PlotOptions) -> None:
    """Print notes on the runs in the curves and in their means."""
    from labbench.reports.metric_curves import note_experiments, note_mixed_groups
    from labbench.reports.setting_axis import is_setting, note_values

    by_setting = is_setting(selection.reader, options.axis)
    _print_note(note_experiments(selection, means=bool(options.group) or by_setting))
    _print_note(note_values(selection, options.axis) if by_setting else None)
    _print_note(note_mixed_groups(selection, options.group) if options.group and not by_setting else None)


def _print_note(note: str | None) -> None:
    if note is not None:
        echo(f"note: {clean(note)}", err=True)


def _write_figure(
    output: Path,
    selection: MetricSelection,
    options: PlotOptions,
    answer_figure: AnswerFigure | None,
    style: FigureStyle,
    spread: SpreadKind,
) -> None:
    """Write the requested figure, or one of curves."""
    from labbench.reports.metric_figures import save_metric

    if answer_figure is not None:
        notes = answer_figure(output, selection, style)
        _print_note(notes.newest)
        if notes.warning:
            echo(notes.warning, err=True)
    elif save_metric(output, selection, options, style, spread=spread):
        _print_note("the values span more than a factor of 20; --log draws a logarithmic axis")
    echo(f"wrote {output}", err=True)


def _terminal_canvas() -> PlotCanvas:
    from labbench.charts.plotext_chart import PlotCanvas

    columns, rows = shutil.get_terminal_size()
    return PlotCanvas(columns, max(10, rows - 2), colour=sys.stdout.isatty() and not prints_no_color(os.environ))


def _answer_figure(output: Path | None, answer: AnswerFigureOptions, *, log: bool) -> AnswerFigure | None:
    """Return the function that draws the requested figure, None for one of curves. Raises InputError."""
    kinds = {"--heatmap": answer.heat_map, "--tuned": answer.tuned, "--best-of": answer.best_of}
    names = [name for name, value in kinds.items() if value]
    if len(names) > 1:
        raise InputError(f"{' and '.join(names)} are different figures: give one of them")
    if names and output is None:
        subject = "a heat map is a figure" if names == ["--heatmap"] else f"{names[0]} draws a figure"
        raise InputError(f"{subject}: add -o FILE")
    if answer.mean and names != ["--best-of"]:
        raise InputError("--mean draws the mean of --best-of KEY: add it")
    if answer.tune_on and not answer.tuned:
        raise InputError("--tune-on chooses the settings of --tuned KEY: add it")
    if not names:
        return None
    from labbench.reports.answer_figures import TunedFigure, save_budgets, save_tuned_values
    from labbench.reports.metric_figures import save_heat_map

    if heat_map := answer.heat_map:
        return lambda path, selection, style: save_heat_map(path, selection, heat_map, style)
    if answer.tuned:
        figure = TunedFigure(answer.tuned, answer.tune_on, log)
        return lambda path, selection, style: save_tuned_values(path, selection, figure, style)
    key, mean = answer.best_of or "", answer.mean
    return lambda path, selection, style: save_budgets(path, selection, key, style, log=log, mean=mean)


def _figure_style(*, width: str, y_limits: str | None, **options: Any) -> FigureStyle:
    """Return the style of a figure. Raises InputError for an invalid width or range."""
    from labbench.reports.answer_tables import parse_renames
    from labbench.reports.figures import FigureStyle

    limits = None if y_limits is None else _parse_limits(y_limits)
    texts = {name: options[name] for name in ("font_size", "title", "font", "x_label", "y_label")}
    return FigureStyle(_parse_width(width), y_limits=limits, names=parse_renames(options["renames"]), **texts)


def _parse_limits(text: str) -> tuple[float, float]:
    """Return the ends of a range. Raises InputError."""
    try:
        low, high = (float(number) for number in text.split(","))
    except ValueError:
        low = high = math.nan
    if not -math.inf < low < high < math.inf:
        raise InputError(f"--ylim {text}: a range is two numbers, the smaller one first, such as 0,2.5")
    return low, high


def _parse_width(text: str) -> float:
    """Return a width in inches. Raises InputError."""
    from labbench.reports.figures import COLUMN_WIDTH, PAGE_WIDTH

    named = {"column": COLUMN_WIDTH, "page": PAGE_WIDTH}
    try:
        width = named[text] if text in named else float(text)
    except ValueError:
        width = 0.0
    if not 1 <= width <= 40:
        raise InputError(f"--width {text}: a width is column, page, or a number of inches from 1 to 40")
    return width
