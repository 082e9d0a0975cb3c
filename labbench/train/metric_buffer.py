"""Buffers between training and its consumer: losses on the device, and points of each run, thinned."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from itertools import groupby
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from labbench.records import Points, RunRecord
from labbench.train.host_copies import SyncPoint, to_host

Mask: TypeAlias = NDArray[np.bool_]

FLUSH_SECONDS = 0.25
MAX_UNTHINNED_STEPS = 4000
"""Maximum number of steps of a run that logs every step; a longer one keeps the extremes of `MAX_WINDOWS` windows."""
MAX_WINDOWS = MAX_UNTHINNED_STEPS // 2


class Stopwatch:
    """Clock of a stack: time since its start, compute time and flush times."""

    def __init__(self) -> None:
        self._start = self._flushed = time.perf_counter()
        self._consumer_seconds = 0.0

    def elapsed_milliseconds(self) -> int:
        """Return the milliseconds since the start."""
        return int((time.perf_counter() - self._start) * 1000)

    def compute_seconds(self) -> float:
        """Return the seconds since the start, excluding consumer time."""
        return time.perf_counter() - self._start - self._consumer_seconds

    def is_flush_due(self) -> bool:
        """Return True if `FLUSH_SECONDS` have passed since the last flush.

        Called at every step, so it must be cheap.
        """
        return time.perf_counter() - self._flushed > FLUSH_SECONDS

    def exclude_consumer_time(self, points: Iterator[Points]) -> Iterator[Points]:
        """Yield the points; count the time until the next one as consumer time."""
        start = time.perf_counter()
        yield from points
        self._flushed = time.perf_counter()
        self._consumer_seconds += self._flushed - start


class LossBuffer:
    """Training losses of S runs that are still on the device."""

    def __init__(self) -> None:
        self._batches: list[Tensor] = []  # (S, N) each
        self._times: list[int] = []

    def add(self, losses: Tensor, time: int) -> None:
        """Append the losses of a batch, shape (S, N); `time` in milliseconds."""
        self._batches.append(losses)
        self._times.append(time)

    def drain(self) -> tuple[NDArray[np.float64], list[int]]:
        """Return the mean loss of each batch since the last call.

        The means have shape (T, S), the times are T numbers in milliseconds.
        """
        times, self._times = self._times, []
        batches, self._batches = self._batches, []
        if not batches:
            return np.empty((0, 0)), times
        means = [torch.stack(list(equal)).mean(dim=2) for _, equal in groupby(batches, lambda batch: batch.shape[1])]
        return to_host(torch.cat(means), SyncPoint.FLUSH).astype(np.float64), times


class MetricBuffer:
    """Points of one run between two flushes.

    Training losses after the first non-finite one are dropped.
    """

    def __init__(self, run: RunRecord, log_every: int | Literal["auto"], total_steps: int = 0) -> None:
        self.run, self._log_every = run, log_every
        self.step = 0
        """Number of training losses recorded so far."""
        self.diverged_at: int | None = None
        """Step of the first non-finite training loss."""
        self._log_interval = 1 if log_every == "auto" else log_every
        self.set_total_steps(total_steps)
        self._losses: list[float] = []  # not thinned yet
        self._times: list[int] = []  # milliseconds, one per entry of _losses
        self._epoch_losses: list[float] = []
        self._points: dict[str, tuple[list[int], list[int], list[float]]] = {}  # steps, times and values by metric

    def set_total_steps(self, total_steps: int) -> None:
        """Set the thinning window for a run of `total_steps` steps."""
        self._window = window_size(total_steps) if self._log_every == "auto" else 1

    def update(self, losses: NDArray[np.float64], times: list[int]) -> None:
        """Append training losses, shape (T,), and their times in milliseconds."""
        values = losses.tolist()
        self._losses += values
        self._times += times
        self._epoch_losses += values
        if self.diverged_at is None and (index := first_non_finite(losses)) is not None:
            self.diverged_at = self.step + index
        self.step += len(values)

    def pop_epoch_loss(self) -> float:
        """Return the mean of the training losses recorded since the last call."""
        losses, self._epoch_losses = self._epoch_losses, []
        return math.fsum(losses) / len(losses)

    def add_metrics(self, values: Mapping[str, float], time: int) -> None:
        """Append values measured at the current step, by metric; `time` in milliseconds."""
        for metric, value in values.items():
            self._add(metric, [self.step], [time], [float(value)])

    def drain_points(self, *, ended: bool = False) -> Iterator[Points]:
        """Yield the buffered points; if the run has `ended`, including the incomplete window of losses."""
        self._thin(ended=ended or self.diverged_at is not None)
        points, self._points = self._points, {}
        for metric, (steps, times, values) in points.items():
            yield Points(self.run.key, self.run.attempt, metric, steps, times, values)

    def state(self) -> dict[str, Any]:
        """Return the state for a checkpoint.

        All points must have been drained at the end of an epoch.
        """
        return {"step": self.step, "losses": self._losses, "times": self._times}

    def load(self, state: Mapping[str, Any]) -> None:
        """Restore the state that `state` returned."""
        self.step = state["step"]
        self._losses, self._times = list(state["losses"]), list(state["times"])

    def _thin(self, *, ended: bool) -> None:
        """Move complete windows of losses (all if `ended`) to the points."""
        first = self.step - len(self._losses)
        end = self.step if self.diverged_at is None else max(first, self.diverged_at + 1)
        count = end - first
        if not ended and (self._window > 1 or self._log_interval > 1):
            count = (count - 1) // self._window * self._window  # the newest loss may turn out to be the last
        if count <= 0:
            return
        steps, losses = np.arange(first, first + count), np.array(self._losses[:count])
        keep = self._keep_mask(steps, losses, ended=ended)
        times = np.array(self._times[:count])
        self._add("train/loss", steps[keep].tolist(), times[keep].tolist(), losses[keep].tolist())
        del self._losses[:count], self._times[:count]

    def _keep_mask(self, steps: NDArray[np.int64], losses: NDArray[np.float64], *, ended: bool) -> Mask:
        """Return the mask of steps to keep, shape (T,).

        The first step of the run and, if `ended`, its last are always kept.
        """
        body = len(steps) - ended  # the last loss of a diverged run is not finite: exclude it from the extremes
        keep = np.full(len(steps), True)
        keep[:body] = (steps[:body] % self._log_interval == 0) & extremes_mask(losses[:body], self._window)
        keep[steps == 0] = True
        return keep

    def _add(self, metric: str, steps: list[int], times: list[int], values: list[float]) -> None:
        columns = self._points.setdefault(metric, ([], [], []))
        columns[0].extend(steps)
        columns[1].extend(times)
        columns[2].extend(values)


def window_size(total_steps: int) -> int:
    """Return the number of steps per window for `log_every = "auto"`; the extremes of each window are kept."""
    return 1 if total_steps <= MAX_UNTHINNED_STEPS else math.ceil(total_steps / MAX_WINDOWS)


def extremes_mask(values: NDArray[np.float64], window: int) -> Mask:
    """Return the mask of window minima and maxima, shape (T,).

    Of equal values, the first is kept. The last window may be shorter.
    """
    keep = np.zeros(len(values), dtype=bool)
    whole = len(values) // window
    for start, rows, width in ((0, whole, window), (whole * window, 1, len(values) - whole * window)):
        if rows * width:
            block = values[start : start + rows * width].reshape(rows, width)
            starts = start + width * np.arange(rows)
            keep[starts + block.argmin(axis=1)] = True
            keep[starts + block.argmax(axis=1)] = True
    return keep


def first_non_finite(losses: NDArray[np.float64]) -> int | None:
    """Return the index of the first loss that is NaN or infinite, or None.

    losses: training losses by step, shape (T,).
    """
    finite = np.isfinite(losses)
    return None if finite.all() else int(finite.argmin())
