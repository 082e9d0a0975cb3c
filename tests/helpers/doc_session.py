"""Running the blocks of a page in a folder, as a reader would who follows it."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sqlite3
import subprocess
import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from helpers.doc_pages import ROOT, Block, missing_words
from helpers.waiting import HANG_SECONDS
from labbench.cli import main
from labbench.tui.app import LabbenchApp

SKIPPED = (
    "git clone",
    "cd labbench",
    "python3 -m venv",
    ".venv/bin/pip install",
    "source .venv/bin/activate",
    ".venv/bin/python -m pytest",
)
"""Beginnings of commands that prepare the environment, which the tests have, or start the tests; .ci/run runs them."""

SHELL_OPERATORS = ("|", ">", "<", ";", "&", "$", "`", "*")


class PageSession:
    """Folder in which the blocks of one page run one after another.

    Commands of labbench run in this process, other ones in a shell. Grids train in this process, at most two runs of
    each command unless a comment asks for all.
    """

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.monkeypatch = monkeypatch
        self.printed = ""
        """Output of the last command."""
        programs = folder / ".venv" / "bin"
        programs.mkdir(parents=True)
        for name, words in (("python", ""), ("labbench", " -m labbench")):
            program = programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}"{words} "$@"\n')
            program.chmod(0o755)
        monkeypatch.chdir(folder)
        monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
        monkeypatch.setenv("PYTHONPATH", str(ROOT))
        monkeypatch.setenv("XDG_STATE_HOME", str(folder / ".state"))
        monkeypatch.delenv("LABBENCH_DB", raising=False)
        monkeypatch.setattr("labbench.tui.require_terminal", lambda path: None)
        monkeypatch.setattr(LabbenchApp, "run", open_and_quit)
        shutil.copytree(ROOT / "experiments", folder / "experiments")
        for writer in ("wandb", "mlflow"):  # files that these programs have written
            shutil.copytree(ROOT / "tests" / "writers" / writer / "files", folder, dirs_exist_ok=True)

    def run(self, block: Block) -> None:
        """Run a block. Raises AssertionError if it does not do what the page says."""
        if not block.not_run:
            getattr(self, f"run_{block.language}")(block)
        elif block.language == "python":
            compile(block.text, str(block), "exec")
        if block.file_name and block.language in ("python", "bash"):
            (self.folder / block.file_name).write_text(block.text, encoding="utf-8")

    def run_bash(self, block: Block) -> None:
        """Run the commands of a shell block, each of which has to end with status 0, the last one as announced."""
        lines = block.text.replace("\\\n", " ").splitlines()
        commands = [line for line in lines if line.strip() and not line.startswith("#")]
        for number, command in enumerate(commands, start=1):
            status = block.exit_status if number == len(commands) else 0
            self.run_command(command, limit="" if block.comment == "all runs" else "2", status=status)

    def run_command(self, line: str, *, limit: str = "2", status: int = 0) -> None:
        """Run one line of a shell."""
        for command in line.split(" && "):
            if command.startswith(SKIPPED):
                continue
            words = shlex.split(command, comments=True)
            program = words[0].removeprefix(".venv/bin/")
            quoted = "".join(shlex.split(command, comments=True, posix=False)).replace("'", '"').split('"')[::2]
            is_plain = program == "labbench" and not any(operator in "".join(quoted) for operator in SHELL_OPERATORS)
            if is_plain and "--" not in words and "--detach" not in words:
                code = self.run_labbench(words[1:], limit)
            else:
                code = self.run_shell(command)
            assert code == status, f"{command}: exit status {code}\n{self.printed}"

    def run_labbench(self, words: list[str], limit: str) -> int:
        """Run a command of labbench in this process, without worker processes, and return its exit status."""
        command = words[2:3] if words[:1] == ["--db"] else words[:1]
        if command == ["run"] and not {"--dry-run", "--help", "-h"} & set(words):
            words = [*words, "--workers", "0", *(["--limit", limit] if limit and "--limit" not in words else [])]
        result = CliRunner().invoke(main, words or ["tui"], prog_name="labbench")
        self.printed = result.output + ("" if result.exception is None else f"\n{result.exception!r}")
        return result.exit_code

    def run_shell(self, command: str) -> int:
        """Run a command in bash and return its exit status."""
        result = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=HANG_SECONDS,
        )
        self.printed = result.stdout
        return result.returncode

    def run_python(self, block: Block) -> None:
        """Execute a block as a script."""
        self.monkeypatch.setattr(sys, "argv", [block.file_name or "script.py"])
        exec(compile(block.text, str(block), "exec"), {"__name__": "__main__"})

    def run_toml(self, block: Block) -> None:
        """Expand a grid; a part of one gets a task. It lies in the folder afterwards, as grid.toml or as it says."""
        table = tomllib.loads(block.text)
        is_whole = "task" in table or "command" in table
        path = self.folder / (block.file_name or ("grid.toml" if is_whole else "part.toml"))
        path.write_text(block.text if is_whole else f'task = "digits"\n{block.text}', encoding="utf-8")
        result = CliRunner().invoke(main, ["run", path.name, "--dry-run", "--json"])
        self.printed = result.output
        assert result.exit_code == block.exit_status, result.output
        assert block.exit_status or json.loads(result.stdout)

    def run_sql(self, block: Block) -> None:
        """Execute the statements of a block; each has to return rows."""
        with closing(sqlite3.connect("runs.db")) as connection:
            for statement in filter(str.strip, block.text.split(";")):
                assert connection.execute(statement).fetchall(), statement

    def run_json(self, block: Block) -> None:
        """Parse a JSON document."""
        json.loads(block.text)

    def run_yaml(self, block: Block) -> None:
        """Parse a YAML document."""
        assert yaml.safe_load(block.text)

    def run_text(self, block: Block) -> None:
        """Compare an example of output with what its command prints."""
        kind, _, command = block.comment.partition(" of: ")
        assert kind in ("output", "exact output"), "a text block needs a comment, see helpers/doc_pages.py"
        if command:
            words = shlex.split(command)
            self.run_labbench(words[1:], "2") if words[0] == "labbench" else self.run_shell(command)
        assert kind == "output" or block.text in self.printed, self.printed
        missing = missing_words(block.text, self.printed)
        assert not missing, f"not printed: {sorted(missing)}; printed:\n{self.printed}"


def open_and_quit(app: LabbenchApp) -> None:
    """Draw the first screen of the app without a terminal."""

    async def draw() -> None:
        async with app.run_test() as pilot:
            await pilot.pause()

    asyncio.run(draw())
