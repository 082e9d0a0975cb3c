"""Runs of a `command`: a script in any framework, one process per run.

The exit status of the script determines the status of the run. Environment variables name the database, the run and the
config, so that `labbench.start()` in the script attaches to the run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from labbench.executors.captured_file import CapturedFile
from labbench.grid.command_template import fill_placeholders
from labbench.records import Command, Event, Failed, Finished, Log, RunRecord, Started
from labbench.terminal_output import OutputText
from labbench.train.active_runs import StopRequests

POLL_SECONDS = 0.1
GRACE_SECONDS = 10.0
"""Seconds between SIGTERM and SIGKILL."""


def run_command(run: RunRecord, command: Command, device: str, stop_requests: StopRequests) -> Iterator[Event | None]:
    """Start the script for one run; yield its output and its end.

    Yields None while the script prints nothing. If the run is in `stop_requests`, the script receives SIGTERM; without
    a boundary, the run restarts from the beginning next time.
    """
    words = fill_placeholders(command.words, run.config)
    yield Started(run.key, run.attempt, socket.gethostname(), os.getpid(), device, "command")
    with tempfile.TemporaryDirectory(prefix="labbench-") as scratch:
        output = CapturedFile(Path(scratch, "output.txt"))
        try:
            with running_script(run, words, command, device, Path(scratch)) as process:
                while process.poll() is None:
                    yield from _logs(run, output.take())
                    if stop_requests.is_requested(run.key):
                        terminate(process)
                        break
                    yield None
                    time.sleep(POLL_SECONDS)
                status = process.wait()
        except OSError as error:
            yield Failed(run.key, run.attempt, "user", f"{words[0]} cannot be started: {error.strerror}")
            return
        yield from _logs(run, output.close())
    if stop_requests.is_requested(run.key):
        yield Finished(run.key, run.attempt, "queued", "interrupted")
    elif status == 0:
        yield Finished(run.key, run.attempt, "finished", "exit status 0")
    else:
        outcome = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        yield Failed(run.key, run.attempt, "user", f"{words[0]}: {outcome}", "\n".join(output.last_lines()))


@contextmanager
def running_script(
    run: RunRecord, words: list[str], command: Command, device: str, scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """Start the script's process; it is killed at the end of the block.

    Raises:
        OSError: If the program cannot be started.
    """
    config = scratch / "config.json"
    config.write_text(json.dumps(dict(run.config)))
    environment = {
        **os.environ,
        "LABBENCH_DB": command.database,
        "LABBENCH_RUN": run.key,
        "LABBENCH_CONFIG": str(config),
    }
    if device.startswith("cuda:"):
        environment["CUDA_VISIBLE_DEVICES"] = device.removeprefix("cuda:")
    program = shutil.which(words[0], path=environment.get("PATH")) or words[0]
    with (scratch / "output.txt").open("wb") as file:
        process = subprocess.Popen(
            [program, *words[1:]],
            cwd=command.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def terminate(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to a process, and SIGKILL if it is alive after `GRACE_SECONDS`."""
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def _logs(run: RunRecord, texts: Iterable[OutputText]) -> Iterator[Log]:
    for text in texts:
        yield Log(run.key, run.attempt, text.text, text.replaces_unfinished)
