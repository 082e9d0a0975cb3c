"""`labbench tasks`: the parameters of a task."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.options import as_json
from labbench.text import clean

if TYPE_CHECKING:
    from labbench.params.param import Param, Params


@click.command()
@click.argument("name", required=False)
@as_json
def tasks(name: str | None, as_json: bool) -> None:
    """What can be trained, and the parameters of the task NAME (built in, or FILE.py:CLASS)."""
    from labbench.params.builtin import BUILTIN
    from labbench.params.param import all_params, own_key_notes

    if name is None:
        if as_json:
            click.echo(json.dumps(list(BUILTIN)))
            return
        for task in BUILTIN:
            click.echo(task)
        click.echo("parameters: labbench tasks NAME; a task of your own: labbench tasks my_task.py:Task", err=True)
        return
    own = load_task_params(name)
    merged = all_params(own)
    params = {key: merged[key] for key in (*own, *merged)}  # the task's first
    for note in own_key_notes(merged):
        click.echo(f"note: {clean(note)}", err=True)
    if as_json:
        click.echo(json.dumps({key: param_document(param) for key, param in params.items()}))
    else:
        print_params(params)


def param_document(param: Param) -> dict[str, Any]:
    """A parameter as JSON has it; how a list is checked further is code."""
    return {key: value for key, value in asdict(param).items() if key != "check"}


def load_task_params(name: str) -> Params:
    """The parameters of a task beside those of the training loop."""
    from labbench.errors import InputError
    from labbench.params.builtin import BUILTIN

    if name in BUILTIN:
        return BUILTIN[name]
    if ":" not in name:
        raise InputError(f"no task {name}; built in: {', '.join(BUILTIN)}; of your own: FILE.py:CLASS")
    from labbench.train.tasks.task import load_task  # a file of the user's own, which imports torch

    file, _, part = name.rpartition(":")
    return load_task(f"{Path(file).resolve()}:{part}").params


def print_params(params: Params) -> None:
    """A table of parameters: name, type, default, what is allowed, what it does."""
    from labbench.cli.tables import TextColumn, print_table

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
    """The range or the choices of a parameter, as a person writes them: `0 <= x < 1`, `sgd, adam`."""
    if param.choices:
        return ", ".join(str(choice) for choice in param.choices)
    below = f"{param.low:g} <= " if param.low is not None else f"{param.above:g} < " if param.above is not None else ""
    over = f" <= {param.high:g}" if param.high is not None else f" < {param.below:g}" if param.below is not None else ""
    return f"{below}x{over}" if below or over else ""
