"""Damaged and foreign databases, read by every command in one process and by every screen of the interface.

A trial damages a copy of a sample database: flipped bytes, replaced pages, other schemas, values of other types and out
of range, strange JSON. No command may end with a traceback, take longer than `MAX_SECONDS` or exit with a status that
is not documented; no screen may end the program.
"""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import signal
import sqlite3
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from click.testing import CliRunner

from bench.trust.results import Outcome
from labbench.cli import main
from labbench.records import Artifact, Failed, Finished, Log, NewRun, Points, Started, Submission
from labbench.store.writer import Writer
from labbench.tui.app import LabbenchApp

MAX_SECONDS = 5.0
"""Maximum processor time of a command; it may wait 12 times as long, for other processes of the machine."""
TRIALS_PER_SCREENS = 7
"""One of so many databases is also opened in the terminal interface, which takes longer than the commands."""

TABLES = (
    "experiments", "runs", "metrics", "summary", "points", "rollup", "tags", "logs", "artifacts", "sources",
    "run_sources", "requests", "_sqlite_migrations",
)  # fmt: skip

COMMANDS = (
    "ls", "ls --json", "ls lr>0.05 --sort best(val/loss)", "ls optimizer~a tag=good --json", "ls started~2026",
    "ls --sort started", "show KEY", "show KEY --json", "show KEY --all", "show run", "compare KEY OTHER",
    "compare KEY OTHER --json", "why val/loss", "why val/loss --json", "why val/loss --html why.html",
    "plot val/loss", "plot train/loss --group optimizer", "export", "export --wide", "export --summary",
    "export --format jsonl", "export --summary --format jsonl", "export --format parquet -o out.parquet",
    "export --summary --format parquet -o out.parquet", "doctor", "backup copy.db", "import labbench DB",
    "tag KEY --add seen", "stop KEY",
)  # fmt: skip

KEYS = (
    "j", "space", "j", "space", "G", "space", "m", "enter", "p", "p", "tab", "tab", "G", "slash", "e", "enter",
    "escape", "escape", "c", "a", "m", "3", "tab", "j", "x", "escape", "m", "4", "j", "m", "1", "b", "down", "enter",
    "f", "s", "t", "a", "tab", "escape", "o", "escape", "v", "x", "L", "question_mark", "escape", "1",
)  # fmt: skip
"""Keys that visit every screen, with marks, charts, groups, completion and dialogs."""

