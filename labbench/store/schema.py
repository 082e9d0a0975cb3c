"""Schema of the database and its migrations.

The standard library creates a new file, including the `_sqlite_migrations` rows that sqlite-utils would write.
sqlite-utils itself upgrades an older file; it is imported only then, because importing it takes 60 ms or more.
The SQL is limited to SQLite 3.34, which long-lived clusters still have: no STRICT, no RETURNING, no `->>`.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Collection, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from sqlite_utils import Database

DDL = """
CREATE TABLE experiments (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    created REAL NOT NULL
);

CREATE TABLE runs (
    id INTEGER PRIMARY KEY,
    key TEXT NOT NULL UNIQUE,                 -- 8 characters, random, public
    experiment_id INTEGER NOT NULL REFERENCES experiments (id),
    name TEXT NOT NULL,
    origin TEXT NOT NULL,                     -- grid, rerun, script or import
    identity TEXT NOT NULL DEFAULT '',        -- SHA-256, equal for runs that would have the same result
    task TEXT NOT NULL DEFAULT '',
    config TEXT NOT NULL DEFAULT '{}' CHECK (json_valid(config)),
    stop TEXT CHECK (stop IS NULL OR json_valid(stop)), -- the [stop] of its grid
    status TEXT NOT NULL,                     -- still "running" if the process has died: see runs_named
    reason TEXT,                              -- reason of the end
    attempt INTEGER NOT NULL DEFAULT 1,
    boundary INTEGER NOT NULL DEFAULT 0,      -- last step from which it can resume; 0: from the start
    created REAL NOT NULL,                    -- Unix time in seconds, like the next three columns
    started REAL,
    finished REAL,
    heartbeat REAL,                           -- NULL until it is first claimed
    host TEXT,                                -- host and id of the process that drives the run
    pid INTEGER,
    device TEXT,
    way TEXT,                                 -- engine: loop, stacked or vmap
    error_kind TEXT,
    error TEXT,
    traceback TEXT,
    git_commit TEXT,
    git_dirty INTEGER,
    versions TEXT NOT NULL DEFAULT '{}',
    note TEXT,
    archived INTEGER NOT NULL DEFAULT 0
);

CREATE UNIQUE INDEX runs_identity ON runs (experiment_id, identity) WHERE origin IN ('grid', 'import');

CREATE INDEX runs_running ON runs (status) WHERE status = 'running';

CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    sha256 TEXT NOT NULL UNIQUE,
    text TEXT NOT NULL
);

CREATE TABLE run_sources (
    run_id INTEGER NOT NULL REFERENCES runs (id),
    kind TEXT NOT NULL,                       -- grid, task, diff
    source_id INTEGER NOT NULL REFERENCES sources (id),
    PRIMARY KEY (run_id, kind)
) WITHOUT ROWID;

CREATE TABLE metrics (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    goal TEXT                                 -- min or max if declared; NULL: the default for the name
);

CREATE TABLE points (
    run_id INTEGER NOT NULL REFERENCES runs (id),
    metric_id INTEGER NOT NULL REFERENCES metrics (id),
    step INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,                 -- since the start of the run
    value REAL,                               -- NULL is NaN
    PRIMARY KEY (run_id, metric_id, step)
) WITHOUT ROWID;

CREATE TABLE summary (
    run_id INTEGER NOT NULL REFERENCES runs (id),
    metric_id INTEGER NOT NULL REFERENCES metrics (id),
    n INTEGER NOT NULL,                       -- NaN included
    n_nonfinite INTEGER NOT NULL,
    first_nonfinite_step INTEGER,
    last REAL,                                -- NULL is NaN
    last_step INTEGER NOT NULL,
    min REAL,                                 -- min and max of the finite values; NULL: there are none
    min_step INTEGER,
    max REAL,
    max_step INTEGER,
    PRIMARY KEY (run_id, metric_id)
) WITHOUT ROWID;

CREATE TABLE rollup (
    run_id INTEGER NOT NULL REFERENCES runs (id),
    metric_id INTEGER NOT NULL REFERENCES metrics (id),
    level INTEGER NOT NULL,                   -- a bucket of level k holds 20^k points
    first_step INTEGER NOT NULL,
    last_step INTEGER NOT NULL,
    buckets BLOB NOT NULL,                    -- 64 of them, derived from the points: see rollup.py
    PRIMARY KEY (run_id, metric_id, level, first_step)
);

