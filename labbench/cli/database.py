"""Commands on whole databases: `experiments doctor backup vacuum`."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.options import FILE_PATH, as_json, database, plain, table_format
from labbench.cli.output import echo
from labbench.errors import InputError, StoreError
from labbench.text import clean, format_count

if TYPE_CHECKING:
    from labbench.records import RunRecord
    from labbench.store.maintenance.health import Diagnosis


@click.command(epilog=examples("labbench experiments", "labbench experiments --json"))
@table_format
@plain
@as_json
@database
def experiments(db: Path, table_format: str, as_json: bool) -> None:
    """List experiments with their runs by status."""
    from labbench.cli.showing.ls import no_runs_message
    from labbench.cli.text_tables import TextColumn, print_table
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        rows = experiment_rows(reader.each_run(metrics=()))
    if as_json:
        click.echo(json.dumps(rows))
    elif not rows:
        echo(no_runs_message(db), err=True)
    else:
        statuses = [", ".join(f"{count} {status}" for status, count in row["statuses"].items()) for row in rows]
        print_table(
            [
                TextColumn("experiment", [row["experiment"] for row in rows]),
                TextColumn("runs", [str(row["runs"]) for row in rows], right=True),
                TextColumn("statuses", statuses),
                TextColumn("newest", [format_time(row["newest"]) for row in rows]),
            ],
            table_format,
        )


def experiment_rows(records: Iterable[RunRecord]) -> list[dict[str, Any]]:
    """Return name, number of runs, runs by status and Unix time of the newest run of each experiment, newest first."""
    rows: dict[str, dict[str, Any]] = {}
    for record in records:
        row = rows.setdefault(
            record.experiment, {"experiment": record.experiment, "runs": 0, "statuses": {}, "newest": 0.0}
        )
        row["runs"] += 1
        row["statuses"][record.shown_status] = row["statuses"].get(record.shown_status, 0) + 1
        row["newest"] = max(row["newest"], record.started or record.created)
    return sorted(rows.values(), key=lambda row: -row["newest"])


def format_time(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds):%Y-%m-%d %H:%M}"


@click.command(epilog=examples("labbench doctor", "labbench doctor --fix"))
@click.option("--fix", is_flag=True, help="Repair what can be repaired; no logged value is changed or deleted.")
@database
def doctor(db: Path, fix: bool) -> None:
    """Explain the environment, and check a database.

    Prints versions, devices, abilities of the terminal and the file system; with --fix, repairs instead. Checks the
    file, its tables, and that summaries, rollups and overviews agree with the points.
    \f
    Raises:
        StoreError: Problems were found and not repaired.
    """
    from labbench.store.maintenance.health import diagnose

    if not fix:
        from labbench.cli.setup.environment import environment_facts

        for name, fact in environment_facts(db, os.environ).items():
            if fact:
                echo(f"{name + ':':<15}{fact}")
        click.echo()
    diagnosis = diagnose(db)
    if fix and not diagnosis.damage and (diagnosis.is_repairable or diagnosis.spill_files):
        from labbench.store.maintenance.keeper import MaintenanceWriter

        with MaintenanceWriter(db) as writer:
            writer.repair(diagnosis)
    for line in _diagnosis_lines(db, diagnosis, fixed=fix):
        echo(line)
    if diagnosis.is_sound:
        echo(f"{db}: sound; {diagnosis.n_series} series agree with their points")
    elif diagnosis.damage or diagnosis.invalid or diagnosis.bad_keys or diagnosis.bad_values or not fix:
        raise StoreError(f"{db}: problems found, listed above")


def _diagnosis_lines(db: Path, diagnosis: Diagnosis, *, fixed: bool) -> Iterator[str]:
    for line in diagnosis.damage:
        yield f"the file is damaged: {line}"
    if diagnosis.damage:
        yield f"to save what can be read: sqlite3 {shlex.quote(str(db))} .recover"
    remedy = "fixed" if fixed else "--fix repairs it"
    if diagnosis.is_older:
        action = "upgraded" if fixed else "the next command that writes upgrades them, --fix does it now"
        yield f"the tables are those of an older version: {action}"
    if diagnosis.n_without_overview and not diagnosis.is_older:
        action = "added" if fixed else "--fix adds it; until then charts of many runs take longer"
        yield f"{diagnosis.n_without_overview} series without an overview: {action}"
    if diagnosis.wrong:
        yield f"the summaries of {len(diagnosis.wrong)} of {diagnosis.n_series} series are wrong: {remedy}"
    for table, count in diagnosis.orphans.items():
        yield f"{format_count(count, 'row')} of table {table} without a run: {remedy}"
    if diagnosis.runs_without_experiment:
        yield f"{format_count(diagnosis.runs_without_experiment, 'run')} without an experiment: {remedy}"
    if diagnosis.bad_configs:
        yield f"{format_count(diagnosis.bad_configs, 'run')} whose config is not a JSON object: {remedy}"
    if diagnosis.bad_statuses:
        yield f"unknown statuses of runs ({clean(', '.join(diagnosis.bad_statuses[:5]))}): {remedy}"
    if diagnosis.bad_values:
        yield f"{format_count(diagnosis.bad_values, 'point')} with text in place of a number: cannot be repaired"
    for file in diagnosis.spill_files:
        yield f"spill file {file}: the next command that writes to the database merges it"
    for (table, column), count in diagnosis.invalid.items():
        yield (
            f"{format_count(count, 'value')} of the column {column} of the table {table} that labbench does not write: "
            "another program wrote them, or the file is damaged"
        )
    for key in diagnosis.bad_keys[:5]:
        yield f"a run has the key {repr(key)[:80]}, which labbench did not write: this database cannot be trusted"
    for folder in diagnosis.stray_folders:
        yield f"no run owns the folder {folder}: delete it if you do not need it"
    if diagnosis.lost:
        keys = ", ".join(diagnosis.lost[:5]) + (", ..." if len(diagnosis.lost) > 5 else "")
        runs = format_count(len(diagnosis.lost), "run")
        yield f"{runs} lost the training process ({keys}): run the grid again, or the script with start(resume=KEY)"


@click.command(epilog=examples("labbench vacuum", "labbench vacuum --states"))
@click.option("--states", is_flag=True, help="Delete the states that finished and pruned runs kept.")
@database
def vacuum(db: Path, *, states: bool) -> None:
    """Shrink the database file to its contents."""
    from labbench.store.maintenance.keeper import MaintenanceWriter

    size_before = _file_size(db)
    with MaintenanceWriter(db) as writer:
        if states:
            count, size = writer.discard_kept_states()
            echo(f"{format_count(count, 'state')} of {size / 1e6:.1f} MB deleted")
        writer.vacuum()
    echo(f"{db}: {size_before / 1e6:.1f} MB before, {_file_size(db) / 1e6:.1f} MB now")


@click.command(epilog=examples("labbench backup runs-2026-11-30.db"))
@click.argument("copy", type=FILE_PATH, metavar="FILE")
@database
def backup(db: Path, copy: Path) -> None:
    """Copy the database to FILE, also while runs are training."""
    from labbench.files import files_folder
    from labbench.store.maintenance.merge import back_up

    back_up(db, copy)
    echo(f"{copy}: {_file_size(copy) / 1e6:.1f} MB")
    if files_folder(db).is_dir():
        echo(f"models and other files are not included: copy the folder {files_folder(db)} too", err=True)


def _file_size(path: Path) -> int:
    if not path.is_file():
        raise InputError(f"{path}: no such database; name it with --db or LABBENCH_DB")
    return path.stat().st_size
