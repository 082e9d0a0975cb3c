"""`--help` and `labbench help`: first sentences, examples, and the filter language."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from helpers.store_samples import points, start
from labbench.cli import main
from labbench.cli.help import FILTERS
from labbench.filters.lexer import OPERATORS
from labbench.filters.parser import FUNCTIONS, RESERVED, parse
from labbench.records import STATUSES
from labbench.store.writer import Writer

Labbench = Callable[..., Result]
Command = tuple[tuple[str, ...], click.Command]


def every_command(group: click.Group, parents: tuple[str, ...] = ()) -> Iterator[Command]:
    """Yield the words and the command of each command of a group, also within its groups."""
    for name, command in group.commands.items():
        yield (*parents, name), command
        if isinstance(command, click.Group):
            yield from every_command(command, (*parents, name))


COMMANDS = list(every_command(main))
WORDS = [words for words, _ in COMMANDS]


def first_sentence(command: click.Command) -> str:
    assert command.help is not None
    return command.help.partition("\f")[0].partition("\n\n")[0].strip()


def examples_of(command: click.Command) -> list[str]:
    return re.findall(r"^  (labbench .+)$", command.epilog or "", re.MULTILINE)


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=map(" ".join, WORDS))
def test_the_first_sentence_fits_in_60_characters(words: tuple[str, ...], command: click.Command) -> None:
    sentence = first_sentence(command)
    assert len(sentence) <= 60
    assert re.fullmatch(r"[A-Z][a-z]+ .+\.", sentence)


def test_the_list_of_commands_shows_each_first_sentence_whole_at_80_columns(labbench: Labbench) -> None:
    listed = labbench("--help", env={"COLUMNS": "80"}).stdout
    for name, command in main.commands.items():
        assert re.search(rf"^  {name} +{re.escape(first_sentence(command))}$", listed, re.MULTILINE), name
    assert max(map(len, listed.splitlines())) <= 80


@pytest.mark.parametrize(("words", "command"), COMMANDS, ids=map(" ".join, WORDS))
def test_the_help_of_every_command_shows_its_text_and_an_example(
    words: tuple[str, ...], command: click.Command, labbench: Labbench
) -> None:
    result = labbench(*words, "-h")
    assert result.exit_code == 0
    assert command.help is not None
    assert "Raises:" not in result.stdout
    assert " ".join(command.help.partition("\f")[0].split()) in " ".join(result.stdout.split())
    examples = examples_of(command)
    assert examples
    for example in examples:
        assert example in result.stdout, "an example is printed on one line"
        assert shlex.split(example)[1 : 1 + len(words)] == list(words)


def test_every_example_parses(monkeypatch: pytest.MonkeyPatch) -> None:
    for _, command in COMMANDS:
        monkeypatch.setattr(command, "callback", lambda **_: None)
    monkeypatch.setattr(main, "callback", lambda **_: None)
    for command in (main, *(command for _, command in COMMANDS)):
        for example in examples_of(command):
            result = CliRunner().invoke(main, shlex.split(example)[1:], prog_name="labbench")
            assert result.exit_code == 0, f"{example}: {result.output}"


def test_every_command_that_takes_a_filter_explains_it(labbench: Labbench) -> None:
    for words, command in COMMANDS:
        takes_filter = any("FILTER" in (param.metavar or "") for param in command.params)
        assert ("labbench help filters" in " ".join((command.epilog or "").split())) >= takes_filter, words


def test_help_filters_describes_the_whole_language(labbench: Labbench) -> None:
    text = labbench("help", "filters").stdout
    assert text == FILTERS + "\n"
    assert max(map(len, text.splitlines())) <= 80
    words = set(re.findall(r"[\w/]+", text))
    assert set(RESERVED) | set(STATUSES) | {"and", "or", "not", "nan", "inf", "true", "false", "none"} <= words
    assert set(re.findall(r"(\w+)\(M\)", text)) == set(FUNCTIONS)
    operators = re.search(r"Operators\n(.+)", text)
    assert operators is not None
    assert operators[1].partition("(")[0].split() == list(OPERATORS)


def test_every_filter_in_help_filters_parses() -> None:
    terms = FILTERS.partition("false.\n\n")[2].partition("\n\n")[0]
    filters = [re.split(r"  +", line.strip())[0] for line in terms.splitlines()]
    assert len(filters) > 12
    assert all(parse(text) for text in filters)


def test_help_shows_the_help_of_a_command_or_of_labbench(labbench: Labbench) -> None:
    assert labbench("help").stdout == labbench("--help").stdout
    assert labbench("help", "run").stdout == labbench("run", "--help").stdout
    assert labbench("help", "import").stdout == labbench("import", "--help").stdout
    assert labbench("help", "import", "csv").stdout == labbench("import", "csv", "--help").stdout


def test_help_on_an_unknown_topic_names_the_closest_one(labbench: Labbench) -> None:
    result = labbench("help", "filter")
    assert result.exit_code == 2
    assert "did you mean `filters`?" in result.stderr
    assert "no help on `import cvs`; did you mean `csv`?" in labbench("help", "import", "cvs").stderr
    assert "no help on `run grid`; `run` has no subcommands" in labbench("help", "run", "grid").stderr


def test_a_missing_run_or_metric_is_answered_with_what_there_is(labbench: Labbench, tmp_path: Path) -> None:
    assert labbench("why").stderr.endswith("Missing argument 'METRIC'.\n")
    with Writer(tmp_path / "runs.db") as writer:
        [run] = start(writer)
        writer.write([points(run, name, [0.5]) for name in ("val/loss", "epoch", "val/accuracy")])
    for command in ("why", "plot", "define"):
        result = labbench(command)
        assert result.exit_code == 2
        assert result.stderr.endswith("Missing argument 'METRIC'. Recorded are: val/loss, val/accuracy\n")
    assert labbench("--db", "a.db", "show").stderr.endswith("`labbench --db a.db ls` lists the runs\n")
    assert labbench("run").stderr.endswith("Missing argument 'GRID...'. A first one is written by labbench new\n")
    (tmp_path / "first.toml").write_text('task = "digits"')
    assert labbench("run").stderr.endswith("Missing argument 'GRID...'. Grid files here: first.toml\n")
