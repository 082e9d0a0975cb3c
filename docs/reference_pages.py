"""Pages of the reference that are generated from the code, when the site is built.

    python docs/reference_pages.py reference/commands.md     # print one of them

Commands and options come from click, parameters of grid files from their declarations, and the Python API from
signatures and docstrings. What they mean in use is in the pages that are written by hand.
"""

from __future__ import annotations

import ast
import inspect
import json
import re
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields
from typing import Any

import click

import labbench
from labbench.cli import main as labbench_command
from labbench.cli.run import record
from labbench.cli.tasks import format_allowed
from labbench.grid import run_options, search
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Param
from labbench.records import Resources, Runtime, SlurmOptions, Stop

SETTINGS: dict[str, tuple[type, Mapping[str, Any]]] = {
    "stop": (Stop, run_options._STOP),
    "search": (search.Search, search._KEYS),
    "runtime": (Runtime, run_options._RUNTIME),
    "resources": (Resources, run_options._RESOURCES),
    "resources.slurm": (SlurmOptions, run_options._SLURM),
}
"""Class, and parser of each key, of the tables of a grid file."""

DERIVED_DEFAULTS = {
    ("stop", "goal"): "of `[metrics]`, else by name",
    ("search", "goal"): "of `[metrics]`, else by name",
    ("search", "metric"): "first of `[metrics]`, else of `[stop]`",
}
"""Defaults that come from other parts of a grid file, by table and key."""

CLASSES_WITH_METHODS = ("Image", "Run", "Reader")
"""Classes whose methods users call; the methods of others are internal."""


def pages() -> dict[str, str]:
    """Return the text of each generated page, by its path below docs/."""
    return {
        "reference/commands.md": commands_page(),
        "reference/parameters.md": parameters_page(),
        "reference/api.md": api_page(),
    }


