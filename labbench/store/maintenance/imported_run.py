"""Runs of another program and their points, as an import passes them to the store."""

from __future__ import annotations

import hashlib
import math
from array import array
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from labbench.errors import LabbenchError
from labbench.records import Config


class SourceDiffersError(LabbenchError):
    """A source that became shorter than what was imported from it, or different; the text names the first point."""


@dataclass(frozen=True, slots=True)
class ImportedRun:
    """Run in an external source."""

    source: str
    """Format of the source: `csv`, `tensorboard`, ..."""
    hint: str
    """Unique name of the run in its format and experiment."""
    name: str
    experiment: str
    config: Config = field(default_factory=dict)
    status: Literal["finished", "failed", "stopped"] = "finished"
    reason: str | None = None
    started: float | None = None
    """Unix time in seconds."""
    finished: float | None = None
    """Unix time in seconds."""
    tags: Sequence[str] = ()
    note: str | None = None
    is_partial: bool = False
    """True for a source with a part of the run, such as one chart: what it does not mention is left unchanged."""
    earlier_hint: str | None = None
    """The hint that an earlier version of labbench gave to the run."""
    other_hints: Sequence[tuple[str | None, str]] = ()
    """Experiments (None: any) and hints under which the run may be known, if its points agree."""
    unread_metrics: Collection[str] = ()
    """Metrics that are not read, but were by earlier versions of labbench; known runs keep their points."""

    @property
    def identity(self) -> str:
        """Hash that identifies the run in its experiment."""
        return self._identity_of(self.hint)

    @property
    def known_identities(self) -> list[str]:
        """Hashes that identify the run in its experiment, the current one first."""
        return [self.identity] + ([] if self.earlier_hint is None else [self._identity_of(self.earlier_hint)])

    @property
    def other_identities(self) -> set[tuple[str | None, str]]:
        """Experiments (None: any) and hashes of `other_hints`."""
        return {(experiment, self._identity_of(hint)) for experiment, hint in self.other_hints}

    def _identity_of(self, hint: str) -> str:
        return hashlib.sha256(f"import {self.source} {hint}".encode("utf-8", "replace")).hexdigest()


@dataclass(frozen=True, slots=True)
class ImportedSeries:
    """Points of a metric, one per step, in the order of the steps."""

    steps: array[int]
    """Shape (N,)."""
    times: array[int]
    """Milliseconds since the start of the run, shape (N,)."""
    values: array[float]
    """Shape (N,)."""

    def without(self, metric: str, stored: Iterable[tuple[int, float | None]]) -> ImportedSeries:
        """Return the points of this series without the stored ones, steps and values in the order of the steps.

        Raises:
            SourceDiffersError: If the series lacks a stored point or has another value there; the text names `metric`.
        """
        missing: list[int] = []
        index = 0
        for step, value in stored:
            while index < len(self.steps) and self.steps[index] < step:
                missing.append(index)
                index += 1
            if index == len(self.steps) or self.steps[index] != step:
                raise SourceDiffersError(f"it has no point of {metric} at step {step} any more")
            new = self.values[index]
            if not equals_stored(new, value):
                raise SourceDiffersError(
                    f"{metric} at step {step} was {math.nan if value is None else value:g} and is {new:g}"
                )
            index += 1
        missing += range(index, len(self.steps))
        return ImportedSeries(
            array("q", (self.steps[index] for index in missing)),
            array("q", (self.times[index] for index in missing)),
            array("d", (self.values[index] for index in missing)),
        )


def equals_stored(value: float, stored: float | None) -> bool:
    """Return True if a value is the stored one; a stored None is NaN."""
    return value == stored or (stored is None and math.isnan(value))
