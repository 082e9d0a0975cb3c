"""Output, messages and exit status of the commands, run in this process."""

from __future__ import annotations

import json
import os
import shlex
import sqlite3
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import click
import pytest
from click.testing import CliRunner, Result

from helpers.store_samples import execute, points, start
from labbench.cli import main
from labbench.cli.options import ExpandedPath
from labbench.cli.run_report import print_report
from labbench.cli.showing.columns import SETTING_RANK
from labbench.cli.text_tables import TextColumn, fit_columns
from labbench.filters.parser import FUNCTIONS
from labbench.records import Finished, NewRun, Points, Runtime, Started, Submission
from labbench.runner.run_grid import Outcome
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.system.provenance import Provenance
from labbench.tracking.start import start as start_run
from labbench.tui.queries import Query, read_snapshot

Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return a database of three runs with curves; the last has diverged, and its name holds an escape sequence."""
    path = tmp_path / "runs.db"
    configs = [{"optimizer": "sgd", "lr": 0.1}, {"optimizer": "adam", "lr": 0.1}, {"optimizer": "adam", "lr": 1.0}]
    names = ["sgd lr=0.1", "adam lr=0.1", "x [/nope]\x1b]52;c;aGk=\x07"]
    runs = [NewRun(name, config, f"id{i}") for i, (name, config) in enumerate(zip(names, configs, strict=True))]
    curves = [[0.5, 0.25, 0.125], [0.4, 0.1, 0.2], [0.4, float("inf"), float("nan")]]
    with Writer(path) as writer:
        keys = [run.key for run in writer.queue(Submission("demo", "digits", {"val/loss": "min"}), runs)]
        writer.claim(keys)
        for key, values in zip(keys, curves, strict=True):
            status = "finished" if values[-1] < 1 else "diverged"
            writer.write(
                [
                    Started(key, 1, "here", 1, "cpu"),
                    Points(key, 1, "val/loss", [10, 20, 30], [100, 200, 300], values),
                    Finished(key, 1, status, "all epochs"),
                ]
            )
    return path


def test_the_database_is_given_before_or_after_the_command_or_in_the_environment(
    labbench: Labbench, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = db.with_name("elsewhere.db")
    db.rename(elsewhere)
    assert labbench("ls").exit_code == 2
    assert "sgd lr=0.1" in labbench("--db", elsewhere, "ls").stdout
    assert "sgd lr=0.1" in labbench("ls", "--db", elsewhere).stdout
    monkeypatch.setenv("LABBENCH_DB", str(elsewhere))
    assert "sgd lr=0.1" in labbench("ls").stdout
    assert labbench("--db", "nowhere.db", "ls").exit_code == 2


def test_tilde_is_expanded_in_every_path_of_the_command_line(
    labbench: Labbench, db: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(db.parent))
    assert "sgd lr=0.1" in labbench("--db=~/runs.db", "ls").stdout
    assert labbench("export", "-o", "~/points.csv").exit_code == 0
    assert labbench("--db=~/copy.db", "import", "csv", "~/points.csv").exit_code == 0
    assert labbench("backup", "~/second.db").exit_code == 0
    assert {file.name for file in db.parent.glob("*.*")} >= {"points.csv", "copy.db", "second.db"}
    commands = [main, *main.commands.values(), *main.commands["import"].commands.values()]
    types = [param.type for command in commands for param in command.params]
    assert all(isinstance(kind, ExpandedPath) for kind in types if isinstance(kind, click.Path))


def test_labbench_without_a_command_prints_the_table_of_runs_on_a_pipe(labbench: Labbench, db: Path) -> None:
    assert labbench().stdout == labbench("ls").stdout
    assert "adam lr=0.1" in labbench().stdout


def test_copy_without_its_write_ahead_log_is_explained(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        writer.queue(Submission("demo", "digits"), [NewRun("a run", {}, "id")])
        (tmp_path / "copy.db").write_bytes((tmp_path / "runs.db").read_bytes())
        assert (
            "copy its file copy.db-wal too, or copy with `labbench backup`" in labbench("--db", "copy.db", "ls").stderr
        )
        (tmp_path / "copy.db-wal").write_bytes((tmp_path / "runs.db-wal").read_bytes())
        assert "a run" in labbench("--db", "copy.db", "ls").stdout


def test_ls_shows_differing_keys_and_best_values(labbench: Labbench, db: Path) -> None:
    header, _, first, *_ = labbench("ls").stdout.splitlines()
    assert header.split() == ["status", "key", "name", "val/loss", "best", "at", "step", "optimizer", "lr"]
    assert first.split()[-5:] == ["0.1250", "0.1250", "30", "sgd", "0.1"]
    same = labbench("ls", "optimizer=adam").stdout.splitlines()[0]
    assert "optimizer" not in same
    assert labbench("ls", "--columns", "lr").stdout.splitlines()[0].split() == ["status", "key", "name", "lr"]
    ranked = labbench("ls", "status=finished", "--sort", "best(val/loss)").stdout.splitlines()
    assert "adam lr=0.1" in ranked[2]
    reversed_ = labbench("ls", "status=finished", "--sort", "-best(val/loss)").stdout.splitlines()
    assert "sgd lr=0.1" in reversed_[2]


def test_ls_json_is_one_document_with_non_finite_numbers_as_strings(labbench: Labbench, db: Path) -> None:
    document = json.loads(labbench("ls", "--json").stdout)
    assert [run["config"]["lr"] for run in document] == [0.1, 0.1, 1.0]
    summary = document[2]["summary"]["val/loss"]
    assert (summary["n"], summary["n_nonfinite"], summary["last"], summary["min"]) == (3, 2, "nan", 0.4)


@pytest.mark.parametrize(
    "command", [["ls"], ["show"], ["compare"], ["plot", "val/loss"], ["export"], ["export", "--wide"]]
)
def test_no_command_prints_the_escape_sequence_of_a_name(labbench: Labbench, db: Path, command: list[str]) -> None:
    if command[0] in ("show", "compare"):
        command = [*command, json.loads(labbench("ls", "lr=1", "--json").stdout)[0]["key"]]
    result = labbench(*command)
    assert result.exit_code == 0, result.output
    if command[0] != "export":  # a file keeps the name unchanged
        assert "\x1b]52" not in result.stdout
        assert "[/nope]" in result.stdout


def test_compare_shows_differences_and_their_direction(labbench: Labbench, db: Path) -> None:
    lines = labbench("compare", "sgd lr=0.1", "adam lr=0.1").stdout.splitlines()
    table = {line[: len("best val/loss")].strip(): line.split() for line in lines}
    assert "lr" not in table
    assert table["optimizer"] == ["optimizer", "sgd", "adam"]
    assert table["best val/loss"][2:] == ["0.1250", "0.1000", "(−0.0250", "better)"]
    assert lines[-1].startswith("in brackets: the change from the first run, better or worse")


def test_numbers_of_a_compared_metric_have_one_format_and_the_sign_of_their_change(
    labbench: Labbench, tmp_path: Path
) -> None:
    values = {"val/loss": (0.0249, 0.0394, 0.0249003), "train/loss": (591.3e-6, 0.0337, 882.5e-6)}
    with Writer(tmp_path / "new.db") as writer:
        runs = start(writer, [NewRun(name, {"lr": index}, name) for index, name in enumerate("abc")])
        for index, run in enumerate(runs):
            writer.write([points(run, metric, [each[index]]) for metric, each in values.items()])
    lines = labbench("--db", "new.db", "compare", *"abc").stdout.splitlines()
    rows = {" ".join(words[:2]): " ".join(words[2:]) for words in map(str.split, lines)}
    assert rows["best val/loss"] == "0.0249 0.0394 (+0.0145 worse) 0.0249 (+3.000e-7 worse)"
    assert rows["best train/loss"] == "0.000591 0.033700 (+0.033109 worse) 0.000883 (+0.000291 worse)"
    cells = labbench("--db", "new.db", "compare", *"abc", "--format", "csv").stdout
    assert "0.0394 (+0.0145 worse)" in cells
    assert "in brackets" not in cells


def test_compare_shows_the_code_of_runs_of_different_code(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        for number, code in enumerate("aab"):
            run = NewRun(f"run{number}", {"lr": 0.1}, f"id{number}")
            writer.queue(Submission(f"grid{number}", "digits", code_version=code * 64), [run])
    rows = [line.split() for line in labbench("compare", "run0", "run1", "run2").stdout.splitlines()]
    assert ["code", "a" * 12, "=", "b" * 12] in rows
    assert not any(
        row[:1] == ["code"] for row in map(str.split, labbench("compare", "run0", "run1").stdout.splitlines())
    )


def test_show_takes_several_runs(labbench: Labbench, db: Path) -> None:
    names = [run["name"] for run in json.loads(labbench("ls", "--json").stdout)][:2]
    first, other = (labbench("show", name).stdout for name in names)
    assert labbench("show", *names).stdout == f"{first}\n{other}"
    both = json.loads(labbench("show", *names, "--json").stdout)
    assert both == [json.loads(labbench("show", name, "--json").stdout) for name in names]


def test_names_with_line_ends_are_suggested_in_one_line_and_lists_of_objects_shown_as_json(
    labbench: Labbench, tmp_path: Path
) -> None:
    config = {"stages": [1, {"c": 2}], "hidden": [64, 32]}
    start_run("run\nx", config=config, db=tmp_path / "runs.db", system_metrics=False).finish()
    key = json.loads(labbench("ls", "--json").stdout)[0]["key"]
    assert labbench("show", "run").stderr.splitlines()[1:] == [f"    {key}  run␊x"]
    lines = [" ".join(line.split()) for line in labbench("show", key).stdout.splitlines()]
    assert {'stages [1, {"c": 2}]', "hidden 64-32"} <= {*lines}


def test_show_lists_the_files_of_a_run(labbench: Labbench, tmp_path: Path) -> None:
    (tmp_path / "weights.bin").write_bytes(b"x" * 3000)
    with start_run("a", db=tmp_path / "runs.db", system_metrics=False) as run:
        run.artifact(tmp_path / "weights.bin", copy=True)
        run.artifact(tmp_path / "weights.bin")
    lines = labbench("show", "a").stdout.splitlines()
    [row] = [line.split() for line in lines if line.startswith("weights.bin")]
    assert row[1:3] == ["2", "KiB"]
    [file] = json.loads(labbench("show", "a", "--json").stdout)["files"]
    assert (file["name"], file["size"], file["path"]) == ("weights.bin", 3000, row[3])
    assert Path(file["path"]).read_bytes() == b"x" * 3000


def test_show_prints_the_recorded_texts_and_distinguishes_the_commit_from_the_code_version(
    labbench: Labbench, tmp_path: Path
) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        submission = Submission("a", "digits", sources={"grid": "task = 'digits'\n"}, code_version="a" * 64)
        [run] = writer.queue(submission, [NewRun("first", {}, "id")])
        writer.claim([run.key], source=Provenance("c0ffee" * 6, git_dirty=True, git_diff="", versions={}))
    facts = [" ".join(line.split()) for line in labbench("show", "first").stdout.splitlines()]
    assert "git commit c0ffeec0ffee with changes" in facts
    assert "code version aaaaaaaaaaaa (hash of the run's own code)" in facts
    assert "task = 'digits'" not in facts
    assert labbench("show", "first", "--source").stdout == f"# grid of {run.key}\ntask = 'digits'\n"
    assert json.loads(labbench("show", "first", "--source", "--json").stdout)["sources"] == {
        "grid": "task = 'digits'\n"
    }


def test_show_reads_a_long_output_in_little_memory(labbench: Labbench, db: Path) -> None:
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300) SELECT 1, 1, 0"
    lines = "replace(hex(zeroblob(500)), '00', printf('%099d', 0) || char(10))"  # 500 lines of 99 zeros
    execute(db, f"INSERT INTO logs (run_id, attempt, time, text) {numbers}, {lines} FROM n")
    key = json.loads(labbench("ls", "--json").stdout)[0]["key"]
    tracemalloc.start()
    try:
        shown = labbench("show", key).stdout
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert f"more lines: labbench show {key} --all)" in shown
    assert peak < 5e6  # bytes; the output has 15e6
    assert labbench("show", key, "--all").stdout.count("0" * 99) == 300 * 500


@pytest.mark.parametrize(
    "error", [MemoryError(), ImportError("libopenblas.so: failed to map segment from shared object")]
)
def test_too_little_memory_is_a_message(
    labbench: Labbench, db: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(Reader, "runs", fail)
    result = labbench("ls")
    assert (result.exit_code, result.stderr.startswith("labbench: out of memory")) == (1, True)


def test_plot_draws_and_labels_every_run(labbench: Labbench, db: Path) -> None:
    drawn = labbench("plot", "val/loss", "status=finished").stdout
    assert "sgd lr=0.1" in drawn
    assert "adam lr=0.1" in drawn
    assert "\x1b" not in drawn  # no colours on a pipe
    grouped = labbench("plot", "val/loss", "--group", "optimizer", "--log", "--smooth", "0.5", "--x", "time").stdout
    assert "optimizer=adam (n=2)" in grouped


def test_runs_with_values_near_the_float_limits_are_listed_plotted_and_analysed(
    labbench: Labbench, tmp_path: Path
) -> None:
    curves = ([2.0, 1.7e308], [1e308, -1e308, 5e-324], [2.0, 1e100, 1.5e308], [5e-324, 1e-323], [1.7e308, 1.7e308])
    with Writer(tmp_path / "runs.db") as writer:
        runs = [NewRun(f"run {number}", {"lr": number % 2, "seed": number}, str(number)) for number in range(5)]
        queued = writer.queue(Submission("far", "", {"val/loss": "min"}), runs)
        for run, curve in zip(writer.claim([run.key for run in queued]), curves, strict=True):
            steps = list(range(len(curve)))
            events = [Started(run.key, run.attempt, "box", 1, "cpu")]
            events += [Points(run.key, run.attempt, "val/loss", steps, steps, curve)]
            writer.write([*events, Finished(run.key, run.attempt, "finished", "all epochs")])
    for words in (["ls"], ["plot", "val/loss"], ["plot", "val/loss", "--log"], ["plot", "val/loss", "--group", "lr"]):
        result = labbench(*words)
        assert (result.exit_code, result.exception) == (0, None), words
    answer = labbench("why", "val/loss", "--html", "why.html")
    assert (answer.exit_code, answer.exception) == (0, None)
    text = labbench("why", "val/loss").stdout  # the largest finite numbers are values: no run has diverged
    assert text.startswith("best: lr 1")
    assert "diverged" not in text


def test_export_writes_to_a_file_or_stdout(labbench: Labbench, db: Path) -> None:
    text = labbench("export", "optimizer=sgd").stdout
    assert text.splitlines()[0] == "run,name,experiment,metric,step,time,value"
    assert text.splitlines()[1].endswith(",val/loss,10,0.1,0.5")
    written = labbench("export", "optimizer=sgd", "-o", "out.csv")
    assert (written.stdout, written.stderr) == ("", "wrote out.csv (3 rows)\n")
    labbench("export", "optimizer=sgd", "-o", "out.jsonl")
    assert Path("out.jsonl").read_text() == labbench("export", "optimizer=sgd", "--format", "jsonl").stdout
    assert Path("out.csv").read_text() == text
    assert labbench("export", "--config").stdout.splitlines()[0] == text.splitlines()[0] + ",optimizer,lr"
    assert labbench("export", "--config", "--format", "wandb").exit_code == 2


@pytest.fixture
def undeclared(tmp_path: Path) -> Path:
    """Return a database of two set-ups with two seeds each, whose metrics have no declared goals."""
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        for index, (lr, seed) in enumerate(((0.1, 0), (0.1, 1), (0.3, 0), (0.3, 1))):
            [run] = start(writer, [NewRun(f"lr={lr}", {"lr": lr, "seed": seed}, f"id{index}")])
            writer.write([points(run, "val/rmse", [2 * lr + 0.01 * seed]), points(run, "lr", [1.0, 10 * lr])])
            writer.write([Finished(run.key, 1, "finished", "all epochs")])
    return path


def test_columns_show_a_key_before_a_metric_of_its_name_and_functions_and_words(
    labbench: Labbench, undeclared: Path
) -> None:
    with Writer(undeclared) as writer, Reader(undeclared) as reader:
        writer.tag([run.key for run in reader.runs() if run.config["lr"] == 0.3], add=["high"])
    listed = labbench("ls", "--columns", "lr,last(lr),best(val/rmse),tag,experiment,name", "--format", "csv")
    header, *rows = [line.split(",") for line in listed.stdout.splitlines()]
    assert header == ["status", "key", "name", "lr", "last(lr)", "best(val/rmse)", "tag", "experiment"]
    assert [row[3:7] for row in rows[1:3]] == [["0.1", "1", "0.2100", ""], ["0.3", "3", "0.6000", "high"]]
    assert "did you mean `lr`?" in labbench("ls", "--columns", "best(lrr)").stderr


@pytest.mark.usefixtures("db")
def test_every_function_of_the_filter_language_is_a_column_and_sorts(labbench: Labbench) -> None:
    columns = ",".join(f"{function}(val/loss)" for function in FUNCTIONS)
    header, *rows = [
        line.split(",") for line in labbench("ls", "--columns", columns, "--format", "csv").stdout.splitlines()
    ]
    values = dict(zip(header[3:], zip(*(row[-len(FUNCTIONS) :] for row in rows), strict=True), strict=True))
    assert values["n(val/loss)"] == ("3", "3", "3")
    assert values["first(val/loss)"] == ("0.5000", "0.4000", "0.4000")
    assert values["smooth(val/loss)"][:2] == ("0.2917", "0.2333")
    for function in FUNCTIONS:
        cells = values[f"{function}(val/loss)"]
        assert all(cells) if function != "best" else all(cells[:2])
        found = labbench("ls", "--sort", f"{function}(val/loss)")
        assert (found.exit_code, "has" in found.stderr) == (0, False)
    for option in ("--columns", "--sort"):
        refused = labbench("ls", option, "mean(val/loss)")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert "unknown function `mean`; the functions are last, smooth" in refused.stderr


@pytest.mark.usefixtures("undeclared")
def test_assumed_goals_are_told_and_can_be_declared(labbench: Labbench) -> None:
    def best() -> object:
        return json.loads(labbench("why", "val/rmse", "--json").stdout)["best"]["config"]["lr"]

    listed = labbench("ls", "--columns", "val/rmse")
    assert "lower val/rmse is taken as better, by the name; `labbench define METRIC min|max|none`" in listed.stderr
    for columns in ("lr", "last(val/rmse)", "tag"):
        assert labbench("ls", "--columns", columns).stderr == ""
    assert "lower val/rmse is taken" in labbench("ls", "--columns", "best(val/rmse)").stderr
    assert "lower val/rmse is taken" in labbench("ls", "--columns", "lr", "--sort", "-best(val/rmse)").stderr
    asked = labbench("why", "val/rmse")
    assert "lower val/rmse is taken as better, by the name; --goal min|max or `labbench define" in asked.stderr
    assert best() == 0.1
    assert json.loads(labbench("why", "val/rmse", "--goal", "max", "--json").stdout)["best"]["config"]["lr"] == 0.3
    assert labbench("define", "val/rmse", "max").exit_code == 0
    assert best() == 0.3
    assert labbench("ls").stderr == ""
    assert "did you mean `val/rmse`" in labbench("define", "val/rmes", "min").stderr
    assert labbench("define", "val/rmse", "up").exit_code == 2


@pytest.mark.usefixtures("undeclared")
def test_metric_without_a_better_direction_has_no_best_value(labbench: Labbench) -> None:
    headings = labbench("ls", "--columns", "lr").stdout.splitlines()[0].split()
    assert headings == ["status", "key", "name", "lr"]
    asked = labbench("why", "lr")
    assert (asked.exit_code, asked.stdout) == (2, "")
    assert "add --goal min or --goal max" in asked.stderr
    for words in (["best(lr)<1"], ["--sort", "best(lr)"]):
        listed = labbench("ls", *words)
        assert listed.exit_code == 2
        assert "use min(lr), max(lr) or last(lr), or declare its goal with the command `define`" in listed.stderr
    assert labbench("define", "lr", "min").exit_code == 0
    assert labbench("ls", "best(lr)<1.5", "--json").exit_code == 0
    assert labbench("define", "val/rmse", "none").exit_code == 0
    assert "better)" not in labbench("compare", "lr=0.1", "lr=0.3").stdout


UNKNOWN_NAMES = [
    (["ls", "optimiser=adam"], "no run has a config key or a metric `optimiser`; did you mean `optimizer`?"),
    (["ls", "val/los<1"], "did you mean `val/loss`?"),
    (["ls", "best(val/los)<1"], "did you mean `val/loss`?"),
    (["ls", "lr=0.1 or optimiser=sgd"], "did you mean `optimizer`?"),
    (["ls", "--columns", "lrr"], "did you mean `lr`?"),
    (["ls", "--sort", "optimiser"], "did you mean `optimizer`?"),
    (["why", "val/los"], "did you mean `val/loss`?"),
    (["why", "val/loss", "optimiser=adam"], "did you mean `optimizer`?"),
    (["plot", "val/los"], "did you mean `val/loss`?"),
    (["plot", "val/loss", "optimiser=adam"], "did you mean `optimizer`?"),
    (["plot", "val/loss", "--group", "optimiser"], "did you mean `optimizer`?"),
    (["export", "optimiser=adam"], "did you mean `optimizer`?"),
]


@pytest.mark.parametrize(("words", "message"), UNKNOWN_NAMES)
def test_name_that_exists_nowhere_is_an_error_with_the_nearest_name(
    labbench: Labbench, db: Path, words: list[str], message: str
) -> None:
    result = labbench(*words)
    assert (result.exit_code, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize(("words", "message"), UNKNOWN_NAMES)
def test_name_that_a_run_in_progress_may_record_is_a_warning(
    labbench: Labbench, db: Path, words: list[str], message: str
) -> None:
    with Writer(db) as writer:
        writer.queue(Submission("demo", "digits"), [NewRun("next", {"lr": 0.1}, "next")])
        result = labbench(*words)
    assert result.exit_code == 0
    assert message in result.stderr
    assert "(queued and running runs may still record it)" in result.stderr
    narrower = labbench(*words, "status=finished") if words[:2] != ["ls", "lr=0.1 or optimiser=sgd"] else None
    assert narrower is None or narrower.exit_code == 2  # no run in progress is selected


def test_parameters_and_declared_metrics_are_known_before_they_are_recorded(labbench: Labbench, db: Path) -> None:
    assert labbench("ls", "weight_decay=0.1").exit_code == 0
    assert labbench("define", "val/f1", "max").exit_code == 0
    assert labbench("ls", "val/f1>0.5").exit_code == 0


@pytest.mark.usefixtures("undeclared")
def test_name_of_a_config_key_and_a_metric_is_explained(labbench: Labbench) -> None:
    listed = labbench("ls", "lr<0.2")
    assert "for the metric write last(lr)<0.2" in listed.stderr
    assert labbench("ls", "seed=0").stderr.count("metric write") == 0


def test_long_integers_of_a_filter_are_compared_exactly(labbench: Labbench, tmp_path: Path) -> None:
    seeds = [2**53, 2**53 + 1, 2**63 - 2, 2**63 - 1, 2**64 - 2, 2**64 - 1, -(2**62) - 1]
    with Writer(tmp_path / "runs.db") as writer:
        writer.queue(Submission("seeds", ""), [NewRun(f"{seed}", {"seed": seed}, f"id{seed}") for seed in seeds])

    def names(*words: str) -> list[str]:
        return [run["name"] for run in json.loads(labbench("ls", *words, "--json").stdout)]

    for seed in seeds:
        assert names(f"seed={seed}") == [str(seed)]
        assert names(f"seed!={seed}") == [str(other) for other in seeds if other != seed]
    assert names(f"seed={2**64 - 1},{2**53}") == [str(2**53), str(2**64 - 1)]
    assert names(f"seed<{2**53 + 1}", f"seed>{-(2**62) - 2}") == [str(2**53), str(-(2**62) - 1)]


def test_experiments_of_other_tasks_do_not_change_the_answers(
    labbench: Labbench, db: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Tables, reports and the terminal interface show what concerns the matching runs alone."""
    commands = [
        ["ls", "experiment=demo"],
        ["ls", "experiment=demo", "--sort", "best(val/loss)"],
        ["why", "val/loss", "experiment=demo", "--json"],
        ["plot", "val/loss", "experiment=demo"],
        ["export", "experiment=demo", "--summary"],
        ["export", "experiment=demo", "--wide"],
    ]

    def answers() -> list[tuple[int, str]]:
        return [(result.exit_code, result.stdout) for result in (labbench(*words) for words in commands)]

    def snapshot() -> tuple[object, ...]:
        state = read_snapshot(db, Query("experiment=demo"), record_keys=(), rows=50)
        return state.query, state.rows, dict(state.metrics), state.config_keys, state.stars

    def report() -> str:
        with Reader(db) as reader:
            runs = reader.runs("experiment=demo")
        settings = SimpleNamespace(name="demo", metrics={}, runtime=Runtime(), search=None, axis_keys=[])
        grid = SimpleNamespace(grid=settings, runs=[], is_whole=True)
        outcome = Outcome(runs, 0, {}, (), interrupted=False)
        print_report(grid, outcome, db, with_table=True)  # type: ignore[arg-type]
        return capsys.readouterr().out

    before = answers(), snapshot(), report()
    assert all(exit_code == 0 for exit_code, _ in before[0])
    with Writer(db) as writer:
        for number, metrics in enumerate((["val/accuracy", "train/loss"], ["reward", "episode_length", "val/wer"])):
            config = {f"key {number}.{index}": index for index in range(20)} | {"lr": 7.0}
            [run] = start(writer, [NewRun("other", config, f"other {number}")], experiment=f"other {number}")
            writer.write([points(run, name, [0.5, 0.1]) for name in metrics])
            writer.write([Finished(run.key, 1, "finished", "all epochs")])
    assert (answers(), snapshot(), report()) == before


