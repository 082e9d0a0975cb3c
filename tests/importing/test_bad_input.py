"""Files of every format that are empty, cut, damaged or of another kind: reported, never a traceback."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from labbench.export.event_records import bytes_field, double_field, frame_records
from labbench.store.maintenance.health import diagnose

Labbench = Callable[..., Result]
WRITERS = Path(__file__).parents[1] / "writers"

MAIN_FILES = {
    "huggingface": "checkpoint-4/trainer_state.json",
    "keras": "training.log",
    "lightning": "metrics.csv",
    "mlflow": "mlflow.db",
    "tensorboard": "tfevents",
    "trackio": "project.db",
    "trackio-parquet": "project.parquet",
    "wandb": ".wandb",
}
"""Part of the path of one file that holds points, by folder of `tests/writers`."""


@pytest.fixture(params=MAIN_FILES)
def sample(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Path]:
    """Return the name of a format and a copy of one file in a folder called logs, with the files beside it."""
    name: str = request.param
    if name == "trackio-parquet":
        pytest.importorskip("pyarrow")
    files = WRITERS / name / "files"
    [first, *_] = sorted(file for file in files.rglob("*") if MAIN_FILES[name] in file.as_posix() and file.is_file())
    shutil.copytree(first.parent, tmp_path / "logs")
    return name.partition("-")[0], tmp_path / "logs" / first.name


def import_file(labbench: Labbench, tmp_path: Path, source: str, file: Path) -> Result:
    result = labbench("import", source, file if source in ("keras", "csv", "jsonl") else file.parent)
    assert result.exit_code in (0, 1, 2), result.output
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    assert "Traceback" not in result.output
    assert result.exit_code == 0 or result.stderr
    if (tmp_path / "runs.db").exists():
        assert diagnose(tmp_path / "runs.db").is_sound
    return result


@pytest.mark.parametrize("content", [b"", b"\0" * 4096, b"text\n" * 300, b"\xff\xfe\x00\xd8" * 300, b'{"a": [1'])
def test_files_of_another_kind_are_reported(
    labbench: Labbench, tmp_path: Path, sample: tuple[str, Path], content: bytes
) -> None:
    source, file = sample
    file.write_bytes(content)
    import_file(labbench, tmp_path, source, file)


def test_files_cut_anywhere_are_read_up_to_there_or_reported_and_completed_later(
    labbench: Labbench, tmp_path: Path, sample: tuple[str, Path]
) -> None:
    source, file = sample
    whole = file.read_bytes()
    for part in (0.1, 0.35, 0.6, 0.85, 0.99):
        file.write_bytes(whole[: int(len(whole) * part)])
        import_file(labbench, tmp_path, source, file)
    file.write_bytes(whole)
    assert import_file(labbench, tmp_path, source, file).exit_code == 0
    assert "imported 0 new runs, 0 points" in import_file(labbench, tmp_path, source, file).stdout


def test_single_damaged_bytes_are_survived(labbench: Labbench, tmp_path: Path, sample: tuple[str, Path]) -> None:
    source, file = sample
    whole = file.read_bytes()
    for position in range(1, len(whole), max(1, len(whole) // 12)):
        file.write_bytes(whole[:position] + bytes([whole[position] ^ 0x5A]) + whole[position + 1 :])
        import_file(labbench, tmp_path, source, file)
        for database in tmp_path.glob("runs.db*"):
            shutil.rmtree(database) if database.is_dir() else database.unlink()


def test_newer_versions_are_named_with_those_that_can_be_read(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "run-a.wandb").write_bytes(b":W&B\xe1\xbe\x03")
    events = frame_records([double_field(1, 1.0) + bytes_field(3, "brain.Event:7")])
    (tmp_path / "logs" / "events.out.tfevents.1").write_bytes(events)
    for name in ("mlflow", "trackio"):
        with closing(sqlite3.connect(tmp_path / f"{name}.db")) as connection:
            connection.execute("CREATE TABLE runs (uuid)")
    texts = {
        "wandb": ("logs", "of version 3; version 0 can be read"),
        "tensorboard": ("logs", "it has the version 'brain.Event:7'; 'brain.Event:2' can be read"),
        "mlflow": ("mlflow.db", "as in MLflow up to 3.17"),
        "trackio": ("trackio.db", "as in Trackio up to 0.43"),
    }
    for source, (path, text) in texts.items():
        assert text in labbench("import", source, path).stderr


@pytest.mark.parametrize("source", ["csv", "jsonl", "keras"])
@pytest.mark.parametrize(
    "rows",
    [
        [{"step": 3, "loss": 1.0}, {"step": 1, "loss": 2.0}, {"step": 3, "loss": 4.0}],
        [{"step": 1, "loss": float("nan")}, {"step": 2, "loss": float("inf")}, {"step": 2, "loss": None}],
        [{"step": 1, "a/b\x1b[2J": 1.0, " ": 2.0, "\u202e": 3.0}],
        [{"step": 2**70, "loss": 1.0}, {"step": 1.5, "loss": 1.0}],
        [{"loss": 1.0}],
    ],
)
def test_odd_tables_are_imported_or_reported(
    labbench: Labbench, tmp_path: Path, source: str, rows: list[dict[str, object]]
) -> None:
    file = tmp_path / "table.txt"
    keys = list(rows[0])
    lines = (
        [json.dumps(row) for row in rows]
        if source == "jsonl"
        else [",".join(keys), *(",".join("" if row[key] is None else str(row[key]) for key in keys) for row in rows)]
    )
    file.write_text("\n".join(lines).replace("step", "epoch" if source == "keras" else "step") + "\n")
    first = import_file(labbench, tmp_path, source, file)
    again = import_file(labbench, tmp_path, source, file)
    assert first.exit_code == again.exit_code
    if first.exit_code == 0:
        assert "imported 0 new runs, 0 points" in again.stdout


@pytest.mark.parametrize("columns", ["step,loss", "run,name,experiment,step,time,loss"])
@pytest.mark.parametrize("step", ["9" * 400, "nan", "inf", "1.5", "x", ""])
def test_steps_of_a_table_that_are_no_numbers_of_sqlite_are_reported(
    labbench: Labbench, tmp_path: Path, columns: str, step: str
) -> None:
    cells = {"run": "abcdefgh", "name": "a", "experiment": "e", "time": "", "loss": "0.5"}
    rows = [",".join(({**cells, "step": text})[column] for column in columns.split(",")) for text in ("0", step)]
    (tmp_path / "log.csv").write_text("\n".join([columns, *rows]) + "\n")
    result = import_file(labbench, tmp_path, "csv", tmp_path / "log.csv")
    assert "step" in result.output
