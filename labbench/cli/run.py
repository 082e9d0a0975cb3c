"""`labbench run`: train the runs of grid files, or record a run of a command."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.options import FILE_PATH, as_json, database
from labbench.files import files_folder, open_without_links
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.records import Engine
    from labbench.runner.expanded_grid import ExpandedGrid
    from labbench.runner.run_grid import TrainingOptions

ONLY_HELP = """
FILTER selects runs by configuration keys, such as 'lr<=0.01'; several terms must all hold. Quote the terms, since <
and > are special to the shell. The whole language: labbench help filters
"""
"""Paragraph on the FILTER of `--only`, which takes configuration keys alone."""


@click.command(
    "run",
    epilog=examples(
        "labbench run -- python train.py --lr 0.1 --epochs 5",
        "labbench run --name baseline --metrics 'it (?P<step>[0-9]+) nll (?P<nll>[0-9.]+)' -- ./train.sh",
    ),
)
@click.argument("words", nargs=-1, required=True, metavar="-- COMMAND...", type=click.UNPROCESSED)
@click.option("--name", metavar="NAME", help="Name of the run.  [EXPERIMENT-N]")
@click.option("--experiment", metavar="NAME", help="Experiment.  [name of the script]")
@click.option("--tag", "tags", multiple=True, metavar="TAG", help="Tag of the run; repeatable.")
@click.option("--metrics", metavar="REGEX", help="Metrics in the output, by named groups: (?P<loss>[0-9.]+).")
@click.option("--no-metrics", is_flag=True, help="Read no metrics from the output and from files.")
@database
def record(
    db: Path,
    *,
    words: Sequence[str],
    name: str | None,
    experiment: str | None,
    tags: Sequence[str],
    metrics: str | None,
    no_metrics: bool,
) -> None:
    """Record a run of any command.

    Its options become the configuration, its output is kept, and its exit status is passed on. Metrics are read from
    event files, metrics.csv or trainer_state.json that it writes in this folder, and from its output. A script that
    calls labbench.start() logs to this run.
    """
    from labbench.recording.record_command import RecordingOptions, record_command

    options = RecordingOptions(db, name, experiment, tags, metrics, not no_metrics)
    status, summary = record_command(words, options)
    for line in summary:
        click.echo(f"labbench: {clean(line)}", err=True)
    click.get_current_context().exit(status)


class RunCommand(click.Command):
    """`labbench run`: with grids, or with `--` and a command to record."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: click.Context | None = None, **extra: Any
    ) -> click.Context:
        """Parse the arguments with the options of `record` if a command follows `--`."""
        words = args[args.index("--") + 1 :] if "--" in args else []
        is_grid = words and all(word.endswith(".toml") for word in words)
        if "--" in args and not is_grid:
            return record.make_context(info_name, args, parent, **extra)
        given = list(args)  # click takes the words off the list
        try:
            return super().make_context(info_name, args, parent, **extra)
        except click.NoSuchOption as error:
            if (hint := set_option_hint(error.option_name, given)) is None:
                raise
            raise click.NoSuchOption(error.option_name, f"No such option '{error.option_name}': {hint}") from None


def set_option_hint(option: str, words: Sequence[str]) -> str | None:
    """Return a hint at `--set` if an option is a parameter, such as `--batch-size`; None if it is none.

    `words` are the words of the command, whose grid files may name parameters of the user's task.
    """
    from labbench.params.builtin import BUILTIN
    from labbench.params.param import TRAINING

    name, position = option.lstrip("-"), next((i for i, word in enumerate(words) if word.startswith(option)), 0)
    value = words[position].partition("=")[2] or "".join(words[position + 1 : position + 2])
    declared = {*TRAINING, *(key for params in BUILTIN.values() for key in params)}
    keys = [key for key in (name, name.replace("-", "_")) if key in declared or _is_in_grid(key, words)]
    if not keys:
        return None
    is_value = value and not value.endswith(".toml") and not value.startswith("--")
    setting = shlex.quote(f"{keys[0]}={value}") if is_value else f"{keys[0]}=VALUE"
    return f"to set the parameter for every run: --set {setting}"


def _is_in_grid(key: str, words: Sequence[str]) -> bool:
    """Return True if a grid file among the words has a line that sets the key."""
    files = [Path(word) for word in words if word.endswith(".toml") and Path(word).is_file()]
    return any(re.search(rf"(?m)^\s*{re.escape(key)}\s*=", file.read_text(errors="replace")) for file in files)