def test_table_of_several_experiments_shows_a_metric_of_each_and_the_one_that_sorts_it(
    labbench: Labbench, tmp_path: Path
) -> None:
    logged = {"vision": ["val/accuracy", "train/loss"], "rl": ["reward", "lr"], "text": ["eval/loss", "eval/ppl"]}
    with Writer(tmp_path / "new.db") as writer:
        for experiment, metrics in logged.items():
            [run] = start(writer, [NewRun(experiment, {}, experiment)], experiment=experiment)
            writer.write([points(run, name, [0.5]) for name in metrics])

    def metrics(*words: str) -> list[str]:
        headings = labbench("--db", str(tmp_path / "new.db"), "ls", *words).stdout.splitlines()[0].split()
        return [word for word in headings if any(word in names for names in logged.values())]

    assert metrics() == ["val/accuracy", "reward", "eval/loss"]
    assert metrics("--sort", "best(eval/ppl)")[0] == "eval/ppl"
    assert metrics("--sort", "best(val/accuracy)", "--limit", "1") == ["val/accuracy", "train/loss"]
    assert metrics("experiment=text") == ["eval/loss", "eval/ppl"]


def test_narrow_terminal_shows_metrics_and_leaves_out_settings() -> None:
    settings = [TextColumn(f"setting {index}", ["0.1"], rank=SETTING_RANK) for index in range(5)]
    columns = [TextColumn("name", ["a"]), *settings, TextColumn("val/loss", ["0.5"])]
    assert [column.name for column in fit_columns(columns, 200)] == [column.name for column in columns]
    assert [column.name for column in fit_columns(columns, 30)] == ["name", "setting 0", "val/loss"]
    assert [column.name for column in fit_columns(columns, 5)] == ["name", "val/loss"]


