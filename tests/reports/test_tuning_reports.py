"""Tuned values and the best of n random configurations in the report, the web page and figures, from a database."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from helpers.analysis_grids import grid
from helpers.store_samples import execute, new_run, points, start
from labbench.analysis import why
from labbench.records import Finished
from labbench.reports.budget_chart import HEIGHT, MARGIN
from labbench.reports.config_draws import read_sampling
from labbench.reports.tables import effects_table, setups_table, tuned_tables
from labbench.store.reader import Reader
from labbench.store.writer import Writer

Labbench = Callable[..., Result]

RANDOM = "[grid]\noptimizer = ['sgd', 'adam']\n[random]\nsamples = 12\nlr = { loguniform = [1e-4, 1.0] }\n"


def write_search(path: Path, grid: str = RANDOM, *, seeds: int = 1) -> None:
    """Write 24 finished runs per seed of two optimizers with 12 learning rates each, of a grid with this text."""
    generator = np.random.default_rng(0)
    rates = [float(f"{10.0 ** generator.uniform(-4, 0):.6g}") for _ in range(12)]
    configs = [(o, rate, seed) for o in ("sgd", "adam") for rate in rates for seed in range(seeds)]
    runs = [new_run(i, optimizer=o, lr=rate, seed=seed) for i, (o, rate, seed) in enumerate(configs)]
    with Writer(path) as writer:
        for run in start(writer, runs, sources={"grid": grid}):
            gain = 0.3 * (run.config["optimizer"] == "adam") + 0.01 * float(generator.normal())
            value = 0.6 + gain - 0.02 * abs(np.log10(run.config["lr"]) + 2.0)
            writer.write([points(run, "val/accuracy", [0.1, float(value)])])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])


@pytest.mark.parametrize(
    ("grid", "kind"),
    [
        (RANDOM, "random draws"),
        ("[grid]\nlr = [1, 2]\n[search]\nmethod = 'random'\n", "random subset"),
        ("[grid]\nlr = [1, 2]\n", None),
        (RANDOM + "[search]\nmethod = 'halving'\n", None),
        (RANDOM + "[search]\nmethod = 'tpe'\n", None),
        ("not TOML", None),
    ],
)
def test_draws_that_depend_on_results_are_not_taken_for_random_ones(
    tmp_path: Path, grid: str, kind: str | None
) -> None:
    write_search(tmp_path / "runs.db", grid)
    with Reader(tmp_path / "runs.db") as reader:
        sampling = read_sampling(reader, reader.runs())
    assert (None if sampling is None else sampling.kind) == kind


def test_a_second_search_over_a_narrower_range_is_no_random_draw(tmp_path: Path) -> None:
    write_search(tmp_path / "runs.db")
    with Writer(tmp_path / "runs.db") as writer:
        start(writer, [new_run(99)], sources={"grid": RANDOM.replace("1e-4", "1e-3")})
    with Reader(tmp_path / "runs.db") as reader:
        assert read_sampling(reader, reader.runs()) is None


def test_the_report_and_the_page_compare_random_configurations(labbench: Labbench, tmp_path: Path) -> None:
    write_search(tmp_path / "runs.db")
    text = labbench("why", "val/accuracy").stdout
    assert "optimizer, best of n random configurations: adam is better than sgd up to n = " in text
    assert "best val/accuracy of n random configurations, median [95 % for all n at once]" in text
    assert labbench("why", "val/accuracy", "--html", "a.html").exit_code == 0
    assert "best val/accuracy by number of random configurations" in (tmp_path / "a.html").read_text()
    rows = list(csv.DictReader(io.StringIO(labbench("why", "val/accuracy", "--format", "csv").stdout)))
    assert {row["value"] for row in rows if row["table"] == "budgets"} == {"sgd", "adam"}


def test_the_report_and_the_page_lead_with_tuned_values(labbench: Labbench, tmp_path: Path) -> None:
    write_search(tmp_path / "runs.db", seeds=3)
    lines = labbench("why", "val/accuracy").stdout.splitlines()
    assert lines[3].startswith("optimizer, each value at its best setting: adam is better than sgd by 0.")
    assert labbench("why", "val/accuracy", "--html", "a.html").exit_code == 0
    assert "optimizer: each value at its own best setting" in (tmp_path / "a.html").read_text()
    [tuned] = json.loads(labbench("why", "val/accuracy", "--json").stdout)["tuned"]
    assert [(value["value"], value["settings"]) for value in tuned["values"]] == [("adam", 12), ("sgd", 12)]


def test_the_csv_has_the_numbers_of_the_json_one_in_a_cell(labbench: Labbench, tmp_path: Path) -> None:
    write_search(tmp_path / "runs.db", seeds=3)
    answer = json.loads(labbench("why", "val/accuracy", "--json").stdout)
    rows = list(csv.DictReader(io.StringIO(labbench("why", "val/accuracy", "--format", "csv").stdout)))
    of_table = {name: [row for row in rows if row["table"] == name] for name in {row["table"] for row in rows}}
    best, second = of_table["configurations"][:2]
    assert [float(best[name]) for name in ("estimate", "low", "high")] == [
        answer["best"][name] for name in ("mean", "low", "high")
    ]
    assert (best["config.optimizer"], float(best["config.lr"])) == ("adam", answer["best"]["config"]["lr"])
    assert float(second["difference_low"]) == answer["runner_up"]["difference"]["low"]
    assert float(second["probability"]) == answer["runner_up"]["probability_of_improvement"]
    [comparison] = answer["tuned"]
    assert [(row["value"], float(row["estimate"]), int(row["settings"])) for row in of_table["tuned"]] == [
        (value["value"], value["mean"], value["settings"]) for value in comparison["values"]
    ]
    optimizer = next(parameter for parameter in answer["parameters"] if parameter["name"] == "optimizer")
    effects = [row for row in of_table["effects"] if row["parameter"] == "optimizer"]
    assert [float(row["p"]) for row in effects] == [optimizer["p_value"]] * 2
    assert not any("±" in cell or " of " in cell or "[" in cell for row in rows for cell in row.values())


def test_all_rows_of_a_column_have_the_same_decimals() -> None:
    """The runs of one optimizer spread 25 times as much as the others, so their intervals justify fewer decimals."""
    calm = grid(lambda config: 0.6 + config["lr"], axes={"optimizer": ["adam"], "lr": [0.1, 0.2]}, spread=0.002)
    wild = grid(lambda config: 0.6 + config["lr"], axes={"optimizer": ["sgd"], "lr": [0.1, 0.2]}, spread=0.05)
    answer = why([*calm, *wild], "score", "max")
    setups = setups_table(answer)
    assert setups is not None
    tables = [*tuned_tables(answer), setups, *(effects_table(answer, parameter) for parameter in answer.parameters)]
    for table in tables:
        decimals = {len(digits) for row in table.rows for digits in re.findall(r"\.(\d+)", row[1])}
        assert len(decimals) == 1, table
    assert len({len(row[3]) for row in setups.rows}) == 1, "the standard deviations"


def test_figures_of_tuned_values_and_of_random_configurations(labbench: Labbench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_search(tmp_path / "runs.db", seeds=3)
    assert labbench("plot", "val/accuracy", "--tuned", "optimizer", "-o", "a.svg").exit_code == 0
    assert "adam (of 12)" in (tmp_path / "a.svg").read_text()
    assert labbench("plot", "val/accuracy", "--best-of", "optimizer", "-o", "b.svg").exit_code == 0
    assert "number of random configurations" in (tmp_path / "b.svg").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--tuned", "optimizer"], "--tuned draws a figure: add -o FILE"),
        (
            ["--tuned", "optimizr", "-o", "a.svg"],
            "no key of this name varies in the runs; keys that can be compared: `optimizer`; did you mean `optimizer`?",
        ),
        (
            ["--tuned", "lr", "-o", "a.svg"],
            "more than 6 numbers as values; select some by a filter, such as lr=VALUE,VALUE",
        ),
        (["--tuned", "lr", "-o", "a.svg"], "; keys that can be compared: `optimizer`"),
        (["optimizer=adam", "--tuned", "lr", "-o", "a.svg"], "no other key varies, so there is nothing to tune"),
        (["--best-of", "all", "-o", "a.svg"], "needs at least 5 configurations per value that were drawn at random"),
        (["--tuned", "optimizer", "--best-of", "all", "-o", "a.svg"], "--tuned and --best-of are different figures"),
    ],
)
def test_a_figure_that_cannot_be_drawn_says_what_is_missing(
    labbench: Labbench, tmp_path: Path, options: list[str], message: str
) -> None:
    pytest.importorskip("matplotlib")
    write_search(tmp_path / "runs.db", seeds=3)
    result = labbench("plot", "val/accuracy", *options)
    assert result.exit_code == 2
    assert message in result.stderr


def test_runs_that_a_search_stopped_early_are_not_compared_and_are_counted(labbench: Labbench, tmp_path: Path) -> None:
    write_search(tmp_path / "runs.db", RANDOM + "[search]\nmethod = 'halving'\n", seeds=3)
    execute(tmp_path / "runs.db", "UPDATE runs SET status = 'pruned' WHERE id % 3 = 1 AND id < 60")
    answer = json.loads(labbench("why", "val/accuracy", "--json").stdout)
    assert answer["scope"]["left_out"]["pruned"] == 20
    assert answer["budgets"] == []
    text = labbench("why", "val/accuracy").stdout
    assert "20 runs stopped early by a search are not compared, because other runs were trained for more epochs" in text
    assert "without val/accuracy" not in text  # they are reported once


def write_losses(path: Path) -> None:
    """Write losses from 0.003 to 0.3 of a random search with three seeds."""
    generator = np.random.default_rng(0)
    configs = [(o, float(f"{10.0 ** generator.uniform(-4, 0):.6g}")) for o in ("sgd", "adam") for _ in range(12)]
    runs = [new_run(3 * i + s, optimizer=o, lr=rate, seed=s) for i, (o, rate) in enumerate(configs) for s in range(3)]
    with Writer(path) as writer:
        for run in start(writer, runs, sources={"grid": RANDOM}):
            loss = 0.003 * 10.0 ** abs(np.log10(run.config["lr"]) + 2.0) * float(np.exp(0.1 * generator.normal()))
            writer.write([points(run, "val/loss", [2.0, loss]), Finished(run.key, run.attempt, "finished", "")])


@pytest.mark.parametrize("option", ["--best-of", "--tuned"])
def test_figures_of_losses_over_decades_have_a_log_axis(labbench: Labbench, tmp_path: Path, option: str) -> None:
    pytest.importorskip("matplotlib")
    write_losses(tmp_path / "runs.db")
    assert labbench("plot", "val/loss", option, "optimizer", "-o", "a.svg").exit_code == 0
    labels = [float(label) for label in re.findall(r">([0-9.]+)</text>", (tmp_path / "a.svg").read_text())]
    values = [label for label in labels if label < 1.0]
    assert values, "plain numbers, no powers of ten"
    assert not any(value == 0.0 for value in values), "a linear axis begins at 0"


def test_the_axes_of_the_best_of_n_show_the_curves(labbench: Labbench, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    write_search(tmp_path / "runs.db")
    for words, label in (((), "median"), (("--mean",), "mean")):
        assert labbench("plot", "val/accuracy", "--best-of", "optimizer", *words, "-o", "a.svg").exit_code == 0
        text = (tmp_path / "a.svg").read_text()
        texts = re.findall(r"<text[^>]*>([^<]+)</text>", text)
        assert f"best val/accuracy, {label}" in texts
        assert {"1", "2", "5", "10"} <= {*texts}
        assert "FillBetweenPolyCollection" in text if label == "median" else "FillBetweenPolyCollection" not in text
    assert labbench("plot", "val/accuracy", "optimizer=adam", "--best-of", "all", "-o", "b.svg").exit_code == 0
    assert "1.0" not in re.findall(r">([0-9.]+)</text>", (tmp_path / "b.svg").read_text()), "only the band goes there"


def test_medians_of_steps_are_whole_numbers(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        for run in start(writer, [new_run(i, lr=0.1 * (1 + i % 2), seed=i // 2) for i in range(4)]):
            values = {10 + 5 * run.config["seed"] + step: 1.0 / step for step in range(1, 9)}  # medians end in .5
            writer.write([points(run, "val/loss", values), Finished(run.key, 1, "finished", "all epochs")])
    text = labbench("why", "val/loss", "--target", "0.5").stdout
    assert re.search(r"fastest to val/loss 0\.5: .* 14 steps", text)
    assert "14.5" not in text


def test_the_band_of_losses_on_the_page_is_within_its_log_axis(labbench: Labbench, tmp_path: Path) -> None:
    write_losses(tmp_path / "runs.db")
    assert labbench("why", "val/loss", "--html", "a.html").exit_code == 0
    (svg, *_) = re.findall(r'<svg [^>]*aria-label="best val/loss by number.*?</svg>', (tmp_path / "a.html").read_text())
    heights = [float(y) for points in re.findall(r'points="([^"]+)"', svg) for y in re.findall(r",([0-9.]+)", points)]
    assert (min(heights), max(heights)) == (MARGIN, HEIGHT - MARGIN)
    middle = [float(label) for label in re.findall(r'text-anchor="end">([0-9.e-]+)<', svg)][1]
    assert middle < 0.06, "the geometric mean of the ends, not half of the largest"


def write_halving(path: Path) -> None:
    """Write 6 configurations with seed 0, of which 4 were pruned, and 3 new seeds of 2 finalists with lower values."""
    with Writer(path) as writer:
        runs = start(writer, [new_run(i, lr=0.01 * (i + 1), seed=0) for i in range(6)])
        for i, run in enumerate(runs):
            writer.write([points(run, "val/accuracy", [0.1, 0.7 if i < 4 else 0.99])])
            writer.write([Finished(run.key, 1, "queued" if i < 4 else "finished", "")])
        writer.prune({run.key: "rung 1 of 2" for run in runs[:4]})
        new = start(
            writer, [new_run(10 * i + seed, lr=0.01 * (i + 1), seed=seed) for i in (4, 5) for seed in (1, 2, 3)]
        )
        writer.tag([run.key for run in new], ["new-seed"])
        for i, run in enumerate(new):
            writer.write([points(run, "val/accuracy", [0.1, 0.9 + 0.001 * i]), Finished(run.key, 1, "finished", "")])


def test_the_finalists_of_a_search_are_compared_on_new_seeds_alone(labbench: Labbench, tmp_path: Path) -> None:
    write_halving(tmp_path / "runs.db")
    answer = json.loads(labbench("why", "val/accuracy", "--json").stdout)
    assert answer["scope"]["left_out"]["pruned"] == 4
    assert answer["scope"]["left_out"]["choosing"] == 6
    assert (answer["best"]["n"], answer["best"]["mean"]) == (3, pytest.approx(0.904))
    assert answer["rate_ranges"] == [], "a pruned learning rate may be usable"
    text = labbench("why", "val/accuracy").stdout
    assert text.startswith("best: lr 0.06: val/accuracy")
    assert "without val/accuracy" not in text
    assert "only configurations that a search trained with new seeds are compared, on these seeds" in text
    assert "it chose them by 6 other runs, whose values are optimistic, 4 of them stopped early" in text
    assert json.loads(labbench("why", "val/accuracy", "status=finished", "--json").stdout)["best"]["n"] == 4
    optimistic = "6 runs with new seeds are of configurations that a search chose by the other runs"
    assert optimistic in labbench("why", "val/accuracy", "status=finished").stdout
    assert optimistic not in labbench("why", "val/accuracy", "tag=new-seed").stdout


def test_mean_curves_leave_out_pruned_runs_unless_the_filter_asks_for_them(labbench: Labbench, tmp_path: Path) -> None:
    write_halving(tmp_path / "runs.db")
    assert "lr=0.05 (n=4)" in (text := labbench("plot", "val/accuracy", "--group", "lr").stdout)
    assert "lr=0.01" not in text
    assert "lr=0.01 (n=1)" in labbench("plot", "val/accuracy", "--group", "lr", "status=pruned").stdout


def test_the_same_result_has_the_same_digits_in_the_whole_answer(labbench: Labbench, tmp_path: Path) -> None:
    losses = {("adam", 0.1): 0.05, ("adam", 0.2): 0.1, ("sgd", 0.1): 0.1, ("sgd", 0.2): 0.2}
    configs = [(name, lr, seed) for name, lr in losses for seed in (0, 1)]
    new = [new_run(i, **{"opt.name": name, "lr": lr, "seed": seed}) for i, (name, lr, seed) in enumerate(configs)]
    with Writer(tmp_path / "runs.db") as writer:
        for run in start(writer, new):
            loss = losses[run.config["opt.name"], run.config["lr"]] + 0.01 * run.config["seed"]
            writer.write([points(run, "val/loss", [0.9, loss])])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    text = labbench("why", "val/loss").stdout
    assert "keys left out" not in text
    assert "best: lr 0.1, adam: val/loss 0.06 on average over 2 seeds" in text
    assert "opt.name, each value at its best setting: adam reached 0.06 and sgd 0.11" in text
    assert "0.0550" not in text
