"""Files of W&B, MLflow and Trackio that are cut, damaged, hostile or of another program."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from helpers.programs import load_program
from labbench.export.event_records import bytes_field, integer_field
from labbench.importing.mlflow import parse_param
from labbench.importing.source_run import RunCollector
from labbench.importing.wandb import find_runs
from labbench.importing.wandb_history import LogCalls
from labbench.store.reader import Reader

Labbench = Callable[..., Result]
WRITERS = Path(__file__).parents[1] / "writers"


@pytest.fixture
def wandb_file(tmp_path: Path) -> Path:
    """Return a copy of the `.wandb` file of the run that finished."""
    [file] = [file for file in (WRITERS / "wandb").rglob("*.wandb") if b"first" in file.read_bytes()]
    return Path(shutil.copy(file, tmp_path / "run-a.wandb"))


def test_a_live_wandb_file_is_imported_up_to_its_last_whole_record(
    labbench: Labbench, tmp_path: Path, wandb_file: Path
) -> None:
    whole = wandb_file.read_bytes()
    wandb_file.write_bytes(whole[: len(whole) * 2 // 3])
    assert labbench("import", "wandb", wandb_file.name).exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        assert (run.status, 0 < run.summary["loss"].n < 12) == ("stopped", True)
    wandb_file.write_bytes(whole)
    assert labbench("import", "wandb", wandb_file.name).stdout.startswith("imported 0 new runs")
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
        assert (run.status, run.reason, run.summary["loss"].n) == ("finished", None, 12)


def test_files_of_a_resumed_wandb_run_are_one_run(labbench: Labbench, tmp_path: Path) -> None:
    """Each process of the run has a folder; ids are unique in a project only."""
    write_wandb_run(tmp_path / "wandb" / "run-20260102_030405-abc", "first", range(3))
    assert labbench("import", "wandb").stdout == "imported 1 new run, 3 points; 0 grown, 0 already present\n"
    write_wandb_run(tmp_path / "wandb" / "offline-run-20260101_000000-abc", "first", range(-2, 1))
    write_wandb_run(tmp_path / "wandb" / "run-20260103_030405-abc", "second", range(5))
    result = labbench("import", "wandb", "wandb")
    assert result.stdout == "imported 1 new run, 7 points; 1 grown, 0 already present\n"
    assert result.exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        runs = {run.experiment: run.key for run in reader.runs()}
        assert reader.series(runs["first"], "loss")[0].tolist() == [-2, -1, 0, 1, 2]
        assert reader.series(runs["second"], "loss")[0].tolist() == [0, 1, 2, 3, 4]


def test_a_wandb_file_with_a_number_that_is_none_is_reported(labbench: Labbench, tmp_path: Path) -> None:
    calls = [encode_call({"loss": 0.25, "_step": step}) for step in range(3)]
    records = [bytes_field(2, call) for call in (*calls[:2], calls[2].replace(b"0.25", b"1-+2"))]
    (tmp_path / "run-abc.wandb").write_bytes(load_program("bench/interop.py").wandb_file(iter(records)))
    result = labbench("import", "run-abc.wandb")
    assert (result.exit_code, "could not convert string to float" in result.stderr) == (1, True)


def test_group_and_job_type_of_wandb_are_keys_of_the_configuration(labbench: Labbench, tmp_path: Path) -> None:
    run = bytes_field(1, "abc") + bytes_field(3, "p") + bytes_field(6, "ablation") + bytes_field(7, "eval")
    own_key = bytes_field(1, bytes_field(1, "job_type") + bytes_field(16, json.dumps("mine")))
    records = [bytes_field(17, run), bytes_field(5, own_key)]
    (tmp_path / "run-abc.wandb").write_bytes(load_program("bench/interop.py").wandb_file(iter(records)))
    assert labbench("import", "wandb", "run-abc.wandb").exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        [imported] = reader.runs("group=ablation")
        assert imported.config == {"group": "ablation", "job_type": "mine"}


def test_the_keys_that_wandb_keeps_for_its_charts_are_no_configuration(labbench: Labbench, tmp_path: Path) -> None:
    values = {"lr": 0.1, "_wandb": {"cli_version": "0.25"}, "_wandb.visualize.pr": {"panel_type": "Vega2"}, "_mine": 1}
    items = [bytes_field(1, bytes_field(1, key) + bytes_field(16, json.dumps(value))) for key, value in values.items()]
    nested = bytes_field(2, b"_wandb") + bytes_field(2, b"visualize") + bytes_field(16, json.dumps({"roc": 1}))
    records = [bytes_field(17, bytes_field(1, "abc")), *(bytes_field(5, item) for item in items)]
    records.append(bytes_field(5, bytes_field(1, nested)))
    (tmp_path / "run-abc.wandb").write_bytes(load_program("bench/interop.py").wandb_file(iter(records)))
    assert labbench("import", "wandb", "run-abc.wandb").exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        assert [run.config for run in reader.runs()] == [{"lr": 0.1, "_mine": 1}]


def test_texts_of_the_summary_of_wandb_are_kept(labbench: Labbench, tmp_path: Path) -> None:
    summary = {"dataset": "shapes-v1", "best": {"loss": 0.5, "model": "cnn"}, "long": "x" * 5000, "_runtime": 3}
    items = [bytes_field(1, bytes_field(1, key) + bytes_field(16, json.dumps(value))) for key, value in summary.items()]
    records = [bytes_field(17, bytes_field(1, "abc")), *(bytes_field(3, item) for item in items)]
    (tmp_path / "run-abc.wandb").write_bytes(load_program("bench/interop.py").wandb_file(iter(records)))
    result = labbench("import", "wandb", "run-abc.wandb")
    assert (result.exit_code, "not imported" in result.stdout) == (0, False)
    with Reader(tmp_path / "runs.db") as reader:
        [run] = reader.runs()
    assert run.config == {"summary/dataset": "shapes-v1", "summary/best.model": "cnn"}
    assert {name: values.last for name, values in run.summary.items()} == {"best.loss": 0.5}


def test_statistics_of_wandb_are_no_metrics_and_runs_that_have_them_stay_known(
    labbench: Labbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Earlier versions imported `val/acc.max`."""
    values = {"val/acc": {"max": 0.5}, "other": {"max": 2.0}}
    items = [bytes_field(1, bytes_field(1, key) + bytes_field(16, json.dumps(value))) for key, value in values.items()]
    records = [bytes_field(17, bytes_field(1, "abc") + bytes_field(3, "p"))]
    records += [bytes_field(2, encode_call({"val/acc": 0.5 - step / 10, "_step": step})) for step in range(3)]
    records += [bytes_field(3, item) for item in items]
    (tmp_path / "run-abc.wandb").write_bytes(load_program("bench/interop.py").wandb_file(iter(records)))
    with monkeypatch.context() as patch:
        patch.setattr("labbench.importing.wandb._STATISTICS", ())
        assert labbench("--db", "old.db", "import", "wandb", "run-abc.wandb").exit_code == 0
    assert labbench("--db", "old.db", "rename", "p", "q").exit_code == 0
    again = labbench("--db", "old.db", "import", "wandb", "run-abc.wandb")
    assert again.stdout == "imported 0 new runs, 0 points; 0 grown, 1 already present\n", again.output
    assert labbench("import", "wandb", "run-abc.wandb").exit_code == 0
    metrics = {}
    for name in ("old.db", "runs.db"):
        with Reader(tmp_path / name) as reader:
            metrics[name] = {*reader.runs()[0].summary}
    assert metrics == {"old.db": {"val/acc", "val/acc.max", "other.max"}, "runs.db": {"val/acc", "other.max"}}


