"""CSV export and import: every number and text survives the round trip."""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helpers.store_samples import new_run, points, start
from labbench.errors import InputError
from labbench.export.table_files import write_csv
from labbench.importing.csv_file import find_runs
from labbench.importing.import_runs import import_runs
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader
from labbench.store.writer import Writer

TEXTS = st.text(min_size=1, max_size=12).filter(lambda text: "\0" not in text)
SERIES = st.dictionaries(st.integers(-(2**40), 2**40), st.floats(), min_size=1, max_size=12)


def export_csv(database: Path, file: Path) -> str:
    with Reader(database) as reader, file.open("w", newline="", encoding="utf-8") as text:
        write_csv(reader, None, text)
    return file.read_bytes().decode()


def import_csv(database: Path, file: Path) -> tuple[int, int]:
    """Return the number of new runs and the number of runs that were in the database already."""
    report = import_runs(database, find_runs(file), "csv")
    assert not report.problems
    return report.n_new, report.n_grown + report.n_unchanged


def read_tables(path: Path) -> list[list[tuple[object, ...]]]:
    with closing(sqlite3.connect(path)) as connection:
        tables = ("runs", "points", "summary", "rollup", "metrics", "experiments")
        return [sorted(connection.execute(f"SELECT * FROM {table}").fetchall(), key=repr) for table in tables]


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(runs=st.lists(st.tuples(TEXTS, st.dictionaries(TEXTS, SERIES, min_size=1, max_size=3)), min_size=1, max_size=4))
def test_csv_round_trip_is_exact_and_importing_twice_changes_nothing(
    tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[str, dict[str, dict[int, float]]]]
) -> None:
    folder = tmp_path_factory.mktemp("csv")
    with Writer(folder / "from.db") as writer:
        records = start(
            writer, [new_run(number, name=name) for number, (name, _) in enumerate(runs)], experiment="=a,b"
        )
        for run, (_, metrics) in zip(records, runs, strict=True):
            writer.write([points(run, metric, series) for metric, series in metrics.items()])
    out = export_csv(folder / "from.db", folder / "out.csv")
    assert import_csv(folder / "to.db", folder / "out.csv") == (len(runs), 0)
    assert export_csv(folder / "to.db", folder / "again.csv").splitlines() == out.splitlines()
    before = read_tables(folder / "to.db")
    assert import_csv(folder / "to.db", folder / "out.csv") == (0, len(runs))
    assert read_tables(folder / "to.db") == before
    assert diagnose(folder / "to.db").is_sound


def test_importing_a_database_s_own_export_changes_nothing(tmp_path: Path) -> None:
    database = tmp_path / "runs.db"
    with Writer(database) as writer:
        [run] = start(writer)
        writer.write([points(run, "loss", [1.0])])
    export_csv(database, tmp_path / "out.csv")
    before = read_tables(database)
    assert import_csv(database, tmp_path / "out.csv") == (0, 1)
    assert read_tables(database) == before


