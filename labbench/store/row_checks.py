"""Checks of rows read from a database, before they become records.

SQLite stores a value of any type in any column, and a database may come from elsewhere or be damaged. Every reading
query passes its rows through a `RowCheck`, so that no other module meets a value that labbench does not write.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from labbench.errors import StoreError
from labbench.records import STATUSES, require_key

Row = TypeVar("Row", bound=Sequence[Any])

MAX_JSON_DEPTH = 64
"""Maximum nesting of a config; labbench writes at most 20 levels."""


@dataclass(frozen=True, slots=True)
class ValueKind:
    """Values that a column may have."""

    description: str
    types: tuple[type, ...]
    bounds: tuple[float, float] | None = None
    """Least and greatest number; None: any."""
    choices: frozenset[str] | None = None
    """Texts that are allowed; None: any."""

    def contains(self, column: Sequence[Any]) -> bool:
        """Return True if a column may have all of these values."""
        types = set(map(type, column))
        if not types.issubset(self.types):
            return False
        if self.choices is not None:
            return self.choices.issuperset(column)
        if self.bounds is None:
            return True
        numbers = [number for number in column if number is not None] if _NONE in types else column
        return not numbers or (self.bounds[0] <= min(numbers) and max(numbers) <= self.bounds[1])


_NONE = type(None)

TEXT = ValueKind("a text", (str,))
OPTIONAL_TEXT = ValueKind("a text", (str, _NONE))
INTEGER = ValueKind("an integer", (int,))
STEP = ValueKind("a step", (int,))
OPTIONAL_INTEGER = ValueKind("an integer", (int, _NONE))
NUMBER = ValueKind("a number", (float, int))
OPTIONAL_NUMBER = ValueKind("a number", (float, int, _NONE))
TIME = ValueKind("a time", (float, int), (-6.2e10, 2.5e11))  # years 5 to 9892, in every time zone
OPTIONAL_TIME = ValueKind("a time", (float, int, _NONE), TIME.bounds)
STATUS_NAME = ValueKind("a status", (str,), choices=frozenset(STATUSES))
SORTABLE = ValueKind("a number or a text", (float, int, str, _NONE))
BLOB = ValueKind("a blob", (bytes,))

COLUMNS: Mapping[str, Mapping[str, ValueKind]] = {
    "experiments": {"name": TEXT},
    "runs": {
        "id": INTEGER, "key": TEXT, "name": TEXT, "experiment": TEXT, "status": STATUS_NAME, "config": TEXT,
        "identity": TEXT, "attempt": INTEGER, "boundary": STEP, "task": TEXT, "reason": OPTIONAL_TEXT,
        "created": TIME, "started": OPTIONAL_TIME, "finished": OPTIONAL_TIME, "heartbeat": OPTIONAL_TIME,
        "host": OPTIONAL_TEXT, "pid": OPTIONAL_INTEGER, "device": OPTIONAL_TEXT, "way": OPTIONAL_TEXT,
        "error_kind": OPTIONAL_TEXT, "error": OPTIONAL_TEXT, "traceback": OPTIONAL_TEXT, "git_commit": OPTIONAL_TEXT,
        "git_dirty": OPTIONAL_INTEGER, "versions": TEXT, "note": OPTIONAL_TEXT, "archived": INTEGER,
        "code_version": OPTIONAL_TEXT, "older_code": INTEGER, "external_id": OPTIONAL_TEXT,
        "continued_from": OPTIONAL_TEXT, "continued_step": OPTIONAL_INTEGER, "source": OPTIONAL_TEXT,
        "executor": OPTIONAL_TEXT, "cluster": OPTIONAL_TEXT, "job_id": OPTIONAL_TEXT, "job_position": OPTIONAL_TEXT,
        "node": OPTIONAL_TEXT,
    },
    "metrics": {"name": TEXT, "id": INTEGER, "goal": OPTIONAL_TEXT},
    "summary": {
        "run_id": INTEGER, "metric_id": INTEGER, "n": INTEGER, "n_nonfinite": INTEGER,
        "first_nonfinite_step": OPTIONAL_INTEGER, "last": OPTIONAL_NUMBER, "last_step": INTEGER,
        "min": OPTIONAL_NUMBER, "min_step": OPTIONAL_INTEGER, "max": OPTIONAL_NUMBER, "max_step": OPTIONAL_INTEGER,
    },
    "points": {"step": STEP, "time_ms": INTEGER, "value": OPTIONAL_NUMBER},
    "rollup": {"level": INTEGER, "first_step": INTEGER, "last_step": INTEGER, "buckets": BLOB},
    "overview": {
        "run_id": INTEGER, "n": INTEGER, "first_step": STEP, "last_step": STEP, "last_ms": INTEGER, "width": INTEGER,
        "buckets": BLOB,
    },
    "tags": {"run_id": INTEGER, "tag": TEXT},
    "logs": {"stream": OPTIONAL_TEXT, "text": TEXT},
    "artifacts": {"name": TEXT, "path": TEXT, "size": INTEGER, "sha256": TEXT, "created": TIME},
    "sources": {"kind": TEXT, "text": TEXT},
}  # fmt: skip
"""Values of the columns that are read, by table; `experiment` and `kind` are columns of joined tables."""

_SQL_TYPES = {str: "text", int: "integer", float: "real", bytes: "blob", _NONE: "null"}


class RowCheck:
    """Check of the rows of one query, column by column: a tenth of a microsecond per value."""

    def __init__(self, table: str, columns: Sequence[str], kinds: Mapping[str, ValueKind] | None = None) -> None:
        """Make a check of a table's columns; `kinds` holds the kinds of columns that the query computes."""
        self._table, self._columns = table, tuple(columns)
        self._kinds = tuple({**COLUMNS[table], **(kinds or {})}[column] for column in columns)

    def __call__(self, rows: Iterable[Row]) -> list[Row]:
        """Return the rows as a list.

        Raises:
            StoreError: A column has a value that labbench does not write.
        """
        rows = list(rows)
        for index, (kind, column) in enumerate(zip(self._kinds, zip(*rows, strict=True), strict=False)):
            if not kind.contains(column):
                raise self._error(index, next(row for row in rows if not kind.contains((row[index],))))
        return rows

    def _error(self, index: int, row: Sequence[Any]) -> StoreError:
        if self._columns[index] == "key":
            require_key(row[index])  # the same error for every invalid key
        return invalid_value(self._table, self._columns[index], row[index], self._kinds[index].description)


