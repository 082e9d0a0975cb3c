"""Exports: exact numbers, no formulas, and constant memory use."""

from __future__ import annotations

import csv
import io
import json
import math
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import new_run, points, queue, start
from labbench.errors import InputError
from labbench.export.table_files import escape_formula, unescape_formula, write_csv, write_jsonl, write_parquet
from labbench.json_documents import run_document
from labbench.records import Finished, NewRun, Started
from labbench.store.liveness import HOST
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.system.provenance import Provenance

NAN, INF = math.nan, math.inf


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[Writer]:
    with Writer(tmp_path / "runs.db") as writer:
        yield writer


@pytest.fixture
def reader(tmp_path: Path, writer: Writer) -> Iterator[Reader]:
    with Reader(tmp_path / "runs.db") as reader:
        yield reader


def csv_rows(reader: Reader, run_filter: str | None = None, **options: Any) -> list[dict[str, str]]:
    file = io.StringIO(newline="")
    write_csv(reader, run_filter, file, **options)
    file.seek(0)
    return list(csv.DictReader(file))


def json_lines(reader: Reader, run_filter: str | None = None, **options: Any) -> list[dict[str, Any]]:
    file = io.StringIO()
    write_jsonl(reader, run_filter, file, **options)
    return [json.loads(line, parse_constant=refuse) for line in file.getvalue().splitlines()]


def refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")


def test_a_misspelt_metric_is_refused_before_anything_is_written(writer: Writer, reader: Reader) -> None:
    [run] = start(writer)
    writer.write([points(run, "loss", [1.0])])
    file = io.StringIO()
    for write in (write_csv, write_jsonl):
        for shape in ("long", "wide", "summary"):
            with pytest.raises(InputError, match="no run has logged the metric `los`; did you mean `loss`"):
                write(reader, None, file, shape=shape, metrics=["los"])  # type: ignore[arg-type]
    assert file.getvalue() == ""


def test_long_has_one_row_per_point(writer: Writer, reader: Reader) -> None:
    [run] = start(writer, [new_run(0, name="adam lr=0.1")])
    writer.write([points(run, "val/loss", [0.5, NAN, INF, -INF]), points(run, "epoch", {3: 1.0})])
    file = io.StringIO(newline="")
    write_csv(reader, None, file)
    assert file.getvalue() == (
        "run,name,experiment,metric,step,time,value\n"
        f"{run.key},adam lr=0.1,grid,val/loss,0,0.0,0.5\n"
        f"{run.key},adam lr=0.1,grid,val/loss,1,0.01,NaN\n"
        f"{run.key},adam lr=0.1,grid,val/loss,2,0.02,inf\n"
        f"{run.key},adam lr=0.1,grid,val/loss,3,0.03,-inf\n"
        f"{run.key},adam lr=0.1,grid,epoch,3,0.03,1.0\n"
    )
    assert [row["metric"] for row in csv_rows(reader, metrics=["epoch"])] == ["epoch"]
    assert csv_rows(reader, "lr=7") == []


def test_wide_has_one_row_per_step_and_an_empty_cell_for_no_value(writer: Writer, reader: Reader) -> None:
    a, b = start(writer, [new_run(0, name="a"), new_run(1, name="b")])
    writer.write([points(a, "loss", [1.0, NAN]), points(a, "step", {1: 7.0}), points(b, "loss", {4: 2.0})])
    file = io.StringIO(newline="")
    write_csv(reader, None, file, shape="wide")
    assert file.getvalue() == (
        "run,name,experiment,step,time,loss,metric.step\n"
        f"{a.key},a,grid,0,0.0,1.0,\n"
        f"{a.key},a,grid,1,0.01,NaN,7.0\n"
        f"{b.key},b,grid,4,0.04,2.0,\n"
    )
    assert json_lines(reader, "name=a", shape="wide")[1] == {
        "run": a.key,
        "name": "a",
        "experiment": "grid",
        "step": 1,
        "time": 0.01,
        "values": {"loss": "nan", "step": 7.0},
    }


