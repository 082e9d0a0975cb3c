"""Commands for whole databases: `import doctor vacuum backup`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import database
from labbench.errors import InputError, StoreError
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.store.maintenance.health import Diagnosis

FILE_PATH = click.Path(path_type=Path, dir_okay=False)


@click.group("import")
@database
def import_(db: Path) -> None:
    """Bring in runs that were recorded elsewhere; twice changes nothing."""


@import_.command("labbench")
@click.argument("path", type=FILE_PATH)
@database
def import_labbench(db: Path, path: Path) -> None:
    """The runs of another labbench database, with their files.

    Runs that are here already are left alone, or brought up to date where they have gone on there.
    """
    from labbench.importing.labbench_db import import_labbench

    merged = import_labbench(db, path)
    click.echo(f"{len(merged.new)} new runs, {len(merged.newer)} brought up to date, {merged.n_same} were here already")
    if merged.skipped:
        few = ", ".join(clean(str(file)) for file in merged.skipped[:5]) + (", ..." if len(merged.skipped) > 5 else "")
        click.echo(f"not copied, since only regular files are (no links): {few}", err=True)


@import_.command("csv")
@click.argument("path", type=FILE_PATH)
@database
def import_csv(db: Path, path: Path) -> None:
    """The points of a long CSV, as `labbench export` writes it: run,name,experiment,metric,step,time,value.

    Name, experiment and time may be missing. A run that came in before gets the points that are new.
    """
    from labbench.importing.csv_file import import_csv

    n_new, n_known = import_csv(db, path)
    click.echo(f"{n_new} new runs, {n_known} were here already")


@click.command()
@click.option("--fix", is_flag=True, help="Put right what can be put right; no logged value is changed.")
@database
def doctor(db: Path, fix: bool) -> None:
    """Check the database: the file, its tables, and whether summaries and rollups are what the points say."""
    from labbench.store.maintenance.health import diagnose

    diagnosis = diagnose(db)
    if fix and not diagnosis.is_sound and not diagnosis.damage:
        from labbench.store.maintenance.keeper import MaintenanceWriter

        with MaintenanceWriter(db) as keeper:
            keeper.repair(diagnosis)
    for line in _diagnosis_lines(db, diagnosis, fixed=fix):
        click.echo(line)
    if diagnosis.is_sound:
        click.echo(f"{db}: sound; {diagnosis.n_series} series are what their points say")
    elif diagnosis.damage or diagnosis.bad_keys or not fix:
        raise StoreError(f"{db}: not as it should be")


def _diagnosis_lines(db: Path, diagnosis: Diagnosis, *, fixed: bool) -> Iterator[str]:
    for line in diagnosis.damage:
        yield f"the file is damaged: {line}"
    if diagnosis.damage:
        yield f"`sqlite3 {db} .recover` saves what can be read"
    cure = "fixed" if fixed else "--fix makes it right"
    if diagnosis.is_older:
        yield f"the tables are those of an older version: {cure}"
    if diagnosis.wrong:
        yield f"{len(diagnosis.wrong)} of {diagnosis.n_series} series are summarised wrongly: {cure}"
    for table, count in diagnosis.orphans.items():
        yield f"{count} rows of {table} belong to no run: {cure}"
    for key in diagnosis.bad_keys[:5]:
        yield f"a run has the key {repr(key)[:80]}, which labbench did not write: this database cannot be trusted"
    for folder in diagnosis.stray_folders:
        yield f"{folder} belongs to no run: delete it if you do not need it"
    if diagnosis.lost:
        yield (
            f"{len(diagnosis.lost)} runs lost their process ({', '.join(diagnosis.lost[:5])}"
            f"{', ...' if len(diagnosis.lost) > 5 else ''}): to run their grid again goes on with them"
        )


@click.command()
@database
def vacuum(db: Path) -> None:
    """Shrink the database to what is in it."""
    from labbench.store.maintenance.keeper import MaintenanceWriter

    before = _file_size(db)
    with MaintenanceWriter(db) as keeper:
        keeper.vacuum()
    click.echo(f"{db}: {before / 1e6:.1f} MB before, {_file_size(db) / 1e6:.1f} MB now")


@click.command()
@click.argument("copy", type=FILE_PATH, metavar="FILE")
@database
def backup(db: Path, copy: Path) -> None:
    """Copy the database to FILE as it is at this moment, also while runs are training."""
    from labbench.files import files_folder
    from labbench.store.maintenance.merge import back_up

    back_up(db, copy)
    click.echo(f"{copy}: {_file_size(copy) / 1e6:.1f} MB")
    if files_folder(db).is_dir():
        click.echo(f"models and other files lie in {files_folder(db)}: copy that folder too", err=True)


def _file_size(path: Path) -> int:
    if not path.is_file():
        raise InputError(f"{path}: no such database")
    return path.stat().st_size
