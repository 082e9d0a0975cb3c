"""Commands that show runs: `ls show compare`."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import as_json, database, plain, runs, table_format
from labbench.cli.output import echo, is_plain, print_name_notes
from labbench.cli.setup.completion import complete_columns, complete_filters
from labbench.errors import InputError, LabbenchError
from labbench.files import database_command, expand_home, files_folder
from labbench.text import (
    clean,
    format_count,
    format_duration,
    format_setting,
    format_size,
    prints_no_color,
    split_lines,
)

if TYPE_CHECKING:
    from labbench.cli.text_tables import TextColumn
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
    from labbench.cli.showing.columns import FACT_WORDS, SHOWN_WORDS, assumed_goals_note, leading_metrics, run_columns
    from labbench.filters.parser import parse
    from labbench.store.reader import Reader

    paths, filters = _split_words(filters)
    db = paths[0] if len(paths) == 1 else Path("FILE") if paths else db  # for messages
    with _open_database(paths or [db]) as path, Reader(path) as reader:
        run_filter = parse(filters)
        names = [name.strip() for name in columns.split(",")] if columns else None
        total, goals = reader.count(run_filter), reader.metrics(run_filter)
        column, descending = sort_order(sort, goals)
        recorded = [name for name in names or () if name not in (*SHOWN_WORDS, *FACT_WORDS)]
        is_missing = print_name_notes(reader.check_names(run_filter, columns=recorded, sort=column))
        records = _sorted_runs(reader, run_filter, (column, descending), limit=limit, is_missing=is_missing)
        declared = reader.declared_goals()
    if as_json:
        click.echo(json.dumps(run_documents(records)))
    elif records:
        metrics = leading_metrics(records, goals, metric_of_column(column, goals))
        _print_runs(run_columns(records, goals, names=names, metrics=metrics), table_format, is_wide=wide)
        remedy = f"`{database_command(db)} define METRIC min|max|none`"
        ranked = [metric_of_column(name, goals) for name in (*(names or metrics), column) if shows_best(name)]
        if can_define and (note := assumed_goals_note(filter(None, dict.fromkeys(ranked)), goals, declared, remedy)):
            echo(note, err=True)
        if total > len(records):
            echo(f"{len(records)} of {total} runs", err=True)
    else:
        echo("no run matches the filter" if run_filter else no_runs_message(db), err=True)


def _print_runs(columns: Sequence[TextColumn], table_format: str, *, is_wide: bool) -> None:
    """Print a table of runs, and on stderr the number of columns that the terminal has no room for."""
    from labbench.cli.text_tables import print_table

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


def run_documents(records: Sequence[RunRecord]) -> list[dict[str, Any]]:
    """Return the runs as JSON objects (docs/reference/formats.md)."""
    from labbench.json_documents import run_document

    return [run_document(record) for record in records]


FIRST_OUTPUT_LINES, LAST_OUTPUT_LINES = 5, 35
"""Lines of captured output that `show` prints without `--all`."""


@click.command(epilog=examples("labbench show 3f9a1c20", "labbench show 'adam lr=0.01' --all"))
@runs
@click.option("--all", "all_output", is_flag=True, help="All captured output, not only its ends.")
@click.option("--source", "shows_source", is_flag=True, help="The recorded texts: grid, task or script, and diff.")
@plain
@as_json
@database
def show(db: Path, runs: Sequence[str], all_output: bool, shows_source: bool, as_json: bool) -> None:
    """Show everything that is recorded of runs.

    RUN is a key, a name, or a unique prefix of a key with at least 4 characters.
    """
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        records, goals = [reader.find(run) for run in runs], reader.metrics()
        if as_json:
            documents = [
                {**document, "files": file_documents(reader, record)}
                | ({"sources": reader.sources(record.key)} if shows_source else {})
                for document, record in zip(run_documents(records), records, strict=True)
            ]
            click.echo(json.dumps(documents if len(runs) > 1 else documents[0]))
            return
        for index, record in enumerate(records):
            if index:
                click.echo()
            if shows_source:
                print_sources(reader, record)
                continue
            print_run(record, goals)
            print_files(reader, record)
            print_output(reader, record, f"{database_command(db)} show {record.key} --all", all_output=all_output)
            print_images(reader, record)
            for line in portrait_lines(db, record):
                click.echo(line, color=True)


def print_run(record: RunRecord, goals: Mapping[str, Goal]) -> None:
    """Print a run's facts and metrics."""
    from labbench.cli.showing.columns import summary_columns
    from labbench.cli.text_tables import TextColumn, print_table

    facts = run_facts(record)
    print_table([TextColumn("", list(facts)), TextColumn("", list(facts.values()))])
    if record.summary:
        click.echo()
        print_table(summary_columns(record.summary, goals))


