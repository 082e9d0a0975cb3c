"""Processes killed with SIGKILL at random moments: scripts, the driver, workers, the interface, maintenance commands.

After each kill the database must be sound, its points complete up to the promised bound, no process and no file may be
left, and the next command must finish the work.
"""

from __future__ import annotations

import json
import os
import pty
import random
import shutil
import sqlite3
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bench.trust.checks import (
    Row,
    database_fault,
    first_fault,
    leftover_fault,
    points_fault,
    read_points,
    status_fault,
    statuses,
)
from bench.trust.processes import Place, kill_after, labbench_words
from bench.trust.results import SMALL, Outcome
from bench.trust.samples import write_sample
from labbench.files import files_folder
from labbench.store.reader import Reader
from labbench.store.writer import Writer

_RETRAINED = 0.02
"""Difference, relative or absolute, of values that were trained in a stack of fewer runs after an interruption."""
LOSS_SECONDS = 2.0 if SMALL else 0.25
"""Maximum age of a lost log call: 0.025 on a machine with free cores, more on one that runs tests."""
SURVIVAL_SECONDS = 120.0
"""Time in which the workers of a killed driver end: one that is loading torch ends once it is loaded."""

_RECORD = struct.Struct("<qq")

SCRIPT = """
import labbench, struct, sys, time
first, last, acknowledged = int(sys.argv[1]), int(sys.argv[2]), open("acknowledged", "ab", buffering=0)
with labbench.start("run", experiment="crash", db="runs.db", resume="run", system_metrics=False) as run:
    for step in range(first, last):
        run.log({"loss": step / 2, "negative": -step}, step=step)
        acknowledged.write(struct.pack("<qq", step, time.monotonic_ns()))
        if step % 50 == 49:
            run.flush()
        time.sleep(0.001)
"""
N_STEPS = 600

GRID = """
name = "g"
task = "digits"
[params]
epochs = 6
hidden = [16]
[grid]
lr = [0.1, 0.01]
[repeat]
seeds = [0, 1]
[runtime]
snapshot_every = 0.001
keep = "last"
"""


