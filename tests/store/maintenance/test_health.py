"""Health check and repair of a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import execute, files_beside, read_tables
from labbench.files import files_folder
from labbench.store.maintenance.health import SeriesId, diagnose
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.reader import Reader


def test_database_written_by_labbench_is_sound(other: Path) -> None:
    before = other.read_bytes()
    diagnosis = diagnose(other)
    assert diagnosis.is_sound
    assert diagnosis.n_series == 3
    assert other.read_bytes() == before
    assert files_beside(other) == ["other.db", "other.db.files"]


@pytest.mark.parametrize(
    ("statement", "wrong"),
    [
        ("UPDATE summary SET min = min - 1 WHERE metric_id = 1", [SeriesId(1, 1)]),
        ("DELETE FROM summary WHERE run_id = 1", [SeriesId(1, 1), SeriesId(1, 2)]),
        ("UPDATE points SET value = 99 WHERE metric_id = 1 AND step = 12345", [SeriesId(1, 1)]),
        ("DELETE FROM points WHERE metric_id = 1 AND step BETWEEN 100 AND 200", [SeriesId(1, 1)]),
        ("DELETE FROM points WHERE run_id = 2", [SeriesId(2, 2)]),
        ("DELETE FROM rollup WHERE level = 2", [SeriesId(1, 1)]),
        ("UPDATE rollup SET buckets = zeroblob(3840) WHERE level = 1", [SeriesId(1, 1)]),
        ("UPDATE rollup SET level = 7 WHERE level = 2", [SeriesId(1, 1)]),
        (
            "INSERT INTO rollup SELECT 2, 2, 1, first_step, last_step, buckets FROM rollup WHERE level = 1",
            [SeriesId(2, 2)],
        ),
    ],
)
def test_summaries_and_rollups_that_do_not_match_the_points_are_found_and_repaired(
    other: Path, statement: str, wrong: list[SeriesId]
) -> None:
    sound = read_tables(other)
    execute(other, statement)
    diagnosis = diagnose(other)
    assert list(diagnosis.wrong) == wrong
    with MaintenanceWriter(other) as writer:
        writer.repair(diagnosis)
    assert diagnose(other).is_sound
    if "points" not in statement:
        repaired = read_tables(other)
        unchanged = sound.keys() - {"rollup", "runs"}  # the revisions of the runs are raised
        assert {table: repaired[table] for table in unchanged} == {table: sound[table] for table in unchanged}


def test_rows_without_a_run_are_deleted_unless_they_were_logged_and_stray_folders_only_reported(other: Path) -> None:
    sound = read_tables(other)
    execute(other, "INSERT INTO summary SELECT 77, metric_id, 1, 0, NULL, 1, 1, 1, 1, 1, 1 FROM summary LIMIT 1")
    execute(other, "INSERT INTO tags VALUES (77, 'gone')")
    stray = files_folder(other) / "nobody"
    stray.mkdir()
    diagnosis = diagnose(other)
    assert dict(diagnosis.orphans) == {"summary": 1, "tags": 1}
    assert list(diagnosis.stray_folders) == [stray]
    with MaintenanceWriter(other) as writer:
        writer.repair(diagnosis)
    assert diagnose(other).is_sound
    assert read_tables(other) == sound
    assert stray.is_dir()


def test_damaged_file_is_reported(other: Path) -> None:
    content = bytearray(other.read_bytes())
    content[40 * 4096 : 48 * 4096] = bytes(8 * 4096)
    other.write_bytes(content)
    diagnosis = diagnose(other)
    assert diagnosis.damage
    assert not diagnosis.is_sound


def test_doctor_command_reports_and_repairs(labbench: Callable[..., Result], other: Path) -> None:
    assert "sound; 3 series agree with their points" in labbench("--db", other, "doctor").stdout
    execute(other, "UPDATE summary SET n = n + 1")
    result = labbench("doctor", "--db", other)
    assert result.exit_code == 1
    assert result.stdout.endswith("\n\nthe summaries of 3 of 3 series are wrong: --fix repairs it\n")
    assert labbench("doctor", "--fix", "--db", other).exit_code == 0
    assert labbench("doctor", "--db", other).exit_code == 0
    assert labbench("doctor", "--db", "nothing.db").exit_code == 2


def test_points_whose_run_or_metric_is_missing_are_rescued(labbench: Callable[..., Result], other: Path) -> None:
    points = read_tables(other)["points"]
    execute(other, "DELETE FROM runs WHERE id = 1")
    execute(other, "DELETE FROM metrics WHERE id = 2")
    assert labbench("doctor", "--fix", "--db", other).exit_code == 0
    assert diagnose(other).is_sound
    assert read_tables(other)["points"] == points
    with Reader(other) as reader:
        [run] = reader.runs("experiment=recovered")
        assert "recovered/2" in run.summary


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        ("UPDATE runs SET experiment_id = 99 WHERE id = 1", "1 run without an experiment"),
        ("UPDATE runs SET config = '[1]' WHERE id = 1", "1 run whose config is not a JSON object"),
        ("UPDATE runs SET status = 'paused' WHERE id = 1", "unknown statuses of runs (paused)"),
    ],
)
def test_runs_that_another_program_damaged_are_found_and_rescued(
    labbench: Callable[..., Result], other: Path, statement: str, message: str
) -> None:
    execute(other, statement)
    result = labbench("doctor", "--db", other)
    assert (result.exit_code, message in result.stdout) == (1, True), result.stdout
    assert labbench("doctor", "--fix", "--db", other).exit_code == 0
    assert diagnose(other).is_sound
    with Reader(other) as reader:
        assert len(reader.runs()) == 3


def test_a_run_without_experiment_is_not_found_instead_of_ending_in_a_traceback(
    labbench: Callable[..., Result], other: Path
) -> None:
    execute(other, "DELETE FROM experiments")
    for words in (["show", "a"], ["tag", "a", "-a", "t"], ["retry", "a"], ["rm", "a", "--yes"]):
        result = labbench("--db", other, *words)
        assert (result.exit_code, "no run has" in result.stderr) == (2, True), result.output


def test_text_in_place_of_values_and_spill_files_are_reported(labbench: Callable[..., Result], other: Path) -> None:
    (other.parent / "other.db.spilled-abcdefgh-1-9.jsonl").write_text("")
    result = labbench("doctor", "--db", other)
    assert (result.exit_code, "spill file" in result.stdout) == (0, True)
    execute(other, "UPDATE points SET value = 'x' WHERE run_id = 2")
    assert "in place of a number" in labbench("doctor", "--db", other).stdout
    assert labbench("doctor", "--fix", "--db", other).exit_code == 1
