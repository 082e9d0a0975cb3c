"""What the tests of tracking share: training scripts that really run, in processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from labbench.records import RunRecord
from labbench.store.reader import Reader


def begin(folder: Path, code: str, **environment: str) -> subprocess.Popen[str]:
    """A script `train.py` in `folder`, with `labbench` imported, running."""
    script = folder / "train.py"
    text = "import labbench, os, signal, sys, time\n" + textwrap.dedent(code)
    if not script.exists() or script.read_text() != text:  # another process may be about to read it
        script.write_text(text)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("LABBENCH")}
    return subprocess.Popen(
        [sys.executable, script.name],
        cwd=folder,
        env=inherited | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process: subprocess.Popen[str], *, seconds: float = 60) -> subprocess.CompletedProcess[str]:
    """Wait for a script; one that hangs is killed, which fails the test."""
    try:
        out, err = process.communicate(timeout=seconds)
    finally:
        process.kill()
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def run(folder: Path, code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A script, from its beginning to its end."""
    return end(begin(folder, code, **environment))


def wait_for(process: subprocess.Popen[str], line: str) -> None:
    """Until the script prints a line."""
    assert process.stdout is not None
    while (printed := process.stdout.readline()) != f"{line}\n":
        assert printed, f"it ended without printing {line!r}: {end(process).stderr}"


def send_signal(process: subprocess.Popen[str], number: int, line: str = "ready") -> subprocess.CompletedProcess[str]:
    """Send a signal to a script that has printed a line, and wait for its end."""
    wait_for(process, line)
    process.send_signal(number)
    return end(process)


def only_run(folder: Path, db: str = "runs.db") -> RunRecord:
    """The one run of a database."""
    with Reader(folder / db) as reader:
        [record] = reader.runs()
    return record


def wait_until(claim, seconds: float = 10.0) -> None:  # type: ignore[no-untyped-def]
    """Wait until a claim holds."""
    until = time.monotonic() + seconds
    while not claim():
        assert time.monotonic() < until, "it did not become true"
        time.sleep(0.01)


SIGNAL_EXIT_STATUS = {number: -number for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL)}
"""The exit status of a process that a signal has ended."""
