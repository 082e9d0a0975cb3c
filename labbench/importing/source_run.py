"""Runs as the readers of external formats return them, and the classes that collect their points."""

from __future__ import annotations

import math
import os
from array import array
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from labbench.errors import InputError
from labbench.store.maintenance.imported_run import ImportedSeries
from labbench.store.queries.run_sql import storable_text

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_LARGEST_STEP = 2**53
_LONGEST_SECONDS = 2**40
_MAX_FOLDERS = 1000
_MAX_ENDINGS = 4

MAX_IMAGE_BYTES = 8 << 20
"""Largest PNG file that is imported."""


@dataclass(frozen=True, slots=True)
class SourceImage:
    """PNG file of a metric at a step."""

    metric: str
    step: int
    content: bytes


@dataclass(frozen=True, slots=True)
class SourceRun:
    """Content of a run in an external source."""

    id: str
    """Unique name of the run in its format and experiment."""
    name: str
    experiment: str
    series: Mapping[str, ImportedSeries]
    """Points by metric."""
    config: Mapping[str, Any] = field(default_factory=dict)
    status: Literal["finished", "failed", "stopped"] = "finished"
    reason: str | None = None
    started: float | None = None
    """Unix time in seconds."""
    finished: float | None = None
    """Unix time in seconds."""
    tags: Sequence[str] = ()
    note: str | None = None
    output: Sequence[str] = ()
    """Printed lines, with their line ends."""
    goals: Mapping[str, Literal["min", "max"]] = field(default_factory=dict)
    """Declared goals by metric."""
    images: Sequence[SourceImage] = ()
    skipped: Mapping[str, int] = field(default_factory=dict)
    """Number of entries that are not imported, by kind, such as `histograms`."""
    has_last_values: bool = False
    """True if a single point may be a last value, which moves to another step when the run grows."""
    is_partial: bool = False
    """True for a source with a part of the run, such as one chart; other sources have the rest."""
    earlier_id: str | None = None
    """The id that an earlier version of labbench gave to the run."""
    other_ids: Sequence[tuple[str | None, str]] = ()
    """Experiments (None: any) and ids under which the run may have been imported, if its points agree."""
    has_unique_id: bool = False
    """True if `other_ids` identify the run also if the user names an experiment, such as one that was renamed."""
    unread_metrics: Collection[str] = ()
    """Metrics that are not read, but were by earlier versions of labbench; known runs keep their points."""


_STATUSES: Mapping[str, Literal["finished", "failed", "stopped"]] = {
    "finished": "finished", "failed": "failed", "crashed": "failed", "stopped": "stopped", "killed": "stopped"
}  # fmt: skip
"""Statuses of runs that are over in exported tables, as they are imported."""


def status_of_export(status: str) -> tuple[Literal["finished", "failed", "stopped"], str | None]:
    """Return the status of a run that is over, and the reason if it was not over when it was exported."""
    return _STATUSES.get(status, "stopped"), None if status in _STATUSES else f"{status} when it was exported"


def parse_time(text: str) -> float | None:
    """Return a time in ISO 8601 as Unix time in seconds; None if it is none."""
    try:
        time = datetime.fromisoformat(text)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


@dataclass(frozen=True, slots=True)
class RunFolder:
    """Folder of a run in a format without ids, at or beneath the imported folder `root`.

    The run is known by its path relative to `root`, the name of `root`, and a mark of its first record; also if another
    folder above it is imported.
    """

    root: Path
    path: Path

    @property
    def label(self) -> str:
        """Path relative to the imported folder, or the name of that folder."""
        label = self.path.relative_to(self.root).as_posix()
        return self.experiment if label == "." else label

    @property
    def experiment(self) -> str:
        """Name of the imported folder."""
        return self.root.resolve().name

    def id(self, mark: object) -> str:
        """Return the id of the run, which is unique in all experiments."""
        return f"{self.experiment}/{self.label} {mark}"

    def earlier_id(self, mark: object) -> str:
        """Return the id that earlier versions of labbench gave to the run."""
        return f"{self.label} {mark}"

    def other_ids(self, *marks: object) -> list[tuple[str | None, str]]:
        """Return experiments and ids of the run if this folder or one above it is imported."""
        path = Path(os.path.abspath(self.path))  # noqa: PTH100  # `resolve` would follow links
        folders = [RunFolder(root, path) for root in (path, *path.parents) if root.name]
        current = [(None, folder.id(mark)) for folder in folders for mark in marks]
        return current + [(folder.experiment, folder.earlier_id(mark)) for folder in folders for mark in marks]


@dataclass(frozen=True, slots=True)
class FoundRun:
    """Run found in an external source, before its content is read."""

    label: str
    """Name in messages: a path relative to the imported one, or a run id."""
    read: Callable[[], SourceRun]
    """Read the content. Raises InputError if it cannot be read."""
    files: Sequence[Path] = ()
    """Files that change when the run grows."""


