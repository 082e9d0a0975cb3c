"""What is found out while a run trains, off its thread: where its code comes from, how busy the machine is."""

from __future__ import annotations

import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

from labbench._version import __version__
from labbench.errors import InputError
from labbench.tracking.writer_thread import RunWriterThread

SYSTEM_SECONDS = 5.0
"""Between two readings of the system metrics."""

LOAD_SECONDS = 1.0
"""Until what reads them is loaded: a script that ends sooner does without."""

_TRAINERS = ("torch", "numpy", "jax", "tensorflow", "sklearn", "lightning", "transformers")

_PATIENCE_SECONDS = 2.0
"""How long a run that ends at once waits to know its git commit."""


class RunMonitor:
    """The thread of one run."""

    def __init__(self, recorder: RunWriterThread, script: Path | None, *, system_metrics: bool) -> None:
        self._recorder = recorder
        self._script = script
        self._system_metrics = system_metrics
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._work, name="labbench background", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._over.set()
        self._thread.join(_PATIENCE_SECONDS)
        run, versions = self._recorder.run, _versions()
        if run.drives and versions != run.versions:  # what was imported later counts too
            self._recorder.change(lambda run: replace(run, versions=versions))

    def _work(self) -> None:
        try:
            if self._recorder.run.drives:
                self._record_provenance()
            if self._system_metrics:
                self._sample()
        except InputError:
            return  # the run ended meanwhile

    def _record_provenance(self) -> None:
        commit, dirty, diff = _git_state(self._script.parent if self._script else Path.cwd())
        texts = {"script": _read_script(self._script), "diff": diff}
        sources = {kind: text for kind, text in texts.items() if text}
        self._recorder.change(
            lambda run: replace(run, git_commit=commit, git_dirty=dirty, versions=_versions(), sources=sources)
        )

    def _sample(self) -> None:
        """A sample has the step that the script is at, or the next free one: no two have the same."""
        step = self._recorder.step
        if self._over.wait(LOAD_SECONDS):
            return
        from labbench.tracking.system_metrics import SystemSampler

        sampler = SystemSampler()
        while not self._over.wait(SYSTEM_SECONDS):
            step = max(step + 1, self._recorder.step)
            self._recorder.samples.append((step, time.monotonic_ns(), dict(sampler.sample())))
            self._recorder.wake()


def _git_state(folder: Path) -> tuple[str | None, bool | None, str]:
    if not any((parent / ".git").exists() for parent in (folder, *folder.parents)):
        return None, None, ""
    from labbench.provenance import read_git_state  # it loads what starts processes

    return read_git_state(folder)


def _versions() -> dict[str, str]:
    """Versions of Python, labbench, and of what the script has imported to train with."""
    found = {"python": sys.version.partition(" ")[0], "labbench": __version__}
    for name in _TRAINERS:
        version = getattr(sys.modules.get(name), "__version__", None)
        if isinstance(version, str):
            found[name] = version
    return found


def _read_script(script: Path | None) -> str:
    try:
        return script.read_text(encoding="utf-8", errors="replace") if script else ""
    except OSError:
        return ""
