"""Queries of the points of series, and of their buckets of a level, as numpy arrays.

numpy is imported inside the functions, because importing it takes 0.1 s.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labbench.store.series import rollup
from labbench.store.series.buckets import BucketedSeries, Columns, bucket_per_point

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

_SERIES = "run_id = ? AND metric_id = ?"

_ROWS_PER_FETCH = 512
"""Number of rows per fetch: few enough that the next fetch reuses their memory."""


@dataclass(frozen=True, slots=True)
class SeriesQuery:
    """Query of one series at a given resolution."""

    connection: sqlite3.Connection
    run_id: int
    metric_id: int
    column: float
    """Width of a screen column, in steps."""
    times: bool
    is_dense: bool

    def between(self, left: int, right: int, level: int) -> Iterator[BucketedSeries]:
        """Yield the range from `left` to `right` in consecutive parts.

        Uses buckets of `level` that lie in the range and are no wider than a column, and covers the rest with buckets
        of lower levels, down to single points.
        """
        if left > right:
            return
        if level == 0:
            yield self._points(left, right)
            return
        buckets = self._buckets(left, right, level)
        if not len(buckets):
            yield from self.between(left, right, level - 1)
            return
        first, last = buckets["first_step"], buckets["last_step"]
        fits = (last.astype(float) - first < self.column) & (first >= left) & (last <= right)
        ends = [*((fits[1:] != fits[:-1]).nonzero()[0] + 1).tolist(), len(fits)]
        start = 0
        for end in ends:
            if fits[start]:
                yield self._curve(buckets[start:end], rollup.FACTOR**level)
            else:
                yield from self.between(max(left, int(first[start])), min(right, int(last[end - 1])), level - 1)
            start = end
        yield from self.between(int(last[-1]) + 1, right, level - 1)  # after the last full chunk

    def _buckets(self, left: int, right: int, level: int) -> NDArray[np.void]:
        """Return the buckets of a level that overlap the range, in order, as a structured array of shape (B,)."""
        import numpy as np

        chunks = f"FROM rollup WHERE {_SERIES} AND level = ? AND first_step"
        query = f"""
            SELECT buckets {chunks} BETWEEN coalesce((SELECT max(first_step) {chunks} <= ?), ?) AND ?
            ORDER BY first_step
        """
        series = (self.run_id, self.metric_id, level)
        rows = self.connection.execute(query, (*series, *series, left, left, right))
        buckets = np.frombuffer(b"".join(chunk for (chunk,) in rows), np.dtype(rollup.BUCKET_FIELDS))
        return buckets[(buckets["last_step"] >= left) & (buckets["first_step"] <= right)]

    def _curve(self, buckets: NDArray[np.void], size: int) -> BucketedSeries:
        import numpy as np

        return BucketedSeries(
            self.run_id,
            buckets["first_step"],
            buckets["last_step"],
            buckets["first_time"] if self.times else None,
            buckets["last_time"] if self.times else None,
            np.full(len(buckets), size),
            buckets["n_nonfinite"].astype(np.int64),
            buckets["low"],
            buckets["high"],
            buckets["mean"],
        )

    def _points(self, left: int, right: int) -> BucketedSeries:
        """Return the points in the range, one bucket per point."""
        import numpy as np

        query = f"FROM points WHERE {_SERIES} AND step BETWEEN ? AND ?"
        parameters = (self.run_id, self.metric_id, left, right)
        rows = read_rows(self.connection, query, parameters, self.times, self.is_dense)
        steps = np.arange(left, left + len(rows["value"])) if self.is_dense else rows["step"]
        return bucket_per_point(self.run_id, steps, rows)


def read_rows(
    connection: sqlite3.Connection, query: str, parameters: tuple[Any, ...], times: bool, is_dense: bool
) -> Columns:
    """Return the columns of the points that a query selects.

    Leaving out a column saves a fifth of the time or more. Non-finite values become infinite, as in `read_packed_rows`.
    """
    import numpy as np

    column_sql = _column_sql(times, is_dense)
    columns = [array("d" if name == "value" else "q") for name in column_sql]
    cursor = connection.execute(f"SELECT {', '.join(column_sql.values())} {query} ORDER BY run_id, step", parameters)
    while rows := cursor.fetchmany(_ROWS_PER_FETCH):
        for column, values in zip(columns, zip(*rows, strict=True), strict=True):
            column.extend(values)
    return dict(zip(column_sql, map(np.asarray, columns), strict=True))


def read_packed_rows(
    connection: sqlite3.Connection, query: str, parameters: tuple[Any, ...], times: bool, is_dense: bool
) -> Columns:
    """Return the columns of the points that a query selects, with values rounded to 15 digits.

    SQLite joins each column of a series to one text, in the order of the primary key, and writes numbers with 15
    digits. This is faster, because Python takes more time per row than SQLite and holds the GIL.
    """
    import numpy as np

    column_sql = _column_sql(times, is_dense)
    joined = ", ".join(f"group_concat({column})" for column in column_sql.values())
    rows = connection.execute(f"SELECT {joined} {query} GROUP BY run_id", parameters).fetchall()
    return {
        name: np.fromstring(",".join(texts), np.float64 if name == "value" else np.int64, sep=",")
        for name, *texts in zip(column_sql, *rows, strict=True)
    }


def _column_sql(times: bool, is_dense: bool) -> dict[str, str]:
    """Return the SQL of the columns to read, by name."""
    return {
        **({} if is_dense else {"step": "step"}),
        **({"time_ms": "time_ms"} if times else {}),
        "value": "coalesce(value, 9e999)",
    }
