"""The command `import`: runs of other databases and other programs."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.importing.sources import SourceOptions, import_sources, source_options
from labbench.cli.options import FILE_PATH, Command, database
from labbench.cli.output import echo
from labbench.errors import InputError, StoreError, did_you_mean
from labbench.files import database_command, expand_home
from labbench.text import clean, format_count

if TYPE_CHECKING:
    from labbench.store.maintenance.merge import MergeResult

MAX_PACK_GB = 10.0
"""Default limit on the size of the unpacked files."""


class ImportGroup(click.Group):
    """Group of the formats, in which a path stands for the command of its format."""

    def resolve_command(
        self, context: click.Context, words: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command of the first word, or of the format of the path that it is, and the words after it.

        `wandb` alone is also the folder, which W&B calls so.

        Raises:
            InputError: Nothing is at the path, and a format has a similar name.
        """
        is_alone = all(word.startswith("-") for word in words[1:])
        if words[0] not in self.commands:
            words = [self._format_of(words[0]), *words]
        elif words[0] == "wandb" and is_alone and not {"-h", "--help"} & {*words}:
            words = ["wandb", *words]
        return super().resolve_command(context, words)

    def _format_of(self, word: str) -> str:
        from labbench.importing.formats import format_of

        source = format_of(expand_home(word))
        if source is None and word.isalpha() and (hint := did_you_mean(word, self.commands)):
            raise InputError(f"`{word}` is neither a format nor a file or folder{hint}")
        return source or "auto"


@click.group(
    "import",
    cls=ImportGroup,
    epilog=examples(
        "labbench import lightning_logs/", "labbench import /mnt/other/runs.db", "labbench import tensorboard runs/"
    ),
)
@database
def import_(db: Path) -> None:
    """Import runs of other programs, or from another database.

    A path without a format is imported by the format of its files. Importing the same source again adds only what is
    new.
    """


@import_.command("labbench", epilog=examples("labbench import labbench /mnt/other/runs.db"))
@click.argument("path", type=FILE_PATH)
@database
def import_labbench(db: Path, path: Path) -> None:
    """Import the runs of another labbench database.

    The files of the runs are copied too. Runs that are already present are left unchanged, or updated if they have
    progressed in the other database. A run that continued in both is kept twice, the other one as `NAME (2)`.
    """
    from labbench.importing.labbench_db import import_labbench

    _print_merge(import_labbench(db, path))


@import_.command("pack", epilog=examples("labbench import pack results.labbench"))
@click.argument("paths", type=FILE_PATH, nargs=-1, required=True, metavar="FILE...")
@click.option(
    "--max-size", type=float, default=MAX_PACK_GB, show_default=True, metavar="GB", help="Limit when unpacked."
)
@database
def import_pack(db: Path, paths: tuple[Path, ...], max_size: float) -> None:
    """Import files that `labbench pack` wrote.

    The word pack may be left out. Runs that are already present are treated as by `labbench import labbench`.
    """
    _import_packs(db, paths, max_size)


def _import_packs(db: Path, packs: Sequence[Path], max_size: float) -> None:
    from labbench.sharing.unpack import import_pack

    for path in packs:
        _print_merge(import_pack(db, path, max_bytes=round(max_size * 1e9)))


def _print_merge(merged: MergeResult) -> None:
    """Print the number of runs of each kind, and the files that were not copied."""
    echo(
        f"imported {format_count(len(merged.new), 'new run')}, updated {len(merged.newer)}, "
        f"{merged.n_same} already present"
    )
    if merged.skipped:
        names = ", ".join(clean(str(file)) for file in merged.skipped[:5]) + (
            ", ..." if len(merged.skipped) > 5 else ""
        )
        echo(f"not copied, because only regular files are (no links): {names}", err=True)


@import_.command(
    "tensorboard", epilog=examples("labbench import tensorboard runs/", "labbench import tensorboard runs/ --follow")
)
@source_options
@click.option("--follow", is_flag=True, help="Keep importing what is written, until Ctrl+C.")
def import_tensorboard(db: Path, paths: tuple[Path, ...], follow: bool, **options: Any) -> None:
    """Import TensorBoard event files, or folders with them.

    Takes scalars and the hyperparameters of the HParams plugin. Each folder with event files is a run; the folders that
    torch's add_hparams and add_scalars create beneath a run belong to it. If points have the same step, the last one
    counts.
    """
    from labbench.importing import tensorboard

    import_sources(db, "tensorboard", tensorboard.find_runs, paths, SourceOptions(**options), follow=follow)


