"""Run of any command: its output, exit status and metrics, recorded while it runs."""

from __future__ import annotations

import codecs
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from labbench.errors import InputError, LabbenchError
from labbench.executors.command import background_note, describe_status, start_error
from labbench.executors.leftovers import RUN_VARIABLE
from labbench.executors.script_process import ScriptProcess, signal_name
from labbench.files import database_command
from labbench.recording.command_line import read_config, script_file, script_name
from labbench.recording.printed_metrics import PrintedMetrics
from labbench.recording.written_metrics import WrittenMetrics
from labbench.store.reader import Reader
from labbench.system.ranks import DRIVER_RANKS, driver_ranks
from labbench.system.secret_options import MASK, is_secret, mask_secrets
from labbench.tracking.monitor import SAMPLED_VARIABLE
from labbench.tracking.process_hooks import ExitInfo
from labbench.tracking.run import Run
from labbench.tracking.start import start_command_run

_TICK_SECONDS = 0.1
_CHECK_SECONDS = 2.0
"""Seconds between two searches for metrics of other sources; printed metrics wait for them."""

_FORWARDED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_MAX_INTERRUPTS = 3
"""Number of SIGINT after which the command is killed."""


@dataclass(frozen=True, slots=True)
class RecordingOptions:
    """Options of a recorded command."""

    database: Path
    name: str | None = None
    experiment: str | None = None
    tags: Sequence[str] = ()
    pattern: str | None = None
    """Regular expression of printed metrics; None: the default one."""
    reads_metrics: bool = True
    """False to read no metrics from output and files."""


def record_command(words: Sequence[str], options: RecordingOptions) -> tuple[int, list[str]]:
    """Run a command, record it, and return its exit status and the lines of a summary.

    With `LABBENCH_MODE=disabled`, the command takes the place of this process, and nothing is recorded.

    Raises:
        InputError: If the command cannot be started, or the pattern or the database is invalid.
        StoreError: If the database cannot be written.
    """
    printed = PrintedMetrics(options.pattern)
    program = shutil.which(words[0])
    if program is None:
        raise InputError(start_error(FileNotFoundError(2, "No such file or directory"), words[0], str(Path.cwd())))
    for name in (RUN_VARIABLE, "LABBENCH_CONFIG"):  # of a command that runs this one
        os.environ.pop(name, None)
    if os.environ.get("LABBENCH_MODE") == "disabled":
        os.execv(program, [*words])
    run = _start_run(words, options)
    recorder = _Recorder(run, printed, options)
    try:
        script = ScriptProcess(
            [program, *words[1:]],
            folder=str(Path.cwd()),
            environment=_environment(run),
            on_output=recorder.take_output,
        )
    except (OSError, ValueError) as error:
        message = start_error(error, words[0], str(Path.cwd()))
        run._end(ExitInfo("failed", None, "user", message))
        raise InputError(message) from error
    status, last_signal = _watch(script, recorder)
    run._end(_exit_info(words[0], status, last_signal, script.last_lines()))
    return (128 - status if status < 0 else status), recorder.summary()


def _start_run(words: Sequence[str], options: RecordingOptions) -> Run:
    """Start the run of a command, with its options as the configuration."""
    masked = shlex.join(mask_secrets(words))
    return start_command_run(
        options.name,
        options.experiment or script_name(words),
        read_config(words),
        options.database,
        tags=options.tags,
        script=script_file(words, Path.cwd()),
        command=f"cd {shlex.quote(str(Path.cwd()))} && {masked}",
    )


def _environment(run: Run) -> dict[str, str]:
    """Return the environment in which a script attaches to the run."""
    return {
        "PYTHONUNBUFFERED": "1",
        **os.environ,
        "LABBENCH_DB": str(run.path.absolute()),
        RUN_VARIABLE: run.key,
        SAMPLED_VARIABLE: run.key,
        DRIVER_RANKS: driver_ranks(),
    }


def _watch(script: ScriptProcess, recorder: _Recorder) -> tuple[int, int | None]:
    """Wait for the end of a command; return its exit status and the last signal that was forwarded to it."""
    with _forwarded_signals(script) as signals:
        try:
            while script.exit_status is None:
                script.read(_TICK_SECONDS)
                script.output.take()  # the recorder has it already
                recorder.tick()
            left_over = script.wait_for_background()
        finally:
            script.kill(daemons=False)
        script.read(_TICK_SECONDS)
    script.output.close()
    for process in left_over:
        recorder.run._print("stdout", background_note(process))
    recorder.close()
    status = script.exit_status
    assert status is not None
    return status, signals[-1] if signals else None


