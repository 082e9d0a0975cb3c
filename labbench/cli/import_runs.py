"""The command `import`: runs of other databases and other programs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.options import FILE_PATH, PATH, Command, database
from labbench.cli.output import echo
from labbench.errors import InputError, StoreError
from labbench.text import clean, format_count

if TYPE_CHECKING:
    from labbench.importing.import_runs import ImportReport
    from labbench.importing.source_run import FoundRun


@click.group(
    "import", epilog=examples("labbench import tensorboard runs/", "labbench import labbench /mnt/other/runs.db")
)
@database
def import_(db: Path) -> None:
    """Import runs of other programs, or from another database.

    Importing the same source again adds only what is new.
    """


def source_options(command: Command) -> Command:
    """Add the paths and options of a command that imports runs of another program."""
    for decorate in (
        database,
        click.option("--dry-run", is_flag=True, help="Print what would be imported, and write nothing."),
        click.option("--replace", is_flag=True, help="Import runs again whose source became shorter or different."),
        click.option("--experiment", metavar="NAME", help="Experiment of the new runs."),
        click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH..."),
    ):
        command = decorate(command)
    return command


@import_.command("labbench", epilog=examples("labbench import labbench /mnt/other/runs.db"))
@click.argument("path", type=FILE_PATH)
@database
def import_labbench(db: Path, path: Path) -> None:
    """Import the runs of another labbench database.

    The files of the runs are copied too. Runs that are already present are left unchanged, or updated if they have
    progressed in the other database. A run that went on in both is kept twice, the other's as `NAME (2)`.
    """
    from labbench.importing.labbench_db import import_labbench

    merged = import_labbench(db, path)
    echo(
        f"imported {format_count(len(merged.new), 'new run')}, updated {len(merged.newer)}, "
        f"{merged.n_same} already present"
    )
    if merged.skipped:
        names = ", ".join(clean(str(file)) for file in merged.skipped[:5]) + (
            ", ..." if len(merged.skipped) > 5 else ""
        )
        echo(f"not copied, because only regular files are (no links): {names}", err=True)


@import_.command("csv", epilog=examples("labbench import csv points.csv"))
@click.argument("path", type=FILE_PATH)
@database
def import_csv(db: Path, path: Path) -> None:
    """Import the points of a CSV file, one row per point.

    The columns are the same as in `labbench export`: run,name,experiment,metric,step,time,value. Name, experiment and
    time are optional. A run that was imported before gets the points that are new.
    """
    from labbench.importing.csv_file import import_csv

    n_new, n_present = import_csv(db, path)
    echo(f"imported {format_count(n_new, 'new run')}, {n_present} already present")


@import_.command(
    "tensorboard", epilog=examples("labbench import tensorboard runs/", "labbench import tensorboard runs/ --follow")
)
@source_options
@click.option("--follow", is_flag=True, help="Keep importing what is written, until Ctrl+C.")
def import_tensorboard(db: Path, paths: tuple[Path, ...], follow: bool, **options: Any) -> None:
    """Import TensorBoard event files, or folders with them.

    Takes scalars and the hyperparameters of the HParams plugin. Each folder with event files is a run; the folders that
    torch's add_hparams and add_scalars create beneath a run belong to it. Of points with the same step the last is
    taken.
    """
    from labbench.importing import tensorboard

    _import_sources(db, "tensorboard", tensorboard.find_runs, paths, follow=follow, **options)


def _import_sources(
    db: Path,
    source: str,
    find_runs: Callable[[Path], Iterable[FoundRun]],
    paths: Sequence[Path],
    *,
    experiment: str | None,
    replace: bool,
    dry_run: bool,
    follow: bool = False,
) -> None:
    """Import the runs of each path and print a summary.

    Raises:
        InputError: A path holds no runs of this format.
        StoreError: Runs were not imported; the reasons are printed.
    """
    from labbench.importing.import_runs import follow_runs, import_runs, preview

    search = partial(_find_all, find_runs, paths)
    runs = search()
    with click.progressbar(runs, label=source, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:
        report = preview(bar) if dry_run else import_runs(db, bar, source, experiment=experiment, replace=replace)
    for line in _summary_lines(report, dry_run=dry_run):
        echo(line)
    if follow and not dry_run:
        for update in follow_runs(db, search, runs, source, experiment=experiment):
            echo(next(_summary_lines(update)))
    if report.problems:
        for label, problem in report.problems.items():
            echo(f"{label}: {problem}", err=True)
        raise StoreError(f"{format_count(len(report.problems), 'run')} not imported, for the reasons above")


def _find_all(find_runs: Callable[[Path], Iterable[FoundRun]], paths: Sequence[Path]) -> list[FoundRun]:
    """Return the runs of all paths. Raises InputError if a path does not exist or holds none."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return [run for path in paths for run in find_runs(path)]


def _summary_lines(report: ImportReport, *, dry_run: bool = False) -> Iterator[str]:
    verb = "would import" if dry_run else "imported"
    new, points = format_count(report.n_new, "new run"), format_count(report.n_points, "point")
    present = "" if dry_run else f"; {report.n_grown} grown, {report.n_unchanged} already present"
    yield f"{verb} {new}, {points}{present}"
    if report.skipped:
        yield "not imported: " + ", ".join(f"{count} {kind}" for kind, count in report.skipped.most_common())
