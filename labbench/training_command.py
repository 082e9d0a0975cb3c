"""Shell command that trains a run again, from its record."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection
from pathlib import Path

from labbench.files import database_command
from labbench.filters.lexer import compact_json
from labbench.records import GRID_COMMAND, RunRecord

ENGINES = ("loop", "stacked", "vmap")
"""Engines of `[runtime] engine` that a run records as its way."""
_BARE = re.compile(r"[\w.+/-]+")
"""Text that a filter reads as one word without quotes."""


def training_command(run: RunRecord, database: Path, recorded: str = "", keys: Collection[str] = ()) -> str:
    """Return the shell command that trains this run again.

    Args:
        run: The run.
        database: Its database.
        recorded: Command recorded with the run, of its grid or its script; a script's command is returned unchanged.
        keys: Config keys that select the run from its grid; by default all keys.

    The command of a grid names the engine that trained the run, since engines differ by rounding.
    """
    if recorded and not recorded.startswith(GRID_COMMAND):
        return recorded
    arguments = recorded.removeprefix(GRID_COMMAND) or shlex.quote(f"{run.experiment}.toml")
    only = " ".join(
        f"{_quote_if_needed(key)}={_format_value(value)}" for key, value in run.config.items() if key in (keys or [key])
    )
    engine = f" --engine {run.way}" if run.way in ENGINES else ""
    return f"{database_command(database)} run {arguments} --rerun{engine} --only {shlex.quote(only)}"


def keys_in_grid(run: RunRecord, grid_text: str) -> list[str]:
    """Return the config keys that the text of a run's grid names, and the seed; the others have one value in it."""
    words = frozenset(re.findall(r"[\w-]+", grid_text))
    return [key for key in run.config if key == "seed" or key.rpartition(".")[2] in words]


def _format_value(value: object) -> str:
    """Return a config value as a filter reads it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        return _quote_if_needed(value)
    return compact_json(value) if isinstance(value, int | float | list) else shlex.quote(compact_json(value))


def _quote_if_needed(words: str) -> str:
    return words if _BARE.fullmatch(words) else f"'{words.replace(chr(39), _QUOTED_QUOTE)}'"


_QUOTED_QUOTE = """'"'"'"""
"""A single quote inside single quotes, as in a shell."""