def print_sources(reader: Reader, record: RunRecord) -> None:
    """Print the recorded texts of a run, each below a line with its kind."""
    sources = reader.sources(record.key)
    for kind, text in sources.items():
        click.echo(f"# {clean(kind)} of {record.key}")
        click.echo("\n".join(split_lines([text])))
    if not sources:
        echo(f"{record.key}: no source text is recorded", err=True)


def print_files(reader: Reader, record: RunRecord) -> None:
    """Print name, size and path of the files of a run, without its images."""
    from labbench.cli.text_tables import TextColumn, print_table
    from labbench.portraits.logged_images import images_by_name

    try:
        files = file_documents(reader, record)
        images = images_by_name(reader.artifacts(record.key)).values()
    except InputError as error:  # a path that another program wrote
        echo(f"\n{error}")
        return
    listed_below = {image.name for by_step in images for image in by_step.values()}
    if files := [file for file in files if file["name"] not in listed_below]:
        click.echo()
        names, paths = [[clean(file[key]) for file in files] for key in ("name", "path")]
        sizes = [format_size(file["size"]) for file in files]
        print_table([TextColumn("file", names), TextColumn("size", sizes, right=True), TextColumn("path", paths)])


def file_documents(reader: Reader, record: RunRecord) -> list[dict[str, Any]]:
    """Return the files of a run as JSON objects, with absolute paths.

    Raises:
        InputError: If a path points outside the run's folder.
    """
    folder = files_folder(reader.path) / record.key
    return [
        {"name": file.name, "path": str(folder / file.path), "size": file.size, "sha256": file.sha256}
        for file in reader.artifacts(record.key)
    ]


def print_output(reader: Reader, record: RunRecord, command: str, *, all_output: bool) -> None:
    """Print a run's traceback and captured output, on a terminal with its colours; `command` prints all of it."""
    from labbench.sgr import remove_styles
    from labbench.terminal_output import keep_ends

    styled = sys.stdout.isatty() and not is_plain() and not prints_no_color(os.environ)

    def lines() -> Iterator[str]:
        return split_lines(reader.each_log(record.key, styled=styled), styled=styled)

    traceback = list(split_lines([record.traceback or ""]))
    n_last = max(LAST_OUTPUT_LINES, len(traceback))
    ends = keep_ends(lines(), FIRST_OUTPUT_LINES, n_last, lambda _: 1)
    output = [*ends.first, *ends.last]
    if traceback and [*map(remove_styles, output[-len(traceback) :])] != traceback:  # a worker's last lines are in both
        echo("\n" + "\n".join(traceback))
    if not output:
        return
    click.echo()
    if all_output:
        for line in lines():
            click.echo(line)
        return
    hidden = max(0, len(output) + ends.n_between - FIRST_OUTPUT_LINES - LAST_OUTPUT_LINES)
    if hidden:
        note = f"({hidden:,} more lines: {command})"
        output = [*output[:FIRST_OUTPUT_LINES], clean(note), *output[-LAST_OUTPUT_LINES:]]
    click.echo("\n".join(output))


