"""`labbench export`: the numbers, elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import click

from labbench.cli.options import database, filters


@click.command()
@filters
@click.option("--format", "form", type=click.Choice(["csv", "jsonl", "parquet"]), default="csv", show_default=True)
@click.option("--long", "shape", flag_value="long", default=True, help="One row a point.  [default]")
@click.option("--wide", "shape", flag_value="wide", help="One row a run and step, one column a metric.")
@click.option("--summary", "shape", flag_value="summary", help="One row a run: config, last, best.")
@click.option("--metric", "metrics", multiple=True, metavar="M", help="Only this metric (may be repeated).")
@click.option("-o", "output", type=click.Path(path_type=Path, dir_okay=False), help="A file instead of stdout.")
@database
def export(
    db: Path, filters: Sequence[str], form: str, shape: str, metrics: Sequence[str], output: Path | None
) -> None:
    """Write the numbers of the runs that match, as they are: nan, inf, every digit."""
    from labbench.errors import InputError
    from labbench.filters import parse
    from labbench.store.reader import Reader