@pytest.mark.parametrize(
    ("words", "target", "message"),
    [
        (["--metric", "val/los"], "out.csv", "did you mean `val/loss`"),
        (["--wide", "--metric", "val/los"], "out.csv", "did you mean `val/loss`"),
        (["--format", "jsonl", "--metric", "val/los"], "out.csv", "did you mean `val/loss`"),
        ([], "out.xlsx", "the ending is not one of .csv"),
        (["--format", "parquet", "--summary", "--metric", "val/los"], "out.csv", "did you mean `val/loss`"),
        (["lr<"], "out.csv", "value"),
        ([], "nowhere/out.csv", "the folder nowhere does not exist"),
        ([], "runs.db", "is a database and would be overwritten"),
        ([], "link.db", "is a database and would be overwritten"),
        ([], "runs.db-wal", "belongs to a database and would be overwritten"),
        ([], "runs.db-shm", "belongs to a database and would be overwritten"),
    ],
)
def test_export_that_fails_changes_no_file(
    labbench: Labbench, db: Path, tmp_path: Path, words: list[str], target: str, message: str
) -> None:
    (tmp_path / "out.csv").write_text("before")
    (tmp_path / "link.db").symlink_to(db)
    with Writer(db):  # keeps the side files
        before = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
        result = labbench("export", *words, "-o", target)
        after = {file.name: file.read_bytes() for file in tmp_path.iterdir() if not file.name.endswith("-shm")}
    assert result.exit_code == 2
    assert message in result.stderr
    assert after == before


