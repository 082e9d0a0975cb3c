"""`labbench why`: which set-up is best and why, in words, in tables, and as curves."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import all_code, as_json, database, filters
from labbench.errors import InputError, LabbenchError, did_you_mean
from labbench.text import clean, no_color_requested

if TYPE_CHECKING:
    from labbench.analysis import Answer
    from labbench.analysis.setup_costs import Efficiency
    from labbench.filters.parser import Filter
    from labbench.store.reader import Reader

_MAX_SETUPS = 6
"""Curves of so many values of the most important parameter can be told apart."""


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"{value} is no value that a run could reach; give a finite number")
    return value


@click.command()
@click.argument("metric")
@filters
@as_json
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write one page for a browser instead, with curves to point at; it needs no network.",
)
@click.option(
    "--target",
    type=float,
    callback=_finite,
    metavar="VALUE",
    help="Tell what it costs to get METRIC there.  [default: 5 % short of the best set-up]",
)
@all_code
@database
def why(
    db: Path,
    metric: str,
    filters: Sequence[str],
    *,
    as_json: bool,
    html_file: Path | None,
    target: float | None,
    all_code: bool,
) -> None:
    """Which set-up has the best METRIC, how sure that is, what each parameter does, and what a result costs."""
    from labbench.analysis import observe
    from labbench.analysis import why as answer_why
    from labbench.analysis.setup_costs import compare_costs
    from labbench.files import require_not_database
    from labbench.filters.parser import parse, present_code
    from labbench.reports.cost_curves import read_cost_curves
    from labbench.store.reader import Reader

    wanted = parse(filters) if all_code else present_code(parse(filters))
    if html_file is not None:
        require_not_database(html_file)
    with Reader(db) as reader:
        goals = reader.metrics()
        if metric not in goals:
            raise InputError(f"no run has logged the metric `{metric}`{did_you_mean(metric, goals)}")
        if left_out := reader.count(parse(filters)) - reader.count(wanted):
            click.echo(f"runs of older code left out: {left_out} (--all-code counts them, too)", err=True)
        runs = reader.runs(wanted, summaries=[metric, "time/compute_s"])
        answer = answer_why(observe(runs, metric, goals[metric]), metric, goals[metric])
        spent = compare_costs(answer, read_cost_curves(reader, runs, metric, goals[metric]), target)
        if html_file is not None:
            from labbench.reports.html_page import read_setup_curves, render_page

            _write_atomically(
                html_file, render_page(answer, spent, read_setup_curves(reader, runs, metric, goals[metric]))
            )
            click.echo(f"written: {html_file}", err=True)
        if as_json:
            costs = None if spent is None else spent.as_document()
            click.echo(json.dumps(answer.as_document() | {"efficiency": costs}))
        if as_json or html_file is not None:
            return
        click.echo("\n".join(_answer_lines(answer, spent)))
        if sys.stdout.isatty() and answer.parameters:
            click.echo("\n" + _draw_curves(reader, answer, wanted))


def _write_atomically(path: Path, text: str) -> None:
    """The whole file, or none of it."""
    from labbench.files import write_atomically

    try:
        with write_atomically(path) as file:
            file.write(text.encode())
    except OSError as error:
        raise LabbenchError(f"cannot write {path}: {error.strerror or error}") from error


def _answer_lines(answer: Answer, spent: Efficiency | None) -> list[str]:
    """Sentences, then the set-ups, the importance of the parameters, what each value does, and what it costs."""
    from labbench.reports.sentences import cost_sentences, sentences
    from labbench.reports.tables import other_tables, setups_table, text_block
    from labbench.reports.text_charts import effect_lines, importance_lines, scale_line

    columns = shutil.get_terminal_size((100, 24)).columns
    lines = [clean(line) for line in (*sentences(answer), *cost_sentences(answer, spent))]
    setups, others = setups_table(answer), other_tables(answer, spent)
    lines += text_block(setups, columns) if setups else []
    importance = importance_lines(answer)
    if importance:
        lines += ["", "where the variance comes from", *(f"  {line}" for line in importance)]
    for parameter in answer.parameters:
        lines += ["", f"{clean(parameter.name)}   ({clean(answer.metric)}, mean over the rest, {scale_line(answer)})"]
        lines += [f"  {line}" for line in effect_lines(answer, parameter, columns - 2)]
    for table in others:
        lines += text_block(table, columns)
    return lines


def _draw_curves(reader: Reader, answer: Answer, wanted: Filter | None) -> str:
    """The metric's curves by the values of the parameter that matters most."""
    from labbench.cli.plot_curves import draw_metric

    few = [one.name for one in answer.parameters if len(one.marginal.effects) <= _MAX_SETUPS]
    columns, rows = shutil.get_terminal_size()
    return draw_metric(
        reader,
        answer.metric,
        wanted,
        axis="step",
        smooth=0.0,
        log=False,
        group=few[0] if few else answer.parameters[0].name,
        size=(columns, max(10, rows // 2)),
        colour=not no_color_requested(os.environ),
    )
