"""Notes on names in filters and columns that exist nowhere yet, or that have two meanings."""

from __future__ import annotations

from typing import TYPE_CHECKING

from labbench.cli.output import echo

if TYPE_CHECKING:
    from labbench.store.queries.known_names import NameNotes


def print_name_notes(notes: NameNotes) -> bool:
    """Print notes on stderr; return True if names are missing, so that there is no result yet."""
    for note in (*notes.missing, *notes.ambiguous):
        echo(note, err=True)
    return bool(notes.missing)
