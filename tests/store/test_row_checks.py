"""Databases with values that labbench does not write: a message, never a traceback."""

from __future__ import annotations

import json
import shutil
import sqlite3
import warnings
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from helpers.store_samples import points, start, write_three_runs
from labbench.cli import main
from labbench.errors import InputError, StoreError
from labbench.store import connection as connection_module
from labbench.store.reader import Reader
from labbench.store.row_checks import COLUMNS, MAX_JSON_DEPTH
from labbench.store.series.curves import CurveRequest
from labbench.store.writer import Writer

Run = Callable[..., Result]

READING = ("ls", "ls --json", "show a", "compare a b", "why loss", "plot score", "export", "export --wide", "doctor",
           "export --summary --format jsonl")  # fmt: skip


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return write_three_runs(tmp_path / "runs.db")


@pytest.fixture
def run(database: Path) -> Run:
    def invoke(words: str, *names: str) -> Result:
        result = CliRunner().invoke(main, ["--db", str(database), *words.split(), *names])
        assert result.exception is None or isinstance(result.exception, SystemExit), words
        return result

    return invoke


def change(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = 1")
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    ("table", "column", "value"),
    [
        ("runs", "started", "'yesterday'"),
        ("runs", "started", "1e18"),
        ("runs", "finished", "-9e999"),
        ("runs", "name", "x'ff00'"),
        ("runs", "status", "'paused'"),
        ("runs", "attempt", "'x'"),
        ("runs", "config", "'[1]'"),
        ("runs", "versions", "'{'"),
        ("summary", "min", "'low'"),
        ("summary", "n", "'many'"),
        ("metrics", "name", "zeroblob(id)"),
        ("tags", "tag", "x'ff'"),
        ("logs", "text", "x'ff'"),
    ],
)
def test_a_value_of_another_type_or_range_is_a_message_that_names_its_column(
    run: Run, database: Path, table: str, column: str, value: str
) -> None:
    change(database, "INSERT INTO logs (run_id, attempt, time, text) VALUES (1, 1, 1, 'x')")
    change(database, f"UPDATE {table} SET {column} = {value}")
    messages = [result.stderr for words in READING if (result := run(words)).exit_code]
    assert any(f"the column {column} of the table {table} has the value" in message for message in messages)
    assert run("doctor").exit_code == 1


@pytest.mark.parametrize("column", ["step", "time_ms", "value"])
def test_points_that_are_not_numbers_are_a_message(run: Run, database: Path, column: str) -> None:
    change(database, f"UPDATE points SET {column} = 'x' || step WHERE metric_id = 2")
    for words in READING:
        assert run(words).exit_code in (0, 1), words
    assert run("doctor").exit_code == 1
    assert "3 points with text in place of a number" in run("doctor").stdout
    with Reader(database) as reader:
        key = reader.find("a").key
        if column == "step":  # such a point has no place in the series
            assert len(reader.series(key, "loss")[0]) == 0
        else:
            with pytest.raises(StoreError, match="not numbers"):
                reader.series(key, "loss")


def test_rollups_of_another_length_are_a_message(run: Run, database: Path) -> None:
    change(database, "UPDATE rollup SET buckets = x'00'")
    with Reader(database) as reader, pytest.raises(StoreError, match="not numbers"):
        reader.curves([1], "score", CurveRequest(10))
    assert run("doctor").exit_code == 1