def test_four_columns_suffice_and_a_grown_file_adds_its_new_points(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    file = tmp_path / "mine.csv"
    file.write_text("step,value,metric,run\n0,1.5,loss,first try\n1,nan,loss,first try\n")
    assert labbench("import", "csv", file).stdout == "imported 1 new run, 2 points; 0 grown, 0 already present\n"
    with file.open("a") as text:
        text.write("2,-inf,loss,first try\n0,3,loss,second\n")
    assert labbench("import", "csv", file, "--dry-run").stdout.startswith("would import 1 new run, 1 point; 1 already")
    assert labbench("import", "csv", file).stdout == "imported 1 new run, 2 points; 1 grown, 0 already present\n"
    with Reader(tmp_path / "runs.db") as reader:
        run = reader.find("first try")
        assert (run.experiment, run.status) == ("mine", "diverged")
        assert list(map(repr, reader.series(run.key, "loss")[1].tolist())) == ["1.5", "nan", "-inf"]
        assert math.isfinite(reader.find("second").summary["loss"].last)


@pytest.mark.parametrize("rows", ["a,loss,0,1\na,loss,1,3\n", "a,loss,0,1\n"], ids=["different", "shorter"])
def test_a_long_csv_that_changed_is_reported_and_taken_with_replace(
    labbench: Callable[..., Result], tmp_path: Path, rows: str
) -> None:
    file, headings = tmp_path / "mine.csv", "run,metric,step,value\n"
    file.write_text(f"{headings}a,loss,0,1\na,loss,1,2\na,score,0,5\n")
    assert labbench("import", file).exit_code == 0
    file.write_text(headings + rows)
    result = labbench("import", file)
    assert (result.exit_code, "a: the source has changed: " in result.stderr) == (1, True)
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.series(reader.find("a").key, "loss")[1].tolist() == [1.0, 2.0]
    assert labbench("import", file, "--replace").exit_code == 0
    with Reader(tmp_path / "runs.db") as reader:
        run = reader.find("a")
        assert reader.series(run.key, "loss")[1].tolist() == [float(row[-1]) for row in rows.splitlines()]
        assert run.summary["score"].last == 5.0  # a metric of another file


def test_later_row_for_the_same_step_wins_in_every_import(tmp_path: Path) -> None:
    file, database = tmp_path / "mine.csv", tmp_path / "runs.db"
    file.write_text("run,metric,step,value\na,loss,0,1\na,loss,1,2\na,loss,0,3\n")
    for _ in range(2):
        import_csv(database, file)
        with Reader(database) as reader:
            assert reader.series(reader.find("a").key, "loss")[1].tolist() == [3.0, 2.0]


@pytest.mark.parametrize(
    "content",
    [
        '\ufeff"value","run","step","metric","comment"\r\n"1.5","a","0","loss","x, y"\r\n"","a","1","loss",""\r\n',
        "run, metric, step, value\na, loss, 0, 1.5\na, loss, 1, NA\n",
        "\n\nRun,Metric,Step,Value\n\na,loss,0,1.5\n,,,\na,loss,1,nan\n\n",
        "run\tmetric\tstep\tvalue\na\tloss\t0\t1.5\na\tloss\t1\t\n",
        "run;metric;step;value;time\na;loss;0,0;1,5;0,5\na;loss;1;;\n",
        "run|metric|step|value\na|loss|0|1.5\na|loss|1|NaN\n",
        "run | metric | step | value\n a | loss | 0 | 1.5 \n a | loss | 1 | \n",
        "sep=;\nrun;metric;step;value\na;loss;0;1.5\na;loss;1;\n",
        ",run,name,experiment,metric,step,time,value\n0,a,a,e,loss,0.0,0.1,1.5\n1,a,a,e,loss,1.0,0.2,\n",
    ],
    ids=[
        "excel",
        "spaces",
        "blank lines",
        "tabs",
        "decimal commas",
        "bars",
        "spaced bars",
        "sep=",
        "pandas with an index",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_csv_in_the_forms_of_other_programs_is_read(tmp_path: Path, content: str, encoding: str) -> None:
    (tmp_path / "mine.csv").write_bytes(content.removeprefix("\ufeff" if encoding == "utf-16" else "").encode(encoding))
    assert import_csv(tmp_path / "runs.db", tmp_path / "mine.csv") == (1, 0)
    with Reader(tmp_path / "runs.db") as reader:
        steps, values = reader.series(reader.find("a").key, "loss")
        assert (steps.tolist(), list(map(repr, values.tolist()))) == ([0, 1], ["1.5", "nan"])


def test_line_of_an_error_counts_empty_lines(tmp_path: Path) -> None:
    (tmp_path / "bad.csv").write_text("\nrun,metric,step,value\n\na,loss,1.5,1\n")
    with pytest.raises(InputError, match=r"bad\.csv:4: time and value must be numbers, step an integer"):
        import_csv(tmp_path / "runs.db", tmp_path / "bad.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv:1: no column `run`"),
        ("run,metric,step,value\n", "bad.csv: no rows below the headings"),
        ("run,metric,step\na,b,1\n", "bad.csv:1: no column `value`"),
        (
            "run,metric,step,value\na,loss,0,1\na,loss,1.5,1\n",
            "bad.csv:3: time and value must be numbers, step an integer",
        ),
        ("run,metric,step,value\na,loss,0,high\n", "bad.csv:2: time and value must be numbers, step an integer"),
        ("run,metric,step,value\na,loss,99999999999999999999,1\n", "bad.csv:2: step"),
        ("run,metric,step,value,time\na,loss,0,1,inf\n", "bad.csv:2: step"),
        ("run,metric,step,value\na,loss,0\n", "bad.csv:2: 3 cells under 4 headings"),
        ("run,metric,step,value\na,loss,0,1,2\n", "bad.csv:2: 5 cells under 4 headings"),
        ("run,metric,step,value\n,loss,0,1\n", "bad.csv:2: the cells `run` and `metric` must not be empty"),
    ],
)
def test_invalid_csv_is_rejected_with_its_line_and_changes_nothing(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bad.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        import_csv(tmp_path / "new.db", tmp_path / "bad.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["bad.csv"]
    with Writer(tmp_path / "runs.db"):
        pass
    before = read_tables(tmp_path / "runs.db")
    with pytest.raises(InputError, match=message):
        import_csv(tmp_path / "runs.db", tmp_path / "bad.csv")
    assert read_tables(tmp_path / "runs.db") == before


def test_missing_or_binary_file_is_rejected_without_creating_a_database(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    (tmp_path / "bytes.csv").write_bytes(b"run,metric,step,value\n\xff\xfe\n")
    assert "not a CSV file in UTF-8" in labbench("import", "csv", "bytes.csv").stderr
    result = labbench("import", "csv", "missing.csv")
    assert (result.exit_code, "no such file" in result.stderr) == (2, True)
    assert not (tmp_path / "runs.db").exists()
    (tmp_path / "good.csv").write_text("run,metric,step,value\na,loss,0,1\n")
    assert labbench("--db", "other.db", "import", "csv", "good.csv").exit_code == 0
    assert (tmp_path / "other.db").exists()
