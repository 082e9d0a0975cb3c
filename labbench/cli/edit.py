"""Commands that change runs: `tag note define rename archive rm stop retry`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.help import examples
from labbench.cli.options import database, runs
from labbench.cli.output import echo
from labbench.cli.setup.name_completion import complete_experiments, complete_metrics, complete_runs
from labbench.errors import InputError, did_you_mean

if TYPE_CHECKING:
    from labbench.metrics import Goal
    from labbench.records import RunRecord


def find_runs(db: Path, words: Sequence[str]) -> list[RunRecord]:
    """Return the runs with these keys, names or prefixes of keys.

    Raises:
        RunNotFound: A word names no run, or more than one.
        StoreError: The database cannot be read.
    """
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        return reader.find_many(words)


@click.command(epilog=examples("labbench tag 3f9a1c20 --add best", "labbench tag 3f9a1c20 --remove best"))
@runs
@click.option("--add", "-a", multiple=True, metavar="TAG", help="Add this tag; repeatable.")
@click.option("--remove", "-r", multiple=True, metavar="TAG", help="Remove this tag; repeatable.")
@database
def tag(db: Path, runs: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> None:
    """Add or remove tags of runs.
    \f
    Raises:
        InputError: No tag is given.
    """
    from labbench.store.writer import Writer

    if not add and not remove:
        raise InputError("no tag given: add --add TAG or --remove TAG")
    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        writer.tag(keys, add=add, remove=remove)


@click.command(epilog=examples("labbench note 3f9a1c20 'diverges late, lower lr'"))
@click.argument("run", shell_complete=complete_runs)
@click.argument("text")
@database
def note(db: Path, run: str, text: str) -> None:
    """Set the note of a run; an empty TEXT removes it."""
    from labbench.store.writer import Writer

    [record] = find_runs(db, [run])
    with Writer(db) as writer:
        writer.note(record.key, text)


@click.command(epilog=examples("labbench define val/rmse min", "labbench define grad_scale none"))
@click.argument("metric", shell_complete=complete_metrics)
@click.argument("goal", type=click.Choice(["min", "max", "none"]))
@database
def define(db: Path, metric: str, goal: Goal) -> None:
    """Declare which values of a metric are better.

    `min`: lower ones, `max`: higher ones, `none`: neither, so that no run is its best.
    \f
    Raises:
        InputError: There is no such database.
    """
    from labbench.store.reader import Reader
    from labbench.store.writer import Writer

    with Reader(db) as reader:
        logged = reader.metrics("archived=true,false")
    if metric not in logged:
        echo(f"no run has logged `{metric}` yet{did_you_mean(metric, logged)}", err=True)
    with Writer(db) as writer:
        writer.define_metric(metric, goal)


@click.command(epilog=examples("labbench rename quickstart optimizers"))
@click.argument("experiment", shell_complete=complete_experiments)
@click.argument("new")
@database
def rename(db: Path, experiment: str, new: str) -> None:
    """Rename an experiment; its runs do not change.

    A grid with `name = "NEW"` then finds the runs.
    \f
    Raises:
        InputError: There is no such experiment, or NEW exists already or is empty.
    """
    from labbench.store.reader import Reader
    from labbench.store.writer import Writer

    with Reader(db) as reader:
        names = reader.experiments("archived=true,false")
    if experiment not in names:
        hint = did_you_mean(experiment, names) or f"; the experiments are {', '.join(names)}" * bool(names)
        raise InputError(f"no experiment `{experiment}`{hint}")
    if new == experiment:
        return
    if not new.strip():
        raise InputError("the new name of an experiment cannot be empty")
    if new in names:
        raise InputError(f"the experiment `{new}` exists already: choose another name")
    with Writer(db) as writer:
        writer.rename_experiment(experiment, new)


@click.command(epilog=examples("labbench archive 3f9a1c20", "labbench archive 3f9a1c20 --undo"))
@runs
@click.option("--undo", is_flag=True, help="Show the runs again.")
@database
def archive(db: Path, runs: Sequence[str], undo: bool) -> None:
    """Hide runs from every table; nothing is deleted."""
    from labbench.store.writer import Writer

    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        writer.archive(keys, not undo)


@click.command(epilog=examples("labbench rm 3f9a1c20"))
@runs
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@database
def rm(db: Path, runs: Sequence[str], yes: bool) -> None:
    """Delete runs with all their points and files.
    \f
    Raises:
        InputError: A run is running.
    """
    from labbench.files import database_command
    from labbench.store.writer import Writer
    from labbench.text import clean, format_count

    records = find_runs(db, runs)
    if running := [record.key for record in records if record.status == "running" and record.source is None]:
        command = f"{database_command(db)} stop {' '.join(running)}"
        raise InputError(f"running runs cannot be deleted: stop them first with {command}")
    if not yes:
        names = ", ".join(clean(record.name) for record in records[:5]) + (", ..." if len(records) > 5 else "")
        click.confirm(f"delete {format_count(len(records), 'run')} for good ({names})?", abort=True, err=True)
    with Writer(db) as writer:
        writer.remove([record.key for record in records])


@click.command(epilog=examples("labbench stop 3f9a1c20"))
@runs
@database
def stop(db: Path, runs: Sequence[str]) -> None:
    """Ask running runs to stop at the end of their epoch.

    Queued runs stop at once.
    """
    from labbench.store.writer import Writer

    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        for key in keys:
            writer.request(key, "stop")


@click.command(epilog=examples("labbench retry 3f9a1c20", "labbench retry 3f9a1c20 --from-start"))
@runs
@click.option("--from-start", is_flag=True, help="Train from the start instead of the last checkpoint.")
@database
def retry(db: Path, runs: Sequence[str], from_start: bool) -> None:
    """Queue failed, diverged, stopped, pruned or lost runs again.

    Running their grid trains them.
    """
    from labbench.store.writer import Writer

    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        writer.retry(keys, from_start=from_start)