def test_every_column_that_is_read_exists_in_a_new_database(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection:
        for table, kinds in COLUMNS.items():
            columns = {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}
            assert set(kinds) - columns <= {"experiment", "kind"}


def test_damaged_bytes_of_a_text_are_shown_as_replacement_characters(run: Run, database: Path) -> None:
    database.write_bytes(database.read_bytes().replace(b"text of the grid", b"text \xff\xfe the grid"))
    change(database, "UPDATE runs SET name = CAST(x'61ff62' AS TEXT) WHERE id = 1")
    assert "a\ufffdb" in run("ls").stdout
    assert "a\ufffdb" in run("export").stdout


def test_a_damaged_schema_is_a_message_although_sqlite_quotes_its_broken_bytes(run: Run, database: Path) -> None:
    change(database, "PRAGMA journal_mode = DELETE")
    data = bytearray(database.read_bytes())
    at = data.index(b"CREATE VIEW points_named")
    data[at + 2 : at + 5] = b"\xff\xfe\xfd"
    database.write_bytes(data)
    for words in (*READING, "doctor --fix", "tag a -a t", "vacuum", "backup copy.db"):
        result = run(words)
        assert result.exit_code in (1, 2), words
        assert "damaged" in result.output, words


def test_a_view_in_place_of_a_table_is_refused_because_it_may_have_no_end(run: Run, database: Path) -> None:
    endless = "WITH RECURSIVE c(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM c) SELECT id, 'm', NULL AS goal FROM c"
    change(database, "DROP VIEW points_named", "ALTER TABLE metrics RENAME TO m", f"CREATE VIEW metrics AS {endless}")
    for words in (*READING, "tag a -a t"):
        result = run(words)
        assert (result.exit_code, "replaced tables of labbench by views" in result.stderr) == (2, True), words


def test_a_query_without_an_end_is_interrupted(database: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    endless = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT count(*) FROM c"
    monkeypatch.setattr(connection_module, "INSTRUCTIONS_PER_READ", 1_000_000)
    with Reader(database) as reader, pytest.raises(StoreError, match="more steps than a database of this size"):
        reader._connection.read(lambda connection: connection.execute(endless).fetchone())


def test_reading_a_large_database_takes_a_tenth_of_the_allowed_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "INSTRUCTIONS_PER_READ", 0)
    monkeypatch.setattr(connection_module, "INSTRUCTIONS_PER_BYTE", connection_module.INSTRUCTIONS_PER_BYTE // 10)
    database = shutil.copy(Path(__file__).parents[2] / "runs.db.example", tmp_path / "runs.db")
    commands = ("ls", "export", "export --wide", "doctor", "why val/loss", "plot val/loss --group lr")
    for words in commands:
        result = CliRunner().invoke(main, ["--db", str(database), *words.split()])
        assert result.exit_code == 0, (words, result.stderr)


@pytest.mark.parametrize("depth", [MAX_JSON_DEPTH + 1, 500, 990])
def test_a_config_that_is_nested_too_deeply_is_a_message(run: Run, database: Path, depth: int) -> None:
    change(database, f"""UPDATE runs SET config = '{{"a": {"[" * depth}{"]" * depth}}}' WHERE id = 1""")
    for words in READING:
        assert run(words).exit_code in (0, 1), words
    assert f"nested {depth + 1} levels deep" in run("ls").stderr


def test_brackets_within_texts_of_a_config_are_not_nesting(run: Run, database: Path) -> None:
    config = json.dumps({"layers": ["[" * 100, '\\"[' * 100]})
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE runs SET config = ? WHERE id = 1", (config,))
    assert run("ls").exit_code == 0


@pytest.mark.parametrize(
    "line",
    [
        '{"run": ' + "[" * 100_000 + "]" * 100_000 + "}",
        '{"run": {"key": "abcdefgh", "name": ["x"]}}',
        '{"points": {"metric": "m", "steps": [1e99], "times": [0], "values": [1.0]}}',
        '{"forget_from": null}',
        "[1]",
        "\xff",
    ],
)
def test_a_damaged_spill_file_does_not_keep_the_database_from_being_written(
    run: Run, database: Path, line: str
) -> None:
    spill = database.with_name(f"{database.name}.spilled-abcdefgh-1.jsonl")
    spill.write_text(f"{line}\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run("tag a -a t").exit_code == 0
    assert "damaged spill file" in str(caught[0].message)
    assert spill.exists()


def test_a_part_of_a_start_time_is_a_filter(run: Run, database: Path) -> None:
    change(database, "UPDATE runs SET started = strftime('%s', '2026-11-30 14:00:00', 'utc') WHERE id = 1")
    change(database, "UPDATE runs SET started = strftime('%s', '2026-12-01 14:00:00', 'utc') WHERE id = 2")
    with Reader(database) as reader:
        assert [run.name for run in reader.runs("started~2026-11")] == ["a"]
        assert [run.name for run in reader.runs("started~T14:00")] == ["a", "b"]
        assert [run.name for run in reader.runs("not started~2026-11")] == ["b", "c"]
        assert reader.runs("started~today") == []


def test_no_prefix_of_a_filter_fails_otherwise_than_with_a_message(database: Path) -> None:
    """The terminal interface applies a filter while it is typed."""
    expression = "started~2026-11-30 or (started>2026 and not tag=good) best(loss)<=1e-3 a.b!='x y',none status~fin"
    with Reader(database) as reader:
        for end in range(len(expression) + 1):
            with suppress(InputError):
                reader.count(expression[:end])


def test_an_import_of_a_long_series_with_a_text_among_its_values_is_a_message(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    with Writer(other) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1 / (1 + step) for step in range(1000)])])
    change(other, "UPDATE points SET value = 'x' WHERE step = 500", "DELETE FROM overview")
    result = CliRunner().invoke(main, ["--db", str(tmp_path / "runs.db"), "import", "labbench", str(other)])
    assert isinstance(result.exception, SystemExit)
    assert (result.exit_code, "not numbers" in result.stderr) == (1, True)


@pytest.mark.parametrize(("table", "column", "key"), [("tags", "tag", "tag"), ("experiments", "name", "experiment")])
def test_a_filter_without_a_match_is_answered_beside_a_blob_in_place_of_a_name(
    run: Run, database: Path, table: str, column: str, key: str
) -> None:
    run("tag a --add seen")
    change(database, f"UPDATE {table} SET {column} = x'00ff' WHERE {column} = (SELECT min({column}) FROM {table})")
    assert run(f"ls {key}=absent").exit_code in (0, 1)


def test_versions_beyond_the_range_of_floats_are_exported(run: Run, database: Path) -> None:
    change(database, """UPDATE runs SET versions = '{"torch": 1e400, "hardware": {"cores": 1e400}}' WHERE id = 1""")
    for words in ("export --summary --format jsonl", "ls --json", "show a --json"):
        assert run(words).exit_code in (0, 1), words


@pytest.mark.parametrize("words", ["export --format jsonl", "export --wide --format jsonl"])
def test_an_infinite_time_of_a_point_is_a_message_where_json_cannot_represent_it(
    run: Run, database: Path, words: str
) -> None:
    change(database, "UPDATE points SET time_ms = 9e999")
    result = run(words)
    assert (result.exit_code, "`doctor` counts such values" in result.stderr) == (1, True)