def test_summary_has_one_row_per_run(writer: Writer, reader: Reader) -> None:
    a, b = start(writer, [new_run(0, name="a", hidden=[8, 4], bn=True), new_run(1, status="x", lr=1e-05, tag=None)])
    writer.write([Started(a.key, 1, "vm", 1, "cpu"), points(a, "loss", [3.0, 1.0, NAN]), points(b, "loss", {2: INF})])
    writer.write([Finished(a.key, 1, "finished", "all epochs")])
    first, second = csv_rows(reader, shape="summary")
    assert list(first) == [
        *("run", "name", "experiment", "status", "started", "seconds"),
        *("lr", "seed", "hidden", "bn", "config.status", "tag"),
        *("loss:last", "loss:last_step", "loss:min", "loss:min_step", "loss:max", "loss:max_step", "loss:n"),
        *("code_version", "older_code", "commit", "device", "host", "versions", "hardware", "tags", "note"),
    ]
    assert first["started"].endswith("+00:00")
    assert float(first["seconds"]) >= 0
    assert [first[key] for key in ("run", "status", "hidden", "bn", "config.status")] == [
        a.key,
        "diverged",
        "[8, 4]",
        "true",
        "",
    ]
    assert [first[f"loss:{field}"] for field in ("last", "last_step", "min", "min_step", "max", "n")] == [
        "NaN",
        "2",
        "1.0",
        "1",
        "3.0",
        "3",
    ]
    assert [second[key] for key in ("status", "config.status", "lr", "started", "loss:last", "loss:min", "loss:n")] == [
        "running",
        "x",
        "1e-05",
        "",
        "inf",
        "",
        "1",
    ]
    writer.define_metric("epoch", "max")
    assert list(csv_rows(reader, shape="summary", metrics=["epoch"])[0])[-10] == "tag"  # no run has logged it


def test_summary_ends_with_the_code_the_tags_and_the_note(writer: Writer, reader: Reader) -> None:
    [queued] = queue(writer, [new_run(0, note="a setting")], code_version="a" * 64)
    [run] = writer.claim([queued.key], source=Provenance("c0ffee", git_dirty=True, git_diff="", versions={}))
    writer.tag([run.key], add=["best", "v2"])
    writer.note(run.key, "=late")
    [row] = csv_rows(reader, shape="summary")
    assert [row[name] for name in ("device", "host", "versions", "hardware")] == ["", HOST, "", ""]
    names = ("code_version", "older_code", "commit", "tags", "run.note")
    assert [(name, row[name]) for name in names] == [
        ("code_version", "a" * 64),
        ("older_code", "false"),
        ("commit", "c0ffee-dirty"),
        ("tags", '["best", "v2"]'),
        ("run.note", "'=late"),
    ]
    assert row["note"] == "a setting"


