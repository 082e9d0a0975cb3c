"""`labbench export`: write metrics for other programs."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import FILE_PATH, database, filters
from labbench.cli.output import printable
from labbench.errors import InputError

if TYPE_CHECKING:
    from labbench.store.queries.export_tables import TableShape


class _PrintableText(io.TextIOBase):
    """Terminal that receives a run's texts without control sequences; a file or a pipe receives them unchanged."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        return self._terminal.write(printable(text))


def _format_by_ending(output: Path | None) -> str:
    """Return the format that the ending of the file names, CSV for any other."""
    endings = {".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet", ".pq": "parquet"}
    return "csv" if output is None else endings.get(output.suffix.lower(), "csv")


@contextmanager
def _open_text(path: Path | None) -> Iterator[TextIO]:
    """Open a text file that is complete or not there at all; without a path, stdout."""
    from labbench.files import write_atomically

    if path is None:
        if isinstance(sys.stdout, io.TextIOWrapper):
            sys.stdout.reconfigure(encoding="utf-8")  # data do not depend on the locale
        yield cast("TextIO", _PrintableText(sys.stdout)) if sys.stdout.isatty() else sys.stdout
        return
    with write_atomically(path) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        yield text
        text.detach()  # flush, but leave the file open


@click.command(
    epilog=examples(
        "labbench export --summary", "labbench export experiment=quickstart --wide --metric val/loss -o curves.csv"
    )
    + FILTER_HELP
)
@filters
@click.option(
    "--format",
    "file_format",
    type=click.Choice(["csv", "jsonl", "parquet"]),
    help="File format; default: the ending of FILE, else csv.",
)
@click.option("--long", "shape", flag_value="long", default="long", help="One row per point.  [default]")
@click.option("--wide", "shape", flag_value="wide", help="One row per run and step, one column per metric.")
@click.option("--summary", "shape", flag_value="summary", help="One row per run: configuration, last, best.")
@click.option("--metric", "metrics", multiple=True, metavar="M", help="Only this metric; repeatable.")
@click.option(
    "-o",
    "output",
    metavar="FILE",
    type=FILE_PATH,
    help="Write to FILE instead of stdout.",
)
@database
def export(
    db: Path,
    *,
    filters: Sequence[str],
    file_format: str | None,
    shape: TableShape,
    metrics: Sequence[str],
    output: Path | None,
) -> None:
    """Write the metrics of matching runs as CSV, JSON or Parquet.

    Every digit is kept, and so are nan and inf.
    \f
    Raises:
        InputError: Parquet without -o.
    """
    from labbench.cli.output import print_name_notes
    from labbench.export import write_csv, write_jsonl, write_parquet
    from labbench.files import require_not_database, write_atomically
    from labbench.filters.parser import parse
    from labbench.store.reader import Reader

    run_filter, metric_names = parse(filters), metrics or None
    file_format = file_format or _format_by_ending(output)
    if output is not None:
        require_not_database(output)
    with Reader(db) as reader:
        print_name_notes(reader.check_names(run_filter))
        if file_format == "parquet":
            if output is None:
                raise InputError("Parquet cannot be written to stdout: add -o FILE")
            with write_atomically(output) as file:
                write_parquet(reader, run_filter, Path(file.name), shape=shape, metrics=metric_names)
            return
        write = write_csv if file_format == "csv" else write_jsonl
        with _open_text(output) as text:
            write(reader, run_filter, text, shape=shape, metrics=metric_names)
