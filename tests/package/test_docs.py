"""README and docs/ against the code: commands in sentences parse, tables are complete, links have targets."""

from __future__ import annotations

import inspect
import json
import re
import shlex
import shutil
import sqlite3
import tomllib
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import fields
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("torch")

import labbench as api
from helpers.doc_pages import PAGES, REFERENCE, ROOT, blocks
from labbench.cli import main
from labbench.cli.run import record
from labbench.filters.parser import FUNCTIONS, RESERVED, parse
from labbench.grid.search import Search
from labbench.records import STATUSES, Resources, RunRecord, Runtime, SlurmOptions, Stop
from labbench.store.reader import Reader
from labbench.store.writer import Writer

OTHERS = ["experiments/README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"]
LINKED = [*PAGES, *(ROOT / page for page in OTHERS)]
EXAMPLE = ROOT / "runs.db.example"


def commands(page: Path) -> Iterator[list[str]]:
    """Yield the arguments of every `labbench` command in sentences, and in blocks that tests/docs does not run."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    inline = re.findall(r"`((?:\.venv/bin/)?labbench(?: [^`\n]+)?)`", text)
    not_run = [line for block in blocks("bash", pages=[page]) if block.not_run for line in block.text.splitlines()]
    for command in [*inline, *not_run]:
        program, *words = shlex.split(
            re.sub(r" \[.+?\](\.\.\.)?", "", command), comments=True
        )  # without optional arguments
        if program.removeprefix(".venv/bin/") == "labbench" and "..." not in words:
            yield words


def rows(page: str, heading: str) -> dict[str, str]:
    """Return the rows of the first table below a heading: the rest of the line by first cell."""
    text = (ROOT / "docs" / "reference" / page).read_text(encoding="utf-8")
    section = re.split(rf"^#+ {re.escape(heading)}$", text, flags=re.MULTILINE)[1]
    table = re.search(r"(?:^\|.*\n)+", re.split(r"^#+ ", section, flags=re.MULTILINE)[0], flags=re.MULTILINE)
    lines = table[0].splitlines()[2:] if table else []
    return {first.strip(): rest for first, _, rest in (line.strip("| ").partition(" | ") for line in lines)}


def names_in(cell: str) -> list[str]:
    """Return the words of a cell in backticks."""
    return re.findall(r"`([^`]+)`", cell)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, with the example database and the Python files that the pages show."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABBENCH_DB", raising=False)
    shutil.copy(EXAMPLE, tmp_path / "runs.db")
    for block in blocks("python", pages=REFERENCE):
        if named := re.match(r"# (\w+\.py)\n", block.text):
            (tmp_path / named[1]).write_text(block.text, encoding="utf-8")
    return tmp_path


# Commands.


@pytest.fixture
def parse_only(monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], Result]:
    """Return a function that parses a command line without running its command."""

    def disarm(command: click.Command) -> None:
        monkeypatch.setattr(command, "callback", lambda **_: None)
        for inner in command.commands.values() if isinstance(command, click.Group) else ():
            disarm(inner)

    disarm(main)
    disarm(record)
    return lambda words: CliRunner().invoke(main, words, prog_name="labbench")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_command_in_the_docs_parses(page: Path, parse_only: Callable[[list[str]], Result]) -> None:
    for words in commands(page):
        result = parse_only(words)
        # `labbench run` in a sentence is no whole command
        is_mention = re.search("Missing argument|requires an argument|^Commands:", result.output, re.MULTILINE)
        assert result.exit_code == 0 or is_mention, f"labbench {shlex.join(words)}: {result.output}"


def test_the_docs_show_commands() -> None:
    assert sum(1 for page in PAGES for _ in commands(page)) > 40


def options_of(command: click.Command) -> set[str]:
    options = {name for param in command.params if isinstance(param, click.Option) for name in param.opts}
    return options - {"--db"}


def documented_commands() -> dict[str, str]:
    """Return the heading or table cell of each command in cli.md, by the command's name."""
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    headings = re.findall(r"^### (`labbench .+`)$", text, re.MULTILINE)
    table = re.findall(r"^\| (`labbench \w+ [^`]+`) \|", text, re.MULTILINE)
    return {heading.strip("`").split()[1]: heading for heading in [*table, *headings]}


