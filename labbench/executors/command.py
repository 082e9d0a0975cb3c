"""Runs of a `command`: a script in any framework, one process per run; its exit status decides the run's status.

The environment of the script names its database, run and config, so that `labbench.start()` attaches to the run.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from labbench.executors.leftovers import RUN_VARIABLE, BackgroundProcess
from labbench.executors.scratch import ScratchFolder
from labbench.executors.script_process import ScriptProcess, signal_name
from labbench.files import files_folder, run_folder
from labbench.grid.command_template import expand_home_in_word, fill_command, fill_text, plain_words
from labbench.records import Command, Event, Failed, Finished, Log, RunRecord, Started
from labbench.system.hardware import read_hardware
from labbench.system.ranks import DRIVER_RANKS, driver_ranks
from labbench.terminal_output import OutputText
from labbench.train.active_runs import StopRequests
from labbench.train.devices import VISIBLE_DEVICES, visible_name

POLL_SECONDS = 0.1

STOP_SECONDS = 1.0
"""Seconds for which the driver may request the stop of a script that SIGTERM has ended."""

LAST_OUTPUT_SECONDS = 0.2
"""Seconds for which output is read after the end of a script, while a background process holds its pipe open."""

BACKGROUND_ENDED = "exit status 0; a background process was ended"
"""Reason of a finished run whose script left a process running."""

_INTERPRETERS = {".py": "python", ".r": "Rscript", ".jl": "julia", ".pl": "perl", ".js": "node"}
"""Interpreters of scripts by the ends of their names; of other scripts it is bash."""

STATUS_HINTS = {126: "the program cannot be executed", 127: "a program was not found"}
"""Meanings of exit statuses of a shell."""


def run_command(run: RunRecord, command: Command, device: str, stop_requests: StopRequests) -> Iterator[Event | None]:
    """Start the script for one run; yield its output and its end.

    Yields None while the script prints nothing. If the run is in `stop_requests`, all processes of the script receive
    SIGTERM; it has no boundary, so the run restarts from the beginning next time.
    """
    values = template_values(run, command)
    words = fill_command(command.words, values)
    words[0] = sys.executable if words[0] == "python" else words[0]
    folder = str(Path(command.folder, expand_home_in_word(fill_text(command.cwd, values))))
    host = socket.gethostname()
    yield Started(run.key, run.attempt, host, os.getpid(), device, "command", read_hardware("cpu"))
    try:
        with running_script(run, words, command, device, folder, values) as script:
            while script.is_active():
                script.read(POLL_SECONDS)
                yield from _logs(run, script.output.take())
                if stop_requests.is_requested(run.key):
                    script.terminate()
                yield None
            status = script.exit_status
            if status in (-signal.SIGTERM, 128 + signal.SIGTERM):  # a scheduler may have sent it to the driver, too
                yield from _await_stop_request(run, stop_requests)
            left_over = script.wait_for_background()
    except (OSError, ValueError) as error:  # ValueError: a zero byte in a word
        yield Failed(run.key, run.attempt, "user", start_error(error, words[0], folder))
        return
    yield from _logs(run, script.output.close())
    if stop_requests.is_requested(run.key):
        yield Finished(run.key, run.attempt, "queued", "interrupted")
        return
    for process in left_over:
        yield Log(run.key, run.attempt, background_note(process))
    if status == 0:
        reason = BACKGROUND_ENDED if any(process.in_group for process in left_over) else "exit status 0"
        yield Finished(run.key, run.attempt, "finished", reason)
    else:
        message = f"{command.words[0]}: {describe_status(status or 0)}"
        yield Failed(run.key, run.attempt, "user", message, script.last_lines())


def _await_stop_request(run: RunRecord, stop_requests: StopRequests) -> Iterator[None]:
    """Wait for a stop request that may be on its way; yield None meanwhile."""
    deadline = time.monotonic() + STOP_SECONDS
    while time.monotonic() < deadline and not stop_requests.is_requested(run.key):
        yield None
        time.sleep(POLL_SECONDS)


def template_values(run: RunRecord, command: Command) -> dict[str, object]:
    """Return the values of a command's placeholders."""
    folder = run_folder(files_folder(Path(command.database)), run.key)
    built_in = {
        "python": sys.executable,
        "experiment": run.experiment,
        "run.key": run.key,
        "run.dir": str(folder),
    }
    return {**built_in, **run.config}