@pytest.mark.parametrize("charset", ["ascii", "latin-1", "utf-8"])
def test_export_is_utf8_in_every_locale(labbench: Labbench, tmp_path: Path, charset: str) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        writer.queue(Submission("größe", ""), [NewRun("Lauf — ü", {"größe": "β"}, "id")])
    runner = CliRunner(charset=charset)
    for options in (["--summary"], ["--format", "jsonl", "--summary"]):
        on_stdout = runner.invoke(main, ["export", *options]).stdout_bytes
        assert runner.invoke(main, ["export", *options, "-o", "out.txt"]).exit_code == 0
        assert Path("out.txt").read_bytes() == on_stdout
    assert "Lauf — ü,größe,queued" in runner.invoke(main, ["export", "--summary"]).stdout_bytes.decode("utf-8")


def test_filters_see_edits_of_tags_notes_and_archived_runs(labbench: Labbench, db: Path) -> None:
    def names(*filters: str) -> list[str]:
        return [run["name"] for run in json.loads(labbench("ls", "--json", *filters).stdout)]

    assert labbench("tag", "sgd lr=0.1", "--add", "best").exit_code == 0
    assert names("tag=best") == ["sgd lr=0.1"]
    assert labbench("tag", "sgd lr=0.1", "--remove", "best").exit_code == 0
    assert names("tag=best") == []
    assert labbench("note", "sgd lr=0.1", "a look at it").exit_code == 0
    assert "a look at it" in labbench("show", "sgd lr=0.1").stdout
    assert labbench("archive", "sgd lr=0.1").exit_code == 0
    assert "sgd lr=0.1" not in names()
    assert names("archived=true") == ["sgd lr=0.1"]
    assert labbench("archive", "--undo", "sgd lr=0.1").exit_code == 0
    assert "sgd lr=0.1" in names()