@dataclass(frozen=True, slots=True)
class Samples:
    """What is made once for all trials."""

    folder: Path

    def database(self) -> Path:
        """Return a database of 20 runs with 10,000 points each, and files."""
        path = self.folder / "sample.db"
        return path if path.exists() else write_sample(path)

    def trained(self) -> tuple[list[Row], float]:
        """Return the points of the undisturbed grid, and the seconds that it took."""
        folder = self.folder / "trained"
        times = folder / "seconds"
        if not times.exists():
            place = Place(folder).make()
            (folder / "g.toml").write_text(GRID)
            ended = place.labbench("run", "g.toml", "--workers", "2", timeout=300)
            if fault := ended.fault():
                raise RuntimeError(f"the grid does not train at all: {fault}")
            times.write_text(str(ended.seconds))
        return read_points(folder / "runs.db"), float(times.read_text())


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial; trials take the kinds in turn."""
    samples = Samples(folder / "samples")
    samples.folder.mkdir()

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        rng = random.Random(f"{seed} {number}")
        order = list(dict.fromkeys(ORDER)) if SMALL else ORDER
        kind = order[number % len(order)]
        place = Place(folder / "work").make()
        yield kind(place, samples, rng)
        place.survivors(seconds=0)
        shutil.rmtree(place.folder)

    return run_trial


def script(place: Place, _: Samples, rng: random.Random) -> Outcome:
    """Kill a logging script; then log the rest with `resume`."""
    (place.folder / "train.py").write_text(SCRIPT)
    database, first, worst = place.folder / "runs.db", 0, 0.0
    for last in (rng.randrange(50, N_STEPS), N_STEPS):
        process = place.start([sys.executable, "train.py", str(first), str(10 * last)], stderr=subprocess.DEVNULL)
        _wait_for(place.folder / "acknowledged", process)
        time.sleep(rng.uniform(0, 0.6))
        process.kill()
        killed = time.monotonic_ns()
        process.wait()
        steps = [step for _, metric, step, _ in read_points(database) if metric == "loss"] if database.exists() else []
        data = (place.folder / "acknowledged").read_bytes()
        lost = [at for step, at in _RECORD.iter_unpack(data[: len(data) // 16 * 16]) if step > max(steps, default=-1)]
        worst = max(worst, (killed - min(lost, default=killed)) / 1e9)
        (place.folder / "acknowledged").unlink()
        first = max(steps, default=-1) + 1
        if not steps and first == 0:
            break  # killed before the first transaction
    last = first + 20
    ended = place.run([sys.executable, "train.py", str(first), str(last)])
    expected = [
        ("run", metric, step, value)
        for metric, value_at in _SCRIPT_METRICS
        for step in range(last)
        for value in [value_at(step)]
    ]
    fault = first_fault(
        check()
        for check in (
            lambda: f"{worst * 1000:.0f} ms lost" if worst > LOSS_SECONDS else None,
            lambda: ended.fault(),
            lambda: database_fault(database),
            lambda: points_fault(database, expected),
            lambda: status_fault(database, "finished"),
            lambda: leftover_fault(place, database),
        )
    )
    return Outcome("logging script (figure: ms lost)", fault, worst * 1000)


_SCRIPT_METRICS: list[tuple[str, Callable[[int], float]]] = [
    ("loss", lambda step: step / 2),
    ("negative", lambda step: float(-step)),
]


def driver(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill `labbench run`; then run it again."""
    points, seconds = samples.trained()
    database = _write_grid(place)
    process = place.start(labbench_words("run", "g.toml", "--workers", "2"), **_SILENT)
    kill_after(process, rng.uniform(0.1, 1.1) * seconds)
    survivors = place.survivors(seconds=SURVIVAL_SECONDS)
    fault = f"processes left: {survivors!r:.150}" if survivors else None
    return Outcome("driver", fault or _fault_of_rest(place, database, points, "run", "g.toml", "--workers", "2"))


