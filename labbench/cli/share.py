"""Commands that share runs with other people and machines: `pack pull serve-changes`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from labbench.cli.help import FILTER_HELP, examples
from labbench.cli.options import FILE_PATH, database
from labbench.cli.output import echo
from labbench.cli.setup.completion import complete_filters, complete_runs
from labbench.errors import InputError, RunNotFound
from labbench.text import format_count, format_size

if TYPE_CHECKING:
    from labbench.sharing.pack import PackReport
    from labbench.sharing.pull import PullReport
    from labbench.store.reader import Reader


@click.command(
    epilog=examples(
        "labbench pack 3f9a1c20 -o best.labbench", "labbench pack experiment=quickstart -o quickstart.labbench"
    )
    + FILTER_HELP
)
@click.argument("runs", nargs=-1, metavar="[RUN]...|[FILTER]...", shell_complete=complete_runs)
@click.option("--filter", "filter_", metavar="FILTER", shell_complete=complete_filters, help="Pack the matching runs.")
@click.option("--with-source", is_flag=True, help="Include grid, task or script, command and diff.")
@click.option("--with-output", is_flag=True, help="Include captured output and tracebacks.")
@click.option("-o", "output", type=FILE_PATH, metavar="FILE", help="File to write, such as a.labbench.")
@database
def pack(
    db: Path, *, runs: Sequence[str], filter_: str | None, with_source: bool, with_output: bool, output: Path | None
) -> None:
    """Write runs with their files to one file.

    The file holds points, configurations, names, notes, tags, errors, models, portraits and artifacts; what it holds is
    listed. `labbench import FILE` takes it. Checkpoints are left out.
    \f
    Raises:
        InputError: No runs are named or match, or no file is named.
    """
    from labbench.files import require_ending, require_not_database
    from labbench.sharing.pack import write_pack
    from labbench.store.reader import Reader
    from labbench.store.sharing.packed_database import PackedTexts

    if bool(runs) == (filter_ is not None):
        raise InputError("name the runs to pack, or pass --filter FILTER")
    if output is None:
        raise InputError("name the file to write: -o FILE.labbench")
    require_not_database(output)
    require_ending(output, (".labbench",), "the command `import` takes a pack by its ending")
    with Reader(db) as reader:
        keys = _find_keys(reader, runs) if filter_ is None else reader.keys(filter_)
        queued = {run.key for run in reader.by_keys(keys) if run.status == "queued"}
    if not keys:
        raise InputError(f"no runs match {filter_ or ' '.join(runs)}")
    if not (keys := [key for key in keys if key not in queued]):
        raise InputError("queued runs have no results to pack yet: train them first")
    if queued:
        echo(f"left out: {format_count(len(queued), 'queued run')}, which nothing would train elsewhere", err=True)
    report = write_pack(db, keys, output, PackedTexts(source=with_source, output=with_output))
    _print_contents(report, len(keys))
    echo(f"{output}: {format_size(output.stat().st_size)}")


def _find_keys(reader: Reader, words: Sequence[str]) -> list[str]:
    """Return the keys of runs that are named, or that match words with an operator. Raises InputError."""
    from labbench.filters.parser import parse

    try:
        return [run.key for run in reader.find_many(words)]
    except RunNotFound:
        if not all(set(word) & set("=<>~") for word in words):
            raise
        return list(reader.keys(parse(words)))


def _print_contents(report: PackReport, n_runs: int) -> None:
    """Print number and size of the models, portraits and images of a pack, and name and size of every other file."""
    sizes: dict[str, list[int]] = {}
    for file in report.files:
        sizes.setdefault(_kind_of_file(file.name), []).append(file.size)
    totals = [format_size(sum(of_kind)) for of_kind in sizes.values()]
    width = max(map(len, totals))
    for (kind, of_kind), total in zip(sizes.items(), totals, strict=True):
        is_database, is_file = kind == report.files[0].name, "/" in kind
        count = format_count(n_runs, "run") if is_database else format_count(len(of_kind), "file")
        echo(f"{total:>{width}}  {kind}" + ("" if is_file else f"  ({count})"))
    for name in report.left_out:
        echo(f"left out: {name}, which is not a regular file in the folder of its run", err=True)


def _kind_of_file(name: str) -> str:
    """Return the kind of a file in a pack: models, portraits or images; its name for any other, such as an artifact."""
    from labbench.files import MODEL, PORTRAIT

    _, _, path = name.partition("/")
    _, _, of_run = path.partition("/")
    if not of_run:
        return name
    return {MODEL: "models", PORTRAIT: "portraits", "images": "images"}.get(of_run.partition("/")[0], name)


@click.command(
    epilog=examples("labbench pull gpu-box:project/runs.db", "labbench pull me@gpu-box:/data/runs.db --follow")
)
@click.argument("remote", metavar="HOST:PATH")
@click.option("--follow", "is_following", is_flag=True, help="Keep mirroring what changes, until Ctrl+C.")
@click.option(
    "--every", type=click.FloatRange(min=0.1), default=0.5, metavar="SECONDS", help="Pause of --follow.  [0.5]"
)
@click.option("--remote-labbench", default="labbench", metavar="COMMAND", help="Command on HOST.  [labbench]")
@database
def pull(db: Path, *, remote: str, is_following: bool, every: float, remote_labbench: str) -> None:
    """Mirror the runs of a database on another machine, by ssh.

    Only what has changed is sent. Mirrored runs are shown like others, but never trained, stopped or counted as done
    here. Tags and notes that are set here stay. Models and other files, and source texts, are not mirrored.
    """
    from labbench.sharing.pull import PullReport, follow, pull
    from labbench.sharing.remote import parse_remote

    source = parse_remote(remote)
    if not is_following:
        echo(_describe(pull(db, source, remote_labbench)))
        return
    for report in follow(db, source, remote_labbench, every=every):
        if report.problem is not None:
            echo(f"{source.host}: {report.problem}; connecting again", err=True)
        elif report != PullReport():
            echo(_describe(report))


def _describe(report: PullReport) -> str:
    removed = f", {report.n_removed} removed" if report.n_removed else ""
    return f"{format_count(report.n_runs, 'new or changed run')}, {format_count(report.n_points, 'point')}{removed}"


@click.command("serve-changes", epilog=examples("labbench serve-changes runs.db"))
@click.argument("path", type=FILE_PATH)
def serve_changes(path: Path) -> None:
    """Answer `labbench pull` of another machine.

    The command is started there by ssh; it reads questions from stdin and answers on stdout.
    """
    import sys

    from labbench.sharing.serve_changes import serve_changes

    serve_changes(path, sys.stdin.fileno(), sys.stdout.fileno())
