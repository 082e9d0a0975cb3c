"""Processes of the bench: commands and scripts with limits, the processes that they leave behind, and their folders."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import uuid4

import psutil

MARK = "LABBENCH_TRUST_MARK"
"""Environment variable that all processes of a trial inherit, by which those that outlive it are found."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A process that has ended."""

    status: int | None
    """Exit status, negative after a signal; None: it took too long."""
    out: str
    err: str
    seconds: float
    peak_mb: float
    """Peak of the resident memory of the process itself."""

    def fault(self, statuses: Sequence[int] = (0,)) -> str | None:
        """Return what was wrong with the process, in one line: no documented exit status, or a traceback."""
        last = (self.err.strip().splitlines() or [""])[-1][:200]
        if self.status is None:
            return f"no end after {self.seconds:.0f} s; last line: {last}"
        if "Traceback (most recent call last)" in self.err or "internal error" in self.err:
            return f"traceback: {last}"
        return None if self.status in statuses else f"exit status {self.status}: {last}"


@dataclass(frozen=True, slots=True)
class Place:
    """Folder of a trial, and the environment of its processes."""

    folder: Path
    mark: str = field(default_factory=lambda: uuid4().hex)

    @property
    def temporary(self) -> Path:
        """Folder of temporary files, TMPDIR."""
        return self.folder / "tmp"

    def make(self) -> Place:
        """Create the folders."""
        for path in (self.folder, self.temporary, self.folder / "state"):
            path.mkdir(parents=True, exist_ok=True)
        return self

    def environ(self, **extra: str) -> dict[str, str]:
        """Return the environment of a process of this trial."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("LABBENCH")}
        root = str(Path(__file__).parents[2])
        paths = os.pathsep.join(filter(None, [root, inherited.get("PYTHONPATH", "")]))
        own = {
            MARK: self.mark, "XDG_STATE_HOME": str(self.folder / "state"), "XDG_CACHE_HOME": str(self.folder / "cache"),
            "TMPDIR": str(self.temporary), "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "default",
        }  # fmt: skip
        return inherited | own | extra

    def start(self, words: Sequence[str], **options: object) -> subprocess.Popen[bytes]:
        """Start a process in a session of its own; its output goes to files beside its folder."""
        environ = self.environ(**options.pop("environ", {}))  # type: ignore[arg-type]
        options = {"cwd": self.folder, "stdin": subprocess.DEVNULL, "start_new_session": True, **options}
        return subprocess.Popen(words, env=environ, **options)  # type: ignore[call-overload,no-any-return]

    def run(self, words: Sequence[str], *, timeout: float = 60.0, **options: object) -> Ended:
        """Run a process to its end, at most for `timeout` seconds."""
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            process = self.start(words, **{"stdout": out, "stderr": err, **options})
            status, seconds, peak_mb = _wait(process, timeout)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode("utf-8", "replace"))
        return Ended(status, texts[0], texts[1], seconds, peak_mb)

    def labbench(self, *words: str | Path, timeout: float = 60.0, **options: object) -> Ended:
        """Run `labbench WORDS`."""
        return self.run(labbench_words(*words), timeout=timeout, **options)

    def survivors(self, *, seconds: float = 5.0) -> list[str]:
        """Return the processes of this trial that still run after `seconds`, and kill them."""
        deadline = time.monotonic() + seconds
        while (alive := self._processes()) and time.monotonic() < deadline:
            time.sleep(0.05)
        names = [_describe(process) for process in alive]
        for process in alive:
            with _ignoring_gone():
                process.kill()
        return names

    def _processes(self) -> list[psutil.Process]:
        return [process for process in psutil.process_iter() if _mark_of(process) == self.mark]


def labbench_words(*words: str | Path) -> list[str]:
    """Return the words of a labbench command in this interpreter."""
    return [sys.executable, "-m", "labbench", *map(str, words)]


def kill_after(process: subprocess.Popen[bytes], seconds: float) -> bool:
    """Kill a process after some seconds; return False if it has ended by itself before."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return True
    return False


def _wait(process: subprocess.Popen[bytes], timeout: float) -> tuple[int | None, float, float]:
    """Return exit status, seconds and peak memory in MB of a process; kill its session after `timeout`."""
    started = time.monotonic()
    is_late = threading.Event()

    def stop() -> None:
        is_late.set()
        with _ignoring_gone():
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(timeout, stop)
    timer.start()
    try:
        _, raw_status, usage = os.wait4(process.pid, 0)
    finally:
        timer.cancel()
    process.returncode = os.waitstatus_to_exitcode(raw_status)
    status = None if is_late.is_set() else process.returncode
    return status, time.monotonic() - started, usage.ru_maxrss / 1024


def _mark_of(process: psutil.Process) -> str | None:
    with _ignoring_gone():
        if process.status() != psutil.STATUS_ZOMBIE:
            return process.environ().get(MARK)
    return None


def _words(process: psutil.Process) -> Sequence[str]:
    with _ignoring_gone():
        return process.cmdline()
    return []


def _describe(process: psutil.Process) -> str:
    """Return id, state, processor time and first words of a process, in one line."""
    with _ignoring_gone():
        times = process.cpu_times()
        words = " ".join(_words(process))[:80]
        return f"{process.pid} {process.status()} after {times.user + times.system:.1f} s of processor time: {words}"
    return f"{process.pid} has ended"


class _ignoring_gone:  # noqa: N801 (a context manager)
    """Ignore that a process has ended or belongs to someone else."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> bool:
        return kind is not None and issubclass(kind, psutil.Error | OSError)
