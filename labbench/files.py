"""Where the files of runs lie: `<database>.files/KEY/`, one folder a run."""

from __future__ import annotations

from pathlib import Path

from labbench.errors import InputError

MODEL = "model.safetensors"
PORTRAIT = "portrait.npz"
SNAPSHOTS = "snapshot-*.safetensors"


def files_folder(database: Path) -> Path:
    """The folder of a database's files; it is made when there is something to put there."""
    return database.with_name(database.name + ".files")


def snapshot_file(files: Path, run: str, step: int) -> Path:
    """The state of a run after so many steps."""
    return files / run / f"snapshot-{step}.safetensors"


def discard_snapshots(files: Path, run: str, *, keep: frozenset[int] = frozenset()) -> None:
    """Delete a run's snapshots but those at the steps in `keep`, and its folder when nothing else is left there."""
    kept = {snapshot_file(files, run, step) for step in keep}
    for snapshot in (files / run).glob(SNAPSHOTS):
        if snapshot not in kept:
            snapshot.unlink()
    for folder in (files / run, files):
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def discard_portrait(files: Path, run: str) -> None:
    """Delete that of an earlier attempt, if there is one: the run begins anew."""
    (files / run / PORTRAIT).unlink(missing_ok=True)


def refuse_database(target: Path) -> None:
    """Raises InputError for a file that may not be written over: an SQLite database, whoever's it is."""
    if not target.is_file():
        return
    with target.open("rb") as file:
        if file.read(16) == b"SQLite format 3\0":
            raise InputError(f"{target} is a database, and it would be written over: name another file")
