"""Metrics in files that a command writes: event files, `metrics.csv` and `trainer_state.json`."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.importing.formats import reader_of
from labbench.importing.source_run import SourceRun

_PATTERNS = {"tensorboard": "*tfevents*", "lightning": "metrics.csv", "huggingface": "trainer_state.json"}
"""Names of the files of each format; of several formats, the first one with numbers is read."""

_POLL_SECONDS = 2.0
_MAX_SHARE = 0.05
"""Largest share of the time that is spent on searching and reading."""

_MAX_ENTRIES = 200_000
"""Files and folders after which a search ends."""


class WrittenMetrics:
    """Reader of the points that are written to files beneath a folder from now on."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._states = dict(self._search())
        self._source: str | None = None
        self._last_steps: dict[tuple[str, str], int] = {}
        """Step of the last point that was returned, by file and metric."""
        self._owners: dict[str, str] = {}
        """File of each metric's name."""
        self._next_poll = 0.0
        self.config: dict[str, Any] = {}
        """Configuration in the files."""

    @property
    def source(self) -> str | None:
        """Format of the files that were read; None if there are none."""
        return self._source

    def poll(self, *, immediately: bool = False) -> dict[int, dict[str, float]]:
        """Return the new points by step and metric, if it is time for a search."""
        begun = time.monotonic()
        if begun < self._next_poll and not immediately:
            return {}
        points: dict[int, dict[str, float]] = {}
        states = dict(self._search())
        changed = [path for path, state in states.items() if self._states.get(path) != state]
        for source, pattern in _PATTERNS.items():
            files = [path for path in changed if fnmatch(path.name, pattern)]
            if files and self._source in (None, source):
                for path in files[-1:] if source == "huggingface" else files:  # the newest one has all points
                    self._read(source, path, points)
        self._states |= states
        seconds = time.monotonic() - begun
        self._next_poll = time.monotonic() + max(_POLL_SECONDS, seconds / _MAX_SHARE)
        return points

    def _search(self) -> Iterator[tuple[Path, tuple[int, int]]]:
        """Yield the files of all formats with their states, the oldest first."""
        states = {}
        n_entries = 0
        for folder, subfolders, files in os.walk(self._folder):
            n_entries += len(subfolders) + len(files)
            if n_entries > _MAX_ENTRIES:
                break
            subfolders[:] = (
                [] if "pyvenv.cfg" in files else sorted(n for n in subfolders if not n.startswith((".", "__")))
            )
            for name in files:
                if any(fnmatch(name, pattern) for pattern in _PATTERNS.values()):
                    try:
                        status = Path(folder, name).stat()
                    except OSError:  # deleted since
                        continue
                    states[Path(folder, name)] = (status.st_size, status.st_mtime_ns)
        yield from sorted(states.items(), key=lambda item: item[1][1])

    def _read(self, source: str, path: Path, points: dict[int, dict[str, float]]) -> None:
        """Add the new points of a file; one that is being written is read at the next poll."""
        try:
            runs = [found.read() for found in reader_of(source)(path)]
        except InputError:
            return
        label = source if source == "huggingface" else str(path)
        for run in runs:
            self.config |= run.config
            self._add(run, label, path, points)
            self._source = source if run.series else self._source

    def _add(self, run: SourceRun, label: str, path: Path, points: dict[int, dict[str, float]]) -> None:
        for metric, series in run.series.items():
            name = metric
            if self._owners.setdefault(metric, label) != label:  # a metric of another file has the name
                name = f"{path.parent.name}/{metric}"
            last = self._last_steps.get((label, metric))
            for step, value in zip(series.steps, series.values, strict=True):
                if last is None or step > last:
                    points.setdefault(step, {})[name] = value
            if series.steps:
                self._last_steps[label, metric] = series.steps[-1]