def table(titles: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [titles, ("---",) * len(titles), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |\n" for line in lines)


# Commands.


def commands_page() -> str:
    """Return the page of all commands with their options."""
    parts = [
        "# All commands and options\n\nGenerated from the program; `labbench COMMAND --help` prints the same. "
        "[Command line](cli.md) explains the commands in use.\n"
    ]
    for name, command in walk("labbench", labbench_command):
        parts.append(command_section(name, command))
    parts.append(command_section("labbench run -- COMMAND", record))
    return "\n".join(parts)


def walk(name: str, command: click.Command) -> Iterator[tuple[str, click.Command]]:
    """Yield a command and the commands below it, each with its full name."""
    yield name, command
    for inner, subcommand in command.commands.items() if isinstance(command, click.Group) else ():
        yield from walk(f"{name} {inner}", subcommand)


def command_section(name: str, command: click.Command) -> str:
    """Return the section of one command: help, usage and options."""
    # with the settings of the program: click keeps the help option of the first context for all later ones
    context = click.Context(command, info_name=name, **labbench_command.context_settings)
    usage = command.get_usage(context).partition("Usage: ")[2]
    description = inspect.cleandoc((command.help or "").partition("\f")[0])
    options = [param for param in command.params if isinstance(param, click.Option)]
    rows = [(option_names(param), default_of(param, context), param.help or "") for param in options]
    section = f"## `{name}`\n\n{description}\n\n```text\n{' '.join(usage.split())}\n```\n"
    return section + ("\n" + table(("option", "default", "effect"), rows) if rows else "")


def option_names(option: click.Option) -> str:
    """Return the spellings of an option with its values: `-o`, `--output FILE`."""
    names = " ".join(f"`{name}`" for name in option.opts)
    if option.is_flag:
        return names
    if isinstance(option.type, click.Choice):
        return names + " " + ", ".join(f"`{choice}`" for choice in option.type.choices)
    return f"{names} {option.metavar or option.type.name.upper()}" + (" (repeatable)" if option.multiple else "")


def default_of(option: click.Option, context: click.Context) -> str:
    """Return the default of an option, empty if it has none."""
    default = option.get_default(context, call=False)
    plain = isinstance(default, str | int | float) and not isinstance(default, bool) and default != ""
    return f"`{default}`" if plain and not option.is_flag else ""


# Grid files.


def parameters_page() -> str:
    """Return the page of all parameters of grid files."""
    parts = [
        "# All parameters of grid files\n\nGenerated from the declarations that check a grid file. "
        "`labbench tasks NAME` prints the parameters of a task. [Grid files](grid.md) explains how to combine them.\n",
        "## The training loop\n\nParameters that every task has.\n\n" + params_table(TRAINING),
    ]
    for name, params in BUILTIN.items():
        own = {key: param for key, param in params.items() if TRAINING.get(key) != param}
        parts.append(f"## Task `{name}`\n\n" + params_table(own))
    for name, (settings, parsers) in SETTINGS.items():
        parts.append(f"## `[{name}]`\n\n" + settings_table(name, settings, parsers))
    return "\n".join(parts)


def params_table(params: Mapping[str, Param]) -> str:
    """Return the table of parameters: type, default, permitted values and help."""
    rows = [
        (f"`{key}`", param.type, code(param.default), allowed(param), param.help.replace("<", "&lt;"))
        for key, param in params.items()
    ]
    return table(("parameter", "type", "default", "permitted", "meaning"), rows)


def settings_table(name: str, settings: type, parsers: Mapping[str, Any]) -> str:
    """Return the table of the keys of one table of a grid file."""
    notes = attribute_docs(settings)
    rows = []
    for field in fields(settings):
        parser = parsers.get(field.name)
        kind = parser.type if isinstance(parser, Param) else value_kind(parser)
        default = DERIVED_DEFAULTS.get((name, field.name))
        default = default or ("required" if field.default is MISSING else code(field.default))
        rows.append((f"`{field.name}`", kind, default, allowed(parser), notes.get(field.name, "")))
    return table(("key", "type", "default", "permitted", "meaning"), rows)


def value_kind(parser: Callable[[Any], Any] | None) -> str:
    """Return the type of the values that a function parses."""
    if parser is None:
        return "table"
    return "duration" if parser is run_options.parse_duration else "see [grid files](grid.md)"


def allowed(parser: Any) -> str:
    """Return the range or the choices of a parameter."""
    return f"`{text}`" if isinstance(parser, Param) and (text := format_allowed(parser)) else ""


def code(value: Any) -> str:
    """Return a default as TOML shows it; none if there is no value."""
    if value is None:
        return "none"
    if isinstance(value, str | int | float | list | tuple):
        return f"`{json.dumps(value)}`"
    return ""


# Python.


def api_page() -> str:
    """Return the page of the public Python names with signatures and docstrings."""
    parts = [
        "# Signatures of the Python API\n\nGenerated from the signatures and docstrings. "
        "[Python API](python.md) and [tasks](tasks.md) explain them in use.\n"
    ]
    for name in labbench.__all__:
        value = getattr(labbench, name)
        if not name.startswith("__"):
            parts.append(api_section(f"labbench.{name}", value))
        if value is labbench.Run:
            with labbench.start(mode="disabled") as run:  # `log` is made for each run
                parts.append(api_section("labbench.Run.log", run.log))
    parts.append(class_section("Reader", type_of_reader()))
    return "\n".join(parts)


def type_of_reader() -> type:
    """Return the class of what `labbench.open()` returns."""
    from labbench.store.reader import Reader

    return Reader


def api_section(name: str, value: Any) -> str:
    """Return the section of a function or a class."""
    if inspect.isclass(value):
        return class_section(name, value)
    return f"## `{name}`\n\n{signature(name, value)}\n{docstring(value)}"


def class_section(name: str, value: type) -> str:
    """Return the section of a class with its public methods and attributes."""
    parts = [f"## `{name}`\n\n{signature(name, value)}\n{docstring(value)}"]
    members = inspect.getmembers(value) if value.__name__ in CLASSES_WITH_METHODS else []
    for member, attribute in members:
        if member.startswith("_") or not inspect.getdoc(attribute):
            continue
        if inspect.isfunction(attribute):
            parts.append(f"### `{name}.{member}`\n\n{signature(member, attribute)}\n{docstring(attribute)}")
        elif isinstance(attribute, property):
            parts.append(f"### `{name}.{member}`\n\n{docstring(attribute)}")
    return "\n".join(parts)


def signature(name: str, value: Any) -> str:
    """Return a code block with the signature of a function or a class."""
    try:
        text = str(inspect.signature(value))
    except ValueError:
        return ""
    text = re.sub(r"(: |-> )'([^']*)'", r"\1\2", re.sub(r"^\(self(, )?", "(", text))  # annotations are texts
    return f"```text\n{textwrap.fill(name.rpartition('.')[2] + text, 100, subsequent_indent='    ')}\n```\n"


def docstring(value: Any) -> str:
    """Return a docstring as Markdown: the sections `Args:`, `Returns:` and `Raises:` as lists."""
    lines = []
    for line in (inspect.getdoc(value) or "").splitlines():
        if re.fullmatch(r"(Args|Attributes|Returns|Raises|Yields):", line):
            lines += ["", f"**{line[:-1]}**", ""]
        elif item := re.match(r"    (\w+): ", line):
            lines.append(f"- `{item[1]}`: {line[item.end() :]}")
        else:
            lines.append(line.removeprefix("    ") if line.startswith("    ") else line)
    return escape("\n".join(lines)) + "\n"


def escape(text: str) -> str:
    """Return Markdown text in which `<` and `[` outside of code are no markup."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(part if part.startswith("`") else re.sub(r"([<\[\]])", r"\\\1", part) for part in parts)


def attribute_docs(value: type) -> dict[str, str]:
    """Return the docstrings of the fields of a class, by name."""
    body = ast.parse(textwrap.dedent(inspect.getsource(value))).body[0]
    assert isinstance(body, ast.ClassDef)
    docs = {}
    for statement, following in zip(body.body, body.body[1:], strict=False):
        if isinstance(statement, ast.AnnAssign) and isinstance(following, ast.Expr):
            assert isinstance(statement.target, ast.Name)
            assert isinstance(following.value, ast.Constant)
            docs[statement.target.id] = " ".join(str(following.value.value).split())
    return docs


if __name__ == "__main__":
    print(pages()[sys.argv[1]])
