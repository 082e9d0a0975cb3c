"""Second paths: every command through links, relative paths, odd names and another process namespace; writers x faults.

A command must print the same as with the plain path, and put every file where it belongs.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from bench.trust.checks import database_fault, first_fault, leftover_fault, points_fault, read_points
from bench.trust.processes import Ended, Place, labbench_words
from bench.trust.results import Outcome
from bench.trust.samples import write_sample
from labbench.files import files_folder
from labbench.store.reader import Reader
from labbench.text import clean

COMMANDS = (
    "ls", "ls --json", "show KEY", "compare KEY OTHER", "why val/loss", "plot val/loss", "export", "export --wide",
    "export --summary", "doctor", "doctor --fix", "tag KEY --add seen", "note KEY x", "archive KEY", "rm KEY --yes",
    "define val/loss max", "rename sample renamed", "vacuum", "backup BACKUP", "import labbench SECOND", "SCRIPT",
    "RUN",
)  # fmt: skip

ODD_NAMES = (
    "a b.db", "é 損.db", "-x.db", "x?y#z%41.db", "'q\"$(x).db", "x.db.files", "[x].db", "run\nx.db", "~.db", ":memory:",
)  # fmt: skip

SCRIPT = """
import labbench
with labbench.start("script", experiment="s", db={db!r}, system_metrics=False) as run:
    run.log({{"a": 1}})
"""

GRID = 'name = "g"\ntask = "digits"\n[params]\nepochs = 1\nhidden = [4]\ntrain_size = 64\n[runtime]\nkeep = "last"\n'


@dataclass(frozen=True, slots=True)
class Way:
    """Way to name the database `real/DATABASE` of a trial."""

    name: str
    database: str
    """Path of the file, relative to the folder of the trial."""
    argument: str
    """Path as it is passed, relative to the working directory."""
    cwd: str = "."
    link: tuple[str, str] | None = None
    """Symbolic link and its target, relative to the folder of the trial."""
    prefix: tuple[str, ...] = ()


WAYS = (
    Way("link to the file", "real/x.db", "link.db", link=("link.db", "real/x.db")),
    Way("link to the folder", "real/x.db", "folder/x.db", link=("folder", "real")),
    Way("relative path from elsewhere", "real/x.db", "../real/x.db", cwd="elsewhere"),
    Way("dots in the path", "real/x.db", "elsewhere/.././real//x.db"),
    Way("other process namespace", "real/x.db", "real/x.db",
        prefix=("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")),
    *(Way("odd file name", f"real/{name}", f"real/{name}") for name in ODD_NAMES),
)  # fmt: skip

TRIALS = [(way, command) for way in WAYS for command in COMMANDS]
N_TRIALS = len(TRIALS)


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: one command in one way."""
    samples = [write_sample(folder / f"{name}.db", runs=3, points=30, experiment=name) for name in ("sample", "other")]
    can_unshare = not subprocess.run([*WAYS[4].prefix, "true"], capture_output=True, check=False).returncode
    if not can_unshare:
        print("paths: this user cannot create a process namespace; these trials are left out", flush=True)

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        way, command = TRIALS[(number * 37 + seed) % len(TRIALS)]  # 37 is no divisor: all ways early
        if way.prefix and not can_unshare:
            return
        place = Place(folder / "work").make()
        for name in ("real", "elsewhere"):
            (place.folder / name).mkdir()
        fault = _fault_of_way(place, samples, way, command)
        yield Outcome(way.name, fault and f"{way.argument!r} {command}: {fault}")
        place.survivors(seconds=0)
        shutil.rmtree(place.folder)

    return run_trial


def _fault_of_way(place: Place, samples: list[Path], way: Way, command: str) -> str | None:
    """Run a command on the plain path and in a way; return what differs, in one line."""
    plain, database = place.folder / "plain" / "x.db", place.folder / way.database
    plain.parent.mkdir()
    for path in (plain, database):
        shutil.copy(samples[0], path)
        shutil.copytree(files_folder(samples[0]), files_folder(path))
    if way.link is not None:
        link, target = way.link
        (place.folder / link).symlink_to(place.folder / target)
    with Reader(plain) as reader:
        keys = reader.keys()
    words = {"KEY": keys[0], "OTHER": keys[1], "SECOND": str(samples[1])}
    expected = _run(place, command, words, replace(way, argument=str(plain), cwd="plain", prefix=()))
    actual = _run(place, command, words, way)
    normal, normal_actual = _normal(expected.out, place, str(plain)), _normal(actual.out, place, way.argument)
    differing = None if normal == normal_actual else f"the output differs: {normal!r} {normal_actual!r}"
    fault = expected.fault((0,)) or actual.fault((0,))
    if fault is None and command not in ("SCRIPT", "RUN", "vacuum") and not command.startswith("backup"):
        fault = differing
    return fault or first_fault(
        check()
        for check in (
            lambda: database_fault(database),
            lambda: None if command == "RUN" else points_fault(database, read_points(plain)),
            lambda: leftover_fault(place, database),
            lambda: _fault_of_files(place, plain, database),
        )
    )


def _run(place: Place, command: str, values: dict[str, str], way: Way) -> Ended:
    """Run a command, in which `values` are inserted, on the database that a way names."""
    cwd = place.folder / way.cwd
    if command == "SCRIPT":
        (cwd / "train.py").write_text(SCRIPT.format(db=way.argument))
        return place.run([*way.prefix, sys.executable, "train.py"], cwd=cwd)
    if command == "RUN":
        (cwd / "g.toml").write_text(GRID)
        words = ["run", "g.toml", "--workers", "0"]
    else:
        values = {**values, "BACKUP": str(cwd / "copy.db")}
        words = [values.get(word, word) for word in command.split()]
    return place.run([*way.prefix, *labbench_words(f"--db={way.argument}", *words)], cwd=cwd, timeout=120)


def _normal(text: str, place: Place, argument: str) -> str:
    """Return output without paths, times and the free space of the disk."""
    text = text.replace(argument, "x.db").replace(clean(argument), "x.db").replace(str(place.folder), "")
    return re.sub(r"\S*\.db\S*|\d+\.\d+ ?s|[\d.]+ .?B free", "", text)


def _fault_of_files(place: Place, plain: Path, database: Path) -> str | None:
    """Check that the files of the runs lie beside the database and nowhere else."""
    counts = [len(list(files_folder(path).rglob("*.safetensors"))) for path in (plain, database)]
    if counts[0] != counts[1]:
        return f"{counts[1]} models beside the database, {counts[0]} beside the plain one"
    strays = [
        path
        for path in place.folder.rglob("*.files")
        if path not in (files_folder(plain), files_folder(database), database)
    ]
    return f"stray folders: {strays}" if strays else None