@import_.command("huggingface", epilog=examples("labbench import huggingface output/"))
@source_options
def import_huggingface(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import output folders of Hugging Face's Trainer.

    Reads the logs in trainer_state.json and merges the checkpoints of a run. The configuration is read from
    training_args.bin without executing its code. Metrics are named as the Trainer names them for TensorBoard:
    train/loss, eval/loss.
    """
    from labbench.importing import huggingface

    import_sources(db, "huggingface", huggingface.find_runs, paths, SourceOptions(**options))


@import_.command("lightning", epilog=examples("labbench import lightning lightning_logs/"))
@source_options
def import_lightning(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import folders of Lightning's CSVLogger.

    Takes metrics.csv, and hparams.yaml as the configuration."""
    from labbench.importing import lightning

    import_sources(db, "lightning", lightning.find_runs, paths, SourceOptions(**options))


@import_.command("wandb", epilog=examples("labbench import wandb wandb/"))
@source_options
def import_wandb(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import folders that W&B wrote, offline or not.

    Takes history, configuration, summary, system metrics, output, tags and notes from the .wandb files.
    """
    from labbench.importing import wandb

    _require_default_folder(paths)
    import_sources(db, "wandb", wandb.find_runs, paths, SourceOptions(**options))


def _require_default_folder(paths: Sequence[Path]) -> None:
    """Raise InputError if the paths are the folder that W&B writes by default, and it does not exist."""
    if paths == (Path("wandb"),) and not paths[0].exists():
        raise InputError(
            "there is no folder wandb here, where W&B writes its runs: name the folder or a .wandb file, as in "
            "`wandb ~/project/wandb`"
        )


@import_.command("mlflow", epilog=examples("labbench import mlflow mlflow.db", "labbench import mlflow mlruns/"))
@source_options
def import_mlflow(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import MLflow's database or its folder mlruns.

    Parameters, which MLflow stores as text, become numbers where possible. A nested run gets the tag parent=ID.
    """
    from labbench.importing import mlflow

    import_sources(db, "mlflow", mlflow.find_runs, paths, SourceOptions(**options))


@import_.command("trackio", epilog=examples("labbench import trackio ~/.cache/huggingface/trackio"))
@source_options
def import_trackio(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import Trackio's databases, one experiment for each project."""
    from labbench.importing import trackio

    import_sources(db, "trackio", trackio.find_runs, paths, SourceOptions(**options))


def table_options(command: Command) -> Command:
    """Add the options of a command that imports tables."""
    config = click.option(
        "--config", multiple=True, metavar="COLUMN", help="Column of the configuration; repeatable.  [those with texts]"
    )
    step = click.option("--step", metavar="COLUMN", help="Column of the step.  [step, epoch or the row's number]")
    run = click.option("--run", metavar="COLUMN", help="Column that names the run.  [run, else the file is one run]")
    return run(step(config(command)))


@import_.command("keras", epilog=examples("labbench import keras training.log"))
@source_options
def import_keras(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import files of the CSVLogger of Keras, one run each."""
    from labbench.importing.table_file import TableOptions, find_runs_in_csv

    import_sources(
        db,
        "keras",
        lambda path: find_runs_in_csv(path, TableOptions(step="epoch", is_live=True)),
        paths,
        SourceOptions(**options),
    )


@import_.command("auto", epilog=examples("labbench import auto .", "labbench import auto lightning_logs/ --dry-run"))
@source_options
def import_auto(db: Path, paths: tuple[Path, ...], **options: Any) -> None:
    """Import every known format that a folder holds.

    The formats are recognised by the names of their files.
    \f
    Raises:
        InputError: No path holds files of a known format.
        StoreError: Runs were not imported; the reasons are printed.
    """
    from labbench.importing.formats import NAMES, reader_of, recognise
    from labbench.importing.source_run import no_runs_error

    if missing := [path for path in paths if not path.exists()]:
        raise InputError(f"{missing[0]}: no such file or folder")
    sources = [(source, path) for path in paths for source in recognise(path)]
    if not sources and paths[0].is_file():
        command = f"{database_command(db)} import csv {shlex.quote(str(paths[0]))}"
        raise InputError(f"{paths[0]}: the name does not tell the format; name it: `{command}`, or keras, or jsonl")
    if not sources:
        raise no_runs_error(paths[0], NAMES)
    problems = []
    for source, path in sources:
        echo(f"{path}: {source}")
        try:
            if source == "pack":
                _import_found_packs(db, path, SourceOptions(**options))
            else:
                import_sources(db, source, reader_of(source), [path], SourceOptions(**options))
        except (InputError, StoreError) as error:  # the other formats are imported
            if len(sources) == 1:
                raise
            problems.append(source)
            echo(str(error), err=True)
    if problems:
        raise StoreError(f"{', '.join(problems)}: not everything was imported, for the reasons above")


def _import_found_packs(db: Path, path: Path, options: SourceOptions) -> None:
    """Import the packs at or beneath a path."""
    from labbench.importing.formats import format_of_name

    files = [path] if path.is_file() else sorted(path.rglob("*"))
    packs = [file for file in files if format_of_name(file.name) == "pack"]
    if options.dry_run:
        echo(f"would import {', '.join(map(str, packs))}")
    else:
        _import_packs(db, packs, MAX_PACK_GB)


@import_.command("csv", epilog=examples("labbench import csv points.csv", "labbench import csv log.csv --step batch"))
@source_options
@table_options
def import_csv(
    db: Path,
    *,
    paths: tuple[Path, ...],
    step: str | None,
    run: str | None,
    config: tuple[str, ...],
    **options: Any,
) -> None:
    """Import CSV files, exported by labbench or of any origin.

    A table with the columns run, metric, step and value has a row for each point. Charts and the table of runs that
    W&B's web page exports, and tables of `labbench export --summary`, are known by their headings. Any other table has
    a row for each step; columns of text become the configuration. Columns are separated by commas, semicolons or tabs.
    """
    from labbench.importing.formats import find_runs_in_csv
    from labbench.importing.table_file import TableOptions

    columns = TableOptions(step, run, config)
    import_sources(db, "csv", lambda path: find_runs_in_csv(path, columns), paths, SourceOptions(**options))


@import_.command("jsonl", epilog=examples("labbench import jsonl log.jsonl"))
@source_options
@table_options
def import_jsonl(
    db: Path,
    *,
    paths: tuple[Path, ...],
    step: str | None,
    run: str | None,
    config: tuple[str, ...],
    **options: Any,
) -> None:
    """Import files with one JSON object per line and step.

    Numbers are metrics, {"step": 1, "train": {"loss": 0.5}} is a point of train/loss."""
    from labbench.importing.table_file import TableOptions, find_runs_in_jsonl

    columns = TableOptions(step, run, config)
    import_sources(db, "jsonl", lambda path: find_runs_in_jsonl(path, columns), paths, SourceOptions(**options))
