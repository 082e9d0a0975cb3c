"""Lines of text on stdout and stderr, without control characters, and notes on names in filters and columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from labbench.text import clean

if TYPE_CHECKING:
    from labbench.store.queries.known_names import NameNotes


def echo(text: str = "", *, err: bool = False) -> None:
    """Print lines on stdout, or on stderr if `err`, with every control character except tabs made visible."""
    click.echo(printable(text), err=err)


def printable(text: str) -> str:
    """Return lines with every control character except tabs made visible."""
    return "\n".join("\t".join(map(clean, line.split("\t"))) for line in text.split("\n"))


def print_name_notes(notes: NameNotes) -> bool:
    """Print notes on names on stderr; return True if names are missing, so that there is no result yet."""
    for note in (*notes.missing, *notes.ambiguous):
        echo(note, err=True)
    return bool(notes.missing)
