"""`labbench tui` and `labbench demo`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import database
from labbench.errors import LabbenchError
from labbench.files import database_command

if TYPE_CHECKING:
    pass
from labbench.cli.runs import ls

EXAMPLE_FILTER = "experiment=optimizers"
"""Where the example begins: a whole grid, beside parts of others."""


@click.command()
@click.argument("path", required=False, metavar="[DB]", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--view", metavar="NAME", help="Open a saved view.")
@database
def tui(db: Path, path: Path | None = None, view: str | None = None) -> None:
    """Browse, compare and understand the runs, live (the same as labbench alone)."""
    from labbench.tui import run_app

    run_app(path or db, view=view)


@click.command()
@click.argument("command", type=click.Choice(["tui", "ls"]), default="tui")
@click.pass_context
def demo(context: click.Context, command: str) -> None:
    """The example database: real runs, in the TUI or as a table.

    It begins with one of its experiments; another filter shows the others.
    """
    with open_example() as path:
        if command == "tui" and sys.stdout.isatty():
            from labbench.tui import run_app

            run_app(path, first={"filter": EXAMPLE_FILTER})
        else:
            context.invoke(ls, db=path, filters=[EXAMPLE_FILTER])
            print_other_experiments(path)


def print_other_experiments(path: Path) -> None:
    """Say which experiments the table of the example leaves out, and how to see them."""
    from labbench.store.reader import Reader

    with Reader(path) as reader:
        others = ", ".join(reader.experiments(f"not ({EXAMPLE_FILTER})"))
    click.echo(f"others are {others}: {database_command(path)} ls experiment=NAME", err=True)


@contextmanager
def open_example() -> Iterator[Path]:
    """The example database: inside the installed package, or at the top of a checkout."""
    from importlib.resources import as_file, files  # 7 ms that every other command would pay

    packaged = files("labbench") / "runs.db.example"
    checkout = Path(__file__).parents[2] / "runs.db.example"
    if packaged.is_file():
        with as_file(packaged) as path:
            yield path
    elif checkout.is_file():
        yield checkout
    else:
        raise LabbenchError("the example database is not there: reinstall labbench")
