"""Commands that change runs: by name or by filter, with a preview, a question, and a line on what was done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import new_run, queue
from labbench.records import Finished, RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer

Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return a database with a finished, a failed, a running and a queued run."""
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        done, failed, running, _ = queue(writer, [new_run(i, name=name) for i, name in enumerate("abcd")])
        writer.claim([done.key, failed.key, running.key])
        writer.write([Finished(done.key, 1, "finished", "all epochs"), Finished(failed.key, 1, "failed", "x")])
    return path


def all_runs(path: Path) -> list[RunRecord]:
    with Reader(path) as reader:
        return reader.runs("archived=true,false")


def outcome(labbench: Labbench, *words: str, **options: object) -> str:
    result = labbench(*words, **options)
    assert result.exit_code == 0, result.output
    return result.stdout.strip()


def test_each_command_says_what_it_did(labbench: Labbench, db: Path) -> None:
    assert outcome(labbench, "tag", "a", "b", "--add", "good", "--remove", "old") == "tagged 2 runs: +good -old"
    assert outcome(labbench, "note", "a", "slow") == "set the note of 1 run"
    assert outcome(labbench, "note", "a", "") == "removed the note of 1 run"
    assert outcome(labbench, "archive", "a") == "1 run archived"
    assert outcome(labbench, "archive", "a", "--undo") == "1 run shown again"
    assert (
        outcome(labbench, "stop", "a", "c", "d")
        == "1 running run asked to stop, 1 queued or lost run stopped, 1 run ended already"
    )
    assert outcome(labbench, "retry", "a", "b") == (
        "queued 1 run again; 1 run left as they are: queued, running or finished; "
        "start the script again, which labbench does not"
    )
    assert outcome(labbench, "rename", "a", "first") == f"renamed the run {all_runs(db)[0].key} a to first"
    assert outcome(labbench, "rename", "grid", "mine") == "renamed the experiment grid to mine"
    assert outcome(labbench, "rm", "b", "--yes") == "deleted 1 run"
    assert [(run.name, run.experiment) for run in all_runs(db)] == [("first", "mine"), ("c", "mine"), ("d", "mine")]


def test_a_filter_selects_runs_and_is_confirmed_with_their_number(labbench: Labbench, db: Path) -> None:
    refused = labbench("tag", "--filter", "status=finished,failed", "--add", "old", input="n\n")
    assert refused.exit_code == 1
    assert "tag 2 runs +old (a, b)?" in refused.stderr
    assert not any(run.tags for run in all_runs(db))
    for yes in ({"input": "y\n"}, {"yes": True}):
        words = ["tag", "--filter", "status=finished,failed", "--add", "old", *(["--yes"] if "yes" in yes else [])]
        assert outcome(labbench, *words, **{k: v for k, v in yes.items() if k == "input"}) == "tagged 2 runs: +old"
    assert [run.name for run in all_runs(db) if run.tags == ("old",)] == ["a", "b"]
    assert outcome(labbench, "note", "--filter", "tag=old", "--yes", "from before") == "set the note of 2 runs"
    assert outcome(labbench, "archive", "--filter", "tag=old", "--yes") == "2 runs archived"
    assert outcome(labbench, "archive", "--undo", "--filter", "tag=old", "--yes") == "2 runs shown again"
    assert outcome(labbench, "rm", "--filter", "status=failed", "--yes") == "deleted 1 run"


@pytest.mark.parametrize(
    "words",
    [
        ["tag", "--add", "x"], ["note", "text"], ["archive"], ["rm"], ["stop"], ["retry"],
    ],
    ids=lambda words: words[0],
)  # fmt: skip
def test_a_preview_names_the_runs_and_changes_nothing(labbench: Labbench, db: Path, words: list[str]) -> None:
    before = all_runs(db)
    said = outcome(labbench, words[0], "--filter", "status=failed,finished", "--dry-run", *words[1:])
    assert said.startswith("would ")
    assert said.endswith("2 runs: a, b") or "2 runs" in said
    assert "a, b" in said
    assert outcome(labbench, "rename", "a", "z", "--dry-run").startswith("would rename the run")
    assert all_runs(db) == before


def test_runs_or_a_filter_are_needed_and_an_empty_selection_changes_nothing(labbench: Labbench, db: Path) -> None:
    assert labbench("archive").exit_code == 2
    assert labbench("archive", "a", "--filter", "status=failed").exit_code == 2
    empty = labbench("archive", "--filter", "lr>100")
    assert (empty.exit_code, empty.stdout) == (0, "")
    assert "nothing was changed" in empty.stderr
    typo = labbench("archive", "--filter", "statsu=failed")
    assert "did you mean `status`?" in typo.stderr
    assert labbench("rename", "nobody", "x").exit_code == 2
    assert not any(run.archived for run in all_runs(db))


@pytest.mark.parametrize("command", [["rm"], ["stop"], ["archive"], ["tag", "--add", "x"]], ids=lambda words: words[0])
def test_a_filter_without_its_option_is_recognized(labbench: Labbench, db: Path, command: list[str]) -> None:
    for words in (["experiment=grid status=queued"], ["experiment=grid", "status=queued"]):
        result = labbench(*command, *words)
        assert result.exit_code == 2
        assert "--filter 'experiment=grid status=queued'" in result.stderr
    assert "--filter" not in labbench(*command, "nope").stderr
    assert len(all_runs(db)) == 4


def test_experiments_are_listed_with_their_runs(labbench: Labbench, db: Path) -> None:
    with Writer(db) as writer:
        queue(writer, 2, experiment="other")
    table = outcome(labbench, "experiments")
    assert "1 finished, 1 failed, 1 running, 1 queued" in table
    assert "2 queued" in table
    assert outcome(labbench, "experiments", "--plain").splitlines()[0].startswith("experiment ")
