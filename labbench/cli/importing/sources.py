"""Import of the runs of another program by a command: its options, progress bar and summary."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import PATH, Command, database
from labbench.cli.output import echo
from labbench.errors import InputError, StoreError
from labbench.files import database_command
from labbench.text import clean, format_count

if TYPE_CHECKING:
    from labbench.importing.import_runs import ImportReport
    from labbench.importing.source_run import FoundRun


@dataclass(frozen=True)
class SourceOptions:
    """Options of a command that imports runs of another program."""

    experiment: str | None
    """Experiment of new runs; None: the one that the source names."""
    replace: bool
    """Import runs again whose source was shortened or changed."""
    dry_run: bool


def source_options(command: Command) -> Command:
    """Add the paths and options of a command that imports runs of another program."""
    for decorate in (
        database,
        click.option("--dry-run", is_flag=True, help="Print what would be imported, and write nothing."),
        click.option("--replace", is_flag=True, help="Import runs again whose source was shortened or changed."),
        click.option("--experiment", metavar="NAME", help="Experiment of the new runs."),
        click.argument("paths", type=PATH, nargs=-1, required=True, metavar="PATH..."),
    ):
        command = decorate(command)
    return command


def import_sources(
    db: Path,
    source: str,
    find_runs: Callable[[Path], Iterable[FoundRun]],
    paths: Sequence[Path],
    options: SourceOptions,
    *,
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
        if options.dry_run:
            report = preview(db, bar, source, experiment=options.experiment)
        else:
            report = import_runs(db, bar, source, experiment=options.experiment, replace=options.replace)
    for line in _summary_lines(report, dry_run=options.dry_run):
        echo(line)
    for line in _elsewhere_lines(report, db, options.experiment or ""):
        echo(line, err=True)
    _print_problems(report.problems)
    if follow and not options.dry_run:
        for update in follow_runs(db, search, runs, source, experiment=options.experiment):
            echo(next(_summary_lines(update)))
            _print_problems(dict(update.problems.items() - report.problems.items()))
            report.problems |= update.problems
    if report.problems:
        raise StoreError(f"{format_count(len(report.problems), 'run')} not imported, for the reasons above")


def _elsewhere_lines(report: ImportReport, db: Path, named: str) -> Iterator[str]:
    """Yield a line for each other experiment that has the runs already; `named` is the one of the import."""
    for experiment, count in report.elsewhere.items():
        runs, words = format_count(count, "run"), clean(shlex.join([experiment, named]))
        yield (
            f"{runs} {'is' if count == 1 else 'are'} in the experiment {clean(experiment)} already; a run is in one "
            f"experiment only. To rename this one: {database_command(db)} rename {words}"
        )


def _print_problems(problems: Mapping[str, str]) -> None:
    """Print the reason for each run that is not imported or not updated."""
    for label, problem in problems.items():
        echo(f"{label}: {problem}", err=True)


def _find_all(find_runs: Callable[[Path], Iterable[FoundRun]], paths: Sequence[Path]) -> list[FoundRun]:
    """Return the runs of all paths. Raises InputError if a path does not exist or holds none."""
    for path in paths:
        if not path.exists():
            raise InputError(f"{path}: no such file or folder")
    return [run for path in paths for run in find_runs(path)]


def _summary_lines(report: ImportReport, *, dry_run: bool = False) -> Iterator[str]:
    verb = "would import" if dry_run else "imported"
    new, points = format_count(report.n_new, "new run"), format_count(report.n_points, "point")
    present = f"; {report.n_grown} grown, {report.n_unchanged} already present"
    if dry_run:
        present = f"; {report.n_unchanged} already present, which would be completed" if report.n_unchanged else ""
    images = f", {format_count(report.n_images, 'image')}" if report.n_images else ""
    yield f"{verb} {new}, {points}{images}{present}"
    if skipped := +report.skipped:  # without the kinds that are counted 0
        yield "not imported: " + ", ".join(f"{count} {kind}" for kind, count in skipped.most_common())
