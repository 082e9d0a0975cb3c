"""Runs in training, with the boundaries they have reached, and requests to stop them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from labbench.records import Boundary, Event, Failed, Finished, RunRecord, Started


class ActiveRuns:
    """Runs that have not ended, each with its latest boundary."""

    def __init__(self, runs: Iterable[RunRecord] = ()) -> None:
        self._runs: dict[str, RunRecord] = {}
        self._engines: dict[str, str] = {}
        self.add(runs)

    def __iter__(self) -> Iterator[RunRecord]:
        return iter(self._runs.values())

    def __len__(self) -> int:
        return len(self._runs)

    def __contains__(self, key: object) -> bool:
        return key in self._runs

    def __getitem__(self, key: str) -> RunRecord:
        return self._runs[key]

    @property
    def keys(self) -> list[str]:
        """Keys of the runs, in the order in which they were added."""
        return list(self._runs)

    def add(self, runs: Iterable[RunRecord]) -> None:
        """Add runs to train."""
        self._runs |= {run.key: run for run in runs}

    def has_started(self, run: RunRecord) -> bool:
        """Return True if the run's `Started` event has been applied."""
        return run.key in self._engines

    def update(self, event: Event) -> None:
        """Apply an event: `Boundary` advances its run, `Finished` and `Failed` remove it."""
        match event:
            case Started(run=key, way=engine):
                self._engines[key] = engine
            case Boundary(run=key, step=step):
                run = self._runs[key]
                self._runs[key] = replace(run, boundary=step, way=self._engines.get(key, run.way))
            case Finished(run=key) | Failed(run=key):
                self._runs.pop(key, None)
                self._engines.pop(key, None)


class StopRequests:
    """Requests for runs to stop at their next boundary and return to the queue."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def request(self, keys: Iterable[str]) -> None:
        """Ask runs to stop; may be called while they train."""
        self._keys.update(keys)

    def is_requested(self, key: str) -> bool:
        """Return True if the run was asked to stop."""
        return key in self._keys