def test_renamed_experiment_keeps_its_runs(labbench: Labbench, db: Path) -> None:
    with Reader(db) as reader:
        [name] = reader.experiments()
        keys = reader.keys()
    assert labbench("rename", name, "new name").exit_code == 0
    with Reader(db) as reader:
        assert reader.experiments() == ["new name"]
        assert reader.keys("experiment='new name'") == keys
    unknown = labbench("rename", "new nam", "other")
    assert unknown.exit_code == 2
    assert "did you mean `new name`" in unknown.stderr
    assert labbench("rename", "new name", " ").exit_code == 2


def test_experiment_is_not_renamed_to_an_existing_one(labbench: Labbench, tmp_path: Path) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        for name in ("first", "second"):
            writer.queue(Submission(name, "digits"), [NewRun("a", {}, f"identity of {name}")])
    result = labbench("rename", "first", "second")
    assert result.exit_code == 2
    assert "the experiment `second` exists already" in result.stderr
    with Reader(path) as reader:
        assert reader.experiments() == ["first", "second"]


def test_rm_asks_for_confirmation_and_deletes_all_points(labbench: Labbench, db: Path) -> None:
    assert labbench("rm", "sgd lr=0.1", input="n\n").exit_code == 1
    assert len(json.loads(labbench("ls", "--json").stdout)) == 3
    assert labbench("rm", "sgd lr=0.1", "--yes").exit_code == 0
    assert len(json.loads(labbench("ls", "--json").stdout)) == 2
    connection = sqlite3.connect(db)
    assert connection.execute("SELECT count(DISTINCT run_id) FROM points").fetchone() == (2,)
    connection.close()


