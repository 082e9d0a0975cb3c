"""Background thread of a run that records provenance and system metrics."""

from __future__ import annotations

import os
import shlex
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from labbench._version import __version__
from labbench.errors import is_lack_of_resources
from labbench.messages import describe_error, warn_once
from labbench.system.secret_options import mask_secrets
from labbench.tracking.values import Value
from labbench.tracking.writer_thread import RunWriterThread

if TYPE_CHECKING:
    from labbench.tracking.system_metrics import SystemSampler

SAMPLED_VARIABLE = "LABBENCH_SAMPLED"
"""Environment variable with the key of the run whose system metrics the parent process records."""

SYSTEM_SECONDS = 5.0
"""Seconds between two samples of the system metrics."""

LOAD_SECONDS = 1.0
"""Seconds before the sampler is imported, so that shorter scripts do not pay for it."""

_LIBRARIES = ("torch", "numpy", "jax", "tensorflow", "sklearn", "lightning", "transformers")

_JOIN_SECONDS = 2.0
"""Maximum seconds that the end of a short run waits for the git commit."""


class RunMonitor:
    """Thread that records provenance and system metrics of one run.

    If something cannot be recorded, for instance because the script has used up its file descriptors, a message is
    printed, and the thread tries again later.
    """

    def __init__(
        self, writer_thread: RunWriterThread, script: Path | None, *, system_metrics: bool, command: str | None = None
    ) -> None:
        """Start the thread.

        `command` is the command line of a child process, whose system metrics are recorded; default: this process.
        """
        self._writer_thread = writer_thread
        self._script = script
        self._command = _command(script) if command is None else command
        self._is_of_child = command is not None
        self._system_metrics = system_metrics and os.environ.get(SAMPLED_VARIABLE) != writer_thread.run.key
        self._sampler: SystemSampler | None = None
        self._sample_step = max(writer_thread.step, writer_thread.run.last_sample_step)
        """Step of the last sample."""
        self._pending: dict[str, Callable[[], None]] = {}
        """Work that is not done yet, by its subject."""
        if writer_thread.run.drives:
            self._pending = {
                "versions and hardware": self._record_versions,
                "code state": self._record_code_state,
            }
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="labbench background", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:  # too many threads
            self._report("system metrics", error)

    def close(self) -> None:
        """End the thread; record what is pending, and the versions of libraries that were imported after the start."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)
        if self._writer_thread.run.drives:
            pending = {} if self._thread.is_alive() else self._pending
            for subject, work in {**pending, "versions and hardware": self._record_versions}.items():
                self._attempt(work, subject)

    def _work(self) -> None:
        self._record_pending()
        pause = LOAD_SECONDS
        while (self._pending or self._system_metrics) and not self._stop.wait(pause):
            self._record_pending()
            if self._system_metrics:
                self._attempt(self._sample, "system metrics")
            pause = SYSTEM_SECONDS

    def _record_pending(self) -> None:
        for subject, work in list(self._pending.items()):
            if self._attempt(work, subject):
                del self._pending[subject]

    def _attempt(self, work: Callable[[], None], subject: str) -> bool:
        """Do some work; return False if it failed."""
        try:
            work()
        except Exception as error:  # what is recorded about a training must not disturb it
            self._report(subject, error)
            return False
        return True

    def _report(self, subject: str, error: Exception) -> None:
        warn_once(f"run {self._writer_thread.run.key}: {subject} could not be recorded: {describe_error(error)}")

    def _record_versions(self) -> None:
        versions = _versions()
        if versions != self._writer_thread.run.versions:
            self._writer_thread.change(lambda run: replace(run, versions=versions))

    def _record_code_state(self) -> None:
        commit, dirty, diff = _git_state(self._script.parent if self._script else Path.cwd())
        texts = {"script": _read_script(self._script), "command": self._command, "diff": diff}
        sources = {kind: text for kind, text in texts.items() if text}
        self._writer_thread.change(lambda run: replace(run, git_commit=commit, git_dirty=dirty, sources=sources))

    def _sample(self) -> None:
        """Record a sample at the script's current step, or at the next free step if that has a sample already.

        The first call creates the sampler.
        """
        if self._sampler is None:
            from labbench.tracking.system_metrics import SystemSampler

            self._sampler = SystemSampler(of_children=self._is_of_child)
            return
        metrics: dict[str, Value] = dict(self._sampler.sample())
        self._sample_step = max(self._sample_step + 1, self._writer_thread.step)
        self._writer_thread.samples.append((self._sample_step, time.monotonic_ns(), metrics))
        self._writer_thread.wake()


def _git_state(folder: Path) -> tuple[str | None, bool | None, str]:
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None, None, ""
    from labbench.system.provenance import read_git_state  # imports subprocess

    return read_git_state(folder)


def _versions() -> dict[str, str]:
    """Return the versions of Python, labbench and the libraries that the script has imported, and the hardware."""
    from labbench.system.hardware import read_hardware

    versions = {"python": sys.version.partition(" ")[0], "labbench": __version__}
    for name in _LIBRARIES:
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            versions[name] = version
    return versions | read_hardware()


def _command(script: Path | None) -> str:
    """Return the command line of the script, from its folder, without secrets.

    Returns "" in a notebook or an interactive session.
    """
    if script is None:
        return ""
    return f"cd {shlex.quote(str(Path.cwd()))} && {shlex.join(['python', *mask_secrets(sys.orig_argv[1:])])}"


def _read_script(script: Path | None) -> str:
    """Return the text of the script; "" without one, or if it cannot be read.

    Raises:
        OSError: If it may be readable later, because the process lacks file descriptors or memory.
    """
    try:
        return script.read_text(encoding="utf-8", errors="replace") if script else ""
    except OSError as error:
        if is_lack_of_resources(error):
            raise
        return ""
