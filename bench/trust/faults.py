"""Faults from below: failing file operations, a full disk, locks, missing permissions, clocks, descriptors, memory.

`fault_shim.c` is compiled and preloaded; it makes the n-th write, sync or open of a short session fail, once or from
then on, for every n. What a session reports as done must be complete, nothing that was there before may be lost, and
the same command must work once the fault is gone.
"""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.trust.checks import Row, database_fault, first_fault, leftover_fault, points_fault, read_points, statuses
from bench.trust.processes import Ended, Place, labbench_words
from bench.trust.results import SMALL, Outcome
from bench.trust.samples import write_sample
from bench.trust.sessions import (
    COMMANDS,
    N_STEPS,
    SCRIPT,
    STARTED_SCRIPT,
    Samples,
    Session,
    script_words,
    write_samples,
)
from labbench.errors import LabbenchError
from labbench.executors.scratch import PREFIX
from labbench.store.reader import Reader
from labbench.store.writer import Writer

OPERATIONS = ("write", "sync", "open")
ERRORS = {"write": ("eio", "enospc", "short"), "sync": ("eio",), "open": ("eio",)}

_LOSS = "lost because no file could be written"
"""Part of a script's message about data that it could not write."""

SCRIPTS = {"script": SCRIPT, "started script": STARTED_SCRIPT}
"""Scripts that log, by session. In the second, any file may fail to open after the start, imported modules too."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Failing call of a session."""

    session: str
    operation: str
    error: str
    lasts: bool
    call: int

    @property
    def what(self) -> str:
        return f"{self.session}: {self.error} of {self.operation}, {'from the n-th on' if self.lasts else 'the n-th'}"


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Compile the shim and count the operations of each session; return the function that runs one trial."""
    shim = folder / "shim.so"
    source = Path(__file__).with_name("fault_shim.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", shim, source, "-ldl"], check=True)
    samples = write_samples(folder)
    failures = [
        Failure(session, operation, error, lasts, call)
        for session in (*SCRIPTS, *COMMANDS)
        for operation in (OPERATIONS if session != "started script" else ("open",))
        for call in range(1, _count(folder, shim, samples, session, operation) + 1)
        for error in (ERRORS[operation] if session != "started script" else ("emfile",))
        for lasts in (False, True)
    ]
    print(f"faults: {len(failures)} failing calls, {len(ENVIRONMENTS)} environments", flush=True)

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        trials = sorted([*([] if SMALL else ENVIRONMENTS), *failures], key=lambda trial: _place_in_order(seed, trial))
        trials = [*SHORT_ENVIRONMENTS, *trials] if SMALL else trials
        if number >= len(trials):
            return
        place = Place(folder / "work").make()
        trial = trials[number]
        if isinstance(trial, Failure):
            yield Outcome(trial.what, _fault_of_failure(place, shim, samples, trial))
        else:
            yield Outcome(trial.__name__.replace("_", " "), trial(place, shim))
        place.survivors(seconds=0)
        shutil.rmtree(place.folder)

    return run_trial


def _place_in_order(seed: int, trial: Failure | Callable[[Place, Path], str | None]) -> float:
    """Return the random place of a trial, which is the same if a session has a few calls more the next time."""
    name = repr(trial) if isinstance(trial, Failure) else trial.__name__
    return random.Random(f"{seed} {name}").random()


def _begin(place: Place, session: str, samples: Samples) -> list[str]:
    """Prepare the folder of a session; return the words of its command."""
    return script_words(place, SCRIPTS[session]) if session in SCRIPTS else COMMANDS[session].begin(place, samples)


def _count(folder: Path, shim: Path, samples: Samples, session: str, operation: str) -> int:
    """Return the number of operations of an undisturbed session."""
    place = Place(folder / "count").make()
    counter = folder / "calls"
    environ = _environ(place, shim, session, operation) | {"FAULT_COUNT": str(counter)}
    ended = place.run(_begin(place, session, samples), environ=environ)
    if fault := ended.fault():
        raise RuntimeError(f"{session} fails without a fault: {fault}")
    shutil.rmtree(place.folder)
    number = counter.stat().st_size if counter.exists() else 0
    counter.unlink(missing_ok=True)
    return number


def _environ(place: Place, shim: Path, session: str = "script", operation: str = "") -> dict[str, str]:
    if session == "started script":
        own = {"FAULT_PREFIX": "/", "FAULT_BEGIN": f"{place.folder}/begin"}
    else:
        own = {} if session in SCRIPTS else COMMANDS[session].environ
    return {"LD_PRELOAD": str(shim), "FAULT_PREFIX": f"{place.folder}/", "FAULT_OPERATION": operation} | own


def _fault_of_failure(place: Place, shim: Path, samples: Samples, failure: Failure) -> str | None:
    """Run a session with a failing call; return what was wrong, in one line."""
    database = place.folder / "runs.db"
    words = _begin(place, failure.session, samples)
    before = read_points(database) if database.exists() else []
    environ = _environ(place, shim, failure.session, failure.operation)
    environ |= {"FAULT_CALL": str(failure.call), "FAULT_ERROR": failure.error}
    environ |= {"FAULT_LASTS": "1"} if failure.lasts else {}
    ended = place.run(words, environ=environ, timeout=120)
    if failure.session in SCRIPTS:
        fault = _fault_of_script(place, ended)
    else:
        session = COMMANDS[failure.session]
        fault = ended.fault((0, 1, 2)) or _fault_of_command(place, session, samples, before, ended, words)
    return fault and f"call {failure.call}: {fault}"


def _fault_of_script(place: Place, ended: Ended) -> str | None:
    """Check a script: it ends as it would, unless `start` raised; what was not reported as lost is there."""
    database = place.folder / "runs.db"
    if ended.status == 1 and "labbench.errors." in ended.err.strip().splitlines()[-1]:
        return None if not database.exists() else database_fault(database) if database.stat().st_size else None
    if fault := ended.fault() or ("internal error" if "internal error" in ended.err else None):
        return f"{fault}; stderr: {ended.err[-200:]!r}"
    if not database.exists():
        return None if _LOSS in ended.err else f"no database and no word: {ended.err[-150:]}"
    try:
        Writer(database).close()  # merges what was spilled
    except LabbenchError as error:
        return f"cannot be opened afterwards: {error}"
    expected: list[Row] = [("run", "loss", step, step / 2) for step in range(N_STEPS)]
    expected += [("run", "negative", step, float(-step)) for step in range(N_STEPS)]
    fault = database_fault(database)
    if fault is None and _LOSS not in ended.err:
        fault = points_fault(database, expected)
        state = statuses(database).get("run")
        fault = fault or (f"status {state}" if state != "finished" else None)
    return fault and f"{fault}; stderr: {ended.err[-200:]!r}"


def _fault_of_command(
    place: Place, session: Session, samples: Samples, before: list[Row], ended: Ended, words: list[str]
) -> str | None:
    """Check a command: complete if it said so, else nothing is lost and it works without the fault."""
    database, copy = place.folder / "runs.db", place.folder / "copy.db"
    expected = session.expect(before, samples)
    if ended.status != 0:
        present = set(read_points(database))
        if lost := set(before) - present - ({*before} - {*expected}):
            return f"{len(lost)} points lost by a command that failed"
        if copy.exists():
            return "a failed backup left a copy"
        _make_old(place)
        again = place.run(words, environ=session.environ)
        if fault := again.fault((0, 2) if session.removes or session.name == "rename" else (0,)):
            return f"without the fault: {fault}; before: {ended.err.strip()[-150:]}"
    elif next(place.temporary.glob(f"{PREFIX}*"), None):  # its deletion failed: the next start deletes it
        _make_old(place)
        place.run([sys.executable, "-c", SWEEP])
    return first_fault(
        check()
        for check in (
            lambda: database_fault(database),
            lambda: points_fault(database, expected),
            lambda: points_fault(copy, before) if session.name == "backup" else None,
            lambda: leftover_fault(place, database),
        )
    )


SWEEP = "from labbench.executors.scratch import remove_abandoned_folders; remove_abandoned_folders()"
"""Program for what each `labbench run` and each import of a pack begins with."""


def _make_old(place: Place) -> None:
    """Let temporary files look as if they were old: young ones may belong to a process that has just started."""
    for path in (*place.folder.glob(".labbench-*"), *place.temporary.glob(f"{PREFIX}*")):
        os.utime(path, (0, 0))


# Environments: (place, shim) -> what was wrong

LONG_SCRIPT = """
import labbench, os, sys, time
with labbench.start("run", experiment="faults", db="disk/runs.db", system_metrics=False) as run:
    print("started", flush=True)
    for step in range({n}):
        run.log({{"loss": step / 2, "negative": -step}})
        if step % 100 == 0:
            time.sleep({pause})