def worker(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill a process that the driver has started; then retry what failed."""
    points, seconds = samples.trained()
    database = _write_grid(place)
    process = place.start(labbench_words("run", "g.toml", "--workers", "2"), **_SILENT)
    time.sleep(rng.uniform(0.2, 1.0) * seconds)
    with suppress(psutil.Error):
        if children := psutil.Process(process.pid).children(recursive=True):
            rng.choice(children).kill()
    try:
        status = process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
        return Outcome("worker", "the driver did not end within 60 s")
    if status not in (0, 1):
        return Outcome("worker", f"the driver ended with status {status}")
    ended = ("finished", "failed") if status == 0 else ("finished", "failed", "queued")  # 1: without its fork server
    if stuck := {name: state for name, state in statuses(database).items() if state not in ended}:
        return Outcome("worker", f"after the driver's end: {stuck}")
    return Outcome("worker", _fault_of_rest(place, database, points, "run", "g.toml", "--retry-failed"))


def interface(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill the interface while it edits runs; then open and leave it."""
    database = _copy(samples.database(), place)
    points = read_points(database)
    words = labbench_words("tui", "runs.db")
    fault = _press(place, words, rng, "tgood\rNa note\rRother\rjA t,x\rj4 1jAu W", kill=True)
    fault = fault or first_fault(
        check()
        for check in (
            lambda: database_fault(database),
            lambda: points_fault_ignoring_names(database, points),
            lambda: _fault_of_state(place),
            lambda: _press(place, words, rng, "q", kill=False),
            lambda: leftover_fault(place, database),
        )
    )
    return Outcome("interface while it edits", fault)


def import_labbench(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill an import; then import again, twice."""
    database, other = place.folder / "runs.db", samples.database()
    _kill_near_writes(place, database, rng, "import", "labbench", other)
    fault = _fault_of_rest(place, database, read_points(other), "import", "labbench", other)
    again = place.labbench("import", "labbench", other)
    if fault is None and not again.out.startswith("imported 0 new runs, updated 0"):
        fault = f"a second import changed something: {again.out.strip()}"
    return Outcome("import", fault or _fault_of_models(other, database))


def backup(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill a backup: the copy is absent or complete."""
    database, copy = _copy(samples.database(), place), place.folder / "copy.db"
    _kill_near_writes(place, place.folder, rng, "backup", copy)
    points = read_points(database)
    if copy.exists():
        fault = first_fault(check(copy) for check in (database_fault, lambda path: points_fault(path, points)))
        copy.unlink()
        if fault:
            return Outcome("backup", f"an incomplete copy: {fault}")
    _make_older(place.folder)
    ended = place.labbench("backup", copy)
    fault = ended.fault() or database_fault(copy) or points_fault(copy, points) or leftover_fault(place, database)
    return Outcome("backup", fault)


def vacuum(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill a vacuum after runs were removed; then vacuum again."""
    database = _copy(samples.database(), place)
    with Reader(database) as reader:
        keys = reader.keys()[::2]
    with Writer(database) as writer:
        writer.remove(keys)
    _kill_near_writes(place, database, rng, "vacuum")
    return Outcome("vacuum", _fault_of_rest(place, database, read_points(database), "vacuum"))


def doctor(place: Place, samples: Samples, rng: random.Random) -> Outcome:
    """Kill a repair; then repair again."""
    database = _copy(samples.database(), place)
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE summary SET n = n + 1, last = 0 WHERE run_id % 2")
        connection.execute("DELETE FROM rollup WHERE run_id % 3 = 0")
        connection.execute("DELETE FROM runs WHERE id = 5")
        connection.execute("UPDATE runs SET status = 'odd' WHERE id = 7")
    points = _unnamed_points(database)
    _kill_near_writes(place, database, rng, "doctor", "--fix")
    fault = _fault_of_rest(place, database, None, "doctor", "--fix")
    if fault is None and _unnamed_points(database) != points:
        fault = "points were changed"
    return Outcome("doctor --fix", fault)


def migration(place: Place, _: Samples, rng: random.Random) -> Outcome:
    """Kill the first writer of a database with the first schema; then write again."""
    database = place.folder / "runs.db"
    shutil.copy(Path(__file__).parents[2] / "tests" / "databases" / "initial.db", database)
    points = read_points(database)
    with Reader(database) as reader:
        key = reader.keys()[0]
    _kill_near_writes(place, database, rng, "tag", key, "--add", "seen")
    return Outcome(
        "migration", _fault_of_rest(place, database, points, "tag", key, "--add", "seen", all_finished=False)
    )


ORDER = (
    *(script, import_labbench, driver, worker, backup, script, driver, worker, doctor),
    *(script, driver, worker, vacuum, migration, script, driver, worker, interface),
)
"""Kinds of trials in turn: four trials of what writes points for each of the other kinds."""

_SILENT = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


def _fault_of_rest(
    place: Place, database: Path, points: list[Row] | None, *words: str | Path, all_finished: bool = True
) -> str | None:
    """Run the command again; return what is wrong then."""
    if database.exists() and (fault := _integrity_fault(database)):
        return fault
    _make_older(place.folder)
    ended = place.labbench(*words, timeout=180)
    return first_fault(
        check()
        for check in (
            ended.fault,
            lambda: database_fault(database),
            lambda: None if points is None else points_fault(database, points, tolerance=_RETRAINED),
            lambda: (
                status_fault(database, "finished", but=["recovered 5"]) if all_finished and points is not None else None
            ),
            lambda: leftover_fault(place, database),
        )
    )


def _integrity_fault(database: Path) -> str | None:
    """Check a database as SQLite leaves it, with a hot journal or a write-ahead log."""
    with closing(sqlite3.connect(database)) as connection:
        [problem, *_] = connection.execute("PRAGMA integrity_check").fetchone()
    return None if problem == "ok" else f"integrity check: {problem}"


def _fault_of_models(other: Path, database: Path) -> str | None:
    sizes = [
        {path.relative_to(files_folder(db)): path.stat().st_size for path in files_folder(db).rglob("*.safetensors")}
        for db in (other, database)
    ]
    return None if sizes[0] == sizes[1] else f"{len(sizes[1])} of {len(sizes[0])} models were copied"


def _fault_of_state(place: Place) -> str | None:
    for path in (place.folder / "state").rglob("*.json"):
        try:
            json.loads(path.read_bytes())
        except ValueError as error:
            return f"state file {path.name}: {error}"
    return None


def points_fault_ignoring_names(database: Path, expected: list[Row]) -> str | None:
    """Compare points by metric, step and value: names of runs were edited."""
    actual = sorted(row[1:] for row in read_points(database))
    return None if actual == sorted(row[1:] for row in expected) else "points were changed"


def _unnamed_points(database: Path) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(database)) as connection:
        return connection.execute("SELECT * FROM points ORDER BY 1, 2, 3").fetchall()


def _write_grid(place: Place) -> Path:
    (place.folder / "g.toml").write_text(GRID)
    return place.folder / "runs.db"


def _copy(sample: Path, place: Place) -> Path:
    return Path(shutil.copy(sample, place.folder / "runs.db"))


def _make_older(folder: Path) -> None:
    """Let everything that a killed process left look old enough to be removed."""
    for path in [*folder.glob(".labbench-*"), *folder.glob("tmp/*"), *folder.glob("*.files/*/.labbench-*")]:
        os.utime(path, (time.time() - 3600,) * 2)


def _wait_for(path: Path, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None and not (path.exists() and path.stat().st_size):
        time.sleep(0.005)


def _kill_near_writes(place: Place, watched: Path, rng: random.Random, *words: str | Path) -> None:
    """Run a command and kill it, mostly soon after its first write to a file or folder."""
    process = place.start(labbench_words(*words), **_SILENT)
    before = _state(watched)
    if rng.random() < 0.2:
        kill_after(process, rng.uniform(0, 1))
        return
    while process.poll() is None and _state(watched) == before:
        time.sleep(0.0005)
    kill_after(process, rng.choice([0.003, 0.03, 0.3]) * rng.random())


def _state(path: Path) -> list[tuple[str, int, int]]:
    paths = path.iterdir() if path.is_dir() else path.parent.glob(f"{path.name}*")
    state = []
    for file in paths:
        with suppress(OSError):
            stat = file.stat()
            state.append((file.name, stat.st_size, stat.st_mtime_ns))
    return sorted(state)


def _press(place: Place, words: list[str], rng: random.Random, keys: str, *, kill: bool) -> str | None:
    """Start a program on a pseudo-terminal and press keys; kill it at a random one, or wait for its end."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place.folder)
        os.execvpe(words[0], words, place.environ(TERM="xterm-256color", LANG="C.UTF-8", COLUMNS="120", LINES="40"))
    end = rng.randrange(1, len(keys) + 1) if kill else len(keys)
    _drain(terminal, 2.0)
    for key in keys[:end]:
        os.write(terminal, key.encode())
        _drain(terminal, rng.uniform(0.02, 0.15))
    if kill:
        os.kill(pid, 9)
    deadline = time.monotonic() + 10
    while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0) and time.monotonic() < deadline:
        _drain(terminal, 0.05)
    os.close(terminal)
    if ended == (0, 0):
        os.kill(pid, 9)
        os.waitpid(pid, 0)
        return "the interface did not end within 10 s of the key q"
    status = os.waitstatus_to_exitcode(ended[1])
    return f"the interface ended with status {status}" if status != (-9 if kill else 0) else None


def _drain(terminal: int, seconds: float) -> None:
    """Read what a program writes to its terminal, until it has written nothing for some seconds."""
    import select

    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
        try:
            os.read(terminal, 65536)
        except OSError:
            return
