"""Create runs.db.example and its portraits by training a selection of the experiments:

    python docs/make_example.py

The example is one file in rollback-journal mode, so that it can be read from a read-only folder. Losses are logged at
every fourth step only, which saves space and is not visible in a terminal. Run it on an idle machine: results depend on
the configuration alone, the recorded times do not.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from labbench.files import PORTRAIT, files_folder

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "runs.db.example"

WATCHED, PLAIN = "watch = true\nlog_every = 4\n", "log_every = 4\n"
SELECTION = (
    ("optimizers", "lr=0.3,0.1,0.01 seed=1", WATCHED),
    ("optimizers", "", PLAIN),  # the rest: a complete grid, for `labbench why`
    ("batchnorm", "seed=0,1", PLAIN),  # some of these diverge
    ("activations", "lr=0.003 seed=0", WATCHED),
    ("perceptron", "data=and,xor seed=0,1,2", WATCHED),
    ("layers", "train_size=1257 seed=0,1", WATCHED),
    ("generalization", "hidden~256 seed=0,1", WATCHED),
    ("transfer", "train_size=40 seed=0,1", WATCHED),
)
"""Experiment, filter of its runs, and the keys of [runtime]."""


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()  # the run takes minutes: `--help` must not start it
    with tempfile.TemporaryDirectory() as folder:
        db = Path(folder, "runs.db")
        for name, only, runtime in SELECTION:
            grid = Path(folder, f"{name}.toml")
            grid.write_text(set_runtime((ROOT / "experiments" / grid.name).read_text(encoding="utf-8"), runtime))
            train_grid(grid, only, db)
        make_single_file(db)
        shutil.copyfile(db, EXAMPLE)
        copy_portraits(files_folder(db), files_folder(EXAMPLE))
    everything = [EXAMPLE, *files_folder(EXAMPLE).rglob(PORTRAIT)]
    megabytes = sum(file.stat().st_size for file in everything) / 1e6
    print(f"{EXAMPLE.name} and {len(everything) - 1} pictures: {megabytes:.1f} MB", file=sys.stderr)


def set_runtime(grid: str, runtime: str) -> str:
    """Return the text of a grid with this [runtime], which is not part of a run's identity."""
    before, _, after = grid.partition("[runtime]\n")
    rest = after.partition("\n\n")[2]
    return f"{before.rstrip()}\n\n[runtime]\n{runtime}\n{rest}"


def train_grid(grid: Path, only: str, db: Path) -> None:
    words = ["--db", str(db), "run", str(grid), "--only", only]
    subprocess.run([sys.executable, "-m", "labbench", *words], check=True)


def make_single_file(db: Path) -> None:
    """Turn the database into a single file."""
    with closing(sqlite3.connect(db)) as connection:
        connection.execute("PRAGMA journal_mode = delete")
        connection.execute("UPDATE runs SET host = 'example'")  # do not publish the machine's name
        connection.commit()
        connection.execute("VACUUM")


def copy_portraits(source: Path, target: Path) -> None:
    """Replace the portraits of the example by those of the new runs."""
    shutil.rmtree(target, ignore_errors=True)
    for portrait in source.glob(f"*/{PORTRAIT}"):
        (target / portrait.parent.name).mkdir(parents=True)
        shutil.copyfile(portrait, target / portrait.parent.name / PORTRAIT)


if __name__ == "__main__":
    main()
