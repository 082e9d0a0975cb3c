"""`labbench why`: report the best configuration and what explains it, as sentences, tables and curves."""

from __future__ import annotations

import math
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import FILE_PATH, all_code, as_json, database, filters, plain, renames, table_format
from labbench.cli.output import echo, is_plain, print_name_notes, require_filters
from labbench.cli.setup.completion import complete_keys, complete_metrics
from labbench.cli.showing.answer_output import print_answer, print_document, print_short, print_verdict_again
from labbench.errors import InputError, LabbenchError
from labbench.metrics import unknown_metric
from labbench.text import prints_no_color

if TYPE_CHECKING:
    from labbench.analysis import Answer, Selection
    from labbench.analysis.setup_costs import Efficiency
    from labbench.filters.parser import Filter
    from labbench.metrics import Goal
    from labbench.reports.answer_tables import TableStyle
    from labbench.reports.selected_runs import SelectionOptions
    from labbench.store.reader import Reader

_MAX_SETUPS = 6
"""Maximum number of values of the parameter whose curves are drawn."""


@dataclass(frozen=True, slots=True)
class _Form:
    """Form of the output."""

    document_format: str
    """`text` for an answer to read, or the format of a document."""
    short: bool
    html_file: Path | None
    style: TableStyle
    """Tables of a document."""


@dataclass(frozen=True, slots=True)
class _Explanation:
    """Answer, and the runs that it explains."""

    reader: Reader
    run_filter: Filter | None
    options: SelectionOptions
    selection: Selection
    answer: Answer
    costs: Efficiency | None


def _finite(context: click.Context, option: click.Parameter, value: float | None) -> float | None:
    if value is not None and not math.isfinite(value):
        raise click.BadParameter(f"no run can reach {value}; give a finite number")
    return value


@click.command(
    epilog=examples(
        "labbench why val/accuracy experiment=quickstart",
        "labbench why val/loss --target 0.1",
        "labbench why test/accuracy --tune-on val/loss",
        "labbench why val/loss --html answer.html",
    )
    + FILTER_HELP
)
@click.argument("metric", shell_complete=complete_metrics)
@filters
@as_json
@click.option("--short", is_flag=True, help="Print the verdict and one line per parameter.")
@click.option(
    "--html",
    "html_file",
    metavar="FILE",
    type=FILE_PATH,
    help="Write one self-contained HTML page with interactive curves.",
)
@click.option(
    "--target",
    type=float,
    callback=_finite,
    metavar="VALUE",
    help="Report the cost of reaching VALUE.  [default: 5 % short of the best mean]",
)
@click.option(
    "--tune-on",
    metavar="METRIC",
    shell_complete=complete_metrics,
    help="Choose configurations by this metric, and judge them on the other.",
)
@click.option("--goal", type=click.Choice(["min", "max"]), help="Better values of METRIC: lower or higher.")
@click.option("--all", "pooled", is_flag=True, help="Pool all experiments that have the task of the newest run.")
@click.option("--last", "at", flag_value="last", help="Compare the last values of the runs.")
@click.option("--best", "at", flag_value="best", help="Compare the best values; the default but for gaps and the like.")
@click.option("--linear", is_flag=True, help="Compare differences also if losses span more than a decade.")
@click.option("--seed-key", "seeds", metavar="KEY", multiple=True, help="Config key of the seed, if not recognised.")
@click.option(
    "--ignore",
    "ignored",
    metavar="KEY",
    multiple=True,
    shell_complete=complete_keys,
    help="Leave a config key out; may be repeated.",
)
@click.option(
    "--keep",
    "kept",
    metavar="KEY",
    multiple=True,
    shell_complete=complete_keys,
    help="Keep a key that seems to identify the run.",
)
@table_format
@click.option("--table", "tables", metavar="NAME", multiple=True, help="Only this table of --format latex or markdown.")
@renames
@plain
@all_code
@database
def why(
    db: Path,
    metric: str,
    filters: Sequence[str],
    *,
    as_json: bool,
    short: bool,
    html_file: Path | None,
    target: float | None,
    goal: Goal | None,
    table_format: str,
    tables: Sequence[str],
    renames: Sequence[str],
    **selection_options: Any,
) -> None:
    """Report which configuration has the best METRIC, and why.

    With 95 % confidence intervals over seeds, how much each parameter matters, and the cost of reaching a target.
    \f
    Raises:
        InputError: No run has logged the metric, or neither high nor low values of it are better.
    """
    from labbench.files import database_command
    from labbench.filters.parser import parse
    from labbench.store.reader import Reader

    options, style = _selection_options(**selection_options), _table_style(tables, renames, table_format)
    form = _Form("json" if as_json else table_format, short, html_file, style)
    if html_file is not None:
        _require_page_file(html_file)
    with Reader(db) as reader:
        require_filters(reader, filters, "`why` compares every configuration key that varies")
        run_filter = parse(filters)
        if not _has_runs(reader, run_filter, metric):
            if as_json:
                click.echo("null")
            return
        selection, goal = _read_selection(reader, run_filter, metric, options, goal, database_command(db))
        answer, costs = _explain(reader, selection, metric, goal, target)
        _output(_Explanation(reader, run_filter, options, selection, answer, costs), form)


def _require_page_file(path: Path) -> None:
    """Raise InputError if the file of `--html` is a database or has no ending of HTML."""
    from labbench.files import require_ending, require_not_database

    require_not_database(path)
    require_ending(path, (".html", ".htm"), "the page is HTML, which a browser opens")


