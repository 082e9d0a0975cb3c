"""Finds the run that a word on the command line means: a key, the beginning of one, or a name."""

from __future__ import annotations

import sqlite3

from labbench.errors import RunNotFound
from labbench.records import RunRecord
from labbench.store.queries.run_rows import read_records, storable_text

_MAX_CANDIDATES = 10
_MAX_COMPARED = 2000  # names that are looked through for one alike: more would be felt


def find_run(connection: sqlite3.Connection, word: str) -> RunRecord:
    """The run that the word means; a key beats the beginning of one, which beats a name."""
    word = storable_text(word)  # as it came from a command line
    by_key = _rows(connection, "key = ?", word)
    # a range instead of LIKE, whose % and _ would mean something
    by_prefix = by_key or (_rows(connection, "key >= ? AND key < ?", word, word + "\U0010ffff") if word else [])
    by_name = [] if len(by_prefix) == 1 else _rows(connection, "name = ?", word)
    for found in (by_prefix, by_name):
        if len(found) == 1:
            [record] = read_records(connection, [found[0][0]], summaries=True)
            return record
    candidates = [f"{key}  {name}" for _, key, name in by_prefix + by_name]
    if candidates:
        raise RunNotFound(
            _message(f"`{word}` could be any of {len(candidates)} runs", candidates), candidates=tuple(candidates)
        )
    near = _similar_names(connection, word)
    what = f"no run has the key or the name `{word}`"
    raise RunNotFound(
        _message(f"{what}; did you mean", near) if near else f"{what}; `labbench ls` lists them", candidates=tuple(near)
    )


def _rows(connection: sqlite3.Connection, condition: str, *values: str) -> list[tuple[int, str, str]]:
    return connection.execute(f"SELECT id, key, name FROM runs WHERE {condition} ORDER BY id", values).fetchall()


def _similar_names(connection: sqlite3.Connection, word: str) -> list[str]:
    part = "SELECT key, name FROM runs WHERE has_part(name, ?) ORDER BY id LIMIT ?"
    found = connection.execute(part, (word, _MAX_CANDIDATES)).fetchall()
    if not found:
        from difflib import get_close_matches  # 2 ms that only a mistake costs

        newest = connection.execute("SELECT key, name FROM runs ORDER BY id DESC LIMIT ?", (_MAX_COMPARED,)).fetchall()
        near = get_close_matches(word, {text for pair in newest for text in pair}, n=3)
        found = [pair for text in near for pair in newest if text in pair][:_MAX_CANDIDATES]
    return [f"{key}  {name}" for key, name in found]


def _message(what: str, candidates: list[str]) -> str:
    more = [f"... and {len(candidates) - _MAX_CANDIDATES} more"] if len(candidates) > _MAX_CANDIDATES else []
    return "\n    ".join([f"{what}:", *candidates[:_MAX_CANDIDATES], *more])
