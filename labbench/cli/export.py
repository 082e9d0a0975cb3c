"""`labbench export`: write metrics for other programs."""

from __future__ import annotations

import io
import shlex
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, cast

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import PATH, database, filters
from labbench.cli.output import echo, print_name_notes, printable
from labbench.cli.setup.completion import complete_metrics
from labbench.errors import InputError
from labbench.files import require_ending, require_not_database
from labbench.text import format_count

if TYPE_CHECKING:
    from labbench.filters.parser import RunFilter
    from labbench.store.queries.export_tables import TableShape
    from labbench.store.reader import Reader


class _PrintableText(io.TextIOBase):
    """Terminal that receives a run's texts without control sequences; a file or a pipe receives them unchanged."""

    def __init__(self, terminal: TextIO) -> None:
        self._terminal = terminal

    def write(self, text: str) -> int:
        return self._terminal.write(printable(text))


_FORMATS = {
    ".csv": "csv",
    ".txt": "csv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".parquet": "parquet",
    ".pq": "parquet",
}
"""Formats by the ending of the file."""


def _format_by_ending(output: Path | None) -> str:
    """Return the format that the ending of the file names, CSV without an ending.

    Raises:
        InputError: If the ending is of no format.
    """
    if output is None:
        return "csv"
    require_not_database(output)
    require_ending(output, _FORMATS, "spreadsheet programs open .csv; --format FORMAT allows any ending")
    return _FORMATS.get(output.suffix.lower(), "csv")


@contextmanager
def _open_text(path: Path | None) -> Iterator[TextIO]:
    """Open a text file that appears only when it is complete; without a path, stdout."""
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
    type=click.Choice(["csv", "jsonl", "parquet", "tensorboard", "wandb"]),
    help="File format; default: the ending of FILE, else csv.",
)
@click.option("--long", "shape", flag_value="long", default="long", help="One row per point.  [default]")
@click.option("--wide", "shape", flag_value="wide", help="One row per run and step, one column per metric.")
@click.option("--summary", "shape", flag_value="summary", help="One row per run: configuration, last, best.")
@click.option("--config", "with_config", is_flag=True, help="Add the configuration keys that differ as columns.")
@click.option(
    "--metric",
    "metrics",
    multiple=True,
    metavar="M",
    shell_complete=complete_metrics,
    help="Only this metric; repeatable.",
)
@click.option(
    "-o",
    "output",
    metavar="FILE",
    type=PATH,
    help="Write to FILE instead of stdout, or to a folder with tensorboard.",
)
@database
def export(
    db: Path,
    *,
    filters: Sequence[str],
    file_format: str | None,
    shape: TableShape,
    with_config: bool,
    metrics: Sequence[str],
    output: Path | None,
) -> None:
    """Write the metrics of matching runs for other programs.

    CSV, JSON lines and Parquet keep every digit, nan and inf. TensorBoard's event files keep 32-bit numbers. The format
    wandb is the CSV file of a chart on W&B's web page.
    \f
    Raises:
        InputError: Parquet or tensorboard without -o, a file whose ending is of no format, or `--config` with a format
            that has no columns for it.
    """
    from labbench.filters.parser import parse
    from labbench.store.reader import Reader

    file_format = file_format or _format_by_ending(output)
    if output is None and file_format in _FILE_FORMATS:
        raise InputError(f"{file_format} cannot be written to stdout: add -o {_FILE_FORMATS[file_format]}")
    if with_config and file_format in ("tensorboard", "wandb"):
        raise InputError(f"--config adds columns to csv, jsonl and parquet, not to {file_format}: leave it out")
    if output is not None:
        require_not_database(output)
    with Reader(db) as reader:
        selection = ExportedRuns(reader, parse(filters), metrics or None, with_config)
        print_name_notes(reader.check_names(selection.filter))
        if output is not None and file_format == "tensorboard":
            _write_event_files(selection, output)
        elif output is not None and output.is_dir():
            raise InputError(f"{output} is a folder: pass the name of a file to -o")
        elif file_format == "wandb":
            _write_chart(selection, output)
        else:
            _write_table(selection, file_format, shape, output)


_FILE_FORMATS = {"parquet": "FILE", "tensorboard": "FOLDER"}


@dataclass(frozen=True)
class ExportedRuns:
    """Runs and metrics to export."""

    reader: Reader
    filter: RunFilter
    metrics: Sequence[str] | None
    with_config: bool = False
    """True to add the configuration keys that differ to the rows of points and steps."""


def _write_event_files(selection: ExportedRuns, folder: Path) -> None:
    from labbench.export.event_files import write_event_files

    n_runs = write_event_files(selection.reader, selection.filter, folder, metrics=selection.metrics)
    echo(f"{format_count(n_runs, 'run')} in {folder}: tensorboard --logdir {shlex.quote(str(folder))}", err=True)


def _write_chart(selection: ExportedRuns, output: Path | None) -> None:
    from labbench.export.wandb_chart import write_wandb_chart

    with _open_text(output) as text:
        write_wandb_chart(selection.reader, selection.filter, text, metrics=selection.metrics)


def _write_table(selection: ExportedRuns, file_format: str, shape: TableShape, output: Path | None) -> None:
    from labbench.export.table_files import write_csv, write_jsonl, write_parquet
    from labbench.files import write_atomically

    reader, run_filter = selection.reader, selection.filter
    options: dict[str, Any] = {"shape": shape, "metrics": selection.metrics, "with_config": selection.with_config}
    if output is not None and file_format == "parquet":
        with write_atomically(output) as file:
            n_rows = write_parquet(reader, run_filter, Path(file.name), **options)
    else:
        write = write_csv if file_format == "csv" else write_jsonl
        with _open_text(output) as text:
            n_rows = write(reader, run_filter, text, **options)
    if output is not None:
        echo(f"wrote {output} ({format_count(n_rows, 'row')})", err=True)
