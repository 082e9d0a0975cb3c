"""Commands that change runs: `tag note define rename archive rm stop retry`."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import RunSelection, database, run_selection
from labbench.cli.output import echo, print_name_notes
from labbench.cli.setup.completion import complete_experiments, complete_metrics
from labbench.cli.unknown_words import filter_of_experiments
from labbench.errors import FilterError, InputError, RunNotFound, did_you_mean
from labbench.text import clean, format_count

if TYPE_CHECKING:
    from labbench.metrics import Goal
    from labbench.records import RunRecord
    from labbench.store.writer import Writer

_MAX_NAMES = 5
"""Number of runs that a question names."""


def find_runs(db: Path, selection: RunSelection) -> list[RunRecord]:
    """Return the runs with the keys, names or prefixes of keys of a selection, or those that match its filter.

    Raises:
        InputError: Neither runs nor a filter are given, or both.
        RunNotFound: A word names no run, or more than one.
        StoreError: The database cannot be read.
    """
    from labbench.filters.parser import parse
    from labbench.store.reader import Reader

    if bool(selection.words) == (selection.filter is not None):
        raise InputError("name the runs, or pass --filter FILTER")
    with Reader(db) as reader:
        if selection.filter is None:
            try:
                return reader.find_many(selection.words)
            except RunNotFound as error:
                if not error.candidates and _is_filter(selection.words):
                    hint = f"for the runs that match it as a filter: --filter {shlex.quote(' '.join(selection.words))}"
                    raise RunNotFound(f"{error}; {hint}") from error
                if (of_experiments := filter_of_experiments(reader, selection.words)) is not None:
                    hint = f"for the runs of the experiment: --filter {shlex.quote(of_experiments)}"
                    raise RunNotFound(f"{error}; {hint}", candidates=error.candidates) from error
                raise
        run_filter = parse(selection.filter)
        print_name_notes(reader.check_names(run_filter))
        return reader.runs(run_filter, summaries=False)


def _is_filter(words: Sequence[str]) -> bool:
    """Return True if the words are comparisons, as `labbench ls` takes them."""
    from labbench.filters.parser import parse

    try:
        return all(set(word) & set("=<>~") for word in words) and parse(words) is not None
    except FilterError:
        return False


def edit(
    db: Path,
    selection: RunSelection,
    action: str,
    change: Callable[[Writer, list[str]], str],
    records: Sequence[RunRecord] | None = None,
    *,
    is_final: bool = False,
) -> None:
    """Change runs, after a confirmation if they were selected by a filter, and print what was done.

    Args:
        action: The change with `{}` for the runs, such as "archive {}".
        change: Changes the runs with these keys and returns a sentence on what was done.
        records: The runs, if they are known; default: the runs of the selection.
        is_final: True if the change cannot be taken back, so that it is always confirmed.
    """
    from labbench.store.writer import Writer

    records = find_runs(db, selection) if records is None else records
    if not records:
        echo("no run matches the filter; nothing was changed", err=True)
        return
    names = ", ".join(clean(record.name) for record in records[:_MAX_NAMES]) + ", ..." * (len(records) > _MAX_NAMES)
    text = action.format(format_count(len(records), "run"))
    if selection.is_preview:
        echo(f"would {text}: {names}")
        return
    if (is_final or selection.filter is not None) and not selection.is_confirmed:
        click.confirm(f"{text} ({names})?", abort=True, err=True)
    with Writer(db) as writer:
        echo(change(writer, [record.key for record in records]))


@click.command(
    epilog=examples("labbench tag 3f9a1c20 --add best", "labbench tag --filter 'best(val/loss)<0.1' --add good")
    + FILTER_HELP
)
@run_selection
@click.option("--add", "-a", multiple=True, metavar="TAG", help="Add this tag; repeatable.")
@click.option("--remove", "-r", multiple=True, metavar="TAG", help="Remove this tag; repeatable.")
@database
def tag(db: Path, selection: RunSelection, add: Sequence[str], remove: Sequence[str]) -> None:
    """Add or remove tags of runs.
    \f
    Raises:
        InputError: No tag is given.
    """
    if not add and not remove:
        raise InputError("no tag given: add --add TAG or --remove TAG")
    changes = " ".join([*(f"+{tag}" for tag in add), *(f"-{tag}" for tag in remove)])

    def change(writer: Writer, keys: list[str]) -> str:
        writer.tag(keys, add=add, remove=remove)
        return f"tagged {format_count(len(keys), 'run')}: {changes}"

    edit(db, selection, "tag {} " + changes.replace("{", "{{").replace("}", "}}"), change)


@click.command(
    epilog=examples(
        "labbench note 3f9a1c20 'diverges late, lower lr'", "labbench note --filter status=failed 'old data'"
    )
    + FILTER_HELP
)
@run_selection
@click.argument("text")
@database
def note(db: Path, selection: RunSelection, text: str) -> None:
    """Set the note of runs; an empty TEXT removes it."""
    verb = "set" if text else "remove"

    def change(writer: Writer, keys: list[str]) -> str:
        for key in keys:
            writer.note(key, text)
        return f"{verb if text else 'removed'} the note of {format_count(len(keys), 'run')}"

    edit(db, selection, verb + " the note of {}", change)


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


@click.command(epilog=examples("labbench rename quickstart optimizers", "labbench rename 3f9a1c20 baseline"))
@click.argument("name", metavar="EXPERIMENT|RUN", shell_complete=complete_experiments)
@click.argument("new")
@click.option("--dry-run", is_flag=True, help="Print what would be renamed, and change nothing.")
@database
def rename(db: Path, name: str, new: str, dry_run: bool) -> None:
    """Rename an experiment, or a run; nothing else changes.

    A name that both have is taken for the experiment. A grid with `name = "NEW"` then finds the runs of the experiment.
    \f
    Raises:
        InputError: There is no such experiment or run, or NEW is empty, or an experiment has it already.
    """
    from labbench.store.writer import Writer

    if not new.strip():
        raise InputError("the new name cannot be empty")
    run = _find_run_to_rename(db, name, new)
    kind = "the experiment" if run is None else f"the run {run.key}"
    if dry_run or new == name:
        echo(f"would rename {kind} {clean(name)} to {clean(new)}" if dry_run else f"{kind} has this name already")
        return
    with Writer(db) as writer:
        if run is None:
            writer.rename_experiment(name, new)
        else:
            writer.rename(run.key, new)
    echo(f"renamed {kind} {clean(name)} to {clean(new)}")


def _find_run_to_rename(db: Path, name: str, new: str) -> RunRecord | None:
    """Return the run with a name or key; None if it is the name of an experiment.

    Raises:
        InputError: It is neither, or another experiment has the new name.
    """
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        experiments = reader.experiments("archived=true,false")
        if name in experiments:
            if new in experiments and new != name:
                raise InputError(f"the experiment `{new}` exists already: choose another name")
            return None
        try:
            return reader.find(name)
        except RunNotFound as error:
            if error.candidates:
                raise
            hint = did_you_mean(name, experiments) or f"; the experiments are {', '.join(experiments)}" * bool(
                experiments
            )
            raise InputError(f"no experiment or run `{name}`{hint}") from error


@click.command(epilog=examples("labbench archive 3f9a1c20", "labbench archive --filter status=failed") + FILTER_HELP)
@run_selection
@click.option("--undo", is_flag=True, help="Show the runs again.")
@database
def archive(db: Path, selection: RunSelection, undo: bool) -> None:
    """Hide runs from every table; nothing is deleted."""
    verb = "show" if undo else "archive"

    def change(writer: Writer, keys: list[str]) -> str:
        writer.archive(keys, not undo)
        return f"{format_count(len(keys), 'run')} {'shown again' if undo else 'archived'}"

    if undo and selection.filter is not None and "archived" not in selection.filter:
        selection = replace(selection, filter=f"archived=true ({selection.filter})")
    edit(db, selection, verb + " {}", change)


@click.command(epilog=examples("labbench rm 3f9a1c20", "labbench rm --filter 'status=failed tag=none'") + FILTER_HELP)
@run_selection
@database
def rm(db: Path, selection: RunSelection) -> None:
    """Delete runs with all their points and files.
    \f
    Raises:
        InputError: A run is running.
    """
    from labbench.files import database_command

    records = find_runs(db, selection)
    running = [record for record in records if record.status == "running" and record.source is None]
    if driven := [record.key for record in running if not record.without_driver]:
        command = f"{database_command(db)} stop {' '.join(driven)}"
        raise InputError(f"running runs cannot be deleted: stop them first with {command}")

    def change(writer: Writer, keys: list[str]) -> str:
        _stop_jobs(db, running)
        writer.remove(keys)
        return f"deleted {format_count(len(keys), 'run')}"

    edit(db, selection, "delete {} for good", change, records, is_final=True)


@click.command(
    epilog=examples("labbench stop 3f9a1c20", "labbench stop --filter 'status=running lr>0.1'") + FILTER_HELP
)
@run_selection
@database
def stop(db: Path, selection: RunSelection) -> None:
    """Ask running runs to stop at the end of their epoch.

    Queued runs stop at once.
    """
    records = find_runs(db, selection)
    n_running = sum(record.status == "running" for record in records)
    n_waiting = sum(record.status in ("queued", "lost") for record in records)
    held = [record for record in records if record.without_driver]

    def change(writer: Writer, keys: list[str]) -> str:
        for key in keys:
            writer.request(key, "stop")
        _stop_jobs(db, held)
        note = " (running their grid records the end of those without a driver)" if held else ""
        counts = (
            (n_running, "running run", f" asked to stop{note}"),
            (n_waiting, "queued or lost run", " stopped"),
            (len(keys) - n_running - n_waiting, "run", " ended already"),
        )
        return ", ".join(format_count(count, noun) + end for count, noun, end in counts if count)

    edit(db, selection, "stop {}", change, records)


def _stop_jobs(db: Path, records: Sequence[RunRecord]) -> None:
    """Ask the jobs that train these runs without a driver to stop them at the end of their epoch."""
    if keys := {record.key for record in records if record.without_driver}:
        from labbench.runner.held_runs import request_stop_of_jobs

        request_stop_of_jobs(db, keys)


@click.command(
    epilog=examples("labbench retry 3f9a1c20", "labbench retry --filter status=failed --from-start") + FILTER_HELP
)
@run_selection
@click.option("--from-start", is_flag=True, help="Train from the start instead of the last checkpoint.")
@database
def retry(db: Path, selection: RunSelection, from_start: bool) -> None:
    """Queue failed, diverged, stopped, pruned or lost runs again.

    Running their grid trains them.
    """

    def change(writer: Writer, keys: list[str]) -> str:
        count = len(writer.retry(keys, from_start=from_start))
        others = len(keys) - count
        note = f"; {format_count(others, 'run')} left as they are: queued, running or finished" if others else ""
        return f"queued {format_count(count, 'run')} again{note}" + (f"; {next_step}" if count else "")

    records = find_runs(db, selection)
    next_step = _step_after_retry(db, records)
    edit(db, selection, "retry {}", change, records)


def _step_after_retry(db: Path, records: Sequence[RunRecord]) -> str:
    """Return what trains these runs after they were queued: the commands of their grids, or their scripts."""
    from labbench.files import database_command
    from labbench.store.reader import Reader

    by_experiment = {record.experiment: record for record in records}
    with Reader(db) as reader:
        names = [name for name, record in by_experiment.items() if "grid" in reader.sources(record.key)]
    files = dict.fromkeys(f"{name}.toml" if Path(f"{name}.toml").is_file() else "GRID.toml" for name in names)
    if not files:
        return "start the script again, which labbench does not"
    return f"to train: {database_command(db)} run {' '.join(map(shlex.quote, files))}"
