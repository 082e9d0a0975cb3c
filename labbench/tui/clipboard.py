"""What can be carried out of the terminal: a run's command, and a table of texts as CSV.

A terminal takes text for the clipboard by the OSC 52 sequence, over SSH too; Textual sends it, as base64.
"""

from __future__ import annotations

import csv
import io
import os
import shlex
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TypeAlias

from labbench.export import escape_formula
from labbench.files import database_command
from labbench.records import RunRecord
from labbench.text import clean

TableRows: TypeAlias = Sequence[Sequence[str]]
_SCALAR = str | int | float | bool


def training_command(run: RunRecord, database: Path, keys: Collection[str] = ()) -> str:
    """What a shell trains just this run with, from its grid's file; `keys` tell it from the others there."""
    config = {key: value for key, value in run.config.items() if isinstance(value, _SCALAR) and key in (keys or [key])}
    only = " ".join(f"{key}={_quote_value(value)}" for key, value in config.items())
    return f"{database_command(database)} run {shlex.quote(run.experiment + '.toml')} --only {shlex.quote(only)}"


def _quote_value(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return shlex.quote(value) if isinstance(value, str) else repr(value)


def new_file_path(name: str) -> Path:
    """The path of a file that can be made; raises ValueError, in words, for one that cannot."""
    try:
        file = Path(name).expanduser()
        os.lstat(file)
    except FileNotFoundError:
        if file.parent.is_dir():
            return file
        raise ValueError(f"there is no folder {clean(str(file.parent))}") from None
    except ValueError:  # a zero byte, half a character
        raise ValueError(f"no file can be called {clean(name)}") from None
    except (OSError, RuntimeError) as error:  # too long, or nobody's home
        said = getattr(error, "strerror", None) or str(error)
        raise ValueError(f"no file can be made there: {clean(said)}") from None
    raise ValueError(f"{clean(str(file))} is there already")


def format_csv(rows: TableRows) -> str:
    """Rows of texts as CSV; a text that a spreadsheet would run is neutralised."""
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator="\n").writerows([escape_formula(cell) for cell in row] for row in rows)
    return file.getvalue()
