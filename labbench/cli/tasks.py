"""`labbench tasks`: built-in tasks, and the parameters of one task."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.options import as_json, plain
from labbench.cli.output import echo
from labbench.cli.setup.completion import complete_tasks
from labbench.files import expand_home
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.params.param import Param, Params


@click.command(epilog=examples("labbench tasks", "labbench tasks digits"))
@click.argument("name", required=False, shell_complete=complete_tasks)
@plain
@as_json
def tasks(name: str | None, as_json: bool) -> None:
    """List the built-in tasks, or the parameters of task NAME.

    NAME is a built-in task or FILE.py:CLASS.
    """
    from labbench.params.builtin import BUILTIN
    from labbench.params.param import all_params, own_key_notes

    if name is None:
        if as_json:
            echo(json.dumps(list(BUILTIN)))
            return
        for task in BUILTIN:
            echo(task)
        echo("parameters: labbench tasks NAME; of your own task: labbench tasks my_task.py:Task", err=True)
        return
    declared = load_task_params(name)
    merged = all_params(declared)
    params = {key: merged[key] for key in (*declared, *merged)}  # the task's parameters first
    for note in own_key_notes(merged):
        echo(f"note: {clean(note)}", err=True)
    if as_json:
        echo(json.dumps({key: param_document(param) for key, param in params.items()}))
    else:
        print_params(params)


def param_document(param: Param) -> dict[str, Any]:
    """Return a parameter as a JSON object, without its `check`, which is code."""
    return {key: value for key, value in asdict(param).items() if key != "check"}


def load_task_params(name: str) -> Params:
    """Return the parameters that a task declares, without the training loop's.

    Raises:
        InputError: There is no such task, or its file cannot be loaded.
    """
    from labbench.errors import InputError
    from labbench.params.builtin import BUILTIN

    if name in BUILTIN:
        return BUILTIN[name]
    if ":" not in name:
        raise InputError(f"no task {name}; built-in tasks: {', '.join(BUILTIN)}; your own task: FILE.py:CLASS")
    from labbench.train.tasks.task import load_task  # runs the user's file, and loads torch

    file, _, class_name = name.rpartition(":")
    return load_task(f"{expand_home(file).resolve()}:{class_name}").params


def print_params(params: Params) -> None:
    """Print a table of parameters: name, type, default, permitted values and help."""
    from labbench.cli.text_tables import TextColumn, print_table

    print_table(
        [
            TextColumn("parameter", list(params)),
            TextColumn("type", [param.type for param in params.values()]),
            TextColumn("default", [json.dumps(param.default) for param in params.values()]),
            TextColumn("allowed", [format_allowed(param) for param in params.values()]),
            TextColumn("", [param.help for param in params.values()]),
        ]
    )


def format_allowed(param: Param) -> str:
    """Return the range or the choices of a parameter: `0 <= x < 1`."""
    if param.choices:
        return ", ".join(str(choice) for choice in param.choices)
    lower = f"{param.low:g} <= " if param.low is not None else f"{param.above:g} < " if param.above is not None else ""
    upper = (
        f" <= {param.high:g}" if param.high is not None else f" < {param.below:g}" if param.below is not None else ""
    )
    return f"{lower}x{upper}" if lower or upper else ""
