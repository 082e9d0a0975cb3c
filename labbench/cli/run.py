"""`labbench run`."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.options import as_json, database
from labbench.files import files_folder, open_without_links
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.runner.run_grid import ExpandedGrid


@click.command()
@click.argument("grids", nargs=-1, required=True, metavar="GRID...", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Replace a parameter, or pin an axis.")
@click.option("--only", metavar="FILTER", help="Only the runs whose config matches.")
@click.option("--limit", type=click.IntRange(min=1), help="Only the first so many runs.")
@click.option("--dry-run", is_flag=True, help="Show what would be trained, and how long it may take.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option("--workers", type=click.IntRange(min=0), help="Processes; 0: this one.  [one per core, or per GPU]")
@click.option("--rerun", is_flag=True, help="Make new runs beside those that are done.")
@click.option("--retry-failed", is_flag=True, help="Train failed runs again.")
@click.option("--keep-code", is_flag=True, help="Take runs of older code as they are.")
@click.option("--detach", is_flag=True, help="Go on after the terminal is gone.")
@click.option("--yes", is_flag=True, help="Do not refuse a very large grid.")
@as_json
@database
def run(
    grids: Sequence[Path],
    db: Path,
    *,
    overrides: Sequence[str],
    only: str | None,
    limit: int | None,
    dry_run: bool,
    device: str,
    workers: int | None,
    rerun: bool,
    retry_failed: bool,
    keep_code: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Train every run of GRID that is not done, recording everything. Several are trained one after another."""
    from labbench.runner.run_grid import choose_devices, load_grid

    asked = [load_grid(grid, overrides=overrides, only=only or "", limit=limit, yes=yes, db=db) for grid in grids]
    for warning in (warning for one in asked for warning in one.warnings):
        click.echo("warning: " + "\n".join(clean(line) for line in warning.splitlines()), err=True)
    for note in dict.fromkeys(note for one in asked for note in one.notes):
        click.echo(f"note: {clean(note)}", err=True)
    devices = [choose_devices(one, device, workers) for one in asked]
    if dry_run:
        from labbench.cli.run_preview import print_preview

        for_each = list(zip(asked, devices, strict=True))
        print_preview(
            for_each,
            db,
            workers=workers,
            rerun=rerun,
            retry_failed=retry_failed,
            keep_code=keep_code,
            as_json=as_json,
        )
    elif detach:
        from labbench.store.writer import Writer

        Writer(db).close()  # what is wrong with it is said here, not in a log that nobody reads
        run_detached(db)
    else:
        train_all(
            asked,
            db,
            device=device,
            workers=workers,
            rerun=rerun,
            retry_failed=retry_failed,
            keep_code=keep_code,
            as_json=as_json,
        )


def train_all(
    asked: Sequence[ExpandedGrid],
    db: Path,
    *,
    device: str,
    workers: int | None,
    rerun: bool,
    retry_failed: bool,
    keep_code: bool,
    as_json: bool,
) -> None:
    """Train one grid after another, say how each came out, and exit with the status that sums them up."""
    from labbench.cli.run_report import print_json, print_report, say_change
    from labbench.runner.progress import TerminalProgress
    from labbench.runner.run_grid import code_change, run_grid

    outcomes = []
    for one in asked:
        change = code_change(one, db, keep=keep_code)
        if not rerun:
            say_change(clean(one.grid.name), change)
        outcome = run_grid(
            one,
            db,
            TerminalProgress(),
            device=device,
            workers=workers,
            rerun=rerun,
            retry_failed=retry_failed,
            change=change,
        )
        outcomes.append(outcome)
        print_report(one, outcome, db, with_table=not as_json)
        if outcome.interrupted:
            break
    if as_json:
        print_json([run for outcome in outcomes for run in outcome.runs], db)
    failed = any(outcome.ended.get("failed") for outcome in outcomes)
    click.get_current_context().exit(130 if outcomes[-1].interrupted else 1 if failed else 0)


def run_detached(db: Path) -> None:
    """Start the same command again in a session of its own, which the end of this terminal does not reach."""
    folder = files_folder(db)
    folder.mkdir(exist_ok=True)
    log = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}.log"
    words = [word for word in sys.argv[1:] if word != "--detach"]
    with open_without_links(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "labbench", *words],  # -P: no module from the current folder
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    click.echo(f"training in process {process.pid}; its progress: tail -f {log}", err=True)