def test_every_command_is_in_the_reference() -> None:
    assert documented_commands().keys() == main.commands.keys()


@pytest.mark.parametrize("name", list(main.commands))
def test_the_reference_lists_exactly_the_options_of_each_command(name: str) -> None:
    heading = documented_commands()[name]
    text = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    table = rows("cli.md", heading) if f"### {heading}" in text else {}
    listed = {word.split()[0] for cell in table for word in names_in(cell) if word.startswith("-")}
    assert listed == options_of(main.commands[name])


def test_the_reference_lists_exactly_the_options_of_a_recorded_command() -> None:
    listed = {word.split()[0] for cell in rows("cli.md", "Record a run of any command") for word in names_in(cell)}
    assert listed == options_of(record)


# Grid files.


def test_the_large_example_has_the_number_of_runs_on_its_page(folder: Path) -> None:
    page = ROOT / "docs" / "reference" / "grid.md"
    block = next(block for block in blocks("toml", pages=REFERENCE) if block.page == page)
    (folder / "grid.toml").write_text(block.text)
    runs = json.loads(CliRunner().invoke(main, ["run", "grid.toml", "--dry-run", "--json"]).stdout)
    assert f"= {len(runs)} runs." in page.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("heading", "settings"),
    [
        ("Metrics and early stopping", Stop),
        ("Settings of a search", Search),
        ("Runtime", Runtime),
        ("Resources", Resources),
        ("Jobs of SLURM", SlurmOptions),
    ],
    ids=["stop", "search", "runtime", "resources", "slurm"],
)
def test_the_tables_of_a_grid_list_their_keys(heading: str, settings: type) -> None:
    keys = [name for cell in rows("grid.md", heading) for name in names_in(cell)]
    assert sorted(keys) == sorted(field.name for field in fields(settings))


# Filters.


def test_every_filter_in_the_reference_parses() -> None:
    terms = [term for cell in rows("filters.md", "Terms") for term in names_in(cell)]
    assert len(terms) > 12
    assert all(parse(term) for term in terms)


def test_the_reference_lists_the_reserved_keys_and_functions_of_filters() -> None:
    keys = {word for cell in rows("filters.md", "Keys") for word in names_in(cell)}
    assert keys == RESERVED
    functions = [
        word.partition("(")[0] for cell in rows("filters.md", "Functions of a metric") for word in names_in(cell)
    ]
    assert sorted(functions) == sorted(FUNCTIONS)


# Python.


def test_the_task_in_the_reference_trains(folder: Path) -> None:
    block = next(block for block in blocks("toml", pages=REFERENCE) if 'task = "my_task.py:Task"' in block.text)
    (folder / "grid.toml").write_text(block.text)
    words = ["--db", "new.db", "run", "grid.toml", "--set", "epochs=1", "--limit", "1", "--workers", "0", "--json"]
    [run] = json.loads(CliRunner().invoke(main, words).stdout)[:1]
    assert run["status"] == "finished"
    assert "val/accuracy" in run["summary"]


def test_the_reference_gives_the_signature_of_start() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    signature = re.search(r"^`start(\(.+\))`$", page, re.MULTILINE)
    assert signature is not None
    names = re.findall(r"(\w+)=", signature[1])
    assert names == list(inspect.signature(api.start).parameters)
    assert set(names) == {word for cell in rows("python.md", "Record a run") for word in names_in(cell)}