@contextmanager
def _forwarded_signals(script: ScriptProcess) -> Iterator[list[int]]:
    """Send the signals that this process receives to the command; yield the list of them."""
    received: list[int] = []

    def forward(number: int, frame: FrameType | None) -> None:
        received.append(number)
        is_urgent = received.count(signal.SIGINT) >= _MAX_INTERRUPTS
        script.send_signal(signal.SIGKILL if is_urgent else signal.Signals(number))

    previous = {
        number: signal.signal(number, forward) for number in _FORWARDED if signal.getsignal(number) != signal.SIG_IGN
    }
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _exit_info(program: str, status: int, last_signal: int | None, last_lines: str) -> ExitInfo:
    if status == 0:
        return ExitInfo("finished", "exit status 0")
    if last_signal in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        return ExitInfo("stopped", f"{signal_name(last_signal)}; {describe_status(status)}")
    return ExitInfo("failed", None, "user", f"{program}: {describe_status(status)}", last_lines)


class _Recorder:
    """Output and metrics of a command on their way to its run."""

    def __init__(self, run: Run, printed: PrintedMetrics, options: RecordingOptions) -> None:
        self.run = run
        self._printed = printed if options.reads_metrics else None
        self._written = WrittenMetrics(Path.cwd()) if options.reads_metrics else None
        self._prefers_printed = options.pattern is not None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._waiting: list[tuple[int, dict[str, float]]] = []
        """Printed metrics that are not recorded yet."""
        self._names: dict[str, set[str]] = {"output": set(), "files": set(), "script": set()}
        """Names of the metrics by source."""
        self._next_check = time.monotonic() + _CHECK_SECONDS
        self._echoes = True

    def take_output(self, data: bytes) -> None:
        """Print output of the command, and record it."""
        if self._echoes:
            try:
                sys.stdout.buffer.write(data)
                sys.stdout.buffer.flush()
            except (OSError, ValueError):  # nobody reads it any more
                self._echoes = False
        text = self._decoder.decode(data)
        self.run._print("stdout", text)
        if self._printed is not None:
            self._waiting += self._printed.feed(text)

    def tick(self, *, is_last: bool = False) -> None:
        """Record metrics, if it is time for it."""
        if self._written is None or (time.monotonic() < self._next_check and not is_last):
            return
        self._read_names_of_script()
        self._record_files(immediately=is_last)
        others = self._names["files"] | self._names["script"]
        if not others or self._prefers_printed:
            for step, values in self._waiting:
                self._names["output"] |= values.keys() - {"epoch"}
                self.run.log(values, step)
        self._waiting.clear()
        self._next_check = time.monotonic() + _CHECK_SECONDS

    def close(self) -> None:
        """Record what is left."""
        if self._printed is not None:
            self._waiting += self._printed.feed("\n")
        self.tick(is_last=True)

    def _record_files(self, *, immediately: bool) -> None:
        assert self._written is not None
        for step, values in sorted(self._written.poll(immediately=immediately).items()):
            new = {name: value for name, value in values.items() if name not in self._names["script"]}
            if new:
                self._names["files"] |= new.keys()
                self.run.log(new, step)
        config = {key: value for key, value in self._written.config.items() if key not in self.run.config}
        if config:
            self.run.config.update({key: MASK if is_secret(key) else value for key, value in config.items()})
            self._written.config.clear()

    def _read_names_of_script(self) -> None:
        """Find the metrics that the command has logged with labbench itself."""
        with suppress(LabbenchError), Reader(self.run.path) as reader:
            names = {name for name in reader.find(self.run.key).summary if not name.startswith("system/")}
            self._names["script"] |= names - self._names["output"] - self._names["files"] - {"epoch"}

    def summary(self) -> list[str]:
        """Return lines that say what was recorded."""
        lines = [f"run {self.run.key} {self.run.name!r} of {self.run.experiment!r} in {self.run.path}"]
        source = {"tensorboard": "event files", "lightning": "metrics.csv", "huggingface": "trainer_state.json"}
        places = {
            "script": "logged with labbench",
            "files": f"from {source.get((self._written and self._written.source) or '', 'files')}",
            "output": "recognised in the output",
        }
        for place, words in places.items():
            names = sorted(self._names[place])
            if names:
                listed = ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")
                lines.append(
                    f"{len(names)} metrics {words}: {listed}" if len(names) > 1 else f"1 metric {words}: {listed}"
                )
        folder = self._printed.tools.wandb_folder if self._printed is not None else None
        if folder is not None:
            command = f"{database_command(self.run.path)} import wandb {shlex.quote(str(folder))}"
            lines.append(
                f"wandb itself has recorded the run in {folder}: `{command}` reads it; "
                "a script that imports wandb from labbench records directly"
            )
        elif len(lines) == 1 and self._written is not None:
            lines.append("no metrics: none in the output, and no event files, metrics.csv or trainer_state.json")
        return lines