VALUES = (
    None, 0, -1, 1, 2**62, -(2**63), 2**63 - 1, 1e18, -1e15, 5e-324, 1.7e308, float("inf"), float("-inf"), 0.5, "",
    "x", "nan", "1e9", "yesterday", "/../..", "../../x", "a" * 5000, "\x1b]0;x\x07[/x]", "[1]", "null", "5", "{",
    '{"a": 1}', '{"a": {"b": {"c": [1, [2, {}]]}}}', '{"lr": "fast", "seed": null}', '{"lr": 1e400, "seed": 1e-400}',
    '{"": 1, " ": 2, "lr": [[[]]]}', '{"lr": ' + "9" * 400 + "}", '{"lr": ' + "9" * 5000 + "}", '{"lr": 1, "lr": 2}',
    '{"epochs": -1, "seed": true}', '{"epochs": 1e999}', '{"a":' + "[" * 70 + "]" * 70 + "}",
    '{"a":' + "[" * 990 + "]" * 990 + "}", '{"a":' * 300 + "1" + "}" * 300, b"", b"\xff\x00", b"x" * 60, "queued",
    "running", "failed", "lost", "paused", "min", "max", "none", "up", "\ud7ff\U0010ffff", "\u202e", "2026-11-30",
)  # fmt: skip


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Create the sample databases; return the function that runs one trial."""
    samples = [_make_sample(folder / "sample.db")]
    samples += sorted((Path(__file__).parents[2] / "tests" / "databases").glob("*.db"))
    work = folder / "work"
    os.environ |= {"XDG_STATE_HOME": str(folder / "state"), "XDG_CACHE_HOME": str(folder / "cache")}

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        rng = random.Random(f"{seed} {number}")
        database = work / "x.db"
        sample = samples[0] if rng.random() < 0.8 else rng.choice(samples)
        shutil.copy(sample, database)
        with suppress(FileNotFoundError):
            shutil.copytree(f"{sample}.files", f"{database}.files")
        keys = _read_keys(database)
        damage = rng.choice(DAMAGES)
        damage(database, rng)
        pristine = database.read_bytes()
        for command in COMMANDS:
            database.write_bytes(pristine)  # commands that write see the same damage
            yield Outcome(f"{damage.__name__}: commands", _fault_of_command(command, database, keys))
        if number % TRIALS_PER_SCREENS == 0:
            database.write_bytes(pristine)
            yield Outcome(f"{damage.__name__}: screens", _fault_of_screens(database))

    return run_trial


def _make_sample(path: Path) -> Path:
    """Create a database of runs of every status, with notes, tags, logs, artifacts and a long series."""
    configs = [
        {"optimizer": optimizer, "lr": lr, "seed": seed, "epochs": 3, "hidden": [8, 8], "amp": seed == 1}
        for optimizer in ("adam", "sgd")
        for lr in (0.1, 0.01)
        for seed in (0, 1)
    ]
    with Writer(path) as writer:
        submission = Submission("sample", "digits", {"val/loss": "min"}, sources={"grid": "lr = [0.1]", "diff": "+x"})
        runs = writer.queue(submission, [NewRun(f"run {n}", config, f"{n:064x}") for n, config in enumerate(configs)])
        for run in writer.claim([run.key for run in runs[:-1]]):
            writer.write([Started(run.key, 1, "host", 1, "cpu"), Log(run.key, 1, "epoch 1\nepoch 2\n")])
            for metric, n in (("train/loss", 3000 if run.id == 1 else 60), ("val/loss", 3), ("epoch", 3)):
                values = [1 / (step + run.id) for step in range(n)]
                writer.write([Points(run.key, 1, metric, range(n), range(0, 10 * n, 10), values)])
            if run.id == 2:
                writer.write([Failed(run.key, 1, "user", "ValueError: x", "Traceback\n  File x\nValueError: x")])
            elif run.id != 3:
                writer.write([Finished(run.key, 1, "diverged" if run.id == 4 else "finished", "all epochs")])
        writer.tag([runs[0].key], add=["good"])
        writer.note(runs[0].key, "a note")
    with closing(sqlite3.connect(path)) as connection, connection:
        artifact = Artifact("model.pt", "model.pt", 12, "0" * 64, 1.8e9)
        connection.execute(
            "INSERT INTO artifacts (run_id, name, path, size, sha256, created) VALUES (1, ?, ?, ?, ?, ?)",
            (artifact.name, artifact.path, artifact.size, artifact.sha256, artifact.created),
        )
        connection.execute("PRAGMA journal_mode = DELETE")
    return path


def _read_keys(database: Path) -> tuple[str, str]:
    with closing(sqlite3.connect(database)) as connection:
        keys = [key for (key,) in connection.execute("SELECT key FROM runs ORDER BY id LIMIT 2")]
    return keys[0], keys[-1]


# Damages


def flipped_bytes(database: Path, rng: random.Random) -> None:
    """Replace some bytes, mostly in the schema, in headers of pages, or in texts."""
    data = bytearray(database.read_bytes())
    size = rng.choice([4096, 100, len(data), len(data)])
    for _ in range(rng.choice([1, 1, 3, 20, 200])):
        data[rng.randrange(min(size, len(data)))] = rng.randrange(256)
    database.write_bytes(data)


def replaced_pages(database: Path, rng: random.Random) -> None:
    """Overwrite, exchange or cut pages."""
    data = bytearray(database.read_bytes())
    pages = len(data) // 4096
    for _ in range(rng.choice([1, 2, 5])):
        page, other = rng.randrange(pages) * 4096, rng.randrange(pages) * 4096
        content = rng.choice([data[other : other + 4096], bytes(4096), rng.randbytes(4096)])
        data[page : page + 4096] = content
    if rng.random() < 0.2:
        del data[rng.randrange(len(data)) :]
    database.write_bytes(data)


def changed_schema(database: Path, rng: random.Random) -> None:
    """Drop, rename and replace tables and columns."""
    with _ignoring_checks(database) as connection:
        for name in ("points_named", "runs_named"):
            connection.execute(f"DROP VIEW IF EXISTS {name}")
        for _ in range(rng.choice([1, 1, 2])):
            table = rng.choice(TABLES)
            columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")] or ["id"]
            column = rng.choice(columns)
            first = ", ".join(f"1 AS {name}" for name in columns)
            statements = rng.choice(
                [
                    [f"DROP TABLE {table}"],
                    [f"ALTER TABLE {table} RENAME TO {table}_before"],
                    [f"ALTER TABLE {table} RENAME COLUMN {column} TO other"],
                    [f"ALTER TABLE {table} DROP COLUMN {column}"],
                    [f"DROP TABLE {table}", f"CREATE TABLE {table} (id, name, goal)"],
                    [f"ALTER TABLE {table} RENAME TO {table}_before", f"CREATE VIEW {table} AS SELECT {first}"],
                    [
                        f"ALTER TABLE {table} RENAME TO {table}_before",
                        f"CREATE VIEW {table} AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) "
                        f"SELECT {', '.join(f'x AS {name}' for name in columns)} FROM c",
                    ],
                    [f"CREATE TRIGGER t AFTER UPDATE ON {table} BEGIN DELETE FROM {table}; END"],
                    [f"DELETE FROM {table}"],
                    [f"INSERT INTO _sqlite_migrations (migration_set, name) VALUES ('labbench', '{column}')"],
                ]
            )
            for statement in statements:
                with suppress(sqlite3.Error):
                    connection.execute(statement)


def wrong_values(database: Path, rng: random.Random) -> None:
    """Write values of any type into columns, in one row or in all."""
    with _ignoring_checks(database) as connection:
        for _ in range(rng.choice([1, 1, 1, 2, 4])):
            table = rng.choice([*TABLES[:-1], "runs", "runs", "summary"])
            column = rng.choice([row[1] for row in connection.execute(f"PRAGMA table_info({table})")])
            where = rng.choice(["", f"WHERE rowid = {rng.randrange(1, 8)}", "WHERE run_id = 1"])
            with suppress(sqlite3.Error, UnicodeEncodeError):
                connection.execute(f"UPDATE OR IGNORE {table} SET {column} = ? {where}", (rng.choice(VALUES),))


DAMAGES = (flipped_bytes, replaced_pages, changed_schema, wrong_values, wrong_values, wrong_values)


@contextmanager
def _ignoring_checks(database: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        yield connection


# Readers


class Hang(BaseException):
    """A command took too long."""


def _fault_of_command(command: str, database: Path, keys: tuple[str, str]) -> str | None:
    """Run a command on the database; return what was wrong, in one line."""
    values = {"KEY": keys[0], "OTHER": keys[1], "DB": str(database)}
    words = [values.get(word, word) for word in command.split()]
    target = database.with_name("mine.db") if words[0] == "import" else database
    before = Path.cwd()
    os.chdir(database.parent)
    try:
        with time_limit():
            result = CliRunner().invoke(main, ["--db", str(target), *words])
    except Hang:
        return f"{command}: longer than {MAX_SECONDS:g} s"
    finally:
        os.chdir(before)
    if result.exc_info is not None and not isinstance(result.exception, SystemExit | None):
        return f"{command}: {describe_error(result.exception)}"
    if "internal error" in result.output or result.exit_code not in (0, 1, 2):
        return f"{command}: exit status {result.exit_code}: {result.output[-100:]!r}"
    return None


def _fault_of_screens(database: Path) -> str | None:
    """Visit every screen of the interface; return what was wrong, in one line."""
    pressed: list[str] = []

    async def visit() -> str | None:
        app = LabbenchApp(database)
        async with app.run_test(size=(140, 45), notifications=True) as pilot:
            await pilot.pause(0.2)
            for key in KEYS:
                pressed.append(key)
                await pilot.press(key)
                with suppress(Exception):
                    shown = str(app.screen.query_one("#error").render())
                    if "internal error" in shown:
                        return f"at key {len(pressed)} ({key}): {shown}"
            await pilot.pause(0.2)
            return None if app.is_running else "the program ended"

    try:
        return asyncio.run(asyncio.wait_for(visit(), 60.0))
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        return f"at key {len(pressed)} ({pressed[-1:]}): {describe_error(error)}"


def describe_error(error: BaseException) -> str:
    """Return an error with the innermost lines of labbench that it passed."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    error = getattr(error, "error", None) or error
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "labbench/" in frame.filename]
    places = " < ".join(f"{frame.filename.split('labbench/')[-1]}:{frame.lineno}" for frame in reversed(frames[-3:]))
    return f"{type(error).__name__}: {str(error)[:100]!r} in {places}"


@contextmanager
def time_limit() -> Iterator[None]:
    """Raise Hang in the block after `MAX_SECONDS`."""

    def stop(*_: object) -> None:
        raise Hang

    timers = {signal.SIGPROF: (signal.ITIMER_PROF, MAX_SECONDS), signal.SIGALRM: (signal.ITIMER_REAL, 12 * MAX_SECONDS)}
    before = {number: signal.signal(number, stop) for number in timers}
    for timer, seconds in timers.values():
        signal.setitimer(timer, seconds)
    try:
        yield
    finally:
        for number, (timer, _) in timers.items():
            signal.setitimer(timer, 0)
            signal.signal(number, before[number])
