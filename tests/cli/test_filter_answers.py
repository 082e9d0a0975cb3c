"""Filters that use words of other tools: they work, or are answered with what works."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import points, start
from labbench.records import Finished, NewRun, Started
from labbench.store.writer import Writer
from labbench.tracking.start import start as start_run

Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return a database of two finished runs and one of a script."""
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        runs = start(writer, [NewRun(f"moons-{index}", {"lr": index / 10}, f"id{index}") for index in (1, 2)])
        for run in runs:
            writer.write([Started(run.key, 1, f"box{run.name[-1]}", 1, "cpu"), points(run, "val/loss", [0.5])])
            writer.write([Finished(run.key, 1, "finished", "all epochs")])
        writer.note(runs[0].key, "the First one")
    with start_run("blobs-3", experiment="scripts", db=path, quiet=True, id="my-id", config={"lr": 0.3}):
        pass
    return path


def names(result: Result) -> list[str]:
    assert result.exit_code == 0, result.output
    return [line.split(",")[2] for line in result.stdout.splitlines()[1:]]


@pytest.mark.usefixtures("db")
def test_runs_are_selected_by_note_id_and_host(labbench: Labbench) -> None:
    for expression, expected in [
        ("note~first", ["moons-1"]),
        ("not note~first", ["moons-2", "blobs-3"]),
        ("id=my-id", ["blobs-3"]),
        ("host=box2", ["moons-2"]),
        ("host~box", ["moons-1", "moons-2"]),
    ]:
        assert names(labbench("ls", expression, "--format", "csv")) == expected, expression


@pytest.mark.usefixtures("db")
def test_a_config_key_of_a_word_takes_precedence(labbench: Labbench, db: Path) -> None:
    with start_run("mine", experiment="scripts", db=db, quiet=True, config={"host": "mine", "note": 5}):
        pass
    assert names(labbench("ls", "host=mine", "--format", "csv")) == ["mine"]
    assert names(labbench("ls", "note>4", "--format", "csv")) == ["mine"]
    assert names(labbench("ls", "host=box1", "--format", "csv")) == ["moons-1"]


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize(
    ("expression", "answer"),
    [
        ("state=finished", "did you mean `status`?"),
        ("config.lr>0.01", "did you mean `lr`?"),
        ("summary.val/loss<1", "did you mean `val/loss`?"),
        ("notes~first", "did you mean `note`?"),
        ("tags=x", "did you mean `tag`?"),
        ("project=demo", "did you mean `experiment`?"),
        ("hostname=box1", "did you mean `host`?"),
        ("status=crashed", "a script that was killed is `lost`, a run of a grid `failed`: status=lost,failed"),
        ("status=done", "did you mean `finished`?"),
    ],
)
def test_a_word_of_another_tool_is_answered_with_ours(labbench: Labbench, expression: str, answer: str) -> None:
    refused = labbench("ls", expression)
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert answer in refused.stderr


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize("expression", ["name~^moons", "name=/moons/", "name~moons.*", "name~moons$", "name=moons*"])
def test_a_regular_expression_without_matches_is_answered_with_a_part_of_the_text(
    labbench: Labbench, expression: str
) -> None:
    listed = labbench("ls", expression)
    assert (listed.exit_code, listed.stdout) == (0, "")
    assert "`~` searches for a part of the text, without regular expressions, as in name~moons\n" in listed.stderr
    assert names(labbench("ls", "name~moons", "--format", "csv")) == ["moons-1", "moons-2"]
