"""Text for the clipboard and for files: a run's training command, tables as CSV, checks of file names.

Textual copies to the terminal's clipboard with the OSC 52 sequence, as base64, which also works over SSH.
"""

from __future__ import annotations

import io
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from labbench.export import csv_writer, escape_formula
from labbench.files import database_command, expand_home
from labbench.records import RunRecord
from labbench.text import clean

TableRows: TypeAlias = Sequence[Sequence[str]]
_SCALAR = str | int | float | bool


def training_command(run: RunRecord, database: Path, keys: Collection[str] = ()) -> str:
    """Return the shell command that trains only this run of its grid file.

    `keys` are the config keys that select the run; by default all keys with scalar values.
    """
    config = {key: value for key, value in run.config.items() if isinstance(value, _SCALAR) and key in (keys or [key])}
    only = " ".join(f"{key}={_quote_value(value)}" for key, value in config.items())
    return f"{database_command(database)} run {shlex.quote(run.experiment + '.toml')} --only {shlex.quote(only)}"


def _quote_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shlex.quote(value) if isinstance(value, str) else repr(value)


def new_file_path(name: str) -> Path:
    """Return the path of a new file. Raises ValueError, with a message for the user, if it cannot be created."""
    try:
        file = expand_home(name)
        os.lstat(file)
    except FileNotFoundError:
        if file.parent.is_dir():
            return file
        raise ValueError(f"the folder {clean(str(file.parent))} does not exist") from None
    except ValueError:  # a null byte or a lone surrogate
        raise ValueError(f"{clean(name)} is not a valid file name") from None
    except (OSError, RuntimeError) as error:  # a name that is too long, or an unknown user's home
        reason = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"the file cannot be created: {clean(reason)}") from None
    raise ValueError(f"{clean(str(file))} already exists: choose another name")


def format_csv(rows: TableRows) -> str:
    """Return rows of text as CSV; text that a spreadsheet would run as a formula is escaped."""
    file = io.StringIO(newline="")
    csv_writer(file).writerows([escape_formula(cell) for cell in row] for row in rows)
    return file.getvalue()
