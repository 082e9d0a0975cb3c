"""`labbench show` and `labbench compare`: everything recorded of a run, and the differences between some."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.options import as_json, database, plain, runs, table_format
from labbench.cli.output import echo, is_plain
from labbench.cli.text_tables import TextColumn, limit_labels, print_table
from labbench.cli.unknown_words import filter_of_experiments
from labbench.errors import InputError, LabbenchError, RunNotFound
from labbench.files import database_command, files_folder, run_folder
from labbench.text import clean, format_duration, format_setting, format_size, prints_no_color, split_lines

if TYPE_CHECKING:
    from labbench.metrics import Goal
    from labbench.records import RunRecord
    from labbench.store.reader import Reader

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
    from labbench.json_documents import run_document
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        records = [record for run in runs for record in _find_runs(reader, [run])]
        goals = reader.metrics()
        if as_json:
            documents = [
                {
                    **run_document(record),
                    "training_command": command_to_train_again(reader, record),
                    "files": file_documents(reader, record),
                }
                | ({"sources": reader.sources(record.key)} if shows_source else {})
                for record in records
            ]
            click.echo(json.dumps(documents if len(runs) > 1 else documents[0]))
            return
        for index, record in enumerate(records):
            if index:
                click.echo()
            if shows_source:
                print_sources(reader, record)
                continue
            print_run(record, goals, command_to_train_again(reader, record))
            print_files(reader, record)
            print_output(reader, record, f"{database_command(db)} show {record.key} --all", all_output=all_output)
            print_images(reader, record)
            for line in portrait_lines(db, record):
                click.echo(line, color=True)


def _find_runs(reader: Reader, words: Sequence[str]) -> list[RunRecord]:
    """Return the runs with these keys or names. Raises RunNotFound, with the runs of an experiment of that name."""
    try:
        return reader.find_many(words)
    except RunNotFound as error:
        if (run_filter := filter_of_experiments(reader, words)) is None:
            raise
        command = f"{database_command(reader.path)} ls {shlex.quote(run_filter)}"
        raise RunNotFound(f"{error}; the runs of the experiment: {command}", candidates=error.candidates) from error


def command_to_train_again(reader: Reader, record: RunRecord) -> str | None:
    """Return the command that trains a run again, from the texts recorded with it; None without one."""
    from labbench.training_command import keys_in_grid, training_command

    sources = reader.sources(record.key)
    if "command" not in sources:
        return None
    return training_command(record, reader.path, sources["command"], keys_in_grid(record, sources.get("grid", "")))


def print_run(record: RunRecord, goals: Mapping[str, Goal], command: str | None) -> None:
    """Print a run's facts and metrics, and the command that trains it again."""
    from labbench.cli.showing.columns import summary_columns

    facts = run_facts(record) | ({} if command is None else {"train again": command})
    print_table([TextColumn("", limit_labels(list(facts))), TextColumn("", list(facts.values()))], is_wide=True)
    if record.summary:
        click.echo()
        metrics, *statistics = summary_columns(record, goals)
        print_table([replace(metrics, cells=limit_labels(metrics.cells)), *statistics], is_wide=True)


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
        columns = [TextColumn("file", names), TextColumn("size", sizes, right=True), TextColumn("path", paths)]
        print_table(columns, is_wide=True)


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
    from labbench.tracebacks import fold_traceback

    styled = sys.stdout.isatty() and not is_plain() and not prints_no_color(os.environ)

    def lines() -> Iterator[str]:
        return split_lines(reader.each_log(record.key, styled=styled), styled=styled)

    traceback = list(split_lines([record.traceback or ""]))
    n_last = max(LAST_OUTPUT_LINES, len(traceback))
    ends = keep_ends(lines(), FIRST_OUTPUT_LINES, n_last, lambda _: 1)
    output = [*ends.first, *ends.last]
    if traceback and [*map(remove_styles, output[-len(traceback) :])] != traceback:  # a worker's last lines are in both
        folded = traceback if all_output else list(split_lines([fold_traceback(record.traceback or "")]))
        echo("\n" + "\n".join(folded))
        if folded != traceback:
            echo(f"the whole traceback: {command}")
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
        ],
        is_wide=True,
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
        "versions": ", ".join(f"{name} {version}" for name, version in record.library_versions.items()),
        "hardware": record.hardware_text,
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

    Each run's metrics are shown with their change from the first run's, and whether that is better or worse.
    """
    from labbench.cli.showing.columns import comparison_columns
    from labbench.json_documents import run_document
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        records, goals = _find_runs(reader, runs), reader.metrics()
    if as_json:
        click.echo(json.dumps([run_document(record) for record in records]))
    else:
        print_table(comparison_columns(records, goals), table_format)
        if len(records) > 1 and table_format == "text":
            echo("in brackets: the change from the first run, better or worse by its goal")