def test_every_name_and_method_in_the_reference_exists(folder: Path) -> None:
    for name in (name for cell in rows("python.md", "Python API") for name in names_in(cell)):
        if not name.startswith("labbench.errors"):
            assert name.removeprefix("labbench.") in api.__all__
    methods = (word for cell in rows("python.md", "Read a database") for word in names_in(cell))
    assert all(hasattr(Reader, method.partition("(")[0]) for method in methods)
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    attributes = re.search(r"^A run record has the attributes (.+?)\. Times", page, re.MULTILINE | re.DOTALL)
    assert attributes is not None
    with api.open("runs.db") as reader:
        record: RunRecord = reader.runs(limit=1)[0]
    assert all(hasattr(record, name) for name in names_in(attributes[1]))


def test_every_member_of_a_run_in_the_reference_exists(folder: Path) -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    table = page.partition("| member of `Run` |")[2].partition("\n\n")[0]
    members = [word.partition("(")[0] for line in table.splitlines()[2:] for word in names_in(line.split(" | ")[0])]
    assert len(members) > 10
    with api.start(db="new.db", system_metrics=False) as run:
        assert all(hasattr(run, member) for member in members)


# The database and file formats.


def test_the_reference_lists_exactly_the_tables_and_columns(folder: Path) -> None:
    documented = {names_in(table)[0]: names_in(columns) for table, columns in rows("database.md", "Tables").items()}
    Writer("runs.db").close()  # the example is of an earlier release
    with closing(sqlite3.connect("runs.db")) as connection:
        query = "SELECT name FROM sqlite_master WHERE type IN ('table', 'view') AND name NOT LIKE '\\_%' ESCAPE '\\'"
        tables = [name for (name,) in connection.execute(query)]
        real = {name: [row[1] for row in connection.execute(f"PRAGMA table_info({name})")] for name in tables}
    assert documented == real


def test_the_reference_lists_every_status() -> None:
    assert list(rows("database.md", "Statuses")) == list(STATUSES)


def test_the_json_of_a_run_has_the_keys_of_the_reference(folder: Path) -> None:
    documented = json.loads(next(iter(blocks("json", pages=REFERENCE))).text)
    [run] = json.loads(CliRunner().invoke(main, ["ls", "--limit", "1", "--json"]).stdout)
    assert run.keys() == documented.keys()
    [metric] = documented["summary"]
    assert run["summary"][metric].keys() == documented["summary"][metric].keys()


def test_the_json_of_why_has_the_keys_of_the_reference(folder: Path) -> None:
    words = ["why", "val/accuracy", "experiment=batchnorm", "--json"]
    answer: dict[str, Any] = json.loads(CliRunner().invoke(main, words).stdout)
    documented = rows("formats.md", "`labbench why METRIC --json`")
    assert {name for cell in documented for name in names_in(cell)} == answer.keys()
    for key in ("runs", "best", "shares", "efficiency"):
        [keys] = re.findall(r"`\{(.+?)\}`", documented[f"`{key}`"])
        assert set(keys.split(", ")) >= answer[key].keys() - {"left_out"}, key
        assert answer[key].keys() >= set(keys.split(", ")) - {"left_out"}, key


@pytest.mark.parametrize(
    ("shape", "columns"),
    [("--long", "run,name,experiment,metric,step,time,value"), ("--wide", "run,name,experiment,step,time"),
     ("--summary", "run,name,experiment,status,started,seconds")],
)  # fmt: skip
def test_the_csv_starts_with_the_columns_of_the_reference(shape: str, columns: str, folder: Path) -> None:
    cell = next(rest for first, rest in rows("formats.md", "CSV").items() if shape in first)
    assert names_in(cell)[0] == columns
    words = ["export", shape, "experiment=layers", "--metric", "val/accuracy"]
    heading = CliRunner().invoke(main, words).stdout.partition("\n")[0]
    assert heading.startswith(columns)


# Installation.


def test_the_readme_lists_exactly_the_extras() -> None:
    table = (ROOT / "README.md").read_text(encoding="utf-8").partition("| extra | for |")[2].partition("\n\n")[0]
    listed = [name for row in table.splitlines()[2:] for name in names_in(row.split(" | ")[0])]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert sorted(listed) == sorted(project["optional-dependencies"])


# Links.


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_has_a_target(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}, link
