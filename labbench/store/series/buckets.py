"""Buckets of neighbouring points of a series as numpy arrays, and their arithmetic.

numpy is imported inside the functions, because importing it takes 0.1 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Columns: TypeAlias = "Mapping[str, NDArray[Any]]"
"""Columns of points by name, shape (P,) each: always `value`, and `step` and `time_ms` if they are read."""


@dataclass(frozen=True, slots=True)
class BucketedSeries:
    """Series, or a range of its steps, in B buckets.

    A short series has one bucket per point. `low`, `high` and `mean` are NaN for a bucket without finite values.
    """

    run_id: int
    first_step: NDArray[np.int64]
    """First step of each bucket, shape (B,)."""
    last_step: NDArray[np.int64]
    """Last step of each bucket, shape (B,)."""
    first_time: NDArray[np.int64] | None
    """Smallest time in milliseconds since the start of the run, shape (B,); None if times were not read."""
    last_time: NDArray[np.int64] | None
    """Largest time in milliseconds since the start of the run, shape (B,); None if times were not read."""
    n: NDArray[np.int64]
    """Number of points, NaN and infinities included, shape (B,)."""
    n_nonfinite: NDArray[np.int64]
    """Number of NaN and infinite values, shape (B,)."""
    low: NDArray[np.float64]
    """Minimum of the finite values, shape (B,)."""
    high: NDArray[np.float64]
    """Maximum of the finite values, shape (B,)."""
    mean: NDArray[np.float64]
    """Mean of the finite values, shape (B,)."""


def bucket_per_point(run_id: int, steps: NDArray[np.int64], rows: Columns) -> BucketedSeries:
    """Return one bucket per point; `steps` has shape (P,)."""
    import numpy as np

    times = rows.get("time_ms")
    finite = np.isfinite(rows["value"])
    values = np.where(finite, rows["value"], np.nan)
    ones = np.ones(len(values), np.int64)
    return BucketedSeries(run_id, steps, steps, times, times, ones, ones - finite, values, values, values)


def concatenate(parts: Sequence[BucketedSeries]) -> BucketedSeries:
    """Concatenate consecutive parts of a series."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]

    def joined(field: str) -> Any:
        arrays = [getattr(part, field) for part in parts]
        return None if arrays[0] is None else np.concatenate(arrays)

    return BucketedSeries(parts[0].run_id, *(joined(field) for field in BucketedSeries.__slots__[1:]))


def slice_buckets(curve: BucketedSeries, run_id: int, start: int, end: int) -> BucketedSeries:
    def part(field: str) -> Any:
        array = getattr(curve, field)
        return None if array is None else array[start:end]

    return BucketedSeries(run_id, *(part(field) for field in BucketedSeries.__slots__[1:]))


def reduce_to_columns(curve: BucketedSeries, left: int, right: int, columns: int) -> BucketedSeries:
    """Merge the buckets that start in the same column of the range from `left` to `right`."""
    import numpy as np

    if len(curve.n) <= columns:
        return curve
    column = column_of_steps(curve.first_step - left, float(right - left) + 1.0, columns)
    return merge_groups(curve, np.flatnonzero(np.diff(column, prepend=-1)))


def column_of_steps(offsets: NDArray[np.int64], width: float | NDArray[np.float64], columns: int) -> NDArray[np.int64]:
    """Return the column of each step, given its offset from the start of the range, shape (P,).

    The range of `width` steps is divided into equal columns.
    """
    import numpy as np

    return np.minimum((offsets / width * columns).astype(np.int64), columns - 1)


def merge_groups(curve: BucketedSeries, starts: NDArray[np.int64]) -> BucketedSeries:
    """Merge groups of consecutive buckets.

    `starts`, shape (G,), is the index of the first bucket of each group.
    """
    import numpy as np

    ends = np.append(starts[1:], len(curve.n))
    n_finite = curve.n - curve.n_nonfinite
    n_finite_in_column = np.add.reduceat(n_finite, starts)
    # divide before adding, and halve, because a sum of finite values may overflow
    shares = 0.5 * n_finite / np.repeat(np.maximum(n_finite_in_column, 1), ends - starts)
    parts = np.where(n_finite > 0, curve.mean, 0.0) * shares
    low, high = np.fmin.reduceat(curve.low, starts), np.fmax.reduceat(curve.high, starts)
    half_mean = np.clip(np.add.reduceat(parts, starts), low / 2, high / 2)
    return BucketedSeries(
        curve.run_id,
        first_step=curve.first_step[starts],
        last_step=curve.last_step[ends - 1],
        first_time=None if curve.first_time is None else np.minimum.reduceat(curve.first_time, starts),
        last_time=None if curve.last_time is None else np.maximum.reduceat(curve.last_time, starts),
        n=np.add.reduceat(curve.n, starts),
        n_nonfinite=np.add.reduceat(curve.n_nonfinite, starts),
        low=low,
        high=high,
        mean=np.where(n_finite_in_column > 0, 2 * half_mean, np.nan),
    )
