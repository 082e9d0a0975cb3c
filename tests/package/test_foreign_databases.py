"""Databases and folders from others: no path points outside them, nothing is copied blindly, and no code is run."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import points, start
from labbench.errors import InputError, StoreError
from labbench.files import checkpoint_file, files_folder, run_folder
from labbench.importing.labbench_db import import_labbench
from labbench.portraits.file import portrait_path
from labbench.records import Finished, RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer

BAD_KEYS = (
    "../experiments",
    "..",
    ".",
    "",
    "/etc",
    "a/b",
    "a\\b",
    "abcdefgh/../../x",
    "abc\0def",
    "abc\n",
    "schlüssel",
    "k" * 65,
    b"abcdefgh",
)


def change(path: Path, statement: str, *values: object) -> None:
    """Execute a statement that labbench itself would not."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(statement, values)


def names_below(folder: Path) -> list[str]:
    """Return the names of all files below a folder."""
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def finished_run(path: Path) -> RunRecord:
    """Record a run with some points in a new database."""
    path.parent.mkdir(exist_ok=True)
    with Writer(path) as writer:
        [run] = start(writer)
        writer.write([points(run, "val/loss", [2.0, 1.0]), Finished(run.key, 1, "finished", "all epochs")])
    return run


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the user's folder, which holds a database."""
    folder = tmp_path / "home"
    finished_run(folder / "runs.db")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return another user's database of one run, whose folder holds a model."""
    path = tmp_path / "evil" / "other.db"
    folder = run_folder(files_folder(path), finished_run(path).key)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    return path


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_an_import_refuses_an_invalid_key_and_writes_nothing(
    home: Path, other: Path, labbench: Callable[..., Result], key: str | bytes
) -> None:
    change(other, "UPDATE runs SET key = ?", key)
    os.chdir(home)
    (home / "experiments").mkdir()
    (other.parent / "experiments").mkdir()
    (other.parent / "experiments" / "my_task.py").write_text("print('theirs')")
    before = names_below(home)
    refused = labbench("import", "labbench", other, "--db", home / "runs.db")
    assert (refused.exit_code, "a key is letters and digits" in refused.stderr) == (2, True), refused.stderr
    assert names_below(home) == before


@pytest.mark.parametrize("key", ["../experiments", "", b"abcdefgh"], ids=repr)
def test_every_command_refuses_an_invalid_key(home: Path, labbench: Callable[..., Result], key: str | bytes) -> None:
    db = home / "runs.db"
    change(db, "UPDATE runs SET key = ?", key)
    before = names_below(home)
    for words in (
        ("ls",),
        ("ls", "--json"),
        ("show", "run 0"),
        ("compare", "run 0", "run 0"),
        ("why", "val/loss"),
        ("plot", "val/loss"),
        ("export",),
        ("export", "--summary"),
        ("export", "--wide"),
        ("rm", "run 0", "--yes"),
        ("retry", "run 0"),
        ("tag", "run 0", "--add", "x"),
    ):
        refused = labbench(*words, "--db", db)
        assert (refused.exit_code, "a key is letters and digits" in refused.stderr) == (2, True), (words, refused)
    with Reader(db) as reader, pytest.raises(InputError):
        reader.keys()
    with Reader(db) as reader, pytest.raises(InputError):
        reader.values(["status"])
    assert names_below(home) == before


@pytest.mark.parametrize("key", BAD_KEYS, ids=repr)
def test_no_path_is_made_from_an_invalid_key(tmp_path: Path, key: str) -> None:
    makers = (
        lambda: run_folder(tmp_path, key),
        lambda: checkpoint_file(tmp_path, key, 1),
        lambda: portrait_path(tmp_path / "runs.db", key),
    )
    for path_of in makers:
        with pytest.raises(InputError, match="a key is letters and digits"):
            path_of()


def test_a_run_folder_that_links_out_of_the_files_is_refused(tmp_path: Path) -> None:
    files, elsewhere = tmp_path / "runs.db.files", tmp_path / "elsewhere"
    files.mkdir()
    elsewhere.mkdir()
    (files / "abcdefgh").symlink_to(elsewhere)
    with pytest.raises(InputError, match="symbolic link that points outside"):
        run_folder(files, "abcdefgh")


def test_doctor_reports_an_invalid_key(home: Path, labbench: Callable[..., Result]) -> None:
    change(home / "runs.db", "UPDATE runs SET key = '../x'")
    for words in (["doctor"], ["doctor", "--fix"]):
        result = labbench(*words, "--db", home / "runs.db")
        assert (result.exit_code, "'../x', which labbench did not write" in result.stdout) == (1, True), result.output


def test_an_invalid_step_is_refused_before_it_becomes_a_file_name(home: Path) -> None:
    change(home / "runs.db", "UPDATE runs SET boundary = '/../../../precious'")
    with Reader(home / "runs.db") as reader, pytest.raises(StoreError, match="is not a step"):
        reader.runs()


def test_the_path_of_an_artifact_must_stay_in_the_runs_folder(home: Path) -> None:
    db = home / "runs.db"
    change(db, "INSERT INTO artifacts (run_id, name, path, size, sha256, created) VALUES (1, 'a', '../../b', 0, '', 0)")
    with Reader(db) as reader, pytest.raises(InputError, match="points outside the run's folder"):
        reader.artifacts(reader.keys()[0])