CREATE TABLE tags (
    run_id INTEGER NOT NULL REFERENCES runs (id),
    tag TEXT NOT NULL,
    PRIMARY KEY (run_id, tag)
) WITHOUT ROWID;

CREATE TABLE logs (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    attempt INTEGER NOT NULL,
    time REAL NOT NULL,                       -- Unix time in seconds
    stream TEXT,                              -- stdout or stderr if captured from a stream
    text TEXT NOT NULL
);

CREATE INDEX logs_run ON logs (run_id);

CREATE TABLE artifacts (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    name TEXT NOT NULL,
    path TEXT NOT NULL,                       -- absolute, or relative to DATABASE.files/KEY/
    size INTEGER NOT NULL,                    -- bytes
    sha256 TEXT NOT NULL,
    created REAL NOT NULL,
    UNIQUE (run_id, name)
);

CREATE TABLE requests (
    id INTEGER PRIMARY KEY,
    run_id INTEGER NOT NULL REFERENCES runs (id),
    action TEXT NOT NULL,                     -- stop or retry
    created REAL NOT NULL,
    UNIQUE (run_id, action)
);

CREATE VIEW runs_named AS
SELECT runs.key, runs.name, experiments.name AS experiment,
    CASE WHEN runs.status = 'running' AND (julianday('now') - 2440587.5) * 86400.0 - runs.heartbeat > 15
        THEN 'lost' ELSE runs.status END AS status,
    runs.reason, runs.config,
    (SELECT group_concat(tag, ', ') FROM tags WHERE run_id = runs.id) AS tags,
    datetime(runs.started, 'unixepoch') AS started,
    datetime(runs.finished, 'unixepoch') AS finished,
    round(coalesce(runs.finished, runs.heartbeat) - runs.started, 3) AS seconds,
    runs.attempt, runs.host, runs.device, runs.error, runs.note, runs.archived
FROM runs JOIN experiments ON experiments.id = runs.experiment_id;

CREATE VIEW points_named AS
SELECT runs.key AS run, runs.name, experiments.name AS experiment, metrics.name AS metric,
    points.step, points.time_ms / 1000.0 AS time, points.value
