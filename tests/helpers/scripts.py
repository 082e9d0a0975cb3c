"""Run real training scripts in separate processes, for the tests of tracking."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from helpers.waiting import HANG_SECONDS
from labbench.records import RunRecord
from labbench.store.reader import Reader
from labbench.store.writer import Writer

LOG_WHILE_LOCKED = """
run = labbench.start("a run", system_metrics=False)
run.flush()
print("begun", flush=True)
while not os.path.exists("locked"):
    time.sleep(0.01)
for step in range(1_000):
    run.log({"loss": 1.0})
print("logged", flush=True)
"""

WAIT_FOR_SIGNAL = "while True: time.sleep(0.1)"
"""Python runs a handler between two calls: a signal just before the begin of one long call would wait for its end."""


def begin(folder: Path, code: str, *, prefix: Sequence[str] = (), **environment: str) -> subprocess.Popen[str]:
    """Start `train.py` in `folder` with the given code, after `import labbench`.

    `prefix` are the words of a command that starts it, such as `unshare`.
    """
    script = folder / "train.py"
    text = "import labbench, os, signal, sys, time\n" + textwrap.dedent(code)
    if not script.exists() or script.read_text() != text:  # another process may be about to read it
        script.write_text(text)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LABBENCH")}
    return subprocess.Popen(
        [*prefix, sys.executable, script.name],
        cwd=folder,
        env=inherited | {"LABBENCH_STRICT": "1", "LABBENCH_QUIET": "1"} | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], *, seconds: float = HANG_SECONDS) -> subprocess.CompletedProcess[str]:
    """Wait for a script to end; kill it after `seconds`, which fails the test."""
    with process:  # closes its pipes, also after a timeout
        try:
            out, err = process.communicate(timeout=seconds)
        finally:
            process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script to its end."""
    return end(begin(folder, code, **environment))


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Wait until the script prints the line."""
    assert process.stdout is not None
    while (printed := process.stdout.readline()) != f"{line}\n":
        assert printed, f"the script ended without printing {line!r}: {end(process).stderr}"


def send_signal(process: subprocess.Popen[str], number: int, line: str = "ready") -> subprocess.CompletedProcess[str]:
    """Send a signal to a script once it has printed the line, and wait for its end."""
    wait_for(process, line)
    process.send_signal(number)
    return end(process)


@contextmanager
def begin_while_locked(folder: Path, code: str = "") -> Iterator[subprocess.Popen[str]]:
    """Start a script that logs 1,000 losses while another program locks the database, then runs `code`.

    Within the block, the script has logged and the database is still locked.
    """
    process = begin(folder, LOG_WHILE_LOCKED + textwrap.dedent(code))
    wait_for(process, "begun")
    with closing(sqlite3.connect(folder / "runs.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        (folder / "locked").touch()
        wait_for(process, "logged")
        try:
            yield process
        finally:
            connection.execute("ROLLBACK")


def only_run(folder: Path, db: str = "runs.db") -> RunRecord:
    """Return the only run of a database."""
    with Reader(folder / db) as reader:
        [record] = reader.runs()
    return record


def merge_spill_files(folder: Path) -> None:
    """Open the database for writing, which merges the spill files."""
    with Writer(folder / "runs.db"):
        pass


def database_files(folder: Path) -> list[str]:
    """Return the names of the database and of the files beside it."""
    return sorted(path.name for path in folder.iterdir() if path.name.startswith("runs.db"))


def spill_files(folder: Path) -> list[Path]:
    """Return the spill files of the database."""
    return list(folder.glob("runs.db.spilled-*.jsonl"))


SIGNAL_EXIT_STATUS = {number: -number for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)}
"""Exit status of a process ended by a signal, as `subprocess` reports it."""
