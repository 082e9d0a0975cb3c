"""Rows of CSV files of any origin: encodings, separators, blank lines, decimal commas."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from labbench.errors import InputError

MISSING = ("", "na", "n/a", "nan", "null", "none")
"""Texts of a missing value in lower case: pandas writes an empty cell for NaN, R `NA`."""

_LONG_COLUMNS = frozenset({"run", "metric", "step", "value"})


@dataclass(frozen=True, slots=True)
class CsvTable:
    """Open CSV file."""

    headings: Sequence[str]
    """Headings without surrounding spaces."""
    heading_line: int
    """Number of the line of the headings, from 1."""
    rows: Iterator[tuple[int, list[str]]]
    """Number of the last line and cells of each row that is not blank."""
    decimal_comma: bool
    """True if numbers may have a decimal comma, since columns are not separated by commas."""


class _Dialect(TypedDict):
    """Arguments of `csv.reader`."""

    delimiter: str
    skipinitialspace: bool


@contextmanager
def open_csv(path: Path, *, is_live: bool = False) -> Iterator[CsvTable]:
    """Open a CSV file whose columns are separated by commas, semicolons, tabs or bars.

    A last line without a line end is left out if it has less cells than headings, and always if the file `is_live`:
    its program ends each line, and may be writing this one.

    Raises:
        InputError: If the file cannot be read, or while the rows are read, if it is not a CSV file in UTF-8 or UTF-16.
    """
    try:
        with path.open(newline="", encoding=_encoding(path)) as file:
            skipped, first_line = next(((n, line) for n, line in enumerate(file) if _is_table(line)), (0, ""))
            dialect = _find_dialect(first_line)
            headings = _parse_headings(first_line, **dialect)
            reader = csv.reader(_complete_lines(file, dialect, 1 << 62 if is_live else len(headings)), **dialect)
            padded = dialect["skipinitialspace"]
            rows = (
                (skipped + 1 + reader.line_num, [cell.strip() for cell in row] if padded else row)
                for row in reader
                if any(map(str.strip, row))
            )
            yield CsvTable(headings, skipped + 1, rows, dialect["delimiter"] != ",")
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from error
    except (UnicodeError, csv.Error) as error:
        raise InputError(f"{path}: not a CSV file in UTF-8: {error}") from error


def _complete_lines(lines: Iterable[str], dialect: _Dialect, min_cells: int) -> Iterator[str]:
    """Yield the lines, except for a last one that has no line end, no quotes and less than `min_cells` cells."""
    for line in lines:
        if line.endswith(("\n", "\r")) or '"' in line or line.count(dialect["delimiter"]) + 1 >= min_cells:
            yield line


def _encoding(path: Path) -> str:
    """Return UTF-16 for a file that begins with its byte order mark, as Excel writes it, else UTF-8."""
    with path.open("rb") as file:
        return "utf-16" if file.read(2) in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig"


def _is_table(line: str) -> bool:
    """Return False for empty lines, and for the line `sep=;` that tells Excel the separator."""
    return bool(line.strip()) and not line.startswith("sep=")


def _find_dialect(headings: str) -> _Dialect:
    """Return the separator that gives most columns of a long CSV, then most columns, and whether spaces follow it."""
    readings: list[_Dialect] = [
        {"delimiter": delimiter, "skipinitialspace": f"{delimiter} " in headings} for delimiter in ",;\t|"
    ]

    def score(dialect: _Dialect) -> tuple[int, int]:
        columns = [heading.lower() for heading in _parse_headings(headings, **dialect)]
        return len(_LONG_COLUMNS & {*columns}), len(columns)

    return max(readings, key=score)


def _parse_headings(line: str, delimiter: str, skipinitialspace: bool) -> list[str]:
    """Return headings without surrounding spaces."""
    [row] = csv.reader([line], delimiter=delimiter, skipinitialspace=skipinitialspace) if line else [[]]
    return [heading.strip() for heading in row]