@contextmanager
def running_script(
    run: RunRecord, words: Sequence[str], command: Command, device: str, folder: str, values: Mapping[str, object]
) -> Iterator[ScriptProcess]:
    """Start the script's processes for the block.

    The process group of the script is killed at the end of the block, after an exception also daemons of the script.

    Raises:
        OSError: If the program cannot be started.
        ValueError: If a word contains a zero byte.
    """
    with ScratchFolder() as scratch:
        config = scratch / "config.json"
        config.write_text(json.dumps(dict(run.config)))
        environment = dict(os.environ)
        if device.startswith("cuda:"):
            environment[VISIBLE_DEVICES] = visible_name(device)
        environment |= {name: fill_text(value, values) for name, value in command.env.items()}
        environment |= {"LABBENCH_DB": command.database, RUN_VARIABLE: run.key, "LABBENCH_CONFIG": str(config)}
        environment[DRIVER_RANKS] = driver_ranks()
        if any("{run.dir" in text for text in (*plain_words(command.words), *command.env.values(), command.cwd)):
            Path(str(values["run.dir"])).mkdir(parents=True, exist_ok=True)
        program = shutil.which(words[0], path=environment.get("PATH")) or words[0]
        script = ScriptProcess([program, *words[1:]], folder=folder, environment=environment)
        try:
            yield script
        except BaseException:
            script.kill(daemons=True)
            raise
        script.kill(daemons=False)
        script.read(LAST_OUTPUT_SECONDS)


def start_error(error: OSError | ValueError, program: str, folder: str) -> str:
    """Return the message of a script that cannot be started."""
    if isinstance(error, ValueError):
        return f"{program} cannot be started: {error}"
    if not Path(folder).is_dir():
        return f"{program} cannot be started: no such folder: {folder}"
    return f"{program} cannot be started: {_start_problem(error, program, Path(folder))}"


def _start_problem(error: OSError, program: str, folder: Path) -> str:
    """Return the reason why a program was not started, and what to write instead."""
    in_path = None if "/" in program else shutil.which(program)
    file, name = Path(in_path or folder / program), shlex.quote(program)
    if not file.is_file():
        where = f" in {folder}" if "/" in program else " in PATH; a file of the folder is written ./NAME"
        return f"{error.strerror}{where if isinstance(error, FileNotFoundError) else ''}"
    if not os.access(file, os.X_OK):
        interpreter = _INTERPRETERS.get(file.suffix.lower(), "bash")
        return f"it is not executable: write `{interpreter} {name}`, or make it executable (chmod +x {name})"
    if in_path is None and "/" not in program:
        return f"it is not in PATH: write ./{name}"
    if isinstance(error, FileNotFoundError):
        return f"{error.strerror}; its first line names an interpreter that does not exist"
    is_text = error.strerror == "Exec format error"
    return f"{error.strerror}{'; its first line must name an interpreter, such as #!/bin/sh' if is_text else ''}"


def describe_status(status: int) -> str:
    """Describe the exit status of a failed script; -N means that signal N ended it."""
    if status < 0:
        hint = "; the system may have run out of memory" if -status == signal.SIGKILL else ""
        return f"killed by {signal_name(-status)}{hint}"
    if status > 128 and (name := signal_name(status - 128)) != f"signal {status - 128}":
        return f"exit status {status} (killed by {name})"
    return f"exit status {status}" + (f" ({STATUS_HINTS[status]})" if status in STATUS_HINTS else "")


def background_note(process: BackgroundProcess) -> str:
    """Return the line in a run's log about a process that its script left running."""
    name = shlex.join(process.words) or "a process"
    if process.in_group:
        return (
            f"labbench: the command left a background process, which was ended: {name} (pid {process.pid}); "
            "end a shell script with `wait` to include such processes in the run\n"
        )
    return (
        f"labbench: the command left a background process, which continues: {name} (pid {process.pid}); "
        "what it does is not part of the run\n"
    )


def _logs(run: RunRecord, texts: Iterable[OutputText]) -> Iterator[Log]:
    for text in texts:
        yield Log(run.key, run.attempt, text.text, text.replaces_unfinished)