def write_wandb_run(folder: Path, project: str, steps: range) -> None:
    """Write a `.wandb` file of the run `abc` with a log call for each step."""
    folder.mkdir(parents=True)
    calls = [bytes_field(2, encode_call({"loss": step / 10, "_step": step})) for step in steps]
    records = [bytes_field(17, bytes_field(1, "abc") + bytes_field(3, project)), *calls]
    (folder / "run-abc.wandb").write_bytes(load_program("bench/interop.py").wandb_file(iter(records)))


def test_calls_of_every_kind_are_read_as_by_the_general_decoder() -> None:
    """Known keys, new keys, texts, objects, long values and calls without a step, in any order."""

    def add(reader: LogCalls, call: dict[str, object]) -> None:
        content = encode_call(call)
        if not reader.add_known(bytes_field(2, content)):
            reader.add(content)

    calls = [
        {"loss": 0.5, "val.acc": 1, "_step": 0, "_timestamp": 1.5},
        {"loss": 1e-30, "val.acc": "high", "_step": 1, "_timestamp": 2.5},
        {"loss": True, "val.acc": {"a": 2}, "_step": 2},
        {"loss": None, "long": "x" * 300, "_step": 3},
        {"loss": 7.0},
        {"val.acc": -2, "new": 5, "loss": float("inf"), "_step": 4},
        {"loss": float("nan"), "_step": 10, "loss ": 3},
        {"loss": 0.125, "_step": 2**60},
        {"loss": -1.5e-07, "val.acc": 1e22, "_step": 11},
        {"val.acc": 3, "loss": 2, "_step": 12},
        {"loss": 4, "val.acc": 3, "_step": 13, "_timestamp": 3.5},
    ]
    fast, general = LogCalls(), LogCalls()
    for _ in range(2):
        for call in calls:
            add(fast, call)
            general.add(encode_call(call))
    results = []
    for reader in (fast, general):
        points = RunCollector()
        reader.add_to(points)
        results.append((repr(points.series()), points.skipped))
    assert results[0] == results[1]
    points = RunCollector()
    fast.add_to(points)
    assert points.series()["loss"].steps.tolist() == [0, 1, 2, 4, 10, 11, 12, 13]
    assert points.series()["val.acc.a"].values.tolist() == [2.0]
    assert points.skipped["log calls without a step"] == 2
    assert points.skipped["points whose step is out of range"] == 2