def print_images(reader: Reader, record: RunRecord) -> None:
    """Print the names, steps and folders of the images that a run logged."""
    artifacts = [item for item in reader.artifacts(record.key) if item.name.startswith("images/")]
    if not artifacts:
        return
    from labbench.cli.text_tables import TextColumn, print_table
    from labbench.files import files_folder, run_folder
    from labbench.portraits.logged_images import images_by_name

    images = images_by_name(artifacts)
    folder = run_folder(files_folder(reader.path), record.key)
    click.echo()
    print_table(
        [
            TextColumn("image", [clean(name) for name in images]),
            TextColumn("steps", [_format_steps(list(by_step)) for by_step in images.values()]),
            TextColumn(
                "size", [format_size(sum(e.size for e in by_step.values())) for by_step in images.values()], True
            ),
            TextColumn("folder", [clean(str((folder / next(iter(e.values())).path).parent)) for e in images.values()]),
        ]
    )


def _format_steps(steps: Sequence[int]) -> str:
    return str(steps[0]) if len(steps) == 1 else f"{steps[0]} to {steps[-1]} ({len(steps)})"


def portrait_lines(db: Path, record: RunRecord) -> list[str]:
    """Return the pictures of a run as lines, or a hint if it has none."""
    from labbench.portraits.draw import draw_portrait
    from labbench.portraits.file import NO_PORTRAIT_MESSAGE, portrait_path, read_portrait
    from labbench.portraits.pixels import choose_paint_mode, to_ansi, to_plain_text

    try:
        portrait = read_portrait(portrait_path(db, record.key))
    except LabbenchError as error:
        return ["", clean(str(error))]
    if portrait is not None and is_plain():
        return ["", "the pictures of the run are not drawn with --plain"]
    if portrait is None:
        return ["", NO_PORTRAIT_MESSAGE] if record.way not in (None, "command") and record.status != "failed" else []
    mode = choose_paint_mode(sys.stdout, os.environ)
    lines = draw_portrait(portrait, shutil.get_terminal_size().columns, mode)
    return ["", *(to_ansi(lines, os.environ) if mode == "colour" else to_plain_text(lines))]


def run_facts(record: RunRecord) -> dict[str, str]:
    """Return the facts of a run except metrics, as text by label.

    Empty facts are left out.
    """
    from datetime import datetime

    status = record.shown_status if record.reason is None else f"{record.shown_status}: {record.reason}"
    facts = {
        "run": f"{record.key}  {record.name}",
        "experiment": record.experiment,
        "status": status if record.error is None else f"{status}: {record.error}",
        "started": "" if record.started is None else f"{datetime.fromtimestamp(record.started):%Y-%m-%d %H:%M:%S}",
        "took": format_duration(record.seconds),
        "where": " ".join(filter(None, (record.place, record.way))),
        "mirrored from": record.source or "",
        "attempt": str(record.attempt),
        "continued from": ""
        if record.continued_from is None
        else f"{record.continued_from} at step {record.continued_step}",
        "git commit": ""
        if record.git_commit is None
        else record.git_commit[:12] + (" with changes" if record.git_dirty else ""),
        "code version": ""
        if record.code_version is None
        else f"{record.code_version[:12]} (hash of the run's own code{', older' if record.older_code else ''})",
        "versions": ", ".join(f"{name} {version}" for name, version in record.versions.items()),
        "tags": ", ".join(record.tags),
        "note": record.note or "",
        **{f"  {key}": format_setting(value) for key, value in record.config.items()},
    }
    return {name: text for name, text in facts.items() if text}


@click.command(epilog=examples("labbench compare 3f9a1c20 7be04d51"))
@runs
@table_format
@plain
@as_json
@database
def compare(db: Path, runs: Sequence[str], as_json: bool, table_format: str) -> None:
    """Compare configurations and best metrics of runs.

    Each run's metrics are shown with their distance to the first run's: ▲ better, ▼ worse.
    """
    from labbench.cli.showing.columns import comparison_columns
    from labbench.cli.text_tables import print_table
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        records, goals = reader.find_many(runs), reader.metrics()
    if as_json:
        click.echo(json.dumps(run_documents(records)))
    else:
        print_table(comparison_columns(records, goals), table_format)
