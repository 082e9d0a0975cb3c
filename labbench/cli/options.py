"""Options and arguments of several commands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar, cast

import click

from labbench.cli.output import plain_output
from labbench.cli.setup.completion import complete_filters, complete_runs
from labbench.files import default_database, expand_home

Command = TypeVar("Command", bound=Callable[..., Any])


class ExpandedPath(click.Path):
    """Path of something that may not exist; `~` is expanded also where the shell does not, as in `--db=~/runs.db`."""

    def __init__(self, *, dir_okay: bool) -> None:
        super().__init__(dir_okay=dir_okay, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        return super().convert(expand_home(value), param, ctx)


FILE_PATH = ExpandedPath(dir_okay=False)
PATH = ExpandedPath(dir_okay=True)


def database(command: Command) -> Command:
    """Add `--db PATH`, accepted before or after the command's name; default: LABBENCH_DB, else runs.db."""
    return click.option(
        "--db",
        type=FILE_PATH,
        callback=_nearest_database,
        help="Database file.  [LABBENCH_DB, else runs.db]",
    )(command)


def _nearest_database(context: click.Context, _: click.Parameter, path: Path | None) -> Path:
    """Return the database given after the command, before it, or the default."""
    if path is not None:
        return path
    if context.parent is not None:
        outer: Path = context.parent.params["db"]
        return outer
    return default_database()  # click's `envvar` would take precedence over a --db before the command's name


@dataclass(frozen=True, slots=True)
class RunSelection:
    """Runs that a command changes: named on the command line, or by a filter."""

    words: Sequence[str]
    filter: str | None
    is_preview: bool
    """True to change nothing."""
    is_confirmed: bool
    """True to ask nothing."""


def run_selection(command: Command) -> Command:
    """Add `[RUN]... --filter --dry-run --yes`, passed as `selection`."""

    @wraps(command)
    def select(
        *arguments: Any, runs: Sequence[str], filter_: str | None, dry_run: bool, yes: bool, **options: Any
    ) -> Any:
        return command(*arguments, selection=RunSelection(runs, filter_, dry_run, yes), **options)

    for decorate in (
        click.option("--yes", is_flag=True, help="Do not ask for confirmation."),
        click.option("--dry-run", is_flag=True, help="Print the runs, and change nothing."),
        click.option(
            "--filter",
            "filter_",
            metavar="FILTER",
            shell_complete=complete_filters,
            help="The matching runs, after a confirmation.",
        ),
        click.argument("runs", nargs=-1, metavar="[RUN]...", shell_complete=complete_runs),
    ):
        select = decorate(select)
    return cast(Command, select)


def filter_option(command: Command) -> Command:
    """Add `--filter FILTER`, as other commands have it, whose text is added to the argument `filters`."""

    @wraps(command)
    def join(*arguments: Any, filters: Sequence[str] = (), filter_: Sequence[str] = (), **options: Any) -> Any:
        words = [*filters, *(f"({text})" if filters or len(filter_) > 1 else text for text in filter_)]
        return command(*arguments, filters=words, **options)

    return cast(
        Command,
        click.option(
            "--filter",
            "filter_",
            multiple=True,
            metavar="FILTER",
            shell_complete=complete_filters,
            help="The same as FILTER without the option.",
        )(join),
    )


def filters(command: Command) -> Command:
    """Add `[FILTER]...`, or `--filter FILTER`, passed as `filters`."""
    argument = click.argument("filters", nargs=-1, metavar="[FILTER]...", shell_complete=complete_filters)
    return argument(filter_option(command))


runs = click.argument("runs", nargs=-1, required=True, metavar="RUN...", shell_complete=complete_runs)
all_code = click.option("--all-code", is_flag=True, help="Include runs of older code.")
plain = click.option(
    "--plain", is_flag=True, expose_value=False, callback=plain_output, help="Lines to be read aloud, without drawings."
)
as_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
renames = click.option(
    "--rename", "renames", metavar="NAME=TEXT", multiple=True, help="Write TEXT for a metric or key; may be repeated."
)

table_format = click.option(
    "--format",
    "table_format",
    type=click.Choice(["text", "markdown", "latex", "csv"]),
    default="text",
    show_default=True,
    help="Markup of the tables, for documents.",
)
