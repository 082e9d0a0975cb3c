"""Tables that W&B's web page and labbench export: a chart, a table of runs, summaries."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import new_run, points, start
from labbench.configs import flatten
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer

Labbench = Callable[..., Result]

RUNS = """
"Name","Agent","State","Notes","User","Tags","Created","Runtime","Sweep","batch_size","lr","wavelet","artifact","best_epoch","val/loss"
"royal-1","","crashed","-","me","a, b","2025-11-13T09:48:11.000Z","9910","1wf","8","0.0001","none","x_best","","0.5"
"warm-2","","running","a note","me","","2025-11-13T09:34:15.000Z","5902","1wf","16","0.01","haar","y","3","NaN"
"""


def chart(axis: str, *curves: str) -> str:
    """Return the headings of a chart: the axis, and each curve with its bounds."""
    headings = [axis, *(f"{curve}{bound}" for curve in curves for bound in ("", "__MIN", "__MAX"))]
    return ",".join(f'"{heading}"' for heading in headings)


CHART = f"""
{chart("Step", "royal-1 - val/loss", "warm-2 - val/loss")}
"0","2.5","2.5","2.5","3","3","3"
"10","0.5","0.5","0.5","","",""
"""
TIMES = f"""
{chart("Relative Time (Process)", "royal-1 - acc", "royal-1 - _step")}
"0.5","0.1","0.1","0.1","0","0","0"
"1.5","0.2","0.2","0.2","7","7","7"
"""


def read_runs(folder: Path) -> dict[str, RunRecord]:
    with Reader(folder / "runs.db") as reader:
        return {run.name: run for run in reader.runs()}


def read_values(folder: Path, name: str, metric: str) -> dict[int, float]:
    with Reader(folder / "runs.db") as reader:
        steps, values = reader.series(reader.find(name).key, metric)
        return dict(zip(steps.tolist(), values.tolist(), strict=True))


def test_table_of_runs_of_wandb_has_configuration_and_last_values(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "wandb_export_2025-11-13T10_00_00.000+01_00.csv").write_text(RUNS)
    [file] = tmp_path.glob("*.csv")
    assert labbench("import", file.name).stdout.startswith("imported 2 new runs, 3 points")
    runs = read_runs(tmp_path)
    royal, warm = runs["royal-1"], runs["warm-2"]
    assert royal.config == {"batch_size": 8, "lr": 0.0001, "wavelet": "none"}
    assert (royal.status, royal.experiment, royal.tags, royal.note) == ("failed", "wandb", ("a", "b"), None)
    assert (royal.seconds, royal.started) == (9910, 1763027291.0)
    assert (warm.status, warm.reason, warm.note) == ("stopped", "running when it was exported", "a note")
    assert (royal.summary["val/loss"].last, warm.summary["best_epoch"].last) == (0.5, 3)
    assert math.isnan(warm.summary["val/loss"].last)


def test_group_and_job_type_are_keys_as_in_the_folders_of_wandb(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        '"Name","State","Created","Runtime","Group","Job Type","lr","val/loss"\n'
        '"a","finished","2025-11-13","1","wide","train","0.1","0.5"\n'
        '"b","finished","2025-11-13","1","","-","0.2","0.4"\n'
    )
    assert labbench("import", "csv", "runs.csv").exit_code == 0
    runs = read_runs(tmp_path)
    assert runs["a"].config == {"group": "wide", "job_type": "train", "lr": 0.1}
    assert runs["b"].config == {"lr": 0.2}
    assert labbench("ls", "group=wide").stdout.splitlines()[2].split()[2] == "a"


def test_a_later_table_of_runs_brings_new_last_values(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS)
    assert labbench("import", "runs.csv").exit_code == 0
    (tmp_path / "runs.csv").write_text(RUNS.replace('"0.5"', '"0.25"').replace('"NaN"', '"0.75"'))
    for n_points in (2, 0):
        result = labbench("import", "runs.csv")
        assert (result.exit_code, f"imported 0 new runs, {n_points} points" in result.stdout) == (0, True)
        assert read_values(tmp_path, "royal-1", "val/loss") == {0: 0.25}
        assert read_values(tmp_path, "warm-2", "val/loss") == {0: 0.75}


def test_notes_of_several_lines_and_no_last_line_end(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(RUNS.replace("a note", "two\nlines").rstrip("\n"))
    assert labbench("import", "runs.csv").stdout.startswith("imported 2 new runs, 3 points")
    assert read_runs(tmp_path)["warm-2"].note == "two\nlines"


def test_charts_and_table_of_runs_of_wandb_meet_in_one_run_in_any_order(labbench: Labbench, tmp_path: Path) -> None:
    files = {"runs.csv": RUNS, "chart.csv": CHART, "times.csv": TIMES}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    for order in (list(files), list(files)[::-1]):
        for name in order * 2:
            result = labbench("import", "csv", name, "--experiment", "p")
            assert result.exit_code == 0, result.output
        runs = read_runs(tmp_path)
        assert runs.keys() == {"royal-1", "warm-2"}
        assert (runs["royal-1"].config["lr"], runs["royal-1"].status) == (0.0001, "failed")
        assert read_values(tmp_path, "royal-1", "val/loss") == {0: 2.5, 10: 0.5}
        assert read_values(tmp_path, "royal-1", "acc") == {0: 0.1, 7: 0.2}
        assert read_values(tmp_path, "royal-1", "Relative Time (Process)") == {0: 0.5, 7: 1.5}
        (tmp_path / "runs.db").unlink()


def test_other_values_in_a_chart_are_reported_and_taken_with_replace(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "chart.csv").write_text(CHART)
    (tmp_path / "times.csv").write_text(TIMES)
    assert labbench("import", "csv", "chart.csv", "times.csv", "--experiment", "p").exit_code == 0
    (tmp_path / "chart.csv").write_text(CHART.replace('"0.5"', '"0.75"'))
    result = labbench("import", "csv", "chart.csv", "--experiment", "p")
    assert "royal-1: the source has changed: val/loss at step 10 was 0.5 and is 0.75" in result.stderr
    assert labbench("import", "csv", "chart.csv", "--experiment", "p", "--replace").exit_code == 0
    assert read_values(tmp_path, "royal-1", "val/loss") == {0: 2.5, 10: 0.75}
    assert read_values(tmp_path, "royal-1", "acc") == {0: 0.1, 7: 0.2}


def test_without_a_visible_border_common_names_are_metrics(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "runs.csv").write_text(
        '"Name","State","Created","Runtime","lr","val_loss"\n"a","finished","2025-11-13","1","0.1","0.5"\n'
    )
    assert labbench("import", "csv", "runs.csv").exit_code == 0
    run = read_runs(tmp_path)["a"]
    assert (run.config, run.summary["val_loss"].last) == ({"lr": 0.1}, 0.5)
    (tmp_path / "odd.csv").write_text('"Name","State","Created","Runtime","a","b"\n"x","finished","","1","0.1","0.5"\n')
    result = labbench("import", "csv", "odd.csv")
    assert (result.exit_code, "with --config" in result.stderr) == (2, True)
    assert labbench("import", "csv", "odd.csv", "--config", "a").exit_code == 0
    assert read_runs(tmp_path)["x"].config == {"a": 0.1}


def test_summaries_of_labbench_round_trip_and_are_part_of_their_runs(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "from.db") as writer:
        config = {"lr": 0.1, "run": "=1", "layers": [8, 4], "bn": True, "augment": "none", "nested": {"a": 1}}
        runs = start(writer, [new_run(0, name="=sum", **config), new_run(1)], experiment="an experiment")
        writer.write([points(runs[0], "a:last", {1: 0.5, 4: math.inf, 6: 0.25}), points(runs[1], "loss", [2.0, 1.0])])
    for shape in ("summary", "wide"):
        assert labbench("--db", "from.db", "export", f"--{shape}", "-o", f"{shape}.csv").exit_code == 0
    assert labbench("import", "csv", "summary.csv").stdout.startswith("imported 2 new runs, 4 points")
    with Reader(tmp_path / "from.db") as reader:
        originals = {run.key: run for run in reader.runs()}
    with Reader(tmp_path / "runs.db") as reader:
        imported = {run.key: run for run in reader.runs()}
    assert imported.keys() == originals.keys()
    for key, run in imported.items():
        assert (run.name, run.config) == (originals[key].name, dict(flatten(originals[key].config)))
        for metric, summary in run.summary.items():
            for field in ("last", "last_step", "min", "max", "max_step"):
                assert getattr(summary, field) == getattr(originals[key].summary[metric], field)
    for shape in ("wide", "summary"):
        assert labbench("import", "csv", f"{shape}.csv").exit_code == 0
    assert read_values(tmp_path, "=sum", "a:last") == {1: 0.5, 4: math.inf, 6: 0.25}
    assert read_runs(tmp_path)["=sum"].config == imported[runs[0].key].config


@pytest.mark.parametrize("file_format", ["csv", "jsonl"])
@pytest.mark.parametrize("shape", ["long", "wide", "summary"])
def test_every_shape_comes_back_as_the_same_runs_with_their_settings(
    labbench: Labbench, tmp_path: Path, shape: str, file_format: str
) -> None:
    values = {"val/loss": {1: 0.5, 4: math.inf, 6: 0.25}, "lr": {1: 0.1, 4: 0.01, 6: 0.001}, "step": {1: 7.0}}
    with Writer(tmp_path / "from.db") as writer:
        settings = {"lr": 0.1, "model": "=mlp", "layers": [8, 4], "bn": True, "step": 3, "config": "a.yaml"}
        others = {"lr": 0.2, "model": "cnn", "layers": [8], "bn": False, "step": 4, "config": "b.yaml"}
        runs = start(writer, [new_run(0, name="=sum", **settings), new_run(1, **others)], experiment="an experiment")
        writer.write([points(run, metric, each) for run in runs for metric, each in values.items()])
    command = ["--db", "from.db", "export", f"--{shape}", "--config", "-o", f"a.{file_format}"]
    assert labbench(*command).exit_code == 0
    result = labbench("import", f"a.{file_format}")
    assert result.exit_code == 0, result.output
    assert labbench("import", f"a.{file_format}").stdout.startswith("imported 0 new runs, 0 points")
    with Reader(tmp_path / "from.db") as reader:
        originals = {run.key: run for run in reader.runs()}
    with Reader(tmp_path / "runs.db") as reader:
        imported = {run.key: run for run in reader.runs()}
        differing = set(reader.differing(None))
    assert imported.keys() == originals.keys()
    assert {"lr", "model", "layers", "bn", "step", "config"} <= differing
    for key, run in imported.items():
        original = originals[key]
        assert (run.name, run.experiment) == (original.name, original.experiment)
        assert run.config == {name: value for name, value in original.config.items() if name in run.config}
        assert run.config.keys() >= original.config.keys() & differing
        assert run.summary.keys() == original.summary.keys()
        assert {name: summary.last for name, summary in run.summary.items()} == {
            name: summary.last for name, summary in original.summary.items()
        }
        if shape != "summary":
            assert read_values(tmp_path, run.name, "val/loss") == values["val/loss"]


def test_wide_tables_of_earlier_versions_take_their_settings_from_the_command(
    labbench: Labbench, tmp_path: Path
) -> None:
    (tmp_path / "old.csv").write_text("run,name,experiment,step,time,val/loss,lr\nabcd2345,a,e,1,0.5,0.25,0.1\n")
    assert labbench("import", "csv", "old.csv", "--config", "lr").exit_code == 0
    run = read_runs(tmp_path)["a"]
    assert (run.config, set(run.summary)) == ({"lr": 0.1}, {"val/loss"})


@pytest.mark.parametrize("line", ['{"run": "b"}', '{"run": "a", "name": "a", "experiment": "e", "metric": "m"}'])
def test_exported_lines_that_were_damaged_are_refused_as_a_whole(labbench: Labbench, tmp_path: Path, line: str) -> None:
    point = '{"run": "a", "name": "a", "experiment": "e", "metric": "m", "step": 1, "time": 0.5, "value": 2.0}'
    (tmp_path / "a.jsonl").write_text(f"{point}\n{line}\n")
    result = labbench("import", "a.jsonl")
    assert result.exit_code in (1, 2)
    assert "a.jsonl: object 2 is not as `export` writes it" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_parquet_export_is_refused_with_what_to_do(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "runs.parquet").write_bytes(b"PAR1" + bytes(20) + b"PAR1")
    result = labbench("import", "runs.parquet")
    assert result.exit_code == 2
    assert "the command `export -o runs.jsonl`" in result.stderr
    assert "`pack`" in result.stderr


def test_rows_without_a_step_are_counted_and_numbers_may_be_configuration(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("step,epoch,lr,loss\n,0,0.1,1\n3,0,0.1,2\n4,1,0.1,3\n")
    result = labbench("import", "csv", "log.csv", "--config", "lr")
    assert result.stdout.splitlines()[1] == "not imported: 1 rows without a step"
    assert read_values(tmp_path, "log", "loss") == {3: 2.0, 4: 3.0}
    assert read_runs(tmp_path)["log"].config == {"lr": 0.1}
    result = labbench("import", "csv", "log.csv", "--config", "lrr")
    assert (result.exit_code, "no column `lrr`; did you mean `lr`?" in result.stderr) == (2, True)


def test_names_in_a_chart_may_contain_the_separator(labbench: Labbench, tmp_path: Path) -> None:
    rows = ["0,2.25,2.25,2.25", "1,,  ,", "2,NaN,NaN,NaN"]
    (tmp_path / "chart.csv").write_text("\n".join([chart("Step", "warm - up - val/loss"), *rows]))
    assert labbench("import", "csv", "chart.csv").stdout.startswith("imported 1 new run, 2 points")
    values = read_values(tmp_path, "warm - up", "val/loss")
    assert (values[0], math.isnan(values[2]), len(values)) == (2.25, True, 2)


def test_a_chart_in_the_form_of_wandb_round_trips(labbench: Labbench, tmp_path: Path) -> None:
    series = {"val/loss": {0: 0.1, 7: math.inf}, "a/b": {3: 1e-300}}
    with Writer(tmp_path / "from.db") as writer:
        runs = start(writer, [new_run(0, name="=a, b"), new_run(1, name="same"), new_run(2, name="same")])
        writer.write([points(run, metric, values) for run in runs for metric, values in series.items()])
    assert labbench("--db", "from.db", "export", "--format", "wandb", "-o", "chart.csv").exit_code == 0
    heading = (tmp_path / "chart.csv").read_text().splitlines()[0]
    assert heading.startswith('"Step","\'=a, b - val/loss","\'=a, b - val/loss__MIN"')
    assert labbench("import", "csv", "chart.csv").stdout.startswith("imported 3 new runs, 9 points")
    assert read_values(tmp_path, "=a, b", "val/loss") == series["val/loss"]
    assert read_values(tmp_path, f"same ({runs[1].key})", "val/loss") == series["val/loss"]
    result = labbench("--db", "from.db", "export", "--format", "wandb", "--metric", "val/loss")
    assert result.stdout.splitlines()[1] == '"0"' + ',"0.1"' * 9


def test_steps_out_of_range_in_a_chart_are_counted(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "chart.csv").write_text(CHART.strip() + '\n"1e300","0.2","0.2","0.2","","",""\n')
    assert "points whose step is out of range" in labbench("import", "chart.csv").output
    assert set(read_values(tmp_path, "royal-1", "val/loss")) == {0, 10}