FROM points
JOIN runs ON runs.id = points.run_id
JOIN experiments ON experiments.id = runs.experiment_id
JOIN metrics ON metrics.id = points.metric_id;
"""

MIGRATION_SET = "labbench"

Migration: TypeAlias = "Callable[[Database], None]"


_SCRIPTS = {
    "initial": DDL,
    "code version": """
        -- SHA-256 of the code that the run counts as computed by; NULL: unknown
        ALTER TABLE runs ADD COLUMN code_version TEXT;
        -- 1: the code had changed when its grid was last trained
        ALTER TABLE runs ADD COLUMN older_code INTEGER NOT NULL DEFAULT 0;
    """,
    "process identity": """
        -- start of the machine in which pid is valid; NULL: unknown, like the next three
        ALTER TABLE runs ADD COLUMN boot_id TEXT;
        -- inode of the namespace of pid: /proc/self/ns/pid
        ALTER TABLE runs ADD COLUMN pid_namespace INTEGER;
        -- start of the process in clock ticks since the start of the machine
        ALTER TABLE runs ADD COLUMN pid_start INTEGER;
        -- heartbeat in seconds since the start of the machine, which does not depend on the time of day
        ALTER TABLE runs ADD COLUMN heartbeat_uptime REAL;
    """,
    "external id": """
        -- id that the script gave the run, unique in the experiment; NULL: none
        ALTER TABLE runs ADD COLUMN external_id TEXT;
    """,
    "continued runs": """
        -- key of the shorter run whose final state it began from; NULL: it began from the start
        ALTER TABLE runs ADD COLUMN continued_from TEXT;
        -- optimizer steps of that run; points up to this step are copies
        ALTER TABLE runs ADD COLUMN continued_step INTEGER;
    """,
    "overview": """
        CREATE TABLE overview (
            run_id INTEGER NOT NULL REFERENCES runs (id),
            metric_id INTEGER NOT NULL REFERENCES metrics (id),
            n INTEGER NOT NULL,                       -- points up to last_step; the newer ones are not covered
            first_step INTEGER NOT NULL,
            last_step INTEGER NOT NULL,
            last_ms INTEGER NOT NULL,                 -- time of the last point, since the start of the run
            width INTEGER NOT NULL,                   -- steps per bucket
            buckets BLOB NOT NULL,                    -- at most 64, derived from the points: see overview.py
            PRIMARY KEY (run_id, metric_id)
        );
    """,
    "attempt ids": """
        -- random id of each attempt, oldest first, separated by spaces; NULL: unknown
        ALTER TABLE runs ADD COLUMN attempt_ids TEXT;
    """,
    "revisions": """
        -- raised once in each transaction that changes the run or rows that belong to it: see revisions.py
        ALTER TABLE runs ADD COLUMN revision INTEGER NOT NULL DEFAULT 0;
        CREATE INDEX runs_revision ON runs (revision);
        -- database that the run is mirrored from, HOST:PATH; NULL: recorded here
        ALTER TABLE runs ADD COLUMN source TEXT;
        CREATE TABLE removed_runs (
            revision INTEGER NOT NULL,                -- of the transaction that removed the run
            key TEXT NOT NULL,
            PRIMARY KEY (revision, key)
        ) WITHOUT ROWID;
        CREATE TABLE series_revisions (
            run_id INTEGER NOT NULL REFERENCES runs (id),
            metric_id INTEGER NOT NULL REFERENCES metrics (id),
            revision INTEGER NOT NULL,                -- of the last transaction that did more than append points
            PRIMARY KEY (run_id, metric_id)
        ) WITHOUT ROWID;
        CREATE TABLE mirrored_runs (
            run_id INTEGER PRIMARY KEY REFERENCES runs (id),
            remote_key TEXT NOT NULL,                 -- key of the run in its source
            remote_revision INTEGER NOT NULL,         -- revision in its source up to which it is mirrored
            edits TEXT NOT NULL,                      -- JSON: name, note, tags and archived in its source
            log_id INTEGER NOT NULL,                  -- id in its source of the last text that is mirrored for good
            log_count INTEGER NOT NULL,               -- number of texts that are mirrored for good
            log_time REAL NOT NULL                    -- time of the last one
        );
        CREATE TABLE mirrored_series (
            run_id INTEGER NOT NULL REFERENCES runs (id),
            metric_id INTEGER NOT NULL REFERENCES metrics (id),
            remote_revision INTEGER NOT NULL,         -- series_revisions.revision in the source of the run
            PRIMARY KEY (run_id, metric_id)
        ) WITHOUT ROWID;
    """,
    "jobs": """
        -- executor whose job trains the run: slurm or ray; NULL: a process of the driver's machine
        ALTER TABLE runs ADD COLUMN executor TEXT;
        -- name of the cluster, or address of its head
        ALTER TABLE runs ADD COLUMN cluster TEXT;
        -- id of the job on the cluster; while it exists, a run of SLURM is held by it, not by the driver's process
        ALTER TABLE runs ADD COLUMN job_id TEXT;
        -- position in the job's event files up to which its events are recorded
        ALTER TABLE runs ADD COLUMN job_position TEXT;
        -- host that trains the run
        ALTER TABLE runs ADD COLUMN node TEXT;
    """,
    "late chunks": """
        -- nothing is added: the newest full chunk of a series may be missing in rollup, unlike in older databases
    """,
    "diverged runs": """
        CREATE INDEX summary_not_finite ON summary (run_id, metric_id)
            WHERE last IS NULL OR abs(last) > 1.7976931348623157e308;
    """,
}
"""SQL by migration, oldest first, append-only: a migration adds columns, tables or indexes and changes none."""

_CREATED_TABLE = re.compile(r"CREATE TABLE (\w+)")

_TABLES = frozenset(re.findall(_CREATED_TABLE, "".join(_SCRIPTS.values()))) | {"_sqlite_migrations"}

_ADDED_COLUMNS = {
    "code version": {"runs": {"code_version": "NULL", "older_code": "0"}},
    "process identity": {
        "runs": {"boot_id": "NULL", "pid_namespace": "NULL", "pid_start": "NULL", "heartbeat_uptime": "NULL"}
    },
    "external id": {"runs": {"external_id": "NULL"}},
    "continued runs": {"runs": {"continued_from": "NULL", "continued_step": "NULL"}},
    "attempt ids": {"runs": {"attempt_ids": "NULL"}},
    "revisions": {"runs": {"revision": "0", "source": "NULL"}},
    "jobs": {"runs": {"executor": "NULL", "cluster": "NULL", "job_id": "NULL", "job_position": "NULL", "node": "NULL"}},
}
"""Columns that each migration adds to each table, with their values for files without the column."""


def _migration(script: str) -> Migration:
    def migrate(db: Database) -> None:
        for statement in statements(script):
            db.execute(statement)

    return migrate


MIGRATIONS: dict[str, Migration] = {name: _migration(script) for name, script in _SCRIPTS.items()}

# As sqlite-utils 4 creates it.
_RECORD_DDL = """
CREATE TABLE "_sqlite_migrations" (
   "id" INTEGER PRIMARY KEY,
   "migration_set" TEXT,
   "name" TEXT,
   "applied_at" TEXT
);

