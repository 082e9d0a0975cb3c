"""Export runs as CSV, JSON lines or Parquet, streamed, so that memory does not grow with the number of rows.

`store.queries.export_tables` defines the table shapes. Every number can be read back exactly.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from functools import lru_cache
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from labbench.errors import InputError
from labbench.filters.parser import RunFilter
from labbench.json_documents import run_document, to_json_value
from labbench.store.number_errors import number_errors
from labbench.store.queries.export_tables import (
    LONG_COLUMNS,
    RunSettings,
    Table,
    TableShape,
    differing_settings,
    make_table,
    with_json_settings,
    with_settings,
)
from labbench.store.queries.stream import SeriesBatch, StepRow
from labbench.store.reader import Reader

if TYPE_CHECKING:
    import _csv

    import pyarrow

_FORMULA = re.compile("[\t\r\n]|[\\s\u200b-\u200f\u2060\ufeff]*[=+\\-@＝＋－＠']")
"""Start of a formula in a spreadsheet, or of the escape `'` itself, so that escaping is reversible.

Spreadsheets skip spaces and invisible characters, and some read full-width signs like the plain ones.
"""

_LINE_END = "\r\n;\t"
"""Line terminator for the csv module, which quotes cells with one of its characters: some spreadsheets split rows at
`;` or tabs, and an unquoted carriage return ends a row.
"""

_NAN = "NaN"
"""Text of NaN in CSV: polars reads a column with Python's `nan` as text."""

_PARQUET_ROWS = 65_536


def write_csv(
    reader: Reader,
    filter: RunFilter,
    file: TextIO,
    *,
    shape: TableShape = "long",
    metrics: Collection[str] | None = None,
    with_config: bool = False,
) -> int:
    """Write the runs that match a filter as CSV, and return the number of rows.

    Non-finite numbers are `NaN`, `inf` and `-inf`; an empty cell is a missing value. Texts that a spreadsheet would
    run as a formula are escaped.

    Args:
        file: Open for writing, with `newline=""`.
        shape: A row per point ("long"), per step ("wide") or per run ("summary").
        metrics: Names of the metrics to write; None writes all.
        with_config: Add the configuration keys that differ as columns to the shapes "long" and "wide".

    Raises:
        InputError: If the filter or a metric is unknown.
    """
    writer = csv_writer(file)
    if shape == "long" and not with_config:
        n_rows = 0
        batches = reader.batches(filter, metrics)
        writer.writerow(LONG_COLUMNS)
        for n_points, lines in _long_lines(batches):
            file.write(lines)
            n_rows += n_points
        return n_rows
    table = make_table(reader, filter, shape, metrics)
    if with_config and shape != "summary":
        table = with_settings(table, _settings_columns(reader, filter, shape))
    headings, rows = table
    writer.writerow([escape_formula(heading) for heading in headings])
    return _count_rows(writer.writerow([_cell(value) for value in row]) for row in rows)


def _count_rows(written: Iterable[object]) -> int:
    """Consume an iterator that writes one row per step, and return the number of rows."""
    return sum(1 for _ in written)


def _long_lines(batches: Iterable[SeriesBatch]) -> Iterator[tuple[int, str]]:
    """Yield number and text of the lines of each batch: its texts once through the csv module, its numbers as is."""
    for run, name, experiment, metric, points in batches:
        text = io.StringIO()
        csv_writer(text).writerow([escape_formula(label) for label in (run, name, experiment, metric)])
        start = text.getvalue().removesuffix("\n")
        yield (
            len(points),
            "".join(
                [
                    f"{start},{step},{time!r},{value!r}\n" if value == value else f"{start},{step},{time!r},{_NAN}\n"
                    for step, time, value in points
                ]
            ),
        )


def write_jsonl(
    reader: Reader,
    filter: RunFilter,
    file: TextIO,
    *,
    shape: TableShape = "long",
    metrics: Collection[str] | None = None,
    with_config: bool = False,
) -> int:
    """Write the runs that match a filter as JSON lines: points, steps with `values`, or runs as `ls --json` prints.

    Points and steps get an object `config` of the configuration keys that differ if `with_config`. Returns the number
    of lines.

    Raises:
        InputError: If the filter or a metric is unknown.
        StoreError: If the database has a number that JSON cannot represent, such as an infinite time.
    """
    documents: Iterable[dict[str, Any]]
    if shape == "long":
        points = reader.points(filter, metrics)
        documents = (dict(zip(LONG_COLUMNS, (*row[:-1], to_json_value(row.value)), strict=True)) for row in points)
    elif shape == "wide":
        steps = reader.steps(filter, metrics)
        documents = (dict(zip(StepRow._fields, (*row[:-1], to_json_value(row.values)), strict=True)) for row in steps)
    else:
        documents = (run_document(run) for run in reader.each_run(filter, metrics))
    if with_config and shape != "summary":
        keys, values = differing_settings(reader, filter)
        configs = {run: to_json_value(dict(zip(keys, row, strict=True))) for run, row in values.items()}
        documents = ({**document, "config": configs.get(document["run"], {})} for document in documents)
    # ASCII, because some programs split lines at Unicode line separators
    encode = json.JSONEncoder(allow_nan=False).encode
    with number_errors("runs" if shape == "summary" else "points"):
        return _count_rows(file.write(encode(document) + "\n") for document in documents)


