"""Plots of `labbench plot`, as text and as figures, read from a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from labbench.analysis.answer import HeatMap
from labbench.analysis.effects import two_way_table
from labbench.analysis.noise.runs import learn_noise
from labbench.analysis.selection import select_runs
from labbench.analysis.table import observe, tabulate
from labbench.charts.groups import SpreadKind, group_bands
from labbench.charts.plotext_chart import NamedSeries, PlotCanvas, draw_curves
from labbench.charts.series import gaps_as_nan
from labbench.configs import canonical_json
from labbench.errors import InputError, did_you_mean
from labbench.filters.parser import uses_key
from labbench.records import RunRecord
from labbench.records.continuations import longest_runs
from labbench.reports.figures import FigureCurve, FigureStyle, draw_figure_curves, draw_heat_map
from labbench.reports.metric_curves import (
    FigureNotes,
    MetricSelection,
    PlotOptions,
    group_curves,
    is_steep,
    mean_curve,
    note_newest,
    read_metric_curves,
)
from labbench.reports.setting_axis import has_log_settings, is_setting, mean_by_setting, read_setting_groups

MAX_CURVES = 30
"""Maximum number of curves in one plot; more cannot be distinguished."""
MAX_FIGURE_CURVES = 32
"""Largest number of curves that colours and line styles tell apart."""


def draw_metric(selection: MetricSelection, options: PlotOptions, canvas: PlotCanvas) -> str:
    """Return the curves of a metric as text that fills the canvas.

    Raises:
        InputError: No run has the metric or the axis, or there are more than `MAX_CURVES` curves.
        StoreError: The database cannot be read.
    """
    records, curves, x_label = _read_text_curves(selection, options)
    if len(curves) > MAX_CURVES:
        raise InputError(
            f"{len(curves)} curves are too many for one plot (at most {MAX_CURVES}): add a filter or --group KEY"
        )
    log = is_steep(records, selection) if options.log is None else options.log
    remarks = [f"ema {options.smooth:g}"] if options.smooth else []
    remarks += ["log axis; --linear for a linear one"] if log and options.log is None else []
    title = selection.metric + (f"  ({', '.join(remarks)})" if remarks else "")
    falling = selection.goal() == "min"
    return draw_curves(curves, canvas, title=title, x_label=x_label, log=log, falling=falling)


def _read_text_curves(
    selection: MetricSelection, options: PlotOptions
) -> tuple[list[RunRecord], list[NamedSeries], str]:
    """Return the runs, their curves or the means of their groups, and the label of the x axis."""
    axis = options.axis
    if is_setting(selection.reader, axis):
        records, groups = read_setting_groups(selection, options)
        log = has_log_settings(groups)
        means = [mean_by_setting(name, points, log=log) for name, points in groups.items()]
        return records, means, f"log10 of {axis}" if log else axis
    records, curves = read_metric_curves(selection, options)
    if options.group:
        groups = group_curves(records, curves, options.group, selection.reader.continuations())
        curves = [mean_curve(name, members) for name, members in groups.items()]
    return records, curves, axis


def save_metric(
    path: Path, selection: MetricSelection, options: PlotOptions, style: FigureStyle, *, spread: SpreadKind = "95 %"
) -> bool:
    """Draw the curves of a metric, or with `options.group` means with bands over the runs of each group.

    The y axis is logarithmic only if `options.log` asks for it. Returns True if it is linear although the values suit a
    logarithmic one.

    Raises:
        InputError: No run has the metric or the axis, there are too many curves, or matplotlib is not installed.
        StoreError: The database cannot be read.
    """
    by_setting, log_settings = is_setting(selection.reader, options.axis), False
    if by_setting:
        records, groups = read_setting_groups(selection, options)
        log_settings = has_log_settings(groups)
        lines = [_without_gaps(curve) for curve in _bands(groups, spread)]
    else:
        records, lines = _read_lines(selection, options, spread)
    if len(lines) > MAX_FIGURE_CURVES:
        raise InputError(
            f"{len(lines)} curves are too many for a figure (at most {MAX_FIGURE_CURVES}): add a filter or --group KEY"
        )
    label = selection.metric + (f" (ema {options.smooth:g})" if options.smooth else "")
    axis = "seconds" if options.axis == "time" else options.axis
    log = "x" * log_settings + "y" * bool(options.log)
    draw_figure_curves(path, lines, style, labels=(axis, label), log=log, marked=by_setting)
    return options.log is None and is_steep(records, selection)


def _read_lines(
    selection: MetricSelection, options: PlotOptions, spread: SpreadKind
) -> tuple[list[RunRecord], list[FigureCurve]]:
    """Return the runs that have the metric, and their curves or the means of their groups."""
    records, curves = read_metric_curves(selection, options)
    if not options.group:
        return records, [FigureCurve(curve.name, curve.x, curve.y) for curve in curves]
    return records, _bands(group_curves(records, curves, options.group, selection.reader.continuations()), spread)


def _without_gaps(curve: FigureCurve) -> FigureCurve:
    """Return a curve without the points at which its group has no runs."""
    has_runs = np.isfinite(curve.y)
    low, high = [None if limit is None else limit[has_runs] for limit in (curve.low, curve.high)]
    return replace(curve, x=curve.x[has_runs], y=curve.y[has_runs], low=low, high=high)


def _bands(groups: Mapping[str, Sequence[NamedSeries]], spread: SpreadKind) -> list[FigureCurve]:
    """Return the mean of each group with its band, at every x of any curve."""
    members = [(index, curve) for index, group in enumerate(groups.values()) for curve in group]
    x = np.unique(np.concatenate([curve.x for _, curve in members]))
    values = np.full((len(members), len(x)), np.nan)
    for row, (_, curve) in zip(values, members, strict=True):
        if len(curve.x):
            row[:] = np.interp(x, curve.x, gaps_as_nan(curve.y), left=np.nan, right=np.nan)
    owner = np.array([index for index, _ in members], dtype=np.int64)
    bands = group_bands(values, owner, len(groups), spread)
    return [
        FigureCurve(name, x, bands.mean[index], bands.low[index], bands.high[index])
        for index, name in enumerate(groups)
    ]


def save_heat_map(path: Path, selection: MetricSelection, keys: Sequence[str], style: FigureStyle) -> FigureNotes:
    """Draw the mean of the best values of a metric by two config keys, averaged over the others.

    A run and its continuation count once in a cell.

    Raises:
        InputError: A key does not vary among the runs, or matplotlib is not installed.
        StoreError: The database cannot be read.
    """
    pooled = uses_key(selection.filter, "experiment")
    selected = select_runs(_runs_of_cells(selection, keys), selection.metric, pooled=pooled)
    table = tabulate(observe(selected.runs, selection.metric, selection.goal()))
    parameters = {parameter.name: parameter for parameter in table.parameters}
    for key in keys:
        if key not in parameters:
            hint = did_you_mean(key, parameters)
            raise InputError(f"--heatmap {key}: no configuration key of this name varies among the runs{hint}")
    row, column = (parameters[key] for key in keys)
    noise = learn_noise(table.with_values())
    heat_map = HeatMap((row.name, column.name), two_way_table(table, row, column, noise))
    draw_heat_map(path, heat_map, style, metric=selection.metric)
    return FigureNotes(note_newest(selected.scope))


def _runs_of_cells(selection: MetricSelection, keys: Sequence[str]) -> list[RunRecord]:
    """Return the matching runs without the ones that another run of the same cell continues.

    The other ones lose their `continued_from`: runs of several numbers of epochs are compared if `epochs` is a key.
    """
    records = selection.reader.runs(selection.filter, summaries=[selection.metric])
    cells: dict[str, list[str]] = defaultdict(list)
    for record in records:
        if selection.metric in record.summary:
            cells[canonical_json([record.config.get(key) for key in keys])].append(record.key)
    sources = selection.reader.continuations()
    counted = frozenset().union(*(longest_runs(members, sources) for members in cells.values()))
    return [
        replace(record, continued_from=None)
        for record in records
        if record.key in counted or selection.metric not in record.summary
    ]
