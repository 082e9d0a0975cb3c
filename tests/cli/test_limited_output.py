"""Tables in narrow terminals, without UTF-8, and as lines to be read aloud."""

from __future__ import annotations

import io
import os
import pty
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

import labbench as labbench_api
from helpers.store_samples import new_run, points, start
from labbench.cli.showing.columns import METRIC_RANK, SETTING_RANK, STEP_RANK
from labbench.cli.tasks import DESCRIPTIONS
from labbench.cli.text_tables import TextColumn, fit_columns, plain_lines
from labbench.params.builtin import BUILTIN
from labbench.records import Finished, Log, NewRun
from labbench.store.writer import Writer
from labbench.text import cell_width

Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        runs = start(writer, [new_run(i, name=f"a long name of a run, seed {i} …") for i in range(3)])
        for run in runs:
            writer.write([points(run, "val/loss", [0.5, 0.25]), points(run, "val/accuracy", [0.5, 0.75])])
    return path


def test_settings_then_steps_then_metrics_give_way_and_names_are_shortened_last() -> None:
    columns = [
        TextColumn("name", ["a name of forty cells".ljust(40, ".")], min_cells=10),
        TextColumn("val/loss", ["0.1"]), TextColumn("at step", ["400"], rank=STEP_RANK),
        TextColumn("val/f1", ["0.9"], rank=METRIC_RANK), TextColumn("lr", ["0.01"], rank=SETTING_RANK),
    ]  # fmt: skip
    shown = {cells: [column.name for column in fit_columns(columns, cells)] for cells in (90, 76, 65, 56, 30)}
    assert shown == {
        90: ["name", "val/loss", "at step", "val/f1", "lr"],
        76: ["name", "val/loss", "at step", "val/f1"],
        65: ["name", "val/loss", "val/f1"],
        56: ["name", "val/loss"],
        30: ["name", "val/loss"],
    }
    assert cell_width(fit_columns(columns, 30)[0].cells[0]) == 19


def test_plain_lines_name_every_value_and_leave_out_empty_ones(labbench: Labbench, db: Path) -> None:
    columns = [TextColumn("", ["best val/loss"]), TextColumn("a", ["0.5"]), TextColumn("b", ["0.4 ▲ −0.1"])]
    assert plain_lines([*columns, TextColumn("c", [""])]) == ["best val/loss: a 0.5; b 0.4 better by −0.1"]
    for words in (["ls"], ["show", "a long name of a run, seed 0 …"], ["experiments"], ["tasks", "digits"]):
        for output in (labbench(*words, "--plain").stdout, labbench(*words, env={"LABBENCH_PLAIN": "1"}).stdout):
            assert output, words
            assert not set(output) & set("─│▲▼█▏"), words
    first = labbench("ls", "--plain").stdout.splitlines()[0]
    assert "; val/loss 0.25" in first or "; val/loss 0.2500" in first
    assert "; seed 0" in first


def on_terminal(folder: Path, *words: str, **environ: str) -> tuple[str, int]:
    """Return the output of a command on a terminal of 80 columns, and its exit status."""
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        ["sh", "-c", f"stty cols 80 rows 24; exec {shlex.join([sys.executable, '-m', 'labbench', *words])}"],
        stdin=terminal, stdout=terminal, stderr=subprocess.PIPE, cwd=folder, text=True,
        env={**os.environ, "TERM": "xterm", **environ},
    )  # fmt: skip
    os.close(terminal)
    output = io.BytesIO()
    while True:
        try:
            data = os.read(main, 65536)
        except OSError:  # the end of a pseudo-terminal
            break
        if not data:
            break
        output.write(data)
    os.close(main)
    assert process.stderr is not None
    process.stderr.close()
    return output.getvalue().decode(), process.wait()


def test_a_terminal_without_utf8_gets_ascii(db: Path, tmp_path: Path) -> None:
    output, status = on_terminal(tmp_path, "ls", LC_ALL="C", NO_COLOR="1")
    assert status == 0
    assert output.isascii()
    assert "---" in output
    assert "seed 0" in output
    assert "─" in on_terminal(tmp_path, "ls", LC_ALL="C.UTF-8")[0]


