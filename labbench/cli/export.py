"""`labbench export`: the numbers, elsewhere."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import database, filters
from labbench.errors import InputError

if TYPE_CHECKING:
    from labbench.store.queries.tables import TableShape


@click.command()
@filters
@click.option("--format", "form", type=click.Choice(["csv", "jsonl", "parquet"]), default="csv", show_default=True)
@click.option("--long", "shape", flag_value="long", default="long", help="One row a point.  [default]")
@click.option("--wide", "shape", flag_value="wide", help="One row a run and step, one column a metric.")
@click.option("--summary", "shape", flag_value="summary", help="One row a run: config, last, best.")
@click.option("--metric", "metrics", multiple=True, metavar="M", help="Only this metric (may be repeated).")
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of stdout.")
@database
def export(
    db: Path, *, filters: Sequence[str], form: str, shape: TableShape, metrics: Sequence[str], output: Path | None
) -> None:
    """Write the numbers of the runs that match, as they are: nan, inf, every digit."""
    from labbench.export import write_csv, write_jsonl, write_parquet
    from labbench.files import require_not_database, write_atomically
    from labbench.filters.parser import parse
    from labbench.store.reader import Reader

    wanted, only = parse(filters), metrics or None
    if output is not None:
        require_not_database(output)
    with Reader(db) as reader:
        if form == "parquet":
            if output is None:
                raise InputError("a Parquet file is not text: give -o FILE")
            with write_atomically(output) as file:
                write_parquet(reader, wanted, Path(file.name), shape=shape, metrics=only)
            return
        write = write_csv if form == "csv" else write_jsonl
        if output is None:
            write(reader, wanted, sys.stdout, shape=shape, metrics=only)
        else:
            with write_atomically(output) as file:
                text = io.TextIOWrapper(file, encoding="utf-8", newline="")
                write(reader, wanted, text, shape=shape, metrics=only)
                text.detach()  # flushes, and leaves the file open
