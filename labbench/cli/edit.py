"""Commands that change what is recorded of runs: `tag note archive rm stop retry`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import database, runs
from labbench.errors import InputError

if TYPE_CHECKING:
    from labbench.records import RunRecord


def find_runs(db: Path, words: Sequence[str]) -> list[RunRecord]:
    """The runs that the words name."""
    from labbench.store.reader import Reader

    with Reader(db) as reader:
        return reader.find_many(words)


@click.command()
@runs
@click.option("--add", "-a", multiple=True, metavar="TAG", help="Put this tag on the runs.")
@click.option("--remove", "-r", multiple=True, metavar="TAG", help="Take this tag off.")
@database
def tag(db: Path, runs: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> None:
    """Tag runs: labbench tag RUN... --add best"""
    from labbench.store.writer import Writer

    if not add and not remove:
        raise InputError("nothing to do: give --add TAG or --remove TAG")
    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        writer.tag(keys, add=add, remove=remove)


@click.command()
@click.argument("run")
@click.argument("text")
@database
def note(db: Path, run: str, text: str) -> None:
    """Write TEXT beside RUN; an empty TEXT takes the note away."""
    from labbench.store.writer import Writer

    [record] = find_runs(db, [run])
    with Writer(db) as writer:
        writer.note(record.key, text)


@click.command()
@runs
@click.option("--undo", is_flag=True, help="Show them again.")
@database
def archive(db: Path, runs: Sequence[str], undo: bool) -> None:
    """Hide runs from every table; nothing is deleted."""
    from labbench.store.writer import Writer

    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        writer.archive(keys, not undo)


@click.command()
@runs
@click.option("--yes", is_flag=True, help="Do not ask.")
@database
def rm(db: Path, runs: Sequence[str], yes: bool) -> None:
    """Delete runs with all their numbers and files."""
    from labbench.store.writer import Writer
    from labbench.text import clean

    records = find_runs(db, runs)
    if any(record.status == "running" for record in records):
        raise InputError("a running run cannot be deleted: labbench stop it first")
    if not yes:
        names = ", ".join(clean(record.name) for record in records[:5]) + (", ..." if len(records) > 5 else "")
        click.confirm(f"delete {len(records)} runs for good ({names})?", abort=True, err=True)
    with Writer(db) as writer:
        writer.remove([record.key for record in records])


@click.command()
@runs
@database
def stop(db: Path, runs: Sequence[str]) -> None:
    """Ask running runs to stop at their next epoch's end; queued ones are stopped at once."""
    from labbench.store.writer import Writer

    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        for key in keys:
            writer.request(key, "stop")


@click.command()
@runs
@click.option("--from-start", is_flag=True, help="Train them anew, not from where they can go on.")
@database
def retry(db: Path, runs: Sequence[str], from_start: bool) -> None:
    """Put failed, stopped or lost runs back into the queue; running their grid trains them."""
    from labbench.store.writer import Writer

    keys = [record.key for record in find_runs(db, runs)]
    with Writer(db) as writer:
        writer.retry(keys, from_start=from_start)