def no_runs_error(path: Path, sought: str) -> InputError:
    """Return the error for a folder without runs of a format, which names what is there instead."""
    endings: Counter[str] = Counter()
    for _, (_, _, names) in zip(range(_MAX_FOLDERS), os.walk(path), strict=False):
        endings.update(f"*{Path(name).suffix}" if Path(name).suffix else name for name in names)
    counts = ", ".join(f"{number} {ending}" for ending, number in endings.most_common(_MAX_ENDINGS))
    more = ", ..." if len(endings) > _MAX_ENDINGS else ""
    contents = f"it holds {counts}{more}" if counts else "it holds no files"
    return InputError(f"{path}: no {sought} in this folder or beneath it; {contents}")


class PointCollector:
    """Points of one metric, collected in the order of the source."""

    def __init__(self) -> None:
        self.steps = array("q")
        self.walls = array("d")
        self.values = array("d")

    def drop_from(self, step: int) -> None:
        """Drop the points at and after a step, which a restarted program logs again."""
        earlier = [index for index, each in enumerate(self.steps) if each < step]
        if len(earlier) < len(self.steps):
            self.steps = array("q", (self.steps[index] for index in earlier))
            self.walls = array("d", (self.walls[index] for index in earlier))
            self.values = array("d", (self.values[index] for index in earlier))

    def build(self, started: float, *, earliest: float = 0.0) -> ImportedSeries:
        """Return the last point of each step, in the order of the steps.

        Times are relative to `started`, and at least `earliest` seconds.
        """
        import numpy as np  # takes 0.1 s, which the recording of a command does without

        steps, walls, values = map(np.asarray, (self.steps, self.walls, self.values))
        if not (steps[1:] > steps[:-1]).all():
            _, last = np.unique(steps[::-1], return_index=True)
            steps, walls, values = (column[len(steps) - 1 - last] for column in (steps, walls, values))
        times = np.nan_to_num(np.rint(1000 * (walls - started))).clip(1000 * earliest).astype(np.int64)
        return ImportedSeries(array("q", steps.tobytes()), array("q", times.tobytes()), array("d", values.tobytes()))


class RunCollector:
    """Points of a run, collected metric by metric; counts what cannot be stored."""

    def __init__(self) -> None:
        self.metrics: dict[str, PointCollector] = {}
        self.skipped: Counter[str] = Counter()
        self.first_wall = math.inf
        self.last_wall = -math.inf

    def add(self, metric: str, step: int, value: float, wall: float = math.nan) -> None:
        """Add a point; `wall` is the Unix time in seconds, NaN if unknown."""
        if not -_LARGEST_STEP < step < _LARGEST_STEP:
            self.skipped["points whose step is out of range"] += 1
            return
        points = self.metrics.get(metric) or self._new_metric(metric)
        points.steps.append(step)
        points.values.append(value)
        if not 0 <= wall < _LONGEST_SECONDS:
            wall = math.nan
        points.walls.append(wall)
        self.first_wall, self.last_wall = min(self.first_wall, wall), max(self.last_wall, wall)

    def _new_metric(self, metric: str) -> PointCollector:
        """Return the points of a metric under the name that SQLite stores; names may be equal then."""
        return self.metrics.setdefault(storable_text(metric), PointCollector())

    def add_values(self, values: Mapping[str, object], step: int, wall: float = math.nan) -> None:
        """Add a point for each number of a mapping; other values are counted as skipped."""
        for metric, value in values.items():
            if isinstance(value, bool | int | float):
                try:
                    self.add(metric, step, float(value), wall)
                except OverflowError:
                    self.skipped["numbers out of range"] += 1
            elif value is not None:
                self.skipped["values that are not numbers"] += 1

    def add_columns(
        self, metric: str, steps: NDArray[np.float64], walls: NDArray[np.float64], values: NDArray[np.float64]
    ) -> None:
        """Add points of a metric; the arrays have shape (N,)."""
        import numpy as np

        is_valid = np.abs(steps) < _LARGEST_STEP
        if n_invalid := int(np.count_nonzero(~is_valid)):
            self.skipped["points whose step is out of range"] += n_invalid
        walls = np.where((walls >= 0) & (walls < _LONGEST_SECONDS), walls, math.nan)[is_valid]
        points = self.metrics.get(metric) or self._new_metric(metric)
        points.steps.frombytes(steps[is_valid].astype(np.int64).tobytes())
        points.walls.frombytes(walls.tobytes())
        points.values.frombytes(values[is_valid].tobytes())
        known_walls = walls[~np.isnan(walls)]
        if len(known_walls):
            self.first_wall = min(self.first_wall, float(known_walls.min()))
            self.last_wall = max(self.last_wall, float(known_walls.max()))

    @property
    def started(self) -> float | None:
        """Time of the first point in Unix seconds; None if no point has a time."""
        return self.first_wall if math.isfinite(self.first_wall) else None

    @property
    def finished(self) -> float | None:
        """Time of the last point in Unix seconds; None if no point has a time."""
        return self.last_wall if math.isfinite(self.last_wall) else None

    def series(self, started: float | None = None) -> dict[str, ImportedSeries]:
        """Return the points by metric, with times relative to `started`; default: the first point."""
        origin = self.started if started is None else started
        return {metric: points.build(origin or 0.0) for metric, points in self.metrics.items()}