def write_parquet(
    reader: Reader,
    filter: RunFilter,
    path: Path,
    *,
    shape: TableShape = "long",
    metrics: Collection[str] | None = None,
    with_config: bool = False,
) -> int:
    """Write the runs that match a filter as a Parquet file with the columns of the CSV, and return the number of rows.

    NaN stays NaN; missing values are null.

    Raises:
        InputError: If pyarrow (the extra `parquet`) is not installed, or the filter or a metric is unknown.
    """
    try:
        import_module("pyarrow")  # a large package that only Parquet files need
    except ImportError:
        raise InputError('Parquet needs pyarrow: pip install -e ".[parquet]" in labbench\'s checkout') from None
    table = make_table(reader, filter, shape, metrics)
    if shape == "summary":
        return _write_parquet_runs(table, path)
    return _write_parquet_series(table, _settings_columns(reader, filter, shape) if with_config else ([], {}), path)


def _settings_columns(reader: Reader, filter: RunFilter, shape: TableShape) -> RunSettings:
    """Return the settings that differ; beside metrics as columns, also all of them as JSON."""
    settings = differing_settings(reader, filter)
    return with_json_settings(settings) if shape == "wide" else settings


def _write_parquet_runs(table: Table, path: Path) -> int:
    """Write a table with a row per run, with types inferred from all rows; return the number of rows."""
    import pyarrow
    from pyarrow import parquet

    headings, rows = table
    columns = list(zip(*rows, strict=True)) or [()] * len(headings)
    arrays = [_infer_column(column) for column in columns]
    parquet.write_table(pyarrow.Table.from_arrays(arrays, names=headings), path)
    return len(columns[0])


def _write_parquet_series(table: Table, run_settings: RunSettings, path: Path) -> int:
    """Write a table with a row per point or step, in chunks, with the runs' settings; return the number of rows."""
    import pyarrow
    from pyarrow import parquet

    headings, rows = table
    keys, values = run_settings
    settings = [_infer_column(column) for column in zip(*values.values(), strict=True)]
    positions = {run: position for position, run in enumerate(values)}
    kinds = {"step": pyarrow.int64(), **dict.fromkeys(("run", "name", "experiment", "metric"), pyarrow.string())}
    types = [kinds.get(heading, pyarrow.float64()) for heading in headings]
    all_headings, _ = with_settings((headings, iter(())), (keys, values))
    schema = pyarrow.schema(list(zip(all_headings, [*types, *(array.type for array in settings)], strict=True)))
    n_rows = 0
    with parquet.ParquetWriter(path, schema) as writer:
        while chunk := list(islice(rows, _PARQUET_ROWS)):
            arrays = [pyarrow.array(column, kind) for column, kind in zip(zip(*chunk, strict=True), types, strict=True)]
            runs = pyarrow.array([positions.get(row[0]) for row in chunk], pyarrow.int64())
            arrays += [array.take(runs) for array in settings]
            writer.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=schema))
            n_rows += len(chunk)
    return n_rows


class _LineFeedWriter:
    """File that ends CSV rows with a line feed instead of `_LINE_END`."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def write(self, row: str) -> None:
        self.file.write(row.removesuffix(_LINE_END) + "\n")


def csv_writer(file: TextIO) -> _csv.Writer:
    """Return a writer of rows that end with a line feed, in which every cell stays one cell in a spreadsheet."""
    return csv.writer(_LineFeedWriter(file), lineterminator=_LINE_END)


@lru_cache(maxsize=4096)  # each row of a run repeats the run's name
def escape_formula(text: str) -> str:
    """Prefix a text that a spreadsheet would run as a formula with `'`.

    `unescape_formula` removes it.
    """
    return "'" + text if _FORMULA.match(text) else text


def unescape_formula(text: str) -> str:
    """Return the text that `escape_formula` was given."""
    return text[1:] if text.startswith("'") and _FORMULA.match(text, 1) else text


def _cell(value: Any) -> Any:
    """Return a value for the csv module, which writes floats with all digits."""
    if value != value:
        return _NAN
    if isinstance(value, str):
        return escape_formula(value)
    if isinstance(value, bool | list | dict):
        return json.dumps(to_json_value(value), ensure_ascii=False)
    return value


def _infer_column(column: Sequence[Any]) -> pyarrow.Array:
    """Return a column of one type, or of JSON texts if the runs have values of different types."""
    import pyarrow

    try:
        return pyarrow.array(column)
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):
        return pyarrow.array([None if value is None else json.dumps(to_json_value(value)) for value in column])