CREATE UNIQUE INDEX "idx__sqlite_migrations_migration_set_name"
    ON "_sqlite_migrations" ("migration_set", "name");
"""

State: TypeAlias = Literal["empty", "foreign", "altered", "newer", "older", "current"]


def read_state(connection: sqlite3.Connection) -> State:
    """Compare a file's schema with this version of labbench.

    "foreign" is a database of another program, "altered" one with views in place of tables, which may have no end.
    """
    objects = connection.execute("SELECT name, type FROM sqlite_master WHERE type IN ('table', 'view')").fetchall()
    tables = {name for name, kind in objects if kind == "table"}
    if not tables:
        return "empty"
    if any(kind == "view" and name.lower() in _TABLES for name, kind in objects):
        return "altered"
    if not {"runs", "points", "_sqlite_migrations"} <= tables:
        return "foreign"
    applied = _applied_migrations(connection)
    if not applied:
        return "foreign"
    if applied - MIGRATIONS.keys():
        return "newer"
    return "current" if applied == MIGRATIONS.keys() else "older"


def _applied_migrations(connection: sqlite3.Connection) -> set[str]:
    # applied_at, too: without it, the upgrade by sqlite-utils would end with a KeyError instead of SQLite's message
    query = "SELECT name, applied_at FROM _sqlite_migrations WHERE migration_set = ?"
    return {name for name, _ in connection.execute(query, (MIGRATION_SET,))}


def add_missing_columns(connection: sqlite3.Connection) -> None:
    """Add the columns and tables that an older database lacks, as temporary views and tables.

    Allows to read it without an upgrade.
    """
    applied = _applied_migrations(connection)
    missing_scripts = "".join(script for name, script in _SCRIPTS.items() if name not in applied)
    create_temporary_tables(connection, re.findall(_CREATED_TABLE, missing_scripts))
    missing: dict[str, dict[str, str]] = {}
    for name, tables in _ADDED_COLUMNS.items():
        for table, columns in tables.items() if name not in applied else ():
            missing.setdefault(table, {}).update(columns)
    for table, columns in missing.items():
        added = ", ".join(f"{value} AS {column}" for column, value in columns.items())
        connection.execute(f"CREATE TEMP VIEW {table} AS SELECT *, {added} FROM main.{table}")


def create_temporary_tables(connection: sqlite3.Connection, tables: Collection[str]) -> None:
    """Create empty temporary tables, which hide the tables of the same names in the file."""
    for statement in statements("".join(_SCRIPTS.values())):
        table = re.match(_CREATED_TABLE, statement)
        if table and table[1] in tables:
            connection.execute(statement.replace("CREATE TABLE", "CREATE TEMP TABLE", 1))


def create_tables(connection: sqlite3.Connection) -> None:
    """Create the tables in an empty database; the caller holds a transaction."""
    for statement in statements(_RECORD_DDL + "".join(_SCRIPTS.values())):
        connection.execute(statement)
    applied_at = str(datetime.now(UTC))
    connection.executemany(
        "INSERT INTO _sqlite_migrations (migration_set, name, applied_at) VALUES (?, ?, ?)",
        [(MIGRATION_SET, name, applied_at) for name in MIGRATIONS],
    )


def upgrade_tables(connection: sqlite3.Connection) -> None:
    """Apply the missing migrations to an older database; the caller holds a transaction."""
    from sqlite_utils import Database, Migrations  # imported on first use: see the module's docstring

    migrations = Migrations(MIGRATION_SET)
    for name, function in MIGRATIONS.items():
        migrations(name=name)(function)
    migrations.apply(Database(connection))


def statements(script: str) -> Iterator[str]:
    """Yield the statements of an SQL script, one by one: `executescript` would commit the open transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
