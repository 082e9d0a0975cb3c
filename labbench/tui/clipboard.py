"""Text for the clipboard and for files: tables as CSV, checks of file names.

Textual copies to the terminal's clipboard with the OSC 52 sequence, as base64, which also works over SSH. tmux drops
that sequence by default (`set-clipboard external`) but sends one of its own buffers to the terminal on request.
"""

from __future__ import annotations

import io
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from labbench.export.table_files import csv_writer, escape_formula
from labbench.files import expand_home
from labbench.text import clean

TableRows: TypeAlias = Sequence[Sequence[Any]]
"""Rows of texts and numbers; None is an empty cell."""


def is_in_tmux() -> bool:
    """Return True if the program runs in a pane of tmux."""
    return bool(os.environ.get("TMUX"))


def copy_through_tmux(text: str) -> str:
    """Copy text to the clipboard of the terminal around tmux; return an error message, "" on success."""
    advice = "nothing was copied: set `set-clipboard on` in ~/.tmux.conf, or update tmux"
    try:
        command = ["tmux", "load-buffer", "-w", "-"]  # -w, since tmux 3.2, also sends it to the terminal
        copying = subprocess.run(command, input=text.encode(), capture_output=True, timeout=_TMUX_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return advice
    return advice if copying.returncode else ""


_TMUX_SECONDS = 5.0


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
    """Return rows as CSV with all digits of numbers; escape text that a spreadsheet would run as a formula."""
    file = io.StringIO(newline="")
    csv_writer(file).writerows(
        [escape_formula(cell) if isinstance(cell, str) else cell for cell in row] for row in rows
    )
    return file.getvalue()