"""


def full_disk(place: Place, _: Path) -> str | None:
    """Log to a file system of 1 MB that becomes full; it is a tmpfs, or a limited file size without root."""
    disk = place.folder / "disk"
    disk.mkdir()
    is_mounted = not subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "trust", disk], capture_output=True
    ).returncode
    try:
        (place.folder / "train.py").write_text(LONG_SCRIPT.format(n=60_000, pause=0.002))
        limits = {} if is_mounted else {"preexec_fn": partial(_limit, resource.RLIMIT_FSIZE, 500_000)}
        ended = place.run([sys.executable, "train.py"], timeout=120, **limits)
        if fault := ended.fault():
            return fault
        if "lost" not in ended.err and "spilled" not in ended.err:
            return f"no word about a full disk: {ended.err[-200:]}"
        if is_mounted:
            subprocess.run(["mount", "-o", "remount,size=100m", disk], check=True)
        Writer(disk / "runs.db").close()
        steps = [step for _, metric, step, _ in read_points(disk / "runs.db") if metric == "loss"]
        if steps != list(range(len(steps))) or len(steps) < 1000:
            return f"{len(steps)} steps, with gaps"
        return database_fault(disk / "runs.db")
    finally:
        if is_mounted:
            subprocess.run(["umount", "-l", disk], check=True)


def locked_database(place: Place, _: Path, seconds: float = 4.0) -> str | None:
    """Hold the lock while a script logs and ends, and while a command writes."""
    disk = place.folder / "disk"
    disk.mkdir()
    (place.folder / "train.py").write_text(LONG_SCRIPT.format(n=3000, pause=0.01))
    process = place.start([sys.executable, "train.py"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    with process:
        process.stdout.readline()
        with closing(sqlite3.connect(disk / "runs.db", isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            tagging = place.start(labbench_words("--db", "disk/runs.db", "tag", "run", "--add", "x"))
            time.sleep(seconds)
            connection.execute("ROLLBACK")
        statuses_ended = process.wait(60), tagging.wait(60)
    Writer(disk / "runs.db").close()
    steps = [step for _, metric, step, _ in read_points(disk / "runs.db") if metric == "loss"]
    expected = [(0, 0)] if seconds < 9 else [(0, 1), (0, 2)]
    if statuses_ended not in expected:
        return f"exit statuses of script and tag: {statuses_ended}"
    if steps != list(range(3000)):
        return f"{len(steps)} of 3000 steps"
    return database_fault(disk / "runs.db") or leftover_fault(place, disk / "runs.db")


def database_locked_for_a_minute(place: Place, shim: Path) -> str | None:
    """Hold the lock for longer than any timeout."""
    return locked_database(place, shim, seconds=60.0)


def clock_steps(place: Place, shim: Path) -> str | None:
    """Set the time of day a day forward and two days back while a script logs."""
    (place.folder / "disk").mkdir()
    (place.folder / "train.py").write_text(LONG_SCRIPT.format(n=2000, pause=0.05))
    clock = place.folder / "clock"
    clock.write_text("0")
    environ = _environ(place, shim) | {"FAULT_CLOCK": str(clock)}
    process = place.start([sys.executable, "train.py"], environ=environ, stdout=subprocess.PIPE)
    with process:
        process.stdout.readline()
        for shift in (86_400, -86_400):
            time.sleep(0.3)
            clock.write_text(str(shift))
            if (state := statuses(place.folder / "disk" / "runs.db")["run"]) != "running":
                return f"the run is {state} after the clock was set by {shift} s"
        if status := process.wait(60):
            return f"exit status {status}"
    database = place.folder / "disk" / "runs.db"
    with Reader(database) as reader:
        [run] = reader.runs()
        times = reader.times(run.key, "loss").tolist()
    if times != sorted(times) or times[-1] > 60_000 or len(times) != 2000:
        return f"{len(times)} times of points from {times[0]} to {times[-1]} ms"
    if run.finished is None or run.started is None or run.finished < run.started:
        return "the run ends before it starts"
    return database_fault(database)


def no_file_descriptors(place: Place, _: Path) -> str | None:
    """Use up all file descriptors after the start of a run, and free them before its end."""
    (place.folder / "disk").mkdir()
    program = LONG_SCRIPT.format(n=2000, pause=0.02).replace(
        'print("started", flush=True)',
        "import resource\n    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))\n    files = []\n"
        "    try:\n        while True:\n            files.append(open('/dev/null'))\n    except OSError:\n        pass",
    )
    (place.folder / "train.py").write_text(program + "    del files\n")
    return _fault_of_complete_script(place, place.run([sys.executable, "train.py"]), 2000)


def stopped_for_longer_than_the_heartbeat(place: Place, _: Path) -> str | None:
    """Suspend a script for 20 s."""
    (place.folder / "disk").mkdir()
    (place.folder / "train.py").write_text(LONG_SCRIPT.format(n=2000, pause=0.02))
    process = place.start([sys.executable, "train.py"], stdout=subprocess.PIPE)
    with process:
        process.stdout.readline()
        process.send_signal(signal.SIGSTOP)
        time.sleep(20)
        state = statuses(place.folder / "disk" / "runs.db")["run"]
        process.send_signal(signal.SIGCONT)
        status = process.wait(60)
    if state != "running":
        return f"a suspended run is {state}"
    return _fault_of_complete_script(place, Ended(status, "", "", 0, 0), 2000)


def little_memory(place: Place, _: Path) -> str | None:
    """Run reading commands with less memory than they need; not `plot`, whose library aborts in C++."""
    write_sample(place.folder / "runs.db", runs=10, points=3000)
    for words in (
        ["ls"],
        ["why", "val/loss"],
        ["export", "--wide"],
        ["doctor"],
        ["ls", "--json"],
    ):
        for megabytes in (40, 60, 90, 130):
            ended = place.labbench(*words, preexec_fn=partial(_limit, resource.RLIMIT_AS, megabytes * 2**20))
            if fault := ended.fault((0, 1, 2)):
                return f"{' '.join(words)} with {megabytes} MB: {fault}"
    return database_fault(place.folder / "runs.db")


def no_permission(place: Place, _: Path) -> str | None:
    """Read and write a database in a read-only folder, and one that cannot be read, as another user."""
    database = write_sample(place.folder / "runs.db", runs=2, points=20)
    # root without the capabilities that ignore permissions
    prefix = ["setpriv", f"--bounding-set={_OVERRIDES}", f"--inh-caps={_OVERRIDES}"] if os.geteuid() == 0 else []
    place.folder.chmod(0o555)
    try:
        for words, expected in (
            (["ls"], (0,)),
            (["export"], (0,)),
            (["doctor"], (0,)),
            (["tag", "sample 0", "--add", "x"], (1, 2)),
        ):
            if fault := place.run([*prefix, *labbench_words(*words)]).fault(expected):
                return f"{words[0]} in a read-only folder: {fault}"
        database.chmod(0)
        for words in (["ls"], ["tag", "sample 0", "--add", "x"]):
            if fault := place.run([*prefix, *labbench_words(*words)]).fault((1, 2)):
                return f"{words[0]} of an unreadable file: {fault}"
    finally:
        place.folder.chmod(0o755)
        database.chmod(0o644)
    return database_fault(database)


_OVERRIDES = "-dac_override,-dac_read_search"

ENVIRONMENTS = (
    full_disk, locked_database, database_locked_for_a_minute, clock_steps, no_file_descriptors,
    stopped_for_longer_than_the_heartbeat, little_memory, no_permission,
)  # fmt: skip
SHORT_ENVIRONMENTS = (locked_database, clock_steps, no_file_descriptors, full_disk, no_permission)


def _fault_of_complete_script(place: Place, ended: Ended, n_steps: int) -> str | None:
    database = place.folder / "disk" / "runs.db"
    if fault := ended.fault():
        return fault
    Writer(database).close()
    steps = [step for _, metric, step, _ in read_points(database) if metric == "loss"]
    if steps != list(range(n_steps)):
        return f"{len(steps)} of {n_steps} steps; {ended.err[-200:]}"
    return database_fault(database) or leftover_fault(place, database)


def _limit(what: int, size: int) -> None:
    resource.setrlimit(what, (size, size))
    if what == resource.RLIMIT_FSIZE:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
