"""Sessions that write: a script, and one command for each way of writing to a database or beside it."""

from __future__ import annotations

import shutil
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from bench.trust.checks import Row, read_points
from bench.trust.processes import Place, labbench_words
from bench.trust.samples import write_sample
from labbench.sharing.pack import PackedTexts, write_pack
from labbench.store.reader import Reader
from labbench.store.writer import Writer

N_STEPS = 60

SCRIPT = f"""
import labbench
with labbench.start("run", experiment="faults", db="runs.db", system_metrics=False) as run:
    for step in range({N_STEPS}):
        run.log({{"loss": step / 2, "negative": -step}})
        if step in (5, 40):
            run.flush()
"""

STARTED_SCRIPT = f"""
import labbench, labbench.errors, numpy, sys, time
image = labbench.Image(numpy.zeros((4, 4)))
run = labbench.start("run", experiment="faults", db="runs.db", capture_output=True)
try:
    open("begin").close()
except OSError:
    pass
for step in range({N_STEPS}):
    run.log({{"loss": step / 2, "negative": -step}})
    if step in (5, 40):
        run.flush()
run.tag("seen")
run.note("text")
run.define_metric("loss", "min")
run.config.update({{"lr": 0.1}})
run.log({{"image": image}}, step={N_STEPS - 1})
print("output")
try:
    run.artifact("train.py", copy=True)
except labbench.errors.InputError as error:
    print(error)
time.sleep(1.3)  # the sampler of system metrics has been imported
run.finish()
"""
"""Script that calls everything that a run offers, and opens the file `begin` after its start."""

GRID = """
command = ["python", "train.py"]
[grid]
lr = [0.5, 0.25]
"""

SHELL = """#!/bin/sh
# in place of ssh: `ssh -- HOST COMMAND` on this machine
while [ "$1" != -- ]; do shift; done
shift 2
exec sh -c "$*"
"""

OLD_DATABASE = Path(__file__).parents[2] / "tests" / "databases" / "initial.db"


@dataclass(frozen=True, slots=True)
class Samples:
    """Databases of earlier runs, and a pack of some of them."""

    own: Path
    """Database that a session begins with."""
    other: Path
    """Database that is imported or pulled."""
    pack: Path
    """The runs of `other` as one file."""


def write_samples(folder: Path) -> Samples:
    """Create the samples in a folder."""
    own, other = (write_sample(folder / f"{name}.db", runs=3, points=40, experiment=name) for name in ("own", "other"))
    with Reader(other) as reader:
        keys = reader.keys()
    write_pack(other, keys, folder / "other.labbench", PackedTexts())
    return Samples(own, other, folder / "other.labbench")


@dataclass(frozen=True, slots=True)
class Session:
    """Command that writes to the database `runs.db` of its folder, or beside it."""

    name: str
    words: Callable[[Path, Samples], list[str]]
    """Words of the command, given the database and the samples."""
    prepare: Callable[[Path], None] = lambda _: None
    """Change the database, or write files beside it, before the session."""
    expect: Callable[[list[Row], Samples], list[Row]] = lambda before, _: before
    """Points afterwards, given those before."""
    removes: bool = False
    """True if the session removes points."""
    environ: dict[str, str] = field(default_factory=dict)
    start: Callable[[Samples], Path] = lambda samples: samples.own
    """Database to begin with."""

    def begin(self, place: Place, samples: Samples) -> list[str]:
        """Prepare the folder; return the words of the command."""
        database = place.folder / "runs.db"
        shutil.copy(self.start(samples), database)
        self.prepare(database)
        return self.words(database, samples)


def script_words(place: Place, script: str = SCRIPT) -> list[str]:
    """Write a script that logs; return the words of its command."""
    (place.folder / "train.py").write_text(script)
    return [sys.executable, "train.py"]


def _first_key(database: Path) -> str:
    with Reader(database) as reader:
        return reader.keys()[0]


def _remove_first_run(database: Path) -> None:
    with Writer(database) as writer:
        writer.remove([_first_key(database)])


def _change_summaries(database: Path) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE summary SET n = n + 1")


def _write_grid(database: Path) -> None:
    database.with_name("grid.toml").write_text(GRID)
    database.with_name("train.py").write_text(SCRIPT.replace('"run", experiment="faults", db="runs.db", ', ""))


def _write_shell(database: Path) -> None:
    shell = database.with_name("shell")
    shell.write_text(SHELL)
    shell.chmod(0o755)


def _with_grid(before: list[Row], _: Samples) -> list[Row]:
    names = ("lr=0.5", "lr=0.25")
    rows: list[Row] = [(name, "loss", step, step / 2) for name in names for step in range(N_STEPS)]
    return [*before, *rows, *((name, "negative", step, float(-step)) for name in names for step in range(N_STEPS))]


def _with_other(before: list[Row], samples: Samples) -> list[Row]:
    return [*before, *read_points(samples.other)]


def _without_first(before: list[Row], samples: Samples) -> list[Row]:
    key = _first_key(samples.own)
    with Reader(samples.own) as reader:
        [run] = reader.by_keys([key])
    return [row for row in before if row[0] != run.name]


def _renamed(before: list[Row], samples: Samples) -> list[Row]:
    remaining = _without_first(before, samples)
    return [*remaining, *(("other name", *row[1:]) for row in before if row not in remaining)]


COMMANDS = {
    session.name: session
    for session in (
        Session("tag", lambda database, _: labbench_words("tag", _first_key(database), "--add", "seen")),
        Session("rename", lambda database, _: labbench_words("rename", _first_key(database), "other name"),
                expect=_renamed),
        Session("rm", lambda database, _: labbench_words("rm", "--yes", _first_key(database)),
                expect=_without_first, removes=True),
        Session("grid", lambda *_: labbench_words("run", "grid.toml", "--retry-failed"),
                prepare=_write_grid, expect=_with_grid),
        Session("import", lambda _, samples: labbench_words("import", "labbench", samples.other), expect=_with_other),
        Session("import of a pack", lambda _, samples: labbench_words("import", samples.pack), expect=_with_other),
        Session("pull", lambda _, samples: labbench_words(
                    "pull", f"box:{samples.other}", "--remote-labbench", f"{sys.executable} -m labbench"),
                prepare=_write_shell, expect=_with_other, environ={"LABBENCH_SSH": "./shell"}),
        Session("pack", lambda database, _: labbench_words("pack", _first_key(database), "-o", "out.labbench")),
        Session("backup", lambda *_: labbench_words("backup", "copy.db")),
        Session("vacuum", lambda *_: labbench_words("vacuum"), prepare=_remove_first_run),
        Session("doctor", lambda *_: labbench_words("doctor", "--fix"), prepare=_change_summaries),
        Session("migration", lambda database, _: labbench_words("tag", _first_key(database), "--add", "seen"),
                start=lambda _: OLD_DATABASE),
        Session("export", lambda *_: labbench_words("export", "-o", "out.csv")),
    )
}  # fmt: skip
