"""`labbench new`: write a first grid, for a task or from the options of a script."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import click

from labbench.cli.help import examples
from labbench.cli.options import FILE_PATH, database
from labbench.cli.output import echo
from labbench.cli.setup.completion import complete_tasks
from labbench.errors import InputError
from labbench.files import database_command, write_atomically

DEFAULT_GRID = Path("grid.toml")


@click.command(
    epilog=examples(
        "labbench new --task digits", "labbench new --task my_task.py:Task", "labbench new --from train.py sweep.toml"
    )
)
@click.argument("grid", type=FILE_PATH, default=DEFAULT_GRID, metavar="[GRID]")
@click.option(
    "--from", "script", type=FILE_PATH, metavar="SCRIPT", help="Start this script; read its argparse options."
)
@click.option(
    "--task",
    metavar="TASK",
    shell_complete=complete_tasks,
    help="Train a built-in task, or FILE.py:CLASS, which is written if missing.",
)
@click.option("--script", "new_script", type=FILE_PATH, metavar="FILE", help="Write a script to begin with.")
@database
def new(db: Path, grid: Path, script: Path | None, task: str | None, new_script: Path | None) -> None:
    """Write a first grid file with comments.

    Asks two questions in a terminal unless an option answers them. The options of a script are read from its code,
    which is not run. No file is overwritten.
    \f
    Raises:
        InputError: A file exists already, the script has no options of argparse, or no terminal can be asked.
        UsageError: Several of the options.
    """
    if sum(answer is not None for answer in (script, task, new_script)) > 1:
        raise click.UsageError("--from, --task and --script exclude each other")
    if grid.exists():
        raise InputError(f"{grid}: exists already; name another file: {database_command(db)} new OTHER.toml")
    if script is None and task is None and new_script is None:
        script, task, new_script = _ask(db)
    if task is not None:
        notes = _write_task_grid(grid, task)
    else:
        if new_script is not None:
            _write_script(new_script)
        path = script or new_script
        assert path is not None, "one of the three answers is given"
        notes = _write_command_grid(grid, path)
    for note in notes:
        echo(f"note: {note}", err=True)
    command = f"{database_command(db)} run {shlex.quote(str(grid))}"
    echo(f"to see the runs: {command} --dry-run", err=True)
    echo(f"to train them: {command}", err=True)


def _ask(db: Path) -> tuple[Path | None, str | None, Path | None]:
    """Ask in the terminal what to train; return the answers of `--from`, `--task` and `--script`.

    Raises:
        InputError: There is no terminal.
    """
    if not is_terminal():
        command = f"{database_command(db)} new"
        raise InputError(
            f"no terminal to ask what to train: {command} --task digits, {command} --task my_task.py:Task, "
            f"{command} --from train.py or {command} --script train.py"
        )
    from labbench.params.builtin import BUILTIN

    kind = choose(
        "What do you want to train?",
        (
            "a built-in task, to try labbench",
            "my own model and data, in a task (with stacked training)",
            "a script that I have, with argparse options",
            "a new script",
        ),
    )
    if kind == 0:
        return None, click.prompt("Task", default="digits", type=click.Choice(list(BUILTIN)), err=True), None
    if kind == 1:
        return None, click.prompt("File and class of the task", default="my_task.py:Task", err=True), None
    if kind == 2:
        return Path(click.prompt("Script", default=_guess_script(), err=True)), None, None
    return None, None, Path(click.prompt("File of the script", default="train.py", err=True))


def is_terminal() -> bool:
    """Return True if questions can be asked and their answers read."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def choose(question: str, answers: Sequence[str]) -> int:
    """Ask a question in the terminal; return the index of the chosen answer."""
    echo(question, err=True)
    for number, answer in enumerate(answers, start=1):
        echo(f"  {number}  {answer}", err=True)
    number = click.prompt("Choose", default=1, type=click.IntRange(1, len(answers)), err=True)
    return int(number) - 1


def _guess_script() -> str | None:
    """Return a Python file of the current folder that uses argparse, `train.py` or `main.py` first."""
    files = sorted(Path().glob("*.py"), key=lambda path: (path.stem not in ("train", "main"), path.name))
    return next((str(path) for path in files if b"add_argument" in path.read_bytes()), None)


def _write_task_grid(grid: Path, task: str) -> list[str]:
    """Write the grid of a task, and the task if its file is missing; return notes. Raises InputError for no task."""
    from labbench.errors import did_you_mean
    from labbench.params.builtin import BUILTIN
    from labbench.scaffolding.skeletons import task_skeleton
    from labbench.scaffolding.task_grid import task_grid

    if task.endswith(".py"):
        task += ":Task"
    file, _, class_name = task.rpartition(":")
    if task not in BUILTIN and not (file.endswith(".py") and class_name.isidentifier()):
        hint = did_you_mean(task, BUILTIN) or f"; built-in tasks: {', '.join(BUILTIN)}; your own task: FILE.py:CLASS"
        raise InputError(f"no task {task}{hint}")
    path = grid.parent / file
    if file and not path.exists():
        _write(path, task_skeleton(path.name, class_name))
    _write(grid, task_grid(task))
    return ["set path to your data before training"] if task == "own" else []


def _write_script(path: Path) -> None:
    """Write a script to begin with. Raises InputError if the file exists."""
    from labbench.scaffolding.skeletons import script_skeleton

    if path.exists():
        raise InputError(f"{path}: exists already; --from {path} reads its options")
    _write(path, script_skeleton(path.name))


def _write_command_grid(grid: Path, path: Path) -> list[str]:
    """Write the grid of a script; return notes. Raises InputError if no options can be read from it."""
    from labbench.grid.source import YAML_ANSWER
    from labbench.scaffolding.command_grid import command_grid
    from labbench.scaffolding.script_files import read_script

    if path.suffix == ".toml":
        raise InputError(f"{path}: a grid file, not a Python script")
    if path.suffix in (".yaml", ".yml"):
        raise InputError(f"{path}: not a Python script, but {YAML_ANSWER}")
    made = command_grid(read_script(path), grid.absolute().parent)
    _write(grid, made.text)
    required = [
        f"{key} is required and has no default: set it in {grid}, or with --set {key}=..." for key in made.required
    ]
    return [*required, *made.notes]


def _write(path: Path, text: str) -> None:
    with write_atomically(path) as file:
        file.write(text.encode())
    echo(f"written: {path}")
