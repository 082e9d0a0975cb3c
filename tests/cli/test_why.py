"""`labbench why`: its sentences, tables and JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import labbench
from helpers.tui_samples import grid_of_runs
from labbench.cli import main


@pytest.fixture
def database(tmp_path: Path) -> str:
    grid_of_runs(tmp_path / "runs.db")
    return str(tmp_path / "runs.db")


def run(*words: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, list(words), env={"COLUMNS": "120"})  # whatever terminal the tests run in
    return result.exit_code, result.stdout, result.stderr


def test_the_answer_is_sentences_then_charts(database: str) -> None:
    status, text, _ = run("--db", database, "why", "val/loss")
    lines = text.splitlines()
    assert status == 0
    assert lines[0] == "best: adam, lr 0.01: val/loss 0.062 on average over 2 seeds"
    assert lines[1] == "by how much: 0.012 lower than the runner-up (adam, lr 0.001: 0.074)"
    assert lines[2].startswith("how sure: clear; ")
    assert any(line.startswith("in numbers, with 95 % intervals: best 0.062 [0.049, 0.113], ") for line in lines)
    figures = lines[lines.index("where the differences come from") :]
    assert any(line.split()[0] == "optimizer" and "42%" in line for line in figures)
    assert any(line.split()[:2] == ["★", "adam"] and "●" in line for line in figures)


def test_a_filter_limits_the_runs_that_are_compared(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss", "optimizer=sgd")
    assert text.startswith("best: lr 0.01")


def test_short_is_the_verdict_and_one_line_per_parameter(database: str) -> None:
    _, full, _ = run("--db", database, "why", "val/loss")
    status, short, _ = run("--db", database, "why", "val/loss", "--short")
    lines = short.splitlines()
    assert status == 0
    assert lines[:3] == full.splitlines()[:3]
    assert sorted(line.split(":")[0].split(",")[0] for line in lines[3:]) == ["lr", "optimizer"]
    assert all(line in full for line in lines)


def test_a_terminal_ends_with_the_verdict_and_a_pipe_has_it_once(database: str) -> None:
    command = [sys.executable, "-m", "labbench", "--db", database, "why", "val/loss"]
    reading, terminal = os.openpty()
    environment = {**os.environ, "COLUMNS": "120", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=terminal, env=environment) as process:
        os.close(terminal)
        printed = b""
        with suppress(OSError):  # the end of a terminal
            while part := os.read(reading, 65536):
                printed += part
    os.close(reading)
    assert process.returncode == 0
    [*_, best, lead, certainty] = printed.decode().splitlines()
    assert best.strip().startswith("best: adam, lr 0.01: val/loss 0.062")
    assert lead.strip().startswith("by how much: ")
    assert certainty.strip().startswith("how sure: ")
    assert run(*command[3:])[1].count("by how much: ") == 1


@pytest.fixture
def repeated_scripts(tmp_path: Path) -> Callable[[float], str]:
    """Return a function that runs a script twice per learning rate without a seed, and returns the database."""

    def record(difference: float) -> str:
        for lr in (0.1, 0.2):
            for repeat in range(2):
                with labbench.start(config={"lr": lr}, db=tmp_path / "runs.db", system_metrics=False) as script:
                    for step in range(3):
                        script.log({"val/loss": 1.0 / (step + 1) + lr + repeat * difference})
        return str(tmp_path / "runs.db")

    return record


def test_identical_runs_without_a_seed_are_copies_and_no_evidence(repeated_scripts: Callable[[float], str]) -> None:
    text = run("--db", repeated_scripts(0.0), "why", "val/loss")[1]
    lines = text.splitlines()
    assert lines[0].endswith(" with one run")
    assert lines[2].startswith("how sure: too few runs to say; make 3 runs per configuration with different seeds")
    assert "2 runs are copies of another one: same settings, same numbers, no seed recorded" in text
    assert " seeds " not in lines[0]
    assert "clear" not in lines[2]


def test_different_runs_without_a_seed_are_called_runs(repeated_scripts: Callable[[float], str]) -> None:
    text = run("--db", repeated_scripts(0.01), "why", "val/loss")[1]
    assert text.splitlines()[0].endswith(" on average over 2 runs")
    assert "copies" not in text
    assert "median over runs" in text
    assert "luck (repeated runs)" in text
    table = text[text.index("configurations by val/loss") :].splitlines()
    assert table[1].split()[-4:] == ["runs", "time", "per", "run"]
    assert [line for line in text.splitlines() if "seed" in line] == []


def test_one_configuration_has_one_interval_in_all_tables(tmp_path: Path) -> None:
    for lr in (0.1, 10.0, 1000.0):
        for seed in range(2):
            with labbench.start(
                config={"lr": lr, "seed": seed}, db=tmp_path / "runs.db", system_metrics=False
            ) as script:
                script.log({"val/loss": lr * (1.0 + 0.1 * seed)})
    answer = json.loads(run("--db", str(tmp_path / "runs.db"), "why", "val/loss", "--json")[1])
    [parameter] = answer["parameters"]
    effects = {effect["value"]: effect for effect in parameter["effects"]}
    for estimate in answer["ranking"][1:]:  # the interval of the best is adjusted for its selection
        effect = effects[estimate["config"]["lr"]]
        assert (effect["low"], effect["high"]) == pytest.approx((estimate["low"], estimate["high"]))
    assert effects[0.1]["low"] == pytest.approx(answer["best"]["low"])
    text = run("--db", str(tmp_path / "runs.db"), "why", "val/loss")[1]
    assert ("it was picked among" in text) == (answer["best"]["selected_among"] > 1)


def test_the_json_is_one_document(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/accuracy", "--json")
    answer = json.loads(text)
    assert answer["goal"] == "max"
    assert answer["best"]["config"]["lr"] == 0.01
    assert {parameter["name"] for parameter in answer["parameters"]} == {"optimizer", "lr"}


def test_an_unknown_metric_is_refused_with_the_closest_name(database: str) -> None:
    status, _, error = run("--db", database, "why", "val/los", "status=finished")
    assert status == 2
    assert "did you mean `val/loss`?" in error


def test_without_results_the_answer_is_that_there_are_none(database: str) -> None:
    status, text, _ = run("--db", database, "why", "val/loss", "status=queued")
    assert status == 0
    assert "no" in text.splitlines()[0]


def test_a_table_lists_the_configurations_with_their_seeds(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss", "lr<1")
    lines = text.splitlines()
    table = lines[lines.index("configurations by val/loss") + 1 :]
    assert table[0].split()[0] == "configuration"
    assert table[0].split()[-4:] == ["seeds", "time", "per", "run"]
    assert table[1].strip().startswith("adam, lr 0.01")


def test_the_two_way_table_marks_the_best_configuration(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss")
    lines = text.splitlines()
    at = lines.index("val/loss by optimizer and lr, mean over the rest (✗ diverged)")
    assert lines[at + 1].split() == ["optimizer", "\\", "lr", "0.001", "0.01", "1"]
    assert "★" in lines[at + 2]
    assert lines[at + 2].split() == ["adam", "0.074", "★", "0.062", "0.055", "✗1"]  # not the one that diverges


def test_costs_are_reported_for_the_given_target(database: str) -> None:
    _, text, _ = run("--db", database, "why", "val/loss", "--target", "1")
    assert "fastest to val/loss 1: " in text
    assert "cost of reaching val/loss 1, median over seeds" in text
    _, document, _ = run("--db", database, "why", "val/loss", "--target", "1", "--json")
    answer = json.loads(document)
    assert answer["efficiency"]["target"] == 1.0
    assert answer["efficiency"]["setups"][0]["steps"] > 0
    assert {"ranking", "heat_maps", "rate_ranges"} <= answer.keys()


@pytest.mark.parametrize("target", ["nan", "inf", "1e999"])
def test_a_target_that_no_run_can_reach_is_wrong_usage(database: str, target: str) -> None:
    status, text, error = run("--db", database, "why", "val/loss", "--target", target)
    assert (status, text) == (2, "")
    assert "--target" in error
    assert "finite" in error


def test_scripts_whose_last_value_is_nan_count_as_diverged(tmp_path: Path) -> None:
    db = tmp_path / "runs.db"
    for lr in (0.1, 1.0):
        for seed in range(2):
            with labbench.start(config={"lr": lr, "seed": seed}, db=db, system_metrics=False) as script:
                for loss in (1.0, 0.5, float("nan")):
                    script.log({"loss": loss})
    status, text, _ = run("--db", str(db), "why", "loss")
    assert status == 0
    assert text.splitlines()[0] == "no run has a value of loss: 4 of 4 runs diverged"


def test_a_script_that_ends_with_nan_has_diverged_everywhere(tmp_path: Path) -> None:
    db = str(tmp_path / "runs.db")
    for lr, losses in ((1.0, (1.0, 0.1, float("nan"))), (0.1, (1.0, 0.5, 0.6)), (0.2, (1.0, 0.7, 0.8))):
        with labbench.start(config={"lr": lr}, name=f"lr {lr}", db=db, system_metrics=False) as script:
            for loss in losses:
                script.log({"val/loss": loss, "val/auc": loss})
    listed = json.loads(run("--db", db, "ls", "--sort", "best(val/loss)", "--json")[1])
    assert [(record["name"], record["status"]) for record in listed] == [
        ("lr 0.1", "finished"), ("lr 0.2", "finished"), ("lr 1.0", "diverged"),
    ]  # fmt: skip
    assert listed[2]["reason"] == "non-finite val/loss at step 2"
    assert [record["name"] for record in json.loads(run("--db", db, "ls", "best(val/loss)<0.6", "--json")[1])] == [
        "lr 0.1"
    ]
    assert len(json.loads(run("--db", db, "ls", "min(val/loss)<0.6", "--json")[1])) == 2, "its finite values are kept"
    table = run("--db", db, "ls", "status=diverged", "--columns", "best(val/loss),min(val/loss)", "--format", "csv")[1]
    assert table.splitlines()[1].endswith(",,0.1000")
    shown = run("--db", db, "show", "lr 1.0")[1].splitlines()
    assert [line.split() for line in shown if line.startswith("val/")] == [["val/loss", "3", "1", "nan"],
                                                                           ["val/auc", "3", "1", "nan"]]  # fmt: skip
    assert [line.split()[1] for line in shown if line.startswith("status")] == ["diverged:"]
    answer = json.loads(run("--db", db, "why", "val/loss", "--json")[1])
    assert (answer["best"]["config"]["lr"], answer["runs"]["diverged"]) == (0.1, 1)
    assert "1 of 3 runs diverged" in run("--db", db, "why", "val/loss")[1]


def test_runs_of_one_name_are_told_apart_by_the_settings_that_differ(tmp_path: Path) -> None:
    db = str(tmp_path / "runs.db")
    for epochs in (20, 40):
        config = {"epochs": epochs, "lr": 0.1, "a_long_name_of_a_constant_setting": 1}
        with labbench.start(config=config, name="adam lr=0.1", db=db, system_metrics=False) as script:
            for step in range(epochs):
                script.log({"val/loss": 1 / (1 + step)})
    drawn = run("--db", db, "plot", "val/loss")[1]
    assert "adam lr=0.1 epochs=20" in drawn
    assert "adam lr=0.1 epochs=40" in drawn
    text = run("--db", db, "why", "val/loss")[1]
    assert text.startswith("best: epochs 40: val/loss 0.0250 with one run")


def test_a_metric_other_than_a_loss_may_end_with_nan_without_divergence(tmp_path: Path) -> None:
    db = str(tmp_path / "runs.db")
    with labbench.start(config={"lr": 1}, db=db, system_metrics=False) as script:
        script.log({"val/loss": 0.5, "val/auc": float("nan")})  # such as the AUC of a batch with one class
    assert [record["status"] for record in json.loads(run("--db", db, "ls", "--json")[1])] == ["finished"]


@pytest.fixture
def two_experiments(tmp_path: Path) -> str:
    """Return a database of scripts in two experiments; the older one has a better loss at another learning rate."""
    for experiment, best_lr in (("old", 0.3), ("new", 0.1)):
        for lr in (0.1, 0.3):
            for state in (0, 1, 2):
                config = {"lr": lr, "random_state": state, "output_dir": f"out/{experiment}-{lr}-{state}"}
                start = labbench.start(
                    experiment=experiment, config=config, db=tmp_path / "runs.db", system_metrics=False
                )
                with start as run:
                    loss = (0.1 if experiment == "old" else 0.5) + (lr != best_lr)
                    run.log({"val/loss": loss + 0.01 * state}, step=0)
                    run.log({"val/loss": 2 * loss + 0.01 * state}, step=1)
    return str(tmp_path / "runs.db")


def test_the_newest_experiment_is_reported_and_named(two_experiments: str) -> None:
    _, text, _ = run("--db", two_experiments, "why", "val/loss")
    lines = text.splitlines()
    assert lines[0].startswith("best: lr 0.1: val/loss 0.51")
    assert lines[3].startswith("experiment new, the newest of 2 with val/loss")
    assert "seeds: random_state" in lines
    assert "keys left out: output_dir, which identify a run (--keep KEY keeps one)" in lines


def test_all_experiments_are_pooled_on_request(two_experiments: str) -> None:
    _, text, _ = run("--db", two_experiments, "why", "val/loss", "--all", "--json")
    assert json.loads(text)["scope"]["experiments"] == ["new", "old"]
    _, text, _ = run("--db", two_experiments, "why", "val/loss", "experiment=old", "--json")
    answer = json.loads(text)
    assert (answer["best"]["config"]["lr"], answer["best"]["n"]) == (0.3, 3)
    assert answer["scope"]["run_keys"] == ["output_dir"]


def test_the_options_of_keys_and_values_reach_the_answer(two_experiments: str) -> None:
    words = ("--db", two_experiments, "why", "val/loss", "--json")
    assert json.loads(run(*words, "--last")[1])["best"]["mean"] == pytest.approx(1.01)
    assert json.loads(run(*words, "--ignore", "lr")[1])["runs"]["setups"] == 1
    assert json.loads(run(*words, "--keep", "output_dir")[1])["runs"]["setups"] == 6
    assert json.loads(run(*words, "--seed-key", "random_state")[1])["best"]["n"] == 3
    status, _, error = run(*words, "--ignore", "output_dri")
    assert status == 2
    assert "did you mean `output_dir`" in error


@pytest.fixture
def gaps(tmp_path: Path) -> str:
    """Return a database in which batch normalization halves the last gap; every gap is 0 at the start."""
    for batchnorm in (False, True):
        for seed in range(3):
            config = {"batchnorm": batchnorm, "seed": seed}
            with labbench.start(config=config, db=tmp_path / "runs.db", system_metrics=False) as script:
                for step in range(1, 21):
                    gap = (0.05 if batchnorm else 0.1) * (step - 1) / 19 + 0.001 * seed
                    script.log({"gap/accuracy": gap - 0.01 * batchnorm * (step == 2), "val/loss": 1 + step}, step=step)
    return str(tmp_path / "runs.db")


def test_a_run_counts_with_its_last_gap_because_an_untrained_network_has_the_smallest(gaps: str) -> None:
    _, text, _ = run("--db", gaps, "why", "gap/accuracy")
    assert text.startswith("best: batchnorm: gap/accuracy 0.051")
    assert "each run counts with its last gap/accuracy, because an untrained network may have the best one" in text
    assert "fastest to" not in text
    assert json.loads(run("--db", gaps, "why", "gap/accuracy", "--best", "--json")[1])["best"]["mean"] < 0.01


def test_best_values_from_the_start_of_most_runs_are_reported(gaps: str) -> None:
    words = "the best val/loss of 6 of 6 runs lies in the first tenth of their steps"
    _, text, _ = run("--db", gaps, "why", "val/loss")
    assert words in text
    assert "which is optimistic: on average 19 below its last value" in text
    _, text, _ = run("--db", gaps, "why", "val/loss", "--last")
    assert words not in text


def test_a_gap_has_no_best_value_in_the_tables_of_runs(gaps: str) -> None:
    _, text, _ = run("--db", gaps, "ls", "--json")
    keys = [record["key"] for record in json.loads(text)]
    _, text, _ = run("--db", gaps, "compare", keys[0], keys[-1])
    assert "last gap/accuracy" in text
    assert "best gap/accuracy" not in text
    _, text, _ = run("--db", gaps, "show", keys[0], "--plain")
    assert "gap/accuracy" in text
    _, text, _ = run("--db", gaps, "ls", "--columns", "gap/accuracy")
    assert "best" not in text.splitlines()[0]


def test_a_filter_that_matches_no_run_is_reported_as_by_ls(database: str) -> None:
    listed = run("--db", database, "ls", "optimizer=sgd", "lr=7")
    assert run("--db", database, "why", "val/loss", "optimizer=sgd", "lr=7") == listed
    assert listed[2].endswith("no run matches the filter\n")


def test_a_table_in_a_pipe_is_not_cut(tmp_path: Path) -> None:
    key = "a_long_name_of_a_parameter" * 3
    for value in ("x" * 60, "y" * 60):
        for seed in range(2):
            config = {key: value, "other": value, "seed": seed}
            with labbench.start(config=config, db=tmp_path / "runs.db", system_metrics=False) as script:
                script.log({"val/loss": len(value) + seed + 0.1 * (value[0] == "x")})
    _, text, _ = run("--db", str(tmp_path / "runs.db"), "why", "val/loss")
    table = text[text.index("configurations by val/loss") :].split("\n\n")[0]
    assert "…" not in table
    assert "time per run" in table


def test_latex_marks_the_interval_that_is_adjusted_for_its_selection(tmp_path: Path) -> None:
    for lr in (0.1, 0.2, 0.3):
        for seed in range(3):
            config = {"lr": lr, "seed": seed}
            with labbench.start(config=config, db=tmp_path / "runs.db", system_metrics=False) as script:
                script.log({"val/accuracy": 0.5 + 0.01 * ((seed + int(10 * lr)) % 3)})
    _, text, _ = run("--db", str(tmp_path / "runs.db"), "why", "val/accuracy", "--format", "latex")
    assert "The interval of the first row is wider than elsewhere: it was picked among 3 that could have won." in text
    assert all(line.isascii() for line in text.splitlines() if not line.startswith("%"))


def test_a_chosen_table_states_its_protocol_and_has_other_words(two_metrics: str) -> None:
    words = ["--db", two_metrics, "why", "test/accuracy", "--tune-on", "val/loss"]
    names = ["--rename", "test/accuracy=Accuracy", "--rename", "val/loss=validation loss", "--rename", "lr=rate"]
    _, text, _ = run(*words, "--format", "latex", "--table", "tuned:kind", *names)
    lines = text.splitlines()
    assert lines[:2] == [r"\begin{table}", r"\centering"]
    assert lines[-1] == r"\end{table}"
    assert text.count(r"\begin{table}") == 1
    caption = next(line for line in lines if line.startswith(r"\caption{"))
    assert "chosen by validation loss and judged by Accuracy, over 3 seeds each" in caption
    assert r"95 \% confidence intervals over seeds" in caption
    assert r"\label{tab:tuned-kind}" in lines
    [columns] = [line for line in lines if line.startswith(r"\begin{tabular}")]
    assert columns.endswith("l}"), "settings are text"
    assert "rate 0.1" in text
    assert not re.search(r"\blr\b|test/accuracy|val/loss", text)


def test_the_table_of_methods_has_the_search_space_and_the_protocol(two_metrics: str) -> None:
    words = ["--db", two_metrics, "why", "test/accuracy", "--tune-on", "val/loss", "--table", "methods"]
    _, text, _ = run(*words, "--format", "markdown", "--rename", "lr=learning rate")
    lines = text.splitlines()
    for row in ("| kind | a, b |", "| learning rate | 0.1, 0.2, 0.3 |", "| chosen by | val/loss |", "| runs | 18 |"):
        assert row in lines
    assert any(line.startswith("| hardware | ") and "memory" in line for line in lines)
    assert any(line.startswith("| software | python ") for line in lines)
    assert "6 configurations of 2 parameters, 18 runs in all. Configurations are chosen by val/loss" in lines[-1]
    _, text, _ = run(*words, "--format", "latex")
    assert r"\label{tab:methods}" in text
    assert text.count(r"\begin{tabular}{ll}") == 1


def test_all_tables_come_after_the_sentences(two_metrics: str) -> None:
    words = ["--db", two_metrics, "why", "test/accuracy", "--tune-on", "val/loss"]
    _, sentences, _ = run(*words)
    for table_format, start in (("latex", "% "), ("markdown", "- ")):
        _, text, _ = run(*words, "--format", table_format)
        assert text.splitlines()[0] == start + sentences.splitlines()[0]
    status, _, error = run(*words, "--format", "latex", "--table", "tuned:lr2")
    assert status == 2
    assert "has no such table; it has methods, tuned, " in error
    status, _, error = run(*words, "--table", "tuned")
    assert (status, "--format latex" in error) == (2, True)
    status, _, error = run(*words, "--format", "latex", "--rename", "lr")
    assert (status, "write NAME=TEXT" in error) == (2, True)


@pytest.fixture
def two_metrics(tmp_path: Path) -> str:
    """Return a database in which the validation loss prefers lr 0.1 for each kind, and the test accuracy lr 0.2.

    The validation loss is lowest at step 2 of 3, where the test accuracy is 0.01 above its last value.
    """
    for kind, gain in (("a", 0.1), ("b", 0.0)):
        for lr in (0.1, 0.2, 0.3):
            for seed in range(3):
                config = {"kind": kind, "lr": lr, "seed": seed}
                with labbench.start(config=config, db=tmp_path / "runs.db", system_metrics=False) as script:
                    accuracy = 0.7 + gain + 0.05 * (lr == 0.2) + 0.001 * seed
                    loss = lr - gain / 10 + 0.01 * seed
                    script.log({"val/loss": loss + 1.0, "test/accuracy": 0.99}, step=1)
                    script.log({"val/loss": loss, "test/accuracy": accuracy + 0.01}, step=2)
                    script.log({"val/loss": loss + 0.5, "test/accuracy": accuracy}, step=3)
    return str(tmp_path / "runs.db")


def test_configurations_are_chosen_by_one_metric_and_judged_on_another(two_metrics: str) -> None:
    words = ("--db", two_metrics, "why", "test/accuracy", "--tune-on", "val/loss")
    answer = json.loads(run(*words, "--json")[1])
    assert answer["scope"]["tune_on"] == {"metric": "val/loss", "values": "best", "network": "best step"}
    assert answer["scope"]["values"] == "best step"
    assert answer["best"]["config"] == {"kind": "a", "lr": 0.1}
    assert answer["best"]["mean"] == pytest.approx(0.811), "not the last value, 0.801, nor the best one, 0.99"
    kinds = next(comparison for comparison in answer["tuned"] if comparison["name"] == "kind")["values"]
    assert [(value["value"], value["chosen"]["lr"]) for value in kinds] == [("a", 0.1), ("b", 0.1)]
    assert kinds[1]["difference"]["mean"] == pytest.approx(0.1)
    lines = run(*words)[1].splitlines()
    assert lines[0] == "best by val/loss: a, lr 0.1: test/accuracy 0.811 on average over 3 seeds"
    values = "chosen by the best val/loss of each run, and each run counts with its test/accuracy of the same step"
    assert values in "".join(lines)
    assert not any(line.startswith("warning: the configurations are compared and tuned by") for line in lines)
    assert json.loads(run(*words, "--best", "--json")[1])["best"]["mean"] == pytest.approx(0.811)
    last = json.loads(run(*words, "--last", "--json")[1])
    assert last["best"]["mean"] == pytest.approx(0.801)
    assert last["scope"]["tune_on"] == {"metric": "val/loss", "values": "last", "network": "last"}


def test_every_choice_is_made_by_the_tuning_metric(two_metrics: str) -> None:
    words = ("--db", two_metrics, "why", "test/accuracy", "--tune-on", "val/loss")
    answer, text = json.loads(run(*words, "--json")[1]), run(*words)[1]
    ranking = [(row["config"]["kind"], row["config"]["lr"]) for row in answer["ranking"]]
    assert ranking == [("a", 0.1), ("b", 0.1), ("a", 0.2), ("b", 0.2), ("a", 0.3), ("b", 0.3)]
    assert [row["score"] for row in answer["ranking"]] == pytest.approx([0.1, 0.11, 0.2, 0.21, 0.3, 0.31])
    lines = text.splitlines()
    header = lines[lines.index("configurations by val/loss, judged by test/accuracy") + 1]
    assert header.split()[:3] == ["configuration", "val/loss", "mean"]
    assert "test/accuracy by kind and lr, mean over the rest; best by val/loss: a, lr 0.1" in lines
    starred = next(line for line in lines if line.split()[:1] == ["a"] and "★" in line and "●" not in line)
    assert starred.split()[1:3] == ["★", "0.811"], "lr 0.1, though the test accuracy prefers lr 0.2"
    assert answer["rate_ranges"][0]["range"]["best"] == 0.1
    assert "lr within 5 % of the best val/loss, other parameters tuned" in lines
    assert any("averages over all settings" in line and "choose nothing by them" in line for line in lines)


_VALIDATION = {0.1: (0.9, 0.2, 0.8), 0.2: (0.9, 0.6, 0.5)}
"""Validation loss at steps 1 to 3 by learning rate: 0.1 has the best network, and 0.2 the best final one."""
_TEST = {0.1: 0.6, 0.2: 0.7}
"""Test accuracy of the network that was measured once."""


def measure_test_accuracy_once(database: Path, step: int | None) -> None:
    """Record runs whose test accuracy is measured once at the end, under a step or as a result without one."""
    for lr, losses in _VALIDATION.items():
        for seed in range(3):
            with labbench.start(config={"lr": lr, "seed": seed}, db=database, system_metrics=False) as script:
                for number, loss in enumerate(losses, start=1):
                    script.log({"val/loss": loss + 0.01 * seed}, step=number)
                script.log({"test/accuracy": _TEST[lr]}, step=step)


@pytest.mark.parametrize(
    ("step", "options", "chosen"),
    [
        (3, (), 0.2),  # the final network
        (None, (), 0.2),
        (0, (), 0.2),  # as MLflow records a result without a step
        (2, (), 0.1),  # the network of step 2, which the script names
        (3, ("--last",), 0.2),
        (3, ("--best",), 0.1),  # restored from step 2 before the test
    ],
)
def test_a_configuration_is_chosen_by_the_network_that_the_test_metric_was_measured_on(
    tmp_path: Path, step: int | None, options: tuple[str, ...], chosen: float
) -> None:
    database = tmp_path / "runs.db"
    measure_test_accuracy_once(database, step)
    words = ("--db", str(database), "why", "test/accuracy", "--tune-on", "val/loss", *options)
    answer = json.loads(run(*words, "--json")[1])
    assert answer["best"]["config"]["lr"] == chosen
    assert answer["best"]["mean"] == pytest.approx(_TEST[chosen])
    network = {(): "measured step", ("--last",): "last", ("--best",): "restored"}[options]
    assert answer["scope"]["tune_on"]["network"] == network
    words_of = {"measured step": "of the same network", "last": "its last test/accuracy", "restored": "restored from"}
    assert words_of[network] in run(*words)[1]


def test_metrics_of_different_steps_are_compared_by_their_last_values(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        with labbench.start(config={"lr": lr}, db=tmp_path / "runs.db", system_metrics=False) as script:
            for step in range(0, 8, 2):
                script.log({"val/loss": lr + (step != 2)}, step=step)
                script.log({"test/accuracy": lr}, step=step + 1)
    words = ("--db", str(tmp_path / "runs.db"), "why", "test/accuracy", "--tune-on", "val/loss")
    assert json.loads(run(*words, "--json")[1])["scope"]["tune_on"]["network"] == "last"
    status, _, error = run(*words, "--best")
    assert status == 2
    assert "were never measured at the same step" in error


@pytest.mark.parametrize(
    ("metric", "message"), [("val/los", "did you mean `val/loss`?"), ("time/compute_s", "neither high nor low values")]
)
def test_a_metric_that_cannot_choose_is_wrong_usage(two_metrics: str, metric: str, message: str) -> None:
    with labbench.start(db=two_metrics, system_metrics=False) as script:
        script.log({"time/compute_s": 1.0})
    status, _, error = run("--db", two_metrics, "why", "test/accuracy", "--tune-on", metric)
    assert status == 2
    assert message in error


def test_a_figure_of_tuned_values_has_the_choices_of_why(
    two_metrics: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labbench.reports import answer_figures

    drawn: list[tuple[list[float], str]] = []

    def record(path: Path, rows: Any, style: Any, *, labels: tuple[str, str], log: bool) -> None:
        drawn.append(([interval.mean for _, interval in rows], labels[0]))

    monkeypatch.setattr(answer_figures, "draw_intervals", record)
    figure = ("plot", "test/accuracy", "--tuned", "kind", "-o", str(tmp_path / "tuned.svg"))
    for options in ((), ("--tune-on", "val/loss")):
        answer = json.loads(run("--db", two_metrics, "why", "test/accuracy", *options, "--json")[1])
        kinds = next(comparison for comparison in answer["tuned"] if comparison["name"] == "kind")["values"]
        status, _, error = run("--db", two_metrics, *figure, *options)
        assert status == 0
        assert drawn[-1][0] == [value["mean"] for value in kinds]
        assert ("warning: the configurations are compared and tuned by test/accuracy" in error) == (not options)
    assert drawn[0][0] != drawn[1][0]
    assert drawn[1][1] == "test/accuracy, tuned by val/loss, on new seeds"
    assert run("--db", two_metrics, "plot", "test/accuracy", "--tune-on", "val/loss")[0] == 2


def test_the_warning_of_choices_by_test_data_names_the_metric_to_report(two_metrics: str) -> None:
    with labbench.start(db=two_metrics, config={"kind": "c", "lr": 0.4, "seed": 0}, system_metrics=False) as script:
        script.log({"test/loss": 1.0, "test/accuracy": 0.5})
    with labbench.start(db=two_metrics, config={"kind": "c", "lr": 0.5, "seed": 0}, system_metrics=False) as script:
        script.log({"test/loss": 2.0, "test/accuracy": 0.6})
    text = run("--db", two_metrics, "why", "test/accuracy", "--tune-on", "test/loss")[1]
    warning = next(line for line in text.splitlines() if line.startswith("warning: "))
    assert "tuned by test/loss itself" in warning
    assert "report test/accuracy of the chosen configuration" in warning


def test_tuning_by_a_metric_of_test_data_is_reported(tmp_path: Path) -> None:
    for lr in (0.1, 0.2):
        with labbench.start(config={"lr": lr}, db=tmp_path / "runs.db", system_metrics=False) as script:
            script.log({"test/accuracy": lr, "val/accuracy": lr})
    words = "the configurations are compared and tuned by test/accuracy itself"
    assert words in run("--db", str(tmp_path / "runs.db"), "why", "test/accuracy")[1]
    assert "tuned by" not in run("--db", str(tmp_path / "runs.db"), "why", "val/accuracy")[1]
