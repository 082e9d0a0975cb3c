"""Saved state of the TUI per database, in the user's state folder: the last session and named views.

The file is JSON and read leniently: a corrupt file, or one of another version, only loses the arrangement.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from labbench.errors import StoreError
from labbench.files import write_atomically
from labbench.system.user_folders import state_path


def state_file(database: Path) -> Path:
    """Return the path of the file that holds the state of a database."""
    name = hashlib.sha256(str(database.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return state_path(f"{name}.json")


class SavedState:
    """The state of one database."""

    def __init__(self, database: Path) -> None:
        self._file, self._database = state_file(database), database
        self.last: dict[str, Any] = {}
        """State of the last session."""
        self.views: dict[str, dict[str, Any]] = {}
        """States of named views, by name."""
        with suppress(OSError, ValueError, RecursionError):  # no file yet, or a corrupt one
            state = _as_dict(json.loads(self._file.read_text(encoding="utf-8")))
            self.last = _as_dict(state.get("last"))
            self.views = {str(name): _as_dict(view) for name, view in _as_dict(state.get("views")).items()}

    def save(self, last: Mapping[str, Any]) -> None:
        """Save the state of the session. Raises StoreError if the file cannot be written."""
        self.last = dict(last)
        self._write()

    def save_view(self, name: str, view: Mapping[str, Any]) -> None:
        """Save a view under a name. Raises StoreError if the file cannot be written."""
        self.views[name] = dict(view)
        self._write()

    def _write(self) -> None:
        """Write the file atomically."""
        document = {"database": str(self._database.resolve()), "last": self.last, "views": self.views}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with write_atomically(self._file, mode=0o600) as file:
                file.write(json.dumps(document, indent=1).encode())
        except (OSError, UnicodeError) as error:
            raise StoreError(f"the view cannot be saved in {self._file}: {error}") from error


def _as_dict(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
