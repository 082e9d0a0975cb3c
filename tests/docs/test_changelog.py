"""Commands, options and grid keys that the newest section of CHANGELOG.md names exist."""

from __future__ import annotations

import re
import shlex
from dataclasses import fields

import click

from helpers.doc_pages import ROOT
from labbench.cli import main
from labbench.cli.run import record
from labbench.grid.search import Search
from labbench.records import Resources, Runtime, SlurmOptions, Stop

SETTINGS = {"stop": Stop, "search": Search, "runtime": Runtime, "resources": Resources, "resources.slurm": SlurmOptions}
"""Dataclass with the keys of a table of a grid file, by the table's name."""

OF_OTHERS = {"--num-key-value-heads"}
"""Options of programs other than labbench, which the section names as examples."""


def spans() -> list[str]:
    """Return the texts in backticks of the newest section, each on one line."""
    section = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").split("\n## ")[1]
    return [re.sub(r"\s+", " ", span) for span in re.findall(r"`([^`]+)`", section)]


def options_of(command: click.Command) -> set[str]:
    """Return the options of a command and, of a group, those of its commands."""
    options = {name for param in command.params for name in (*param.opts, *param.secondary_opts)} | {"-h", "--help"}
    return options.union(*map(options_of, command.commands.values() if isinstance(command, click.Group) else ()))


def unknown_words(words: list[str]) -> list[str]:
    """Return the command and the options of a command line, without its program, that do not exist."""
    if words[:2] == ["run", "--"]:
        return []  # the rest is the user's command
    command: click.Command = main
    for word in words:
        if not (isinstance(command, click.Group) and word in command.commands):
            break
        command = command.commands[word]
    if command is main and words and re.fullmatch("[a-z]+", words[0]):
        return [words[0]]
    known = options_of(command) | (options_of(record) if words[0] == "run" else set())
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    return [option for option in options if option not in known]


def test_every_command_and_option_exists() -> None:
    lines = [shlex.split(re.sub(r"[\[\]]", " ", span))[1:] for span in spans() if span.startswith("labbench ")]
    alone = [span.split()[0].partition("=")[0] for span in spans() if span.startswith("--")]
    assert (len(lines) > 80, len(alone) > 20) == (True, True)
    assert [unknown for words in lines for unknown in unknown_words(words)] == []
    assert {*alone} - options_of(main) - options_of(record) == OF_OTHERS


def test_every_key_of_a_table_exists() -> None:
    named = [match for span in spans() if (match := re.match(r"\[([a-z.]+)\] (\w+)", span)) and match[1] in SETTINGS]
    assert len(named) > 5
    for match in named:
        assert match[2] in {field.name for field in fields(SETTINGS[match[1]])}, match[0]
