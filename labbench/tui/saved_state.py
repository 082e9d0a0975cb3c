"""What a person has arranged, kept for each database in the user's state folder: the last look, and views by name.

Plain JSON, read with tolerance: a file that somebody has broken, or another version has written, costs no more than
the arrangement.
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
from labbench.user_folders import state_path


def state_file(database: Path) -> Path:
    """Return the path of the file that holds the state of a database."""
    name = hashlib.sha256(str(database.resolve()).encode("utf-8", "surrogateescape")).hexdigest()[:16]
    return state_path(f"{name}.json")


class SavedState:
    """The state of one database."""

    def __init__(self, database: Path) -> None:
        self._file, self._database = state_file(database), database
        self.last: dict[str, Any] = {}
        """As it was when somebody last looked."""
        self.views: dict[str, dict[str, Any]] = {}
        """As somebody has saved it, by name."""
        with suppress(OSError, ValueError, RecursionError):  # there is none yet, or it is broken
            found = _as_dict(json.loads(self._file.read_text(encoding="utf-8")))
            self.last = _as_dict(found.get("last"))
            self.views = {str(name): _as_dict(view) for name, view in _as_dict(found.get("views")).items()}

    def save(self, last: Mapping[str, Any]) -> None:
        """Remember how it is now. Raises StoreError where that cannot be written."""
        self.last = dict(last)
        self._write()

    def save_view(self, name: str, view: Mapping[str, Any]) -> None:
        """Keep a view under a name. Raises StoreError where that cannot be written."""
        self.views[name] = dict(view)
        self._write()

    def _write(self) -> None:
        """Whole or not at all."""
        document = {"database": str(self._database.resolve()), "last": self.last, "views": self.views}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            with write_atomically(self._file, mode=0o600) as file:
                file.write(json.dumps(document, indent=1).encode())
        except (OSError, UnicodeError) as error:
            raise StoreError(f"the view cannot be kept in {self._file}: {error}") from error


def _as_dict(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
