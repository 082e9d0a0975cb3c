"""Lookup of a run by key, name, id or key prefix."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from labbench.errors import RunNotFound
from labbench.files import database_command
from labbench.records import RunRecord
from labbench.spelling import respell_numbers
from labbench.store.queries.run_records import read_records
from labbench.store.queries.run_sql import storable_text
from labbench.store.row_checks import RowCheck
from labbench.text import clean

MIN_PREFIX = 4
"""Minimum number of characters of a key prefix; shorter ones are too easily the beginning of another run's key."""
_MAX_CANDIDATES = 10
_MAX_COMPARED = 2000
"""Maximum number of runs, newest first, whose names are compared for suggestions; more are noticeably slow."""


_check_runs = RowCheck("runs", ("id", "key", "name"))
_check_pairs = RowCheck("runs", ("key", "name"))


def find_run(connection: sqlite3.Connection, word: str, database: Path) -> RunRecord:
    """Return the run with this key, name, id of its script or key prefix.

    A key takes precedence over a name, a name over an id, and an id over a prefix of a key, which has at least
    `MIN_PREFIX` characters. The numbers in a name may be spelled otherwise: `lr=1000000` finds `lr=1e6`. `database` is
    the path that the error message names.

    Raises:
        RunNotFound: If no run or several runs match; `candidates` lists similar or matching runs.
    """
    word = storable_text(word)  # a command line may have bytes that are not text
    matches = (_rows(connection, f"{column} = ?", word) for column in ("key", "name", "external_id"))
    rows = next(filter(None, matches), [])
    begun_keys = _rows(connection, "key >= ? AND key < ?", word, word + "\U0010ffff") if word else []
    if not rows and len(word) >= MIN_PREFIX:
        rows = begun_keys
    if not rows and any(map(str.isdigit, word)):
        name = respell_numbers(word)
        rows = [row for row in _rows(connection, "TRUE") if respell_numbers(row[2]) == name]
    if len(rows) == 1:
        [record] = read_records(connection, [rows[0][0]], summaries=True)
        return record
    if rows:
        newest = rows[::-1]
        records = read_records(connection, [run_id for run_id, _, _ in newest[:_MAX_CANDIDATES]])
        others = (f"{key}  {name}" for _, key, name in newest[_MAX_CANDIDATES:])
        candidates = (*map(_describe, records), *others)
        problem = f"`{word}` matches {len(rows)} runs, newest first; use a key"
        raise RunNotFound(_list_candidates(problem, candidates), candidates=candidates)
    problem, similar = f"no run has the key or the name `{word}`", tuple(_similar_names(connection, word))
    if begun_keys:
        problem += f" (a part of a key needs {MIN_PREFIX} characters)"
        similar = tuple(dict.fromkeys([*(f"{key}  {name}" for _, key, name in begun_keys), *similar]))
    if similar:
        raise RunNotFound(_list_candidates(f"{problem}; did you mean", similar), candidates=similar)
    raise RunNotFound(f"{problem}; `{database_command(database)} ls` lists the runs", candidates=())


def _describe(record: RunRecord) -> str:
    """Return key, name, status and start of a run, which tell runs of one name apart."""
    started = "" if record.started is None else f", started {datetime.fromtimestamp(record.started):%Y-%m-%d %H:%M:%S}"
    return f"{record.key}  {record.name}  ({record.shown_status}{started})"


def _rows(connection: sqlite3.Connection, condition: str, *values: str) -> list[tuple[int, str, str]]:
    # a run without experiment, as damage leaves it, is found by no command before `doctor --fix` has rescued it
    query = f"SELECT id, key, name FROM runs WHERE {condition} AND experiment_id IN (SELECT id FROM experiments)"
    return _check_runs(connection.execute(f"{query} ORDER BY id", values))


def _similar_names(connection: sqlite3.Connection, word: str) -> list[str]:
    query = "SELECT key, name FROM runs WHERE has_part(name, ?) ORDER BY id LIMIT ?"
    rows = _check_pairs(connection.execute(query, (word, _MAX_CANDIDATES)))
    if not rows:
        from difflib import get_close_matches  # takes 2 ms, only needed for a misspelt word

        query = "SELECT key, name FROM runs ORDER BY id DESC LIMIT ?"
        newest = _check_pairs(connection.execute(query, (_MAX_COMPARED,)))
        similar = get_close_matches(word, {text for pair in newest for text in pair}, n=3)
        rows = [pair for text in similar for pair in newest if text in pair][:_MAX_CANDIDATES]
    return [f"{key}  {name}" for key, name in rows]


def _list_candidates(problem: str, candidates: Sequence[str]) -> str:
    more = [f"... and {len(candidates) - _MAX_CANDIDATES} more"] if len(candidates) > _MAX_CANDIDATES else []
    return "\n    ".join([f"{problem}:", *map(clean, candidates[:_MAX_CANDIDATES]), *more])