def test_descriptions_of_wandb_media_are_no_metrics() -> None:
    table = {"table._type": "table-file", "table.ncols": 2, "tables": 3, "_step": 0}
    calls = LogCalls()
    for step in range(3):
        calls.add(encode_call(table | {"_step": step}))
    points = RunCollector()
    calls.add_to(points)
    assert ({*points.series()}, points.skipped) == ({"tables"}, {"table-file objects": 3})


def encode_call(values: dict[str, object]) -> bytes:
    """Return the message of a log call as W&B writes it: keys are nested, the step comes last if there is one."""
    items = b"".join(
        bytes_field(1, b"".join(bytes_field(2, part) for part in key.split(".")) + bytes_field(16, json.dumps(value)))
        for key, value in values.items()
    )
    return items + (bytes_field(2, integer_field(1, int(str(values["_step"])))) if "_step" in values else b"")


def test_every_damaged_byte_of_a_wandb_file_is_noticed_or_harmless(wandb_file: Path) -> None:
    content = wandb_file.read_bytes()
    [found] = find_runs(wandb_file)
    n_reported = 0
    for position in range(7, len(content), 97):
        wandb_file.write_bytes(content[:position] + bytes([content[position] ^ 0x10]) + content[position + 1 :])
        try:
            found.read()
        except Exception as error:
            assert type(error).__name__ == "InputError"  # noqa: PT017  # most positions raise it, a few are cut records
            n_reported += 1
    assert n_reported > len(range(7, len(content), 97)) * 0.9


def test_files_of_other_programs_are_wrong_input(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "text.wandb").write_text("a text")
    (tmp_path / "text.db").write_text("a text")
    with closing(sqlite3.connect(tmp_path / "other.db")) as connection:
        connection.execute("CREATE TABLE runs (a)")
        connection.execute(
            "CREATE VIEW metrics AS WITH RECURSIVE n AS (SELECT 1 UNION ALL SELECT 1 FROM n) SELECT * FROM n"
        )
    result = labbench("import", "wandb", "text.wandb")
    assert (result.exit_code, "not a .wandb file" in result.stderr) == (1, True)
    for source in ("mlflow", "trackio"):
        assert "not an SQLite database" in labbench("import", source, "text.db").stderr
        result = labbench("import", source, "other.db")
        assert (result.exit_code, "has no table" in result.stderr) == (2, True)
        (tmp_path / "empty").mkdir(exist_ok=True)
        assert labbench("import", source, "empty").exit_code == 2


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.1", 0.1),
        ("1e-3", 1e-3),
        ("3", 3),
        ("True", True),
        ("None", None),
        ("[1, 2]", [1, 2]),
        ("(1, 'a')", [1, "a"]),
        ("adam", "adam"),
        ("", ""),
        ("1 + 1", "1 + 1"),
        ("{'a': 1}", "{'a': 1}"),
        ("__import__('os')", "__import__('os')"),
        ("[" * 500, "[" * 500),
    ],
)
def test_parameters_of_mlflow_are_read_as_what_they_were(text: str, value: object) -> None:
    assert parse_param(text) == value


def test_times_that_no_calendar_has_are_left_out(labbench: Labbench, tmp_path: Path) -> None:
    shutil.copy(WRITERS / "mlflow" / "files" / "mlflow.db", tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection, connection:
        connection.execute("UPDATE runs SET end_time = 9000000000000000000")
    assert labbench("import", "mlflow", "mlflow.db").exit_code == 0
    assert "runs.db: sound" in labbench("doctor").stdout
    assert labbench("ls").exit_code == 0


def test_deleted_runs_of_mlflow_stay_away(labbench: Labbench, tmp_path: Path) -> None:
    shutil.copy(WRITERS / "mlflow" / "files" / "mlflow.db", tmp_path / "mlflow.db")
    with closing(sqlite3.connect(tmp_path / "mlflow.db")) as connection:
        connection.execute("UPDATE runs SET lifecycle_stage = 'deleted' WHERE name LIKE '%child'")
        connection.commit()
    assert labbench("import", "mlflow", "mlflow.db").stdout.startswith("imported 1 new run, 9 points")


def test_a_damaged_schema_is_reported(labbench: Labbench, tmp_path: Path) -> None:
    """SQLite quotes the damaged bytes in its message, which is no text then."""
    content = (WRITERS / "trackio" / "files" / "project.db").read_bytes()
    assert b"CREATE TABLE metrics" in content
    (tmp_path / "project.db").write_bytes(content.replace(b"CREATE TABLE metrics", b"CREATE TABL\xde metrics"))
    result = labbench("import", "trackio", "project.db")
    assert (result.exit_code, "project.db: cannot be read" in result.stderr) == (2, True), result.output