@click.command(
    cls=RunCommand,
    epilog=examples(
        "labbench run grid.toml",
        "labbench run grid.toml --dry-run",
        "labbench run grid.toml --set lr=0.1 --only optimizer=adam",
    )
    + ONLY_HELP,
)
@click.argument("grids", nargs=-1, required=True, metavar="GRID...", type=FILE_PATH)
@click.option(
    "--set",
    "overrides",
    multiple=True,
    metavar="KEY=VALUE",
    help="Set a parameter for every run; an axis shrinks to it.",
)
@click.option("--only", metavar="FILTER", help="Only runs whose configuration matches.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N runs of each grid.")
@click.option("--dry-run", is_flag=True, help="Print what would be trained; change nothing.")
@click.option("--device", default="auto", show_default=True, help="auto, cpu, cuda, cuda:N or mps.")
@click.option(
    "--workers", type=click.IntRange(min=0), metavar="N", help="Worker processes; 0: none.  [one per core or GPU]"
)
@click.option(
    "--executor",
    type=click.Choice(["local", "slurm", "ray"]),
    default="local",
    show_default=True,
    help="Where to train: this machine, jobs of SLURM, or a Ray cluster.",
)
@click.option("--address", metavar="HOST:PORT", help="Head of a running Ray cluster, or auto.  [a local cluster]")
@click.option(
    "--engine",
    type=click.Choice(["auto", "loop", "stacked", "vmap"]),
    help="Engine, instead of [runtime] engine of the grids.",
)
@click.option("--rerun", is_flag=True, help="Train new runs beside those that are done.")
@click.option("--retry-failed", is_flag=True, help="Also train failed runs again.")
@click.option("--keep-code", is_flag=True, help="Do not train runs of older code again.")
@click.option("--full", is_flag=True, help="Train every run to its end, without the grid's [search].")
@click.option("--detach", is_flag=True, help="Train in the background, independent of the terminal.")
@click.option("--yes", is_flag=True, help="Allow more than 100,000 runs.")
@as_json
@database
def run(
    grids: Sequence[Path],
    db: Path,
    *,
    overrides: Sequence[str],
    only: str | None,
    limit: int | None,
    engine: Engine | None,
    dry_run: bool,
    detach: bool,
    yes: bool,
    as_json: bool,
    **training_options: Any,
) -> None:
    """Train every run of a grid that is not done yet.

    Records all metrics in the database. Several grids are trained one after another. The same command again trains
    only the runs that are missing. With -- and a command instead of grids, records a run of it: labbench run --help --
    \f
    Raises:
        InputError: A grid or an option is invalid, or a device is not there.
        UsageError: `--address` without `--executor ray`.
    """
    from labbench.runner.run_grid import TrainingOptions

    expanded = _load_grids(grids, engine, overrides=overrides, only=only or "", limit=limit, yes=yes, db=db)
    print_warnings(expanded)
    options = TrainingOptions(**training_options)
    devices = _choose_devices(expanded, options, is_preview=dry_run)
    if dry_run:
        from labbench.cli.run_preview import print_preview

        if print_preview(list(zip(expanded, devices, strict=True)), db, options, as_json=as_json):
            click.get_current_context().exit(1)
    elif detach:
        run_detached(db)
    else:
        train_all(expanded, db, options, as_json=as_json)


def _load_grids(paths: Sequence[Path], engine: Engine | None, **selection: Any) -> list[ExpandedGrid]:
    """Return the grids of files, with their own engine or another; `selection` as in `load_grid`."""
    from labbench.runner.expanded_grid import load_grid

    grids = [load_grid(path, **selection) for path in paths]
    return grids if engine is None else [grid.with_engine(engine) for grid in grids]


def print_warnings(grids: Sequence[ExpandedGrid]) -> None:
    """Print the warnings of the grids, then their notes, on stderr."""
    for warning in (warning for grid in grids for warning in grid.warnings):
        click.echo("warning: " + "\n".join(clean(line) for line in warning.splitlines()), err=True)
    for note in dict.fromkeys(note for grid in grids for note in grid.notes):
        click.echo(f"note: {clean(note)}", err=True)


def train_all(grids: Sequence[ExpandedGrid], db: Path, options: TrainingOptions, *, as_json: bool) -> None:
    """Train one grid after another, and report each.

    Exits with status 0, 1 (a run failed), or as `exit_status` says after an interruption.
    """
    from labbench.cli.run_report import plan_with_notes, print_json, print_report
    from labbench.runner.continuation import ContinuationPlan
    from labbench.runner.interruption import exit_status, requeue_own_job
    from labbench.runner.progress import TerminalProgress
    from labbench.runner.run_grid import code_change, run_grid

    outcomes = []
    for expanded in grids:
        change = code_change(expanded, db, keep=options.keep_code)
        continuations = ContinuationPlan() if options.rerun else plan_with_notes(expanded, db, change)
        outcome = run_grid(expanded, db, TerminalProgress(db), options, change, continuations)
        outcomes.append(outcome)
        print_report(expanded, outcome, db, with_table=not as_json and outcome.problem is None)
        if outcome.problem is not None:
            click.echo(f"labbench: {clean(outcome.problem)}", err=True)
        if outcome.interrupted or outcome.problem is not None:
            break
    if as_json:
        print_json([run for outcome in outcomes for run in outcome.runs], db)
    failed = any(outcome.ended.get("failed") or outcome.problem is not None for outcome in outcomes)
    last = outcomes[-1]
    if last.interrupted and (message := requeue_own_job(last.signal)) is not None:
        click.echo(f"labbench: {clean(message)}", err=True)
    click.get_current_context().exit(exit_status(last.signal) if last.interrupted else 1 if failed else 0)


def run_detached(db: Path) -> None:
    """Start the same command in a new session, which continues when this terminal is closed."""
    from labbench.store.writer import Writer

    Writer(db).close()  # report a bad database here, not in a log that nobody reads
    folder = files_folder(db)
    folder.mkdir(exist_ok=True)
    log = folder / f"run-{time.strftime('%Y%m%d-%H%M%S')}.log"
    arguments = [word for word in sys.argv[1:] if word != "--detach"]
    with open_without_links(log, "wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "labbench", *arguments],  # -P: no module from the current folder
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    click.echo(f"training in process {process.pid}; to follow it: tail -f {log}", err=True)


def _choose_devices(grids: Sequence[ExpandedGrid], options: TrainingOptions, *, is_preview: bool) -> list[list[str]]:
    """Return the devices for each grid; a preview may run on a machine without the GPUs."""
    from labbench.runner.run_grid import choose_devices, require_gpus

    if options.address is not None and options.executor != "ray":
        raise click.UsageError("--address needs --executor ray")
    devices = [choose_devices(grid, options, is_preview=is_preview) for grid in grids]
    if options.executor == "local" and not is_preview:
        for grid in grids:
            require_gpus(grid)
    return devices
