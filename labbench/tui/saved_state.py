"""Saved state of the TUI per database, in the user's state folder: the last session and named views.

The file is JSON and read leniently: a corrupt file, or one of another version, only loses the arrangement. Several
windows may show one database: each writes what it has changed and keeps what another has written in the meantime.
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


def read_theme(environ: Mapping[str, str]) -> str | None:
    """Return the theme named by TEXTUAL_THEME, else the one chosen last in any database; None if there is none."""
    if environ.get("TEXTUAL_THEME"):
        return environ["TEXTUAL_THEME"]
    with suppress(OSError, ValueError, RecursionError):
        theme = _as_dict(json.loads(state_path(_THEME_FILE).read_text(encoding="utf-8"))).get("theme")
        return theme if isinstance(theme, str) else None
    return None


def save_theme(theme: str) -> None:
    """Save the theme for the next sessions. Raises StoreError if the file cannot be written."""
    _write_json(state_path(_THEME_FILE), {"theme": theme}, "the theme")


_THEME_FILE = "theme.json"


class SavedState:
    """The state of one database."""

    def __init__(self, database: Path) -> None:
        self._file, self._database = state_file(database), database
        self.last: dict[str, Any] = {}
        """State of the last session."""
        self.views: dict[str, dict[str, Any]] = {}
        """States of named views, by name."""
        self.last, self.views = self._read()
        self._last_read = self.last

    def _read(self) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        with suppress(OSError, ValueError, RecursionError):  # no file yet, or a corrupt one
            state = _as_dict(json.loads(self._file.read_text(encoding="utf-8")))
            views = {str(name): _as_dict(view) for name, view in _as_dict(state.get("views")).items()}
            return _as_dict(state.get("last")), views
        return {}, {}

    def save(self, last: Mapping[str, Any]) -> None:
        """Save the state of the session. Raises StoreError if the file cannot be written."""
        written, views = self._read()
        self.last = _merge(self._last_read, written, json.loads(json.dumps(last)))
        self.views = views | self.views
        self._write()
        self._last_read = self.last

    def save_view(self, name: str, view: Mapping[str, Any]) -> None:
        """Save a view under a name. Raises StoreError if the file cannot be written."""
        written, views = self._read()
        self.views = views | self.views | {name: dict(view)}
        self._write(last=written or self.last)

    def _write(self, *, last: Mapping[str, Any] | None = None) -> None:
        """Write the file atomically."""
        document = {
            "database": str(self._database.resolve()),
            "last": self.last if last is None else last,
            "views": self.views,
        }
        _write_json(self._file, document, "the view")


def _write_json(path: Path, document: Mapping[str, Any], what: str) -> None:
    """Write a file atomically. Raises StoreError, which says `what` could not be saved."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with write_atomically(path, mode=0o600) as file:
            file.write(json.dumps(document, indent=1).encode())
    except (OSError, UnicodeError) as error:
        raise StoreError(f"{what} cannot be saved in {path}: {error}") from error


def _merge(base: Any, theirs: Any, ours: Any) -> Any:
    """Return `theirs` with the changes from `base` to `ours`, key by key."""
    if not (isinstance(theirs, dict) and isinstance(ours, dict)):
        return theirs if ours == base else ours
    before = _as_dict(base)
    merged = {key: value for key, value in theirs.items() if key in ours or key not in before}
    for key, value in ours.items():
        if key in theirs:
            merged[key] = _merge(before.get(key), theirs[key], value)
        elif key not in before or value != before[key]:
            merged[key] = value
    return merged


def _as_dict(value: object) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}
