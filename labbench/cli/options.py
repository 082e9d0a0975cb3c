"""Options and arguments that several commands share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click

from labbench.files import default_database


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Options of `labbench run`: where to train, and which recorded runs to train again."""

    device: str
    workers: int | None
    """Worker processes; 0: this process, None: one per core or GPU."""
    rerun: bool
    retry_failed: bool
    keep_code: bool


Command = TypeVar("Command", bound=Callable[..., Any])


def database(command: Command) -> Command:
    """`--db PATH`, before or after the command's name; else LABBENCH_DB; else runs.db in the current folder."""
    return click.option(
        "--db",
        type=click.Path(path_type=Path, dir_okay=False),
        callback=_nearest_database,
        help="The database.  [LABBENCH_DB, else runs.db]",
    )(command)


def _nearest_database(context: click.Context, _: click.Parameter, given: Path | None) -> Path:
    """What was given here, before the command's name, in the environment, or the default: in this order."""
    if given is not None:
        return given
    if context.parent is not None:
        outer: Path = context.parent.params["db"]
        return outer
    return default_database()  # an option's own envvar would win over the --db before the command's name


filters = click.argument("filters", nargs=-1, metavar="[FILTER]...")
runs = click.argument("runs", nargs=-1, required=True, metavar="RUN...")
all_code = click.option("--all-code", is_flag=True, help="Count runs of older code, too.")
as_json = click.option("--json", "as_json", is_flag=True, help="One JSON document.")
