"""Commands that messages suggest name the database, so that they can be pasted into a shell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import labbench
from labbench.cli import main
from labbench.files import database_command, database_of_files, files_folder
from labbench.store.connection import open_for_reading
from labbench.store.reader import Reader
from labbench.store.writer import Writer

PACKAGE = Path(labbench.__file__).parent
WITHOUT_DATABASE = ("demo", "help", "tasks", "backup")
"""Commands without a database; `backup` is suggested for the original of a copy, whose path is unknown."""
_COMMAND = re.compile(rf"\blabbench ({'|'.join(sorted(main.commands.keys() - set(WITHOUT_DATABASE)))})\b")
NO_SUGGESTIONS = {
    "train/load_model.py": "explains which files `labbench run` makes trusted",
    "records/stack.py": "is the start of the command that a grid's run records",
    "scaffolding/command_grid.py": "names a statement of Python, `from labbench import wandb`",
    "scaffolding/skeletons.py": "imports from labbench in Python",
    "scaffolding/task_grid.py": "writes comments into a grid file, which serves any database",
    "wandb/ignored.py": "explains how a sweep of W&B becomes a grid, which serves any database",
    "grid/other_names.py": "names an option of the command that reads the grid file, which serves any database",
    "grid/source.py": "names the commands for a file that is not a grid, before any database is known",
}
"""Modules whose messages name a command without suggesting it."""


def literals(node: ast.AST) -> Iterator[ast.Constant]:
    """Yield the string literals below a node, except docstrings and the examples of help texts."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant):
            continue
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Name) and child.func.id == "examples":
            continue
        if isinstance(child, ast.Constant) and isinstance(child.value, str):
            yield child
        yield from literals(child)


def suggestions(source: str) -> list[int]:
    """Return the lines of string literals that contain a command on the default database."""
    return [node.lineno for node in literals(ast.parse(source)) if _COMMAND.search(str(node.value))]


def test_the_search_finds_a_command_without_its_database() -> None:
    assert suggestions('def f():\n    """Run `labbench ls`."""\n    raise ValueError(f"{x}; `labbench ls` lists")') == [
        3
    ]
    assert suggestions('hint = f"{database_command(db)} ls"') == []


@pytest.mark.parametrize("module", [str(path.relative_to(PACKAGE)) for path in sorted(PACKAGE.rglob("*.py"))])
def test_suggested_commands_name_the_database(module: str) -> None:
    if module not in (*NO_SUGGESTIONS, "cli/help.py"):  # the text of `labbench help`
        lines = suggestions((PACKAGE / module).read_text())
        assert not lines, f"labbench/{module}:{lines}: start the command with files.database_command"


def test_messages_on_another_database_name_it(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    Writer(path).close()
    with Reader(path) as reader, pytest.raises(labbench.LabbenchError, match=f"`labbench --db {path} ls` lists"):
        reader.find("nope")
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(labbench.LabbenchError, match=f"`labbench --db {empty} run GRID.toml` records"):
        open_for_reading(empty, live=True)


def test_a_folder_of_files_leads_to_its_database(tmp_path: Path) -> None:
    path = tmp_path / "of my project.db"
    assert database_of_files(files_folder(path)) == path
    assert database_command(database_of_files(files_folder(path))) == f"labbench --db '{path}'"
