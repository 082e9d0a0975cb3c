"""`labbench tasks`: built-in tasks, and the parameters of one task."""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from labbench.cli.help import examples
from labbench.cli.options import as_json, plain
from labbench.cli.output import echo, is_plain
from labbench.cli.setup.completion import complete_tasks
from labbench.files import expand_home
from labbench.spelling import spell_number
from labbench.text import cell_width, clean

if TYPE_CHECKING:
    from labbench.params.param import Param, Params


DESCRIPTIONS = {
    "digits": "1,797 handwritten digits of 8x8 pixels, included",
    "mnist": "70,000 handwritten digits of 28x28 pixels, downloaded (12 MB)",
    "fashion_mnist": "70,000 images of clothes of 28x28 pixels, downloaded (31 MB)",
    "cifar10": "60,000 colour photographs of 32x32 pixels, downloaded (170 MB)",
    "transfer": "the digits 5 to 9, for a network pre-trained on 0 to 4",
    "probe": "linear classifiers on the layers of such a network",
    "own": "your table (CSV), arrays (npz) or folders of images",
    "toy": "points in the plane, eleven bits, or synthetic flowers",
    "texts": "texts of 20 synthetic words on four topics",
}
"""Data of each built-in task."""


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
        print_tasks()
        echo("parameters: labbench tasks NAME; of your own task: labbench tasks FILE.py:CLASS", err=True)
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


def print_tasks() -> None:
    """Print the built-in tasks: with a description on a terminal, else the names alone."""
    width = max(map(len, DESCRIPTIONS))
    for name, description in DESCRIPTIONS.items():
        echo(f"{name:{width}}   {description}" if sys.stdout.isatty() else name)


def print_params(params: Params) -> None:
    """Print a table of parameters: name, type, default, permitted values and help.

    On a terminal that is too narrow, the help of each parameter has a line of its own.
    """
    from labbench.cli.text_tables import TextColumn, print_table, table_lines

    values = params.values()
    columns = [
        TextColumn("parameter", list(params)),
        TextColumn("type", [param.type for param in values]),
        TextColumn("default", ["none" if param.default is None else json.dumps(param.default) for param in values]),
        TextColumn("allowed", [format_allowed(param) for param in values]),
    ]
    helps = TextColumn("", [param.help for param in values])
    cells = shutil.get_terminal_size().columns
    if is_plain() or not sys.stdout.isatty() or max(map(cell_width, table_lines([*columns, helps]))) <= cells:
        print_table([*columns, helps])
        return
    heading, rule, *rows = table_lines(columns)
    echo(f"{heading}\n{rule}")
    for row, text in zip(rows, helps.cells, strict=True):
        echo(f"{row}\n    {text}")


def format_allowed(param: Param) -> str:
    """Return the range or the choices of a parameter: `0 <= x < 1`."""
    if param.choices:
        return ", ".join(str(choice) for choice in param.choices)
    lower = _first_bound((param.low, "{} <= "), (param.above, "{} < "))
    upper = _first_bound((param.high, " <= {}"), (param.below, " < {}"))
    return f"{lower}x{upper}" if lower or upper else ""


def _first_bound(*bounds: tuple[float | None, str]) -> str:
    """Return the first bound that is set, as its pattern writes it; "" if there is none."""
    return next((pattern.format(spell_number(bound)) for bound, pattern in bounds if bound is not None), "")