def invalid_value(table: str, column: str, value: object, description: str) -> StoreError:
    """Return the error for a value that labbench does not write; `description` names the expected values."""
    return StoreError(
        f"the column {column} of the table {table} has the value {repr(value)[:60]}, which is not {description}: the "
        "database is damaged, or another program wrote it; the command `doctor` counts such values"
    )


def invalid_condition(table: str, column: str) -> str:
    """Return SQL that is true for a value of a column that labbench does not write."""
    kind = COLUMNS[table][column]
    types = ", ".join(f"'{_SQL_TYPES[type_]}'" for type_ in kind.types)
    condition = f"typeof({column}) NOT IN ({types})"
    if kind.bounds is not None:
        condition += f" OR {column} NOT BETWEEN {kind.bounds[0]} AND {kind.bounds[1]}"
    if kind.choices is not None:
        condition += f" OR {column} NOT IN ({', '.join(repr(choice) for choice in sorted(kind.choices))})"
    return condition


def read_json_object(text: str, table: str, column: str) -> dict[str, Any]:
    """Parse a JSON object from a column.

    Raises:
        StoreError: The text is no JSON object, or is nested more than `MAX_JSON_DEPTH` levels deep.
    """
    require_shallow_json(text, table, column)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):  # ValueError: also an integer of more than 4300 digits
        value = None
    if not isinstance(value, dict):
        raise invalid_value(table, column, text, "a JSON object")
    return value


def require_shallow_json(text: str, table: str, column: str) -> None:
    """Reject JSON that Python's functions could not walk through.

    Raises:
        StoreError: The text is nested more than `MAX_JSON_DEPTH` levels deep.
    """
    if text.count("[") + text.count("{") <= MAX_JSON_DEPTH:
        return
    depth = deepest = 0
    in_string = is_escaped = False
    for character in text:
        if in_string:
            in_string, is_escaped = is_escaped or character != '"', character == "\\" and not is_escaped
        elif character == '"':
            in_string = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    if deepest > MAX_JSON_DEPTH:
        raise StoreError(
            f"the column {column} of the table {table} has JSON that is nested {deepest} levels deep, and labbench "
            f"reads {MAX_JSON_DEPTH}: another program wrote it"
        )
