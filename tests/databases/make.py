"""Make a database of today's schema by really training the grids beside this file:

    python tests/databases/make.py

It is named after the newest migration, and committed before the next one is added: every schema that people have
stays a fixture. The grids, the task and the script never change, so that a later release is tested to know the runs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from labbench.store.reader import Reader
from labbench.store.schema import MIGRATIONS

HERE = Path(__file__).parent
GRIDS = HERE / "grids"


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="labbench-") as folder:
        shutil.copytree(GRIDS, folder, dirs_exist_ok=True)
        db = Path(folder, "runs.db")
        for words in (
            ["run", "blobs.toml", "--workers", "0"],
            ["run", "digits.toml", "--workers", "0"],
            ["run", "script.toml", "--workers", "1"],
            ["run", "blobs.toml", "--workers", "0", "--limit", "1", "--rerun"],
        ):
            labbench(Path(folder), *words)
        edit(Path(folder), db)
        plain(db)
        shutil.copyfile(db, HERE / f"{[*MIGRATIONS][-1]}.db")


def labbench(folder: Path, *words: str) -> None:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    subprocess.run([sys.executable, "-m", "labbench", *words], cwd=folder, env={**os.environ, "PATH": path}, check=True)


def edit(folder: Path, db: Path) -> None:
    """Leave in the database what people add to it."""
    with Reader(db) as reader:
        first, second, *_ = [run.key for run in reader.runs()]
    labbench(folder, "tag", first, "--add", "best", "--add", "paper")
    labbench(folder, "note", first, "the one to compare with")
    labbench(folder, "archive", second)


def plain(db: Path) -> None:
    """Make the database a single file that names no machine."""
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("PRAGMA journal_mode = delete")
        connection.execute("UPDATE runs SET host = 'example', pid = 1")
        connection.commit()
        connection.execute("VACUUM")


if __name__ == "__main__":
    main()