def test_points_and_steps_can_have_the_settings_that_differ(writer: Writer, reader: Reader, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    runs = start(writer, [new_run(0, hidden=[8], step="x"), new_run(1, lr=0.5, step="y"), new_run(2, lr=3, hidden=[9])])
    for run in runs:
        writer.write([points(run, "loss", [1.0, 2.0])])
    for shape in ("long", "wide"):
        rows = csv_rows(reader, shape=shape, with_config=True)
        assert [row["lr"] for row in rows] == ["0.1", "0.1", "0.5", "0.5", "3", "3"]
        assert [row["hidden"] for row in rows[1:4]] == ["[8]", "", ""]
        assert [(row["step"], row["config.step"]) for row in rows[1:3]] == [("1", "x"), ("0", "y")]
        documents = json_lines(reader, shape=shape, with_config=True)
        assert documents[5]["config"] == {"lr": 3, "seed": 2, "hidden": [9], "step": None}
        path = tmp_path / "curves.parquet"
        assert write_parquet(reader, None, path, shape=shape, with_config=True) == 6  # type: ignore[arg-type]
        table = parquet.read_table(path).to_pylist()
        assert [row["lr"] for row in table] == [0.1, 0.1, 0.5, 0.5, 3.0, 3.0]
        assert [(row["step"], row["config.step"]) for row in table[1:3]] == [(1, "x"), (0, "y")]


def test_the_json_of_a_run_has_the_documented_keys(writer: Writer, reader: Reader) -> None:
    [run] = start(writer, [NewRun("adam", {"lr": 0.1, "clip": INF, "hidden": [8]}, "1")])
    writer.write([Started(run.key, 1, "vm", 1, "cpu"), points(run, "loss", [NAN, 1.0, -INF])])
    writer.tag([run.key], ["good"])
    [document] = json_lines(reader, shape="summary")
    assert list(document)[:8] == ["key", "name", "experiment", "status", "config", "tags", "started", "finished"]
    assert document["config"] == {"lr": 0.1, "clip": "inf", "hidden": [8]}
    assert document["tags"] == ["good"]
    assert document["started"].endswith("+00:00")
    assert document["finished"] is None
    assert document["summary"] == {
        "loss": {
            "n": 3,
            "n_nonfinite": 2,
            "first_nonfinite_step": 0,
            "last": "-inf",
            "last_step": 2,
            "min": 1.0,
            "min_step": 1,
            "max": 1.0,
            "max_step": 1,
        }
    }
    assert document == run_document(reader.runs()[0])


VALUES = st.lists(st.floats() | st.sampled_from([NAN, INF, -INF, 5e-324, 0.1 + 0.2]), min_size=1, max_size=20)
TEXTS = st.text(st.characters(codec="utf-8"), max_size=12) | st.sampled_from(
    ["\r", "=1+1", "'=x", "''", "@a", 'a,"b"\n', "-1"]
)
ONE_DATABASE = settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


@ONE_DATABASE
@given(values=VALUES, name=TEXTS)
def test_every_number_and_text_can_be_read_back_exactly(
    writer: Writer, reader: Reader, values: list[float], name: str
) -> None:
    writer.remove(reader.keys())
    [run] = start(writer, [new_run(0, name=name, text=name, value=values[0])])
    writer.write([points(run, "loss", values)])
    expected = [repr(value + 0.0) for value in values]  # SQLite stores no negative zero
    for shape, column in (("long", "value"), ("wide", "loss")):
        rows = csv_rows(reader, shape=shape)
        assert [repr(float(row[column]) + 0.0) for row in rows] == expected
        assert {unescape_formula(row["name"]) for row in rows} == {name or "run 0"}
    lines = json_lines(reader)
    assert [repr(float(line["value"]) + 0.0) for line in lines] == expected
    assert [line["step"] for line in lines] == list(range(len(values)))
    [summary] = csv_rows(reader, shape="summary")
    assert unescape_formula(summary["text"]) == name
    assert summary["value"] == str(values[0])


@given(text=TEXTS)
def test_an_escaped_text_is_not_a_formula_and_can_be_restored(text: str) -> None:
    escaped = escape_formula(text)
    assert not escaped.lstrip(" \u200b").startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n"))
    assert unescape_formula(escape_formula(text)) == text


def test_no_cell_or_heading_is_a_formula(writer: Writer, reader: Reader) -> None:
    evil = '=HYPERLINK("http://example.org")'
    [run] = start(writer, [NewRun(evil, {evil: evil, "delta": -0.5}, "1")], experiment="+1")
    writer.write([points(run, "@loss", [-1.0])])
    for shape in ("long", "wide", "summary"):
        file = io.StringIO(newline="")
        write_csv(reader, None, file, shape=shape)  # type: ignore[arg-type]
        file.seek(0)
        for row in csv.reader(file):
            assert not [cell for cell in row if cell.startswith(("=", "+", "@"))]
            assert [cell for cell in row if cell.startswith("-")] in ([], ["-1.0"], ["-0.5"] + ["-1.0"] * 3)


def test_a_spreadsheet_that_splits_rows_at_semicolons_or_tabs_keeps_each_text_in_one_cell(
    writer: Writer, reader: Reader
) -> None:
    name = "x;=1+1\t=2+2"
    [run] = start(writer, [NewRun(name, {}, "1")])
    writer.write([points(run, "loss", [1.0])])
    file = io.StringIO(newline="")
    write_csv(reader, None, file)
    for delimiter in ";\t":
        file.seek(0)
        rows = csv.reader((line.replace(",", delimiter) for line in file), delimiter=delimiter)
        assert [row[1] for row in rows] == ["name", name]


@pytest.mark.parametrize("write", [write_csv, write_jsonl])
@pytest.mark.parametrize("shape", ["long", "wide"])
def test_memory_does_not_grow_with_the_number_of_rows(writer: Writer, reader: Reader, write: Any, shape: str) -> None:
    class NullFile(io.TextIOBase):
        def write(self, text: str) -> int:
            return len(text)

    def peak(run_filter: str) -> int:
        tracemalloc.start()
        write(reader, run_filter, NullFile(), shape=shape)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return most

    runs = start(writer, 22)
    for run in runs:
        writer.write([points(run, metric, [1 / (step + 1) for step in range(1000)]) for metric in ("a", "b")])
    peak("seed<2")  # loads what is loaded only once
    few, many = peak("seed<2"), peak("seed>=2")  # 4,000 and 40,000 points
    assert many < 2 * few


@pytest.mark.parametrize("package", ["pandas", "polars"])
def test_csv_columns_of_numbers_are_read_as_numbers(
    writer: Writer, reader: Reader, tmp_path: Path, package: str
) -> None:
    library = pytest.importorskip(package)
    [run, other] = start(writer, [new_run(0, tag="=1"), new_run(1, tag="None")])
    writer.write([points(run, "loss", [1.0, NAN, INF, -INF, 1e-300]), points(other, "loss", [NAN])])
    for shape in ("long", "wide", "summary"):
        with (tmp_path / "out.csv").open("w", newline="", encoding="utf-8") as file:
            write_csv(reader, None, file, shape=shape)  # type: ignore[arg-type]
        table = library.read_csv(tmp_path / "out.csv")
        numbers = {"time", "value", "loss", "lr", "seed", *(name for name in table.columns if ":" in name)}
        for name in numbers & set(table.columns):
            assert "float" in str(table[name].dtype).lower() or "int" in str(table[name].dtype).lower(), name


def test_parquet_has_the_columns_of_the_csv(writer: Writer, reader: Reader, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    a, b = start(writer, [new_run(0, name="a", x=1), new_run(1, name="b", x="text")])
    writer.write([points(a, "loss", [1.0, NAN]), points(a, "acc", {1: 0.5}), points(b, "loss", {4: INF})])
    for shape in ("long", "wide", "summary"):
        write_parquet(reader, None, tmp_path / f"{shape}.parquet", shape=shape)  # type: ignore[arg-type]
    long = parquet.read_table(tmp_path / "long.parquet").to_pylist()
    assert [(row["name"], row["metric"], row["step"], repr(row["value"])) for row in long] == [
        ("a", "loss", 0, "1.0"),
        ("a", "loss", 1, "nan"),
        ("a", "acc", 1, "0.5"),
        ("b", "loss", 4, "inf"),
    ]
    wide = parquet.read_table(tmp_path / "wide.parquet")
    assert wide.column_names == ["run", "name", "experiment", "step", "time", "loss", "acc"]
    assert [row["acc"] for row in wide.to_pylist()] == [None, 0.5, None]
    summary = parquet.read_table(tmp_path / "summary.parquet").to_pylist()
    assert [(row["lr"], row["x"], row["loss:n"]) for row in summary] == [(0.1, "1", 2), (0.1, '"text"', 1)]
    write_parquet(reader, "lr=7", tmp_path / "none.parquet")
    assert parquet.read_table(tmp_path / "none.parquet").num_rows == 0


def test_parquet_without_pyarrow_names_the_extra_to_install(
    writer: Writer, reader: Reader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(InputError, match=r"pip install -e \"\.\[parquet\]\""):
        write_parquet(reader, None, tmp_path / "runs.parquet")
    assert not (tmp_path / "runs.parquet").exists()


def test_exporting_loads_no_third_party_package(writer: Writer, reader: Reader) -> None:
    queue(writer)
    program = f"""
import sys
from labbench.export.table_files import write_csv
from labbench.store.reader import Reader
write_csv(Reader({str(reader.path)!r}), None, sys.stdout)
print([name for name in ("numpy", "pyarrow", "sqlite_utils", "click") if name in sys.modules])
"""
    output = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout
    assert output.splitlines()[-1] == "[]"