def test_a_spill_file_with_an_invalid_key_is_not_imported(home: Path) -> None:
    spilled = home / "runs.db.spilled-x-1.jsonl"
    run = '{"run": {"key": "../x", "name": "n", "experiment": "e", "attempt": 1, "started": 0, "host": "", "pid": 1, '
    spilled.write_text(run + '"tags": [], "artifacts": []}}\n')
    with pytest.warns(UserWarning, match="a key is letters and digits"):
        Writer(home / "runs.db").close()
    with Reader(home / "runs.db") as reader:
        assert reader.count() == 1
    assert spilled.exists()


def test_a_pipe_or_a_link_with_the_name_of_a_spill_file_is_left_alone(home: Path) -> None:
    os.mkfifo(home / "runs.db.spilled-x-1.jsonl")
    (home / "runs.db.spilled-y-1.jsonl").symlink_to(home / "nowhere")
    Writer(home / "runs.db").close()
    assert len(list(home.glob("runs.db.spilled-*"))) == 2


def test_an_import_copies_only_regular_files_and_names_the_others(
    home: Path, other: Path, labbench: Callable[..., Result]
) -> None:
    with Reader(other) as reader:
        [key] = reader.keys()
    secret = home / "secret"
    secret.write_text("my password")
    theirs, ours = files_folder(other) / key, files_folder(home / "runs.db") / key
    (theirs / "below").mkdir()
    (theirs / "below" / "notes.txt").write_text("a real file")
    (theirs / "password").symlink_to(secret)
    (theirs / "home").symlink_to(home)
    (theirs / "endless").symlink_to("/dev/zero")
    (theirs / "round").symlink_to(theirs)
    (theirs / "self").symlink_to("self")
    os.mkfifo(theirs / "pipe")
    result = labbench("import", "labbench", other, "--db", home / "runs.db")
    assert result.exit_code == 0, result.stderr
    assert names_below(ours) == ["below", "below/notes.txt", "model.safetensors"]
    assert (ours / "model.safetensors").read_bytes() == b"weights"
    assert "only regular files are" in result.stderr
    merged_again = labbench("import", "labbench", other, "--db", home / "runs.db")
    assert (merged_again.exit_code, merged_again.stderr) == (0, "")


@pytest.mark.parametrize("which", ["run", "files"])
def test_an_import_does_not_follow_a_link_instead_of_a_folder(home: Path, other: Path, which: str) -> None:
    files = files_folder(other)
    [folder] = files.iterdir()
    secrets = home / "secrets"
    (secrets / folder.name).mkdir(parents=True)
    (secrets / folder.name / "key").write_text("private")
    link, target = (folder, secrets / folder.name) if which == "run" else (files, secrets)
    link.rename(other.parent / "away")
    link.symlink_to(target)
    merged = import_labbench(home / "runs.db", other)
    assert list(merged.skipped) == [link]
    assert len(merged.new) == 1
    assert not files_folder(home / "runs.db").exists()


@pytest.fixture
def queued(labbench: Callable[..., Result], tmp_path: Path) -> str:
    """Return the key of a queued run of the user's grid in another user's database."""
    grid = '[grid]\nx = ["mine"]\n'
    (tmp_path / "grid.toml").write_text(f'command = ["sh", "-c", "printf %s {{x}} > said"]\n{grid}')
    assert labbench("run", "grid.toml", "--workers", "0", "--db", "other.db").exit_code == 0
    (tmp_path / "said").unlink()
    change(Path("other.db"), "UPDATE runs SET status = 'queued', heartbeat = NULL, started = NULL, finished = NULL")
    with Reader("other.db") as reader:
        [key] = reader.keys()
    return key


def test_a_command_takes_its_values_from_the_grid_not_from_an_imported_run(
    labbench: Callable[..., Result], queued: str
) -> None:
    change(Path("other.db"), """UPDATE runs SET config = '{"x": "mine; touch owned", "extra": 1}'""")
    assert labbench("import", "labbench", "other.db").exit_code == 0
    assert labbench("run", "grid.toml", "--workers", "0").exit_code == 0
    assert Path("said").read_text() == "mine"
    assert not Path("owned").exists()
    with Reader("runs.db") as reader:
        [run] = reader.runs()
    assert (run.key, run.status, run.config["x"]) == (queued, "finished", "mine"), (
        "the record has the config that was trained"
    )


def test_a_queued_run_trains_the_task_of_the_grid_not_of_the_database(
    labbench: Callable[..., Result], tiny_grid: Path, tmp_path: Path
) -> None:
    (tmp_path / "evil.py").write_text("open('owned', 'w').close()")
    only = ("--set", "optimizer=sgd", "--set", "lr=0.1", "--set", "epochs=1", "--workers", "0")
    assert labbench("run", tiny_grid, *only).exit_code == 0
    change(Path("runs.db"), "UPDATE runs SET status = 'failed', task = ?", f"{tmp_path / 'evil.py'}:Task")
    change(Path("runs.db"), "UPDATE runs SET config = json_set(config, '$.hidden', json('[1000000]'), '$.lr', 5.0)")
    assert labbench("retry", _only_key()).exit_code == 0
    assert labbench("run", tiny_grid, *only).exit_code == 0
    assert not Path("owned").exists()
    with Reader("runs.db") as reader:
        [run] = reader.runs()
    assert (run.status, run.task, run.config["hidden"], run.config["lr"]) == ("finished", "digits", [16], 0.1)


def _only_key() -> str:
    with Reader("runs.db") as reader:
        [key] = reader.keys()
    return key