def _table_style(tables: Sequence[str], renames: Sequence[str], table_format: str) -> TableStyle:
    """Return the style of --table and --rename. Raises InputError for another format."""
    from labbench.reports.answer_tables import TableStyle, parse_renames

    if (tables or renames) and table_format not in ("latex", "markdown"):
        raise InputError("--table and --rename are for documents: add --format latex or --format markdown")
    return TableStyle(tables, parse_renames(renames))


def _selection_options(
    *, seeds: Sequence[str], ignored: Sequence[str], kept: Sequence[str], **options: Any
) -> SelectionOptions:
    """Return the options of the command line that select runs and keys."""
    from labbench.analysis import KeyOptions
    from labbench.reports.selected_runs import SelectionOptions

    keys = KeyOptions(tuple(seeds), tuple(ignored), tuple(kept))
    return SelectionOptions(keys=keys, **options)


def _has_runs(reader: Reader, run_filter: Filter | None, metric: str) -> bool:
    """Return True if the metric and runs that match exist; else print what is missing."""
    if print_name_notes(reader.check_names(run_filter, metrics=[metric])):
        return False
    if run_filter is not None and not reader.count(run_filter):
        echo("no run matches the filter", err=True)
        return False
    return True


def _read_selection(
    reader: Reader, run_filter: Filter | None, metric: str, options: SelectionOptions, goal: Goal | None, command: str
) -> tuple[Selection, Goal]:
    """Return the runs of the answer and the goal of the metric, and print what is left out or assumed.

    `command` is the start of the commands that messages suggest.

    Raises:
        InputError: No run has logged the metric, or neither high nor low values of it are better.
    """
    from labbench.reports.selected_runs import read_selection

    if metric not in (goals := reader.metrics()):
        raise unknown_metric(metric, goals)
    selection = read_selection(reader, run_filter, metric, options)
    if left_out := selection.scope.older_code:
        echo(f"runs of older code left out: {left_out} (--all-code includes them)", err=True)
    return selection, goal or _assumed_goal(reader, metric, goals, command)


def _explain(
    reader: Reader, selection: Selection, metric: str, goal: Goal, target: float | None
) -> tuple[Answer, Efficiency | None]:
    """Return the answer, and what reaching the target costs each configuration."""
    from labbench.analysis import explain
    from labbench.analysis.setup_costs import compare_costs
    from labbench.metrics import counts_by_last
    from labbench.reports.cost_curves import read_cost_curves

    answer = explain(selection, metric, goal)
    if target is None and counts_by_last(metric):
        return answer, None  # untrained networks are at most targets
    return answer, compare_costs(answer, read_cost_curves(reader, selection.runs, metric, goal), target)


def _assumed_goal(reader: Reader, metric: str, goals: Mapping[str, Goal], command: str) -> Goal:
    """Return the goal of a metric, and say so if it is assumed by the name.

    Raises:
        InputError: Neither high nor low values of the metric are better.
    """
    from labbench.cli.showing.columns import assumed_goals_note

    remedy = f"--goal min|max or `{command} define METRIC min|max|none`"
    if (note := assumed_goals_note([metric], goals, reader.declared_goals(), remedy)) is not None:
        echo(note, err=True)
    if goals[metric] == "none":
        raise InputError(f"neither high nor low values of `{metric}` are better: add --goal min or --goal max")
    return goals[metric]


def _output(explanation: _Explanation, form: _Form) -> None:
    """Write the page of `--html`, and print the answer as a document, in short, or in full unless there is a page."""
    answer, costs = explanation.answer, explanation.costs
    if form.html_file is not None:
        _write_page(explanation, form.html_file)
    if form.document_format != "text":
        style = replace(form.style, runs=explanation.selection.runs)
        print_document(answer, costs, form.document_format, style)
    elif form.short:
        print_short(answer)
    elif form.html_file is None:
        print_answer(answer, costs)
        _print_curves(explanation)
        print_verdict_again(answer)


def _write_page(explanation: _Explanation, path: Path) -> None:
    """Write the answer as an HTML page. Raises LabbenchError if that fails."""
    from labbench.files import write_atomically
    from labbench.reports.html_page import read_setup_curves, render_page

    answer, runs = explanation.answer, explanation.selection.runs
    curves = read_setup_curves(explanation.reader, runs, answer.metric, answer.goal)
    page = render_page(answer, explanation.costs, curves)
    try:
        with write_atomically(path) as file:
            file.write(page.encode())
    except OSError as error:
        raise LabbenchError(f"cannot write {path}: {error.strerror or error}") from error
    echo(f"written: {path}", err=True)


def _print_curves(explanation: _Explanation) -> None:
    """Draw the metric's curves in a terminal by the most important parameter with few values; not in plain text."""
    answer = explanation.answer
    if not answer.parameters or is_plain() or not sys.stdout.isatty():
        return
    from labbench.charts.plotext_chart import PlotCanvas
    from labbench.filters.parser import present_code
    from labbench.reports.metric_curves import MetricSelection, PlotOptions
    from labbench.reports.metric_figures import draw_metric
    from labbench.reports.selected_runs import of_experiments

    run_filter = explanation.run_filter
    if not explanation.options.all_code:
        run_filter = present_code(run_filter)
    run_filter = of_experiments(explanation.selection, run_filter)
    names = [parameter.name for parameter in answer.parameters if len(parameter.marginal.effects) <= _MAX_SETUPS]
    columns, rows = shutil.get_terminal_size()
    plot_options = PlotOptions(group=(names[0] if names else answer.parameters[0].name,))
    canvas = PlotCanvas(columns, max(10, rows // 2), colour=not prints_no_color(os.environ))
    click.echo("\n" + draw_metric(MetricSelection(explanation.reader, answer.metric, run_filter), plot_options, canvas))