def test_tasks_shows_parameters_with_their_ranges(labbench: Labbench) -> None:
    assert "digits" in labbench("tasks").stdout.splitlines()
    table = labbench("tasks", "digits").stdout
    assert "0 <= x < 1" in next(line for line in table.splitlines() if line.startswith("dropout"))
    params = json.loads(labbench("tasks", "digits", "--json").stdout)
    assert (params["lr"]["type"], params["layers"]["type"]) == ("float", "strs")


def grid(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "grid.toml"
    path.write_text(text)
    return path


GOOD = 'task = "digits"\n[params]\nepochs = 1\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('task = "digits"\n[params\n', "grid.toml:2:8: "),
        ('task = "digits"\n[parms]\n', "did you mean `params`?"),
        ('task = "digits"\n[grid]\noptimzer = ["sgd"]\n', "grid.toml:3:1: unknown parameter `optimzer`"),
        ('task = "digits"\n[grid]\nlr = [0.1, -0.5]\n', "grid.toml:3:12: lr must be at least 0"),
        ('task = "digits"\n[params]\ndropout = 1.5\n', "grid.toml:3:11: dropout must"),
        ('task = "digits"\n[params]\nbatch_size = 0\n', "grid.toml:3:14: batch_size must"),
        ('task = "digits"\n[params]\nepochs = "many"\n', "grid.toml:3:10: epochs"),
        ('task = "digits"\n[grid]\nlr = []\n', "empty"),
        ('task = "digits"\n[[zip]]\nlr = [0.1, 0.2]\nbatch_size = [1]\n', "equally long"),
        ('task = "nope.py:Task"\n', "no such file: "),
        ('task = "broken.py:Task"\n', "No module named 'nonexistent'"),
        ('task = "lacking.py:Task"\n', "lacks data(self, config)"),
        ('task = "digits"\n[grid]\nseed = {a=1}\n', "grid.toml:3:"),
        ('task = "digits"\n[stop]\nmetric = "val/los"\npatience = 2\n', "grid.toml:3:10: `val/los` is not measured"),
        ('task = "digits"\n[runtime]\nprecision = "fp16"\n', "grid.toml:3:13: "),
    ],
)
def test_an_error_in_a_grid_names_its_position(labbench: Labbench, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "broken.py").write_text("import nonexistent\n")
    (tmp_path / "lacking.py").write_text("class Task:\n    params = {}\n")
    result = labbench("run", grid(tmp_path, text))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert not Path("runs.db").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "nope.toml"], "no such grid file"),
        (["run", "grid.toml", "--set", "lr"], "lr"),
        (["run", "grid.toml", "--set", "rl=1"], "unknown parameter `rl`"),
        (["run", "grid.toml", "--only", "lr=<1"], "did you mean `<=`"),
        (["run", "grid.toml", "--only", "lr=77"], "--only matches none"),
        (["run", "grid.toml", "--device", "cuda:77"], "cuda"),
        (["run", "grid.toml", "--device", "tpu"], "no such device"),
        (["ls", "lr=<1"], "did you mean `<=`"),
        (["ls", "--sort", "nope"], "nope"),
        (["show", "nope"], "no run has the key or the name `nope`"),
        (["plot", "nope"], "no run has logged the metric `nope`; the metrics are"),
        (["plot", "val/los"], "no run has logged the metric `val/los`; did you mean `val/loss`?"),
        (["why", "val/los"], "no run has logged the metric `val/los`; did you mean `val/loss`?"),
        (["export", "--metric", "val/los"], "no run has logged the metric `val/los`; did you mean `val/loss`?"),
        (["tasks", "nope"], "no task nope"),
        (["tag", "sgd lr=0.1"], "--add TAG"),
        (["export", "--format", "parquet"], "-o FILE"),
    ],
)
def test_wrong_input_is_explained_and_changes_nothing(
    labbench: Labbench, db: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    grid(tmp_path, GOOD)
    before = db.read_bytes()
    result = labbench(*words)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stdout == ""
    assert db.read_bytes() == before


@pytest.mark.parametrize(
    "command",
    [["show"], ["compare"], ["tag", "--add", "x"], ["archive"], ["rm", "--yes"], ["stop"], ["retry"], ["note"]],
    ids=lambda command: command[0],
)
def test_an_ambiguous_run_is_refused_with_the_candidates(
    labbench: Labbench, tmp_path: Path, command: list[str]
) -> None:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        runs = [NewRun("twin", {"seed": i}, f"id{i}") for i in range(3)]
        keys = [run.key for run in writer.queue(Submission("twins", "digits"), runs)]
        writer.rename(keys[2], keys[0][:1])
        for key, new_key in zip(keys, ("twin0001", "twin0002", "v1k3f9aa"), strict=True):
            writer._connection.execute("UPDATE runs SET key = ? WHERE key = ?", (new_key, key))
    before = path.read_bytes()
    text = ["text"] if command == ["note"] else []
    for word in ("twin", "twin0"):  # a name of two runs, the start of two keys
        result = labbench(*command, word, *text)
        assert result.exit_code == 2
        assert "twin0002  twin  (queued)\n    twin0001  twin  (queued)" in result.stderr
    assert (
        labbench(*command, "v1", *text).exit_code == 2
    )  # two letters of a key may be meant as the name of another run
    assert path.read_bytes() == before


@pytest.mark.parametrize("command", [["ls"], ["run", "grid.toml"], ["tag", "a", "--add", "b"]])
def test_a_file_that_is_not_a_database_is_refused_and_unchanged(
    labbench: Labbench, tmp_path: Path, command: list[str]
) -> None:
    grid(tmp_path, GOOD)
    text = tmp_path / "runs.db"
    text.write_text("not a database, but somebody's text\n" * 40)
    result = labbench(*command)
    assert result.exit_code == 2
    assert "not an SQLite database" in result.stderr
    assert text.read_text().startswith("not a database")


def test_a_too_large_grid_is_refused_with_its_number_of_runs(labbench: Labbench, tmp_path: Path) -> None:
    seeds = ", ".join(str(seed) for seed in range(1000))
    text = (
        f'task = "digits"\n[grid]\nlr = [{", ".join(f"0.{i}" for i in range(1, 200))}]\n[repeat]\nseeds = [{seeds}]\n'
    )
    result = labbench("run", grid(tmp_path, text))
    assert result.exit_code == 2
    assert "runs" in result.stderr
    assert "--yes" in result.stderr


def test_without_torch_run_names_the_extra_to_install(
    labbench: Labbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("labbench.runner.expanded_grid.find_spec", lambda name: None)
    result = labbench("run", grid(tmp_path, GOOD))
    assert result.exit_code == 2
    assert '".[train]"' in result.stderr
    assert not Path("runs.db").exists()


def test_no_command_prints_an_escape_sequence_of_a_database(labbench: Labbench, db: Path) -> None:
    """`doctor` names keys, folders and tables as they are in the database."""
    evil = "\x1b]0;owned\x07"
    connection = sqlite3.connect(db)
    connection.execute("UPDATE runs SET status = 'running', heartbeat = 1, key = ? WHERE id = 1", (evil,))
    connection.execute(f'CREATE TABLE "{evil}" (a INTEGER CHECK (a > 5))')
    connection.execute("PRAGMA ignore_check_constraints = 1")
    connection.execute(f'INSERT INTO "{evil}" VALUES (1)')
    connection.commit()
    connection.close()
    db.with_name(f"{db.name}.files").joinpath(evil).mkdir(parents=True)
    result = labbench("doctor")
    assert result.exit_code == 1
    assert "␛]0;owned␇" in result.stdout
    assert "\x1b" not in result.output


def test_export_writes_no_escape_sequence_to_a_terminal(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file or a pipe receives the texts unchanged."""
    assert "x [/nope]\x1b]52" in CliRunner().invoke(main, ["--db", str(db), "export", "--summary"]).stdout
    controller, terminal = os.openpty()
    with os.fdopen(terminal, "w") as stdout, monkeypatch.context() as patch:
        patch.setattr("sys.stdout", stdout)
        main(["--db", str(db), "export", "--summary"], standalone_mode=False)
    received = ""
    with suppress(OSError):  # the end of what was written
        while text := os.read(controller, 65536).decode():
            received += text
    os.close(controller)
    assert "x [/nope]␛]52;c;aGk=␇" in received
    assert "\x1b" not in received


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
@pytest.mark.parametrize("words", ["ls", "show 'sgd lr=0.1'", "tag 'sgd lr=0.1' -a seen", "doctor"])
def test_closed_standard_streams_are_no_error_and_nothing_is_printed_into_the_database(
    db: Path, words: str, closed: str
) -> None:
    line = f"exec {shlex.quote(sys.executable)} -m labbench --db {shlex.quote(str(db))} {words} {closed}"
    result = subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert CliRunner().invoke(main, ["--db", str(db), "doctor"]).exit_code == 0
