"""Commands, options and names of other tools are answered with what does the same here."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import points, start
from labbench.cli import main
from labbench.cli.unknown_words import _OTHER_COMMANDS, _OTHER_OPTIONS
from labbench.records import NewRun
from labbench.store.writer import Writer

Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return a database with two runs of the experiment `four`."""
    with Writer(tmp_path / "runs.db") as writer:
        runs = start(writer, [NewRun(f"lr={lr}", {"lr": lr}, f"id{lr}") for lr in (0.1, 0.2)])
        for run in runs:
            writer.write([points(run, "val/loss", [0.5, 0.25]), points(run, "val/accuracy", [0.5, 0.75])])
        writer.rename_experiment(runs[0].experiment, "four")
    return tmp_path / "runs.db"


def test_a_command_of_another_tool_is_answered_with_the_one_that_does_it(labbench: Labbench) -> None:
    for word, answer in [("sweep", "run GRID"), ("agent", "run GRID"), ("sync", "pull"), ("login", "no account"),
                         ("resume", "retry RUN"), ("merge", "import OTHER.db"), ("init", "new"), ("board", "tui"),
                         ("ui", "tui"), ("server", "tui")]:  # fmt: skip
        refused = labbench("--db", "my.db", word, "x")
        assert (refused.exit_code, refused.stdout) == (2, "")
        assert f"No such command '{word}': " in refused.stderr
        assert answer in refused.stderr, word
        assert "labbench " not in refused.stderr.partition("No such command")[2].replace("labbench --db my.db", "")
    assert "Did you mean 'ls'?" in labbench("lss").stderr
    assert _OTHER_COMMANDS.keys().isdisjoint(main.commands)
    options = {(name, option) for name, command in main.commands.items() for p in command.params for option in p.opts}
    assert _OTHER_OPTIONS.keys().isdisjoint(options)


@pytest.mark.usefixtures("db")
def test_ls_names_what_groups_runs(labbench: Labbench) -> None:
    for option in ("--group", "--group-by"):
        refused = labbench("ls", option, "lr")
        assert refused.exit_code == 2
        assert f"No such option '{option}': `labbench why METRIC` compares the values of each key" in refused.stderr


@pytest.mark.usefixtures("db")
def test_a_filter_may_be_an_option_of_every_command_that_takes_one(labbench: Labbench) -> None:
    for words in (["ls", "--columns", "lr"], ["export", "--summary"], ["plot", "val/loss"], ["why", "val/loss"]):
        by_option = labbench(*words, "--filter", "lr=0.1 or lr=5")
        by_word = labbench(*words, "lr=0.1 or lr=5")
        assert (by_option.exit_code, by_option.output) == (by_word.exit_code, by_word.output)
        assert by_option.exit_code == 0, by_option.output
    both = labbench("ls", "lr>0.15", "--filter", "lr=0.1 or lr=0.2", "--columns", "lr", "--format", "csv")
    assert [row.split(",")[-1] for row in both.stdout.splitlines()[1:]] == ["0.2"]


@pytest.mark.usefixtures("db")
def test_the_name_of_an_experiment_in_place_of_a_run_is_answered_with_its_runs(labbench: Labbench) -> None:
    for words in (["rm", "four"], ["tag", "four", "--add", "x"], ["archive", "four"]):
        refused = labbench(*words)
        assert refused.exit_code == 2
        assert "no run has the key or the name `four`" in refused.stderr
        assert "for the runs of the experiment: --filter experiment=four" in refused.stderr
    assert "the runs of the experiment: labbench ls experiment=four" in labbench("show", "four").stderr


@pytest.mark.usefixtures("db")
def test_words_that_a_command_does_not_take_are_answered(labbench: Labbench, tmp_path: Path) -> None:
    assert "plot it with a command of its own" in labbench("plot", "val/accuracy", "val/loss").stderr
    (tmp_path / "sweep.yaml").write_text("method: random\nparameters:\n  lr: {min: 0.1, max: 1.0}\n")
    for words in (["new", "g.toml", "--from", "sweep.yaml"], ["run", "sweep.yaml"]):
        refused = labbench(*words)
        assert (refused.exit_code, "From a W&B sweep to a grid" in refused.stderr) == (2, True)
    refused = labbench("import", "wandb")
    assert (refused.exit_code, "there is no folder wandb here" in refused.stderr) == (2, True)
