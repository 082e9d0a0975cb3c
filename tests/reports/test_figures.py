"""`labbench plot -o`: figures of curves and heat maps, read back from the SVG."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import execute, new_run, points, start
from labbench.records import Finished
from labbench.reports.metric_curves import MetricSelection, PlotOptions
from labbench.reports.setting_axis import mean_by_setting, read_setting_groups
from labbench.store.reader import Reader
from labbench.store.writer import Writer

pytest.importorskip("matplotlib")

Labbench = Callable[..., Result]


@pytest.fixture
def labbench_with_runs(labbench: Labbench, tmp_path: Path) -> Labbench:
    """Return the command line in a folder whose database has 12 runs of two optimizers, two rates and three seeds."""
    runs = [
        new_run(4 * seed + 2 * i + j, name=f"{optimizer} {lr}", optimizer=optimizer, lr=lr, seed=seed)
        for seed in range(3)
        for i, optimizer in enumerate(["adam", "sgd"])
        for j, lr in enumerate([0.1, 0.2])
    ]
    with Writer(tmp_path / "runs.db") as writer:
        for number, run in enumerate(start(writer, runs)):
            curve = {step: (run.config["lr"] + 0.01 * number) / step for step in range(1, 6)}
            writer.write([points(run, "val/loss", curve)])
            writer.write([Finished(run.key, run.attempt, "finished", "all epochs")])
    return labbench


def read_texts(path: Path) -> list[str]:
    """Return the texts of an SVG in the order of the file."""
    return re.findall(r"<text[^>]*>([^<]+)</text>", path.read_text(encoding="utf-8"))


def test_curves_have_the_names_of_the_runs_and_axes_and_no_title(labbench_with_runs: Labbench, tmp_path: Path) -> None:
    assert labbench_with_runs("plot", "val/loss", "optimizer=adam", "seed=0", "-o", "a.svg").exit_code == 0
    texts = read_texts(tmp_path / "a.svg")
    assert {"step", "val/loss", "adam 0.1", "adam 0.2"} <= {*texts}
    first = (tmp_path / "a.svg").read_bytes()
    assert labbench_with_runs("plot", "val/loss", "optimizer=adam", "seed=0", "-o", "a.svg").exit_code == 0
    assert (tmp_path / "a.svg").read_bytes() == first, "the same data give the same file"
    labbench_with_runs("plot", "val/loss", "seed=0", "-o", "a.svg", "--title", "A title", "--log")
    assert "A title" in read_texts(tmp_path / "a.svg")


def test_groups_are_drawn_with_bands(labbench_with_runs: Labbench, tmp_path: Path) -> None:
    mixed = labbench_with_runs("plot", "val/loss", "--group", "optimizer", "-o", "a.svg")
    assert mixed.exit_code == 0
    assert "a group mixes settings, up to 2 configurations in 6 runs" in mixed.stderr
    separate = labbench_with_runs("plot", "val/loss", "--group", "optimizer,lr", "-o", "b.svg")
    assert "mixes settings" not in separate.stderr
    assert {"optimizer=adam (n=6)", "optimizer=sgd (n=6)"} <= {*read_texts(tmp_path / "a.svg")}
    assert (tmp_path / "a.svg").read_text().count("FillBetweenPolyCollection") == 2


def test_a_metric_is_drawn_by_a_configuration_key_with_bands_over_seeds(
    labbench_with_runs: Labbench, tmp_path: Path
) -> None:
    words = ["plot", "val/loss", "--group", "optimizer", "--x", "lr"]
    renames = ["--rename", "optimizer=adam=Adam", "--rename", "lr=learning rate", "--rename", "val/loss=Loss"]
    result = labbench_with_runs(*words, *renames, "-o", "a.svg")
    assert result.exit_code == 0, result.output
    assert "each run counts by its best val/loss" in result.stderr
    assert {"Adam (n=6)", "optimizer=sgd (n=6)", "learning rate", "Loss"} <= {*read_texts(tmp_path / "a.svg")}
    assert (tmp_path / "a.svg").read_text().count("FillBetweenPolyCollection") == 2
    text = labbench_with_runs(*words)
    assert text.exit_code == 0, text.output
    assert "optimizer=adam (n=6)" in text.stdout
    assert labbench_with_runs("plot", "val/loss", "--x", "lr").exit_code == 0
    refused = labbench_with_runs("plot", "val/loss", "--x", "optimizer")
    assert (refused.exit_code, "no matching run has val/loss and a number as optimizer" in refused.stderr) == (2, True)


def test_the_means_by_a_key_are_those_of_the_best_values_of_its_runs(
    labbench_with_runs: Labbench, tmp_path: Path
) -> None:
    with Reader(tmp_path / "runs.db") as reader:
        selection = MetricSelection(reader, "val/loss", None)
        _, groups = read_setting_groups(selection, PlotOptions(axis="lr", group=("optimizer",)))
        means = {name: mean_by_setting(name, points, log=False) for name, points in groups.items()}
        for name, mean in means.items():
            for lr, value in zip(mean.x, mean.y, strict=True):
                runs = reader.runs(f"{name.split(' ')[0]} lr={lr}")
                assert value == pytest.approx(sum(run.summary["val/loss"].min for run in runs) / 3)  # type: ignore[misc]
    assert len(means) == 2


def test_a_file_of_matplotlib_sets_colours_and_widths_of_the_lines(
    labbench_with_runs: Labbench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import matplotlib

    words = ["plot", "val/loss", "--group", "optimizer", "-o", "a.svg"]
    labbench_with_runs(*words)
    assert "#0072b2" in (tmp_path / "a.svg").read_text()
    file = tmp_path / "paper.mplrc"
    file.write_text('axes.prop_cycle: cycler("color", ["ff0000", "00ff00"])\nlines.linewidth: 4\n')
    monkeypatch.setenv("MATPLOTLIBRC", str(file))
    with matplotlib.rc_context(fname=str(file)):  # which a new process reads at its start
        labbench_with_runs(*words)
    text = (tmp_path / "a.svg").read_text()
    assert "stroke: #ff0000; stroke-width: 4" in text
    assert "#0072b2" not in text


@pytest.mark.parametrize("words", [["--group", "optimizer,lr"], ["--group", "optimizer", "--group", "lr"]])
def test_means_by_several_keys(labbench_with_runs: Labbench, words: list[str]) -> None:
    text = labbench_with_runs("plot", "val/loss", *words).stdout
    for label in ("optimizer=adam lr=0.1", "optimizer=adam lr=0.2", "optimizer=sgd lr=0.1", "optimizer=sgd lr=0.2"):
        assert f"{label} (n=3)" in text


def test_a_note_names_the_experiments_of_a_plot(labbench_with_runs: Labbench, tmp_path: Path) -> None:
    assert "experiments" not in labbench_with_runs("plot", "val/loss", "--group", "lr").stderr
    with Writer(tmp_path / "runs.db") as writer:
        for number, lr in enumerate([0.1, 0.2] * 2):
            (run,) = start(
                writer, [new_run(100 + number, optimizer=("adam", "sgd")[number // 2], lr=lr)], experiment="b"
            )
            writer.write([points(run, "val/loss", [2.0, 1.0]), Finished(run.key, 1, "finished", "all epochs")])
    choice = "the filter experiment=NAME selects one"
    result = labbench_with_runs("plot", "val/loss", "--group", "lr")
    assert "lr=0.1 (n=8)" in result.stdout
    assert result.stderr.startswith(f"note: the means pool runs of 2 experiments, grid and b; {choice}\n")
    assert (
        f"note: the curves are of 2 experiments, grid and b; {choice}" in labbench_with_runs("plot", "val/loss").stderr
    )
    assert not labbench_with_runs("plot", "val/loss", "experiment=b").stderr
    words = ("plot", "val/loss", "--heatmap", "optimizer", "lr", "-o", "a.svg")
    assert f"the figure is of b, the newest of 2 experiments; {choice}" in labbench_with_runs(*words).stderr
    assert "note" not in labbench_with_runs(*words, "experiment=grid").stderr


def test_options_word_a_figure(labbench_with_runs: Labbench, tmp_path: Path) -> None:
    words = ("--xlabel", "Epoch", "--ylabel", "Validation loss", "--ylim", "0,1", "--font", "serif")
    result = labbench_with_runs("plot", "val/loss", "--group", "lr", "-o", "a.svg", *words)
    assert result.exit_code == 0, result.stderr
    texts = read_texts(tmp_path / "a.svg")
    assert {"Epoch", "Validation loss", "0.0", "1.0"} <= {*texts}
    assert not {"step", "val/loss"} & {*texts}
    assert "sans-serif" not in (tmp_path / "a.svg").read_text()


def figure_height(path: Path) -> float:
    """Return the height of an SVG in points."""
    return float(re.findall(r'<svg[^>]* height="([0-9.]+)pt"', path.read_text(encoding="utf-8"))[0])


def test_a_legend_that_would_cover_curves_is_below_the_axes(labbench: Labbench, tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        for number, run in enumerate(start(writer, [new_run(i, lr=0.1 * (1 + i % 2), seed=i // 2) for i in range(6)])):
            writer.write([points(run, "val/loss", [0.1 + 0.1 * number] * 3), Finished(run.key, 1, "finished", "")])
    heights = []
    for limits in ("0,2", "0.1,0.6"):  # room above the bands, none
        words = ("--group", "lr", "--spread", "range", "--ylim", limits)
        assert labbench("plot", "val/loss", *words, "-o", "a.svg").exit_code == 0
        assert "lr=0.1 (n=3)" in read_texts(tmp_path / "a.svg")
        heights.append(figure_height(tmp_path / "a.svg"))
    assert heights[0] < heights[1]


def test_heat_map_labels_are_short_and_apart(labbench: Labbench, tmp_path: Path) -> None:
    rates = [float(f"{10 ** (-exponent / 2):.6g}") for exponent in range(9)]
    with Writer(tmp_path / "runs.db") as writer:
        for run in start(writer, [new_run(i, lr=rate, rule=i % 2, seed=0) for i, rate in enumerate(rates * 2)]):
            writer.write([points(run, "val/loss", [1.0, 0.44]), Finished(run.key, 1, "finished", "all epochs")])
    assert labbench("plot", "val/loss", "--heatmap", "rule", "lr", "-o", "a.svg").exit_code == 0
    assert {"0.000316", "0.0316", "0.440"} <= {*read_texts(tmp_path / "a.svg")}
    labels = re.findall(r"<text[^>]*rotate\(-?45[^>]*>([0-9.]+)</text>", (tmp_path / "a.svg").read_text())
    assert len(labels) == 9


def test_heat_map_has_the_mean_of_each_cell(labbench_with_runs: Labbench, tmp_path: Path) -> None:
    result = labbench_with_runs("plot", "val/loss", "--heatmap", "optimizer", "lr", "-o", "a.svg")
    assert result.exit_code == 0, result.output
    texts = read_texts(tmp_path / "a.svg")
    means = [
        (lr + 0.01 * sum(4 * seed + 2 * i + j for seed in range(3)) / 3) / 5
        for i in (0, 1)
        for j, lr in ((0, 0.1), (1, 0.2))
    ]
    assert [text for text in texts if text in {f"{mean:.4f}" for mean in means}] == [f"{mean:.4f}" for mean in means]
    assert {"optimizer", "lr", "adam", "sgd"} <= {*texts}


def test_a_run_and_its_continuation_count_once_in_means(labbench: Labbench, tmp_path: Path) -> None:
    configs = [
        {"rule": rule, "lr": lr, "epochs": epochs, "seed": seed}
        for epochs in (20, 40)
        for rule in ("lion", "sgd")
        for lr in (0.1, 0.2)
        for seed in range(2)
    ]
    with Writer(tmp_path / "runs.db") as writer:
        runs = start(writer, [new_run(number, **config) for number, config in enumerate(configs)])
        for run in runs:
            copied = dict.fromkeys(range(1, 21), 2.0 if run.config["rule"] == "lion" else 5.0)
            values = copied | dict.fromkeys(range(21, run.config["epochs"] + 1), 0.5)
            writer.write([points(run, "val/loss", values), Finished(run.key, 1, "finished", "all epochs")])
    for shorter, longer in zip(runs[:8], runs[8:], strict=True):
        execute(tmp_path / "runs.db", f"UPDATE runs SET continued_from = '{shorter.key}' WHERE key = '{longer.key}'")
    assert "rule=lion (n=4)" in labbench("plot", "val/loss", "--group", "rule").stdout
    assert "rule=lion (n=4)" in labbench("plot", "val/loss", "--group", "rule", "epochs=20").stdout
    assert "epochs=20 (n=8)" in labbench("plot", "val/loss", "--group", "epochs").stdout
    means = {"2.00", "5.00", "0.50", "0.500"}
    for column, expected in (("epochs", {"2.00", "5.00", "0.50"}), ("lr", {"0.500"})):
        result = labbench("plot", "val/loss", "--heatmap", "rule", column, "-o", "a.svg")
        assert result.exit_code == 0, result.stderr
        cells = re.findall(r"<text[^>]*anchor: middle[^>]*>([^<]+)</text>", (tmp_path / "a.svg").read_text())
        assert {*cells} & means == expected


@pytest.mark.parametrize(("ending", "start_of_file"), [("pdf", b"%PDF"), ("png", b"\x89PNG")])
def test_other_formats(labbench_with_runs: Labbench, tmp_path: Path, ending: str, start_of_file: bytes) -> None:
    assert labbench_with_runs("plot", "val/loss", "-o", f"a.{ending}", "--width", "page").exit_code == 0
    assert (tmp_path / f"a.{ending}").read_bytes().startswith(start_of_file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["-o", "a.jpg"], "must end in .svg, .pdf, .png"),
        (["-o", "a.svg", "--width", "wide"], "a width is column, page, or a number of inches"),
        (["--heatmap", "optimizer", "lr"], "a heat map is a figure: add -o FILE"),
        (["-o", "a.svg", "--heatmap", "optimizr", "lr"], "optimizer"),
        (["-o", "none/a.svg"], "none"),
        (["-o", "a.svg", "--ylim", "2,1"], "a range is two numbers, the smaller one first, such as 0,2.5"),
        (["-o", "a.svg", "--font", "No Such Font"], "no such font is installed"),
        (["-o", "a.svg", "--mean"], "--mean draws the mean of --best-of KEY"),
    ],
)
def test_wrong_input(labbench_with_runs: Labbench, tmp_path: Path, words: list[str], message: str) -> None:
    result = labbench_with_runs("plot", "val/loss", *words)
    assert (result.exit_code, message in result.stderr) == (2, True), result.stderr
    assert not list(tmp_path.glob("a.*"))
