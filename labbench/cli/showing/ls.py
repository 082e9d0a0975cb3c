"""`labbench ls`: list runs, of one database or of several."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import as_json, database, filter_option, plain, table_format
from labbench.cli.output import echo, print_name_notes
from labbench.cli.setup.completion import complete_columns, complete_filters
from labbench.cli.text_tables import TextColumn, print_table
from labbench.errors import InputError
from labbench.files import database_command, expand_home
from labbench.text import format_count

if TYPE_CHECKING:
    from labbench.cli.showing.columns import SeriesValues
    from labbench.filters.parser import Filter
    from labbench.metrics import Goal
    from labbench.records import RunRecord
    from labbench.store.reader import Reader


@click.command(
    epilog=examples(
        "labbench ls optimizer=adam --sort 'best(val/loss)' --limit 10",
        "labbench ls --columns lr,val/accuracy",
        "labbench ls laptop.db server.db source=server.db",
    )
    + FILTER_HELP
)
@click.argument("filters", nargs=-1, metavar="[DB]... [FILTER]...", shell_complete=complete_filters)
@click.option(
    "--sort",
    metavar="COLUMN",
    shell_complete=complete_columns,
    help="A configuration key, a word such as started, a metric or best(METRIC), best first; -COLUMN reverses.",
)
@click.option(
    "--columns",
    metavar="A,B",
    shell_complete=complete_columns,
    help="Configuration keys, metrics, functions such as best(METRIC), and words such as started, tag and note.",
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N runs.")
@click.option("--wide", is_flag=True, help="Every column and whole names, also in a narrow terminal.")
@filter_option
@table_format
@plain
@as_json
@database
def ls(
    db: Path,
    filters: Sequence[str] = (),
    sort: str | None = None,
    columns: str | None = None,
    limit: int | None = None,
    wide: bool = False,
    as_json: bool = False,
    table_format: str = "text",
    *,
    can_define: bool = True,
) -> None:
    """List runs: the configuration keys that differ, and metrics.

    Runs of several databases are listed together, with the source of each.
    \f
    `can_define` is False for a database whose goals the user does not change, such as the example.
    """
    from labbench.filters.parser import parse
    from labbench.json_documents import run_document
    from labbench.store.reader import Reader

    paths, filters = _split_words(filters)
    db = paths[0] if len(paths) == 1 else Path("FILE") if paths else db  # for messages
    with _open_database(paths or [db]) as path, Reader(path) as reader:
        run_filter = parse(filters)
        names = [name.strip() for name in columns.split(",")] if columns else None
        listing = _read_listing(reader, run_filter, names, sort, limit)
    if as_json:
        click.echo(json.dumps([run_document(record) for record in listing.records]))
    elif listing.records:
        remedy = f"`{database_command(db)} define METRIC min|max|none`" if can_define else None
        _print_listing(listing, names, table_format, is_wide=wide, remedy=remedy)
    else:
        echo("no run matches the filter" if run_filter else no_runs_message(db), err=True)


@dataclass(frozen=True, slots=True)
class _Listing:
    """Runs to list, and the metrics of all runs that match the filter."""

    records: Sequence[RunRecord]
    total: int
    """Number of runs that match the filter."""
    goals: Mapping[str, Goal]
    declared: Collection[str]
    """Metrics whose goals are declared."""
    sorted_by: str | None
    """Column that sorts the runs."""
    series_values: SeriesValues
    """Values of the columns that are computed from the points."""


def _read_listing(
    reader: Reader, run_filter: Filter | None, names: Sequence[str] | None, sort: str | None, limit: int | None
) -> _Listing:
    """Return the runs to list in the columns `names`, and print notes on names that are missing or ambiguous."""
    from labbench.cli.showing.columns import FACT_WORDS, SHOWN_WORDS, needs_series

    total, goals = reader.count(run_filter), reader.metrics(run_filter)
    column, descending = sort_order(sort, goals)
    recorded = [name for name in names or () if name not in (*SHOWN_WORDS, *FACT_WORDS)]
    is_missing = print_name_notes(reader.check_names(run_filter, columns=recorded, sort=column))
    records = _sorted_runs(reader, run_filter, (column, descending), limit=limit, is_missing=is_missing)
    series = [name for name in names or () if needs_series(name)]
    rows = reader.values(series, run_filter) if series else []
    series_values = {name: {row[0]: row[2 + index] for row in rows} for index, name in enumerate(series)}
    return _Listing(records, total, goals, reader.declared_goals(), column, series_values)


def _print_listing(
    listing: _Listing, names: Sequence[str] | None, table_format: str, *, is_wide: bool, remedy: str | None
) -> None:
    """Print a table of runs with the columns `names`, and on stderr what it leaves out or assumes.

    `remedy` is the command that changes the goal of a metric, None if the user does not change it.
    """
    from labbench.cli.showing.columns import assumed_goals_note, leading_metrics, run_columns

    records, goals = listing.records, listing.goals
    metrics = leading_metrics(records, goals, metric_of_column(listing.sorted_by, goals))
    columns = run_columns(records, goals, names=names, metrics=metrics, series_values=listing.series_values)
    _print_columns(columns, table_format, is_wide=is_wide)
    ranked = [metric_of_column(name, goals) for name in (*(names or metrics), listing.sorted_by) if shows_best(name)]
    assumed = filter(None, dict.fromkeys(ranked))
    if remedy is not None and (note := assumed_goals_note(assumed, goals, listing.declared, remedy)):
        echo(note, err=True)
    if listing.total > len(records):
        echo(f"{len(records)} of {listing.total} runs", err=True)


def _print_columns(columns: Sequence[TextColumn], table_format: str, *, is_wide: bool) -> None:
    """Print a table of runs, and on stderr the number of columns that the terminal has no room for."""
    n_left_out = print_table(columns, table_format, is_wide=is_wide)
    if n_left_out:
        echo(f"{format_count(n_left_out, 'column')} left out of this width: --wide shows all", err=True)


def _sorted_runs(
    reader: Reader, run_filter: Filter | None, order: tuple[str | None, bool], *, limit: int | None, is_missing: bool
) -> list[RunRecord]:
    """Return runs in the order (column, descending); unsorted if the column is one of names that are missing."""
    column, descending = order
    try:
        return reader.runs(run_filter, sort=column, descending=descending, limit=limit)
    except InputError:
        if not is_missing:
            raise
        return reader.runs(run_filter, limit=limit)  # no run has the column yet


def _split_words(words: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Split the words of `labbench ls` into databases and terms of the filter."""
    paths = [word for word in words if _is_database(word)]
    return [expand_home(word) for word in paths], [word for word in words if word not in paths]