@pytest.mark.parametrize("words", [["ls"], ["plot", "val/loss"]])
def test_a_terminal_without_escape_sequences_gets_none(db: Path, tmp_path: Path, words: list[str]) -> None:
    assert "\x1b" in on_terminal(tmp_path, *words)[0]
    assert "\x1b" not in on_terminal(tmp_path, *words, TERM="dumb")[0]
    assert "\x1b" not in on_terminal(tmp_path, *words, NO_COLOR="1")[0]


def test_a_terminal_shows_the_colours_of_captured_output(tmp_path: Path) -> None:
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        writer.write([Log(run.key, run.attempt, "\x1b[32mgood\x1b[0m \x1b]0;title\x07\x1b[8mnews\n")])
    assert "\x1b[32mgood\x1b[0m news" in on_terminal(tmp_path, "show", run.key)[0]
    assert "\ngood news" in on_terminal(tmp_path, "show", run.key, NO_COLOR="1")[0]
    command = [sys.executable, "-m", "labbench", "show", run.key, "--all"]
    assert "\ngood news\n" in subprocess.run(command, cwd=tmp_path, capture_output=True, text=True).stdout


def test_a_table_fits_80_columns_without_cut_values(db: Path, tmp_path: Path) -> None:
    output, _ = on_terminal(tmp_path, "ls", LC_ALL="C.UTF-8", NO_COLOR="1")
    lines = output.splitlines()
    assert max(map(cell_width, lines)) <= 80
    assert all(line.rstrip().endswith(tuple("0123456789")) for line in lines[2:5])
    wide, _ = on_terminal(tmp_path, "ls", "--wide", LC_ALL="C.UTF-8", NO_COLOR="1")
    assert "val/accuracy" in wide
    assert "seed 2 …" in wide


def test_long_keys_leave_room_for_the_values_of_settings_and_metrics(tmp_path: Path) -> None:
    key = "model." + "encoder.attention." * 9 + "width"
    with Writer(tmp_path / "runs.db") as writer:
        for width in (64, 128):
            [run] = start(writer, [NewRun(f"width {width}", {key: width, "lr": width / 1000}, f"id{width}")])
            writer.write([points(run, "val/" + key, [width / 100]), Finished(run.key, 1, "finished", "all epochs")])
    for words, label in ((["show", "width 64"], "val/model."), (["compare", "width 64", "width 128"], "best val/mod")):
        lines = on_terminal(tmp_path, *words, LC_ALL="C.UTF-8", NO_COLOR="1")[0].splitlines()
        assert max(cell_width(line) for line in lines if not line.startswith("in brackets")) <= 80
        [setting] = [line for line in lines if line.lstrip().startswith("model.")]
        [metric] = [line for line in lines if line.startswith(label)]
        assert ("…" in setting, ".width" in setting, "64" in setting) == (True, True, True), setting
        assert (".width" in metric, "0.64" in metric) == (True, True), metric
    piped = subprocess.run(
        [sys.executable, "-m", "labbench", "show", "width 64"], cwd=tmp_path, capture_output=True, text=True
    )
    assert f"  {key}   64\n" in piped.stdout


def test_a_narrow_terminal_shows_whole_errors_settings_and_paths_of_a_run(tmp_path: Path) -> None:
    text, path = "a setting of many words " * 6, tmp_path / ("long" * 20)
    path.write_text("weights")
    options = {"config": {"note": text}, "db": tmp_path / "runs.db", "quiet": True, "system_metrics": False}
    run = labbench_api.start("a run", **options)
    run.artifact(path)
    with pytest.raises(ValueError, match="the end"), run:
        raise ValueError(f"{text}the end")
    output, _ = on_terminal(tmp_path, "show", "a run", LC_ALL="C.UTF-8", NO_COLOR="1")
    assert f"failed: ValueError: {text}the end" in output
    assert output.count(str(path)) == 1
    assert {line for line in output.splitlines() if "─" in line} == {"─" * 80}


def test_a_narrow_terminal_explains_every_task_and_parameter(tmp_path: Path) -> None:
    assert list(DESCRIPTIONS) == list(BUILTIN)
    listed, _ = on_terminal(tmp_path, "tasks", NO_COLOR="1")
    assert all(f"{name} " in listed and text in listed for name, text in DESCRIPTIONS.items())
    output, _ = on_terminal(tmp_path, "tasks", "digits", LC_ALL="C.UTF-8", NO_COLOR="1")
    assert "…" not in output
    assert all(f"    {param.help}\r\n" in output for param in BUILTIN["digits"].values())
