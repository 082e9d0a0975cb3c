"""Any script in any framework: one process a run, started with its parameters; its exit status decides.

The script finds its database, run and config in the environment: `labbench.start()` in it attaches to the run.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from labbench.grid.command_template import fill_placeholders
from labbench.records import Command, Event, Failed, Finished, Log, RunRecord, Started
from labbench.train.active_runs import StopRequests

POLL_SECONDS = 0.1
GRACE_SECONDS = 10.0
"""What a script has to end in after it was asked to (SIGTERM), before it is made to."""

MAX_TAIL_LINES = 20


def run_command(run: RunRecord, command: Command, device: str, stop_requests: StopRequests) -> Iterator[Event | None]:
    """Start the script for one run and follow it to its end; None while it says nothing.

    A run in `stop_requests` is asked to end; it has no boundary, so it begins anew when it is trained again.
    """
    words = fill_placeholders(command.words, run.config)
    yield Started(run.key, run.attempt, socket.gethostname(), os.getpid(), device, "command")
    with tempfile.TemporaryDirectory(prefix="labbench-") as scratch:
        output = ScriptOutput(run, Path(scratch, "output.txt"))
        try:
            with running_script(run, words, command, device, Path(scratch)) as process:
                while process.poll() is None:
                    yield from output.new()
                    if stop_requests.is_requested(run.key):
                        terminate(process)
                        break
                    yield None
                    time.sleep(POLL_SECONDS)
                status = process.wait()
        except OSError as error:
            yield Failed(run.key, run.attempt, "user", f"{words[0]} cannot be started: {error.strerror}")
            return
        yield from output.new()
    if stop_requests.is_requested(run.key):
        yield Finished(run.key, run.attempt, "queued", "interrupted")
    elif status == 0:
        yield Finished(run.key, run.attempt, "finished", "exit status 0")
    else:
        said = f"exit status {status}" if status > 0 else f"killed by signal {-status}"
        yield Failed(run.key, run.attempt, "user", f"{words[0]}: {said}", "\n".join(output.last_lines))


@contextmanager
def running_script(
    run: RunRecord, words: list[str], command: Command, device: str, scratch: Path
) -> Iterator[subprocess.Popen[bytes]]:
    """The script's process; it does not outlive the block. Raises OSError where it cannot be started."""
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
    """Ask a process to end, and make it when it does not."""
    process.terminate()
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


class ScriptOutput:
    """What a script prints, as it comes."""

    def __init__(self, run: RunRecord, file: Path) -> None:
        self.run, self.file = run, file
        self.last_lines: list[str] = []
        self._read = 0

    def new(self) -> Iterator[Log]:
        """What was printed since the last call, if anything."""
        if not self.file.exists() or self.file.stat().st_size == self._read:
            return
        with self.file.open("rb") as file:
            file.seek(self._read)
            printed = file.read()
        self._read += len(printed)
        text = printed.decode(errors="replace")
        self.last_lines = [*self.last_lines, *text.splitlines()][-MAX_TAIL_LINES:]
        yield Log(self.run.key, self.run.attempt, text)
