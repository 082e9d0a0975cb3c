"""Atomic writes: complete files or none, and never through links that others planted."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import labbench
from helpers.tui_samples import grid_of_runs
from labbench import files
from labbench.cli import main
from labbench.files import UNFINISHED, checkpoint_file, discard_checkpoints, open_without_links, write_atomically
from labbench.portraits.file import Portrait, write_portrait
from labbench.store.maintenance.merge import back_up
from labbench.store.writer import Writer
from labbench.tui.saved_state import SavedState

Write = Callable[[Path], None]


def write(path: Path, content: bytes) -> None:
    with write_atomically(path) as file:
        file.write(content)


def test_folder_that_does_not_exist_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=f"the folder {tmp_path / 'nowhere'} does not exist"):
        write(tmp_path / "nowhere" / "out.csv", b"")


def write_to_full_disk(path: Path) -> None:
    with write_atomically(path) as file, Path("/dev/full").open("wb") as full:
        file.write(b"half")
        full.write(b"the rest")


def test_full_disk_keeps_the_file_and_names_it(tmp_path: Path) -> None:
    target = tmp_path / "out.csv"
    target.write_text("before")
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_to_full_disk(target)
    assert caught.value.filename == str(target)
    assert target.read_text() == "before"
    assert list(tmp_path.iterdir()) == [target]


def test_a_failed_write_leaves_the_previous_file(tmp_path: Path) -> None:
    target = tmp_path / "page.html"
    target.write_bytes(b"before")
    with pytest.raises(TypeError), write_atomically(target) as file:
        file.writelines([b"half", "and what is no bytes"])  # type: ignore[list-item]
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]


def test_drafts_of_killed_processes_are_removed_and_those_in_use_are_kept(tmp_path: Path) -> None:
    abandoned = [tmp_path / f"{UNFINISHED}{'a' * 16}", tmp_path / f"{UNFINISHED}{'a' * 16}-journal"]
    with write_atomically(tmp_path / "copy.db") as file:
        drafts = [*abandoned, Path(file.name)]
        for draft in drafts:
            draft.touch()
            os.utime(draft, (0, 0))  # old
        recent = tmp_path / f"{UNFINISHED}{'b' * 16}"
        recent.touch()
        write(tmp_path / "other", b"")
        assert [draft.exists() for draft in drafts] == [False, False, True]
        assert recent.exists()


def test_a_replaced_file_keeps_its_permissions(tmp_path: Path) -> None:
    private, new = tmp_path / "private", tmp_path / "new"
    private.touch(mode=0o600)
    write(private, b"secret")
    write(new, b"for all")
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert stat.S_IMODE(new.stat().st_mode) == 0o666 & ~umask


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path) -> None:
    victim, target = tmp_path / "victim", tmp_path / "a.html"
    victim.write_bytes(b"precious")
    victim.chmod(0o640)
    target.symlink_to(victim)
    write(target, b"page")
    assert victim.read_bytes() == b"precious"
    assert not target.is_symlink()
    assert target.read_bytes() == b"page"


def test_a_pipe_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reading = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    write(pipe, b"page")
    assert os.read(reading, 10) == b"page"
    os.close(reading)
    assert stat.S_ISFIFO(pipe.stat().st_mode)


@pytest.mark.parametrize("name", ["nowhere/a.csv", "a" * 256, "folder"])
def test_an_error_names_the_requested_file(tmp_path: Path, labbench: Callable[..., Result], name: str) -> None:
    grid_of_runs(tmp_path / "x.db")
    (tmp_path / "folder").mkdir()
    refused = labbench("export", "-o", name, "--db", "x.db")
    assert refused.exit_code != 0
    assert name in refused.stderr
    assert "Traceback" not in refused.stderr
    assert UNFINISHED not in refused.stderr


def test_a_link_at_a_predictable_name_is_not_opened(tmp_path: Path) -> None:
    victim, log = tmp_path / "victim", tmp_path / "run.log"
    victim.write_bytes(b"precious")
    log.symlink_to(victim)
    for mode in ("wb", "ab"):
        with pytest.raises(OSError, match="symbolic links"):
            open_without_links(log, mode)
    assert victim.read_bytes() == b"precious"


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder with links to a victim's file at all predictable names of unfinished files."""
    victim, shared = tmp_path / "victim", tmp_path / "shared"
    victim.write_bytes(b"precious")
    shared.mkdir()
    monkeypatch.setenv("XDG_STATE_HOME", str(shared))
    (shared / "labbench").mkdir()
    for folder in (shared, shared / "labbench"):
        for name in ("copy.db", "a.html", "portrait.npz", "x.db", "model.safetensors"):
            for pattern in (".{0}.{1}", "{0}.unfinished-{1}", "{0}.{1}", "{0}.part"):
                link = folder / pattern.format(name, os.getpid())
                if not link.is_symlink():
                    link.symlink_to(victim)
    yield shared
    assert victim.read_bytes() == b"precious"


def test_no_writer_uses_a_predictable_name(planted: Path, labbench: Callable[..., Result], tmp_path: Path) -> None:
    database = tmp_path / "x.db"
    grid_of_runs(database)
    assert labbench("why", "val/loss", "--html", planted / "a.html", "--db", database).exit_code == 0
    assert labbench("export", "-o", planted / "a.csv", "--db", database).exit_code == 0
    back_up(database, planted / "copy.db")
    write_portrait(planted / "portrait.npz", Portrait(1))
    SavedState(database).save({})
    with Writer(planted / "copy.db") as writer:
        assert writer.path.is_file()


def test_an_existing_file_at_the_random_name_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files.os, "urandom", bytes)
    existing = tmp_path / f"{UNFINISHED}{bytes(8).hex()}"
    existing.write_bytes(b"somebody else's")
    with pytest.raises(FileExistsError):
        write(tmp_path / "a.html", b"page")
    assert existing.read_bytes() == b"somebody else's"


def test_unfinished_files_of_a_killed_process_are_discarded_with_the_checkpoints(tmp_path: Path) -> None:
    checkpoint = checkpoint_file(tmp_path, "abcdefgh", 8)
    checkpoint.parent.mkdir()
    write(checkpoint, b"weights")
    (checkpoint.parent / f"{UNFINISHED}0123456789abcdef").write_bytes(b"half")
    discard_checkpoints(tmp_path, "abcdefgh", keep=frozenset([8]))
    assert list(checkpoint.parent.iterdir()) == [checkpoint]
    discard_checkpoints(tmp_path, "abcdefgh")
    assert not checkpoint.parent.exists()


def test_cli_and_python_use_the_same_default_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "of my project.db"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LABBENCH_DB", str(database))
    with labbench.start("first", experiment="doors", system_metrics=False):
        pass
    with labbench.open() as reader:
        assert [run.name for run in reader.runs()] == ["first"]
    assert "first" in CliRunner().invoke(main, ["ls"]).output
    assert files.database_command(database) == "labbench"
    monkeypatch.delenv("LABBENCH_DB")
    assert files.database_command(Path("runs.db")) == "labbench"
    assert files.database_command(tmp_path / "runs.db") == "labbench"  # the same file
    assert files.database_command(database) == f"labbench --db '{database}'"
