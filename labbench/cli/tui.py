"""`labbench tui` and `labbench demo`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import click

from labbench.cli.help import examples
from labbench.cli.options import FILE_PATH, database
from labbench.cli.output import echo
from labbench.cli.showing.ls import ls
from labbench.errors import LabbenchError
from labbench.files import database_command

EXAMPLE_FILTER = "experiment=optimizers"
"""Initial filter of the example: one complete grid; the example has only parts of the other experiments."""


@click.command(epilog=examples("labbench tui", "labbench tui results/runs.db --view best", "labbench tui a.db b.db"))
@click.argument("paths", nargs=-1, metavar="[DB]...", type=FILE_PATH)
@click.option("--view", metavar="NAME", help="Open the view saved as NAME.")
@database
def tui(db: Path, paths: Sequence[Path] = (), view: str | None = None) -> None:
    """Open the terminal interface, as labbench alone does.

    Browse, compare and plot runs, live while they train. Runs of several databases are shown together, read-only.
    """
    from labbench.tui import require_terminal, run_app

    require_terminal(paths[0] if paths else db)
    if len(paths) < 2:
        run_app(paths[0] if paths else db, view=view)
        return
    from labbench.sharing.union import open_union

    with open_union(paths) as union:
        run_app(union, view=view, is_temporary=True)


@click.command(epilog=examples("labbench demo", "labbench demo ls"))
@click.argument("command", type=click.Choice(["tui", "ls"]), default="tui")
@click.pass_context
def demo(context: click.Context, command: str) -> None:
    """Open the example database of real runs.

    In the terminal interface (tui, the default), or as a table (ls). One experiment is shown first; change the filter
    to see the others.
    """
    with open_example() as path:
        if command == "tui" and sys.stdout.isatty():
            from labbench.tui import require_terminal, run_app

            require_terminal(path)
            run_app(path, first={"filter": EXAMPLE_FILTER})
        else:
            context.invoke(ls, db=path, filters=[EXAMPLE_FILTER], can_define=False)
            print_other_experiments(path)


def print_other_experiments(path: Path) -> None:
    """Print on stderr the other experiments, and the command that shows them."""
    from labbench.store.reader import Reader

    with Reader(path) as reader:
        others = ", ".join(reader.experiments(f"not ({EXAMPLE_FILTER})"))
    echo(f"other experiments: {others}; to list one: {database_command(path)} ls experiment=NAME", err=True)


@contextmanager
def open_example() -> Iterator[Path]:
    """Yield the path of the example database.

    The file is in the installed package, or at the top of a checkout.

    Raises:
        LabbenchError: The file is missing.
    """
    from importlib.resources import as_file, files  # imported here: it takes 7 ms, which other commands do not need

    packaged = files("labbench") / "runs.db.example"
    checkout = Path(__file__).parents[2] / "runs.db.example"
    if packaged.is_file():
        with as_file(packaged) as path:
            yield path
    elif checkout.is_file():
        yield checkout
    else:
        raise LabbenchError("runs.db.example is missing from the installation: reinstall labbench")
