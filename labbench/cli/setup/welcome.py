"""Start without a database: offers the demo, a first grid, and the runs of other programs in the folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import click

from labbench.cli import run, tui
from labbench.cli.importing.commands import import_auto
from labbench.cli.output import echo
from labbench.cli.setup import new
from labbench.errors import InputError
from labbench.files import database_command
from labbench.text import clean

_MAX_PATHS = 4
"""Number of files and folders that an offer names one by one."""


@dataclass(frozen=True, slots=True)
class Offer:
    """Way to begin: a line of the menu, the command that does the same, and the function that does it."""

    text: str
    command: str
    begin: Callable[[], object]


def begin(context: click.Context, db: Path) -> None:
    """Ask in the terminal how to begin, and do it.

    Raises:
        InputError: There is no terminal; the message names the commands.
    """
    offers = _offers(context, db)
    if not new.is_terminal():
        width = max(len(offer.command) for offer in offers)
        commands = "\n".join(f"  {offer.command.ljust(width)}  {offer.text}" for offer in offers)
        raise InputError(f"{db}: no such database. To begin:\n{commands}")
    echo(f"There are no runs here yet ({db} does not exist).", err=True)
    offers[new.choose("How do you want to begin?", [offer.text for offer in offers])].begin()


def _offers(context: click.Context, db: Path) -> list[Offer]:
    from labbench.importing.formats import find_databases, find_logs

    command, here = database_command(db), Path()
    return [
        *(_opening(context, path) for path in find_databases(here)),
        *_trainings(context, db, here),
        *_imports(context, db, find_logs(here)),
        Offer("look at an example: real runs of seven experiments", "labbench demo", lambda: context.invoke(tui.demo)),
        _writing(context, db),
        Offer(
            "open the terminal interface, which shows runs as soon as there are some",
            f"{command} tui",
            lambda: context.invoke(tui.tui, db=db),
        ),
    ]


def _opening(context: click.Context, path: Path) -> Offer:
    return Offer(
        f"open the database {clean(str(path))}", database_command(path), lambda: context.invoke(tui.tui, db=path)
    )


def _trainings(context: click.Context, db: Path, folder: Path) -> list[Offer]:
    """Return the offers to train the grids of a folder."""
    from labbench.grid.source import find_grid_files

    def train(name: str) -> Offer:
        command = f"{database_command(db)} run {shlex.quote(name)}"
        return Offer(
            f"train the runs of {clean(name)}", command, lambda: context.invoke(run.run, db=db, grids=(Path(name),))
        )

    return [train(name) for name in find_grid_files(folder)[:_MAX_PATHS]]


def _writing(context: click.Context, db: Path) -> Offer:
    """Return the offer to write a grid, in a file that does not exist."""
    path, number = new.DEFAULT_GRID, 1
    while path.exists():
        number += 1
        path = new.DEFAULT_GRID.with_stem(f"{new.DEFAULT_GRID.stem}-{number}")
    text, words = ("write a first grid", "new") if number == 1 else ("write another grid", f"new {path}")
    return Offer(text, f"{database_command(db)} {words}", lambda: context.invoke(new.new, db=db, grid=path))


def _imports(context: click.Context, db: Path, logs: Mapping[Path, Sequence[str]]) -> list[Offer]:
    """Return the offer to import the runs of other programs, if there are any."""
    if not logs:
        return []

    def import_and_open() -> None:
        context.invoke(import_auto, db=db, paths=tuple(logs), experiment=None, replace=False, dry_run=False)
        context.invoke(tui.tui, db=db)

    formats = list(dict.fromkeys(name for names in logs.values() for name in names))
    is_short = len(logs) <= _MAX_PATHS
    names = ", ".join(clean(str(path)) for path in logs) if is_short else f"{len(logs)} files and folders"
    words = " ".join(shlex.quote(str(path)) for path in logs) if is_short else "."
    text = f"import the runs found here ({', '.join(formats)}: {names})"
    return [Offer(text, f"{database_command(db)} import auto {words}", import_and_open)]