def _is_database(word: str) -> bool:
    """Return True for a word that is no term of a filter: the name of a file."""
    if any(sign in word for sign in "=<>~()"):
        return False
    return word.endswith(".db") or ("." in word and expand_home(word).is_file())


@contextmanager
def _open_database(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the only database, or a temporary one with the runs of all."""
    if len(paths) == 1:
        yield paths[0]
        return
    from labbench.sharing.union import copy_union

    with copy_union(paths) as union:
        yield union


def no_runs_message(db: Path) -> str:
    """Return the message for a database without runs."""
    from labbench.store.connection import incomplete_copy_hint

    command = database_command(db)
    return f"no runs yet: `{command} new` writes a first grid, `{command} run GRID` trains it{incomplete_copy_hint(db)}"


def sort_order(sort: str | None, goals: Mapping[str, Goal]) -> tuple[str | None, bool]:
    """Return (column, descending) for `--sort`: metrics are sorted best first, a leading `-` reverses."""
    if sort is None:
        return None, False
    column = sort.removeprefix("-")
    metric = metric_of_column(column, goals)
    return column, (metric is not None and goals[metric] == "max") != sort.startswith("-")


def metric_of_column(column: str | None, goals: Mapping[str, Goal]) -> str | None:
    """Return the metric of a column such as `val/loss` or `best(val/loss)`, None for any other column."""
    metric = (column or "").removesuffix(")").partition("(")[2] or column
    return metric if metric in goals else None


def shows_best(column: str | None) -> bool:
    """Return True for a column that depends on the goal of its metric: a metric, or `best` of one."""
    return column is not None and ("(" not in column or column.removeprefix("-").startswith("best("))
