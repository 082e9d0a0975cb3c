"""Completion in shells: commands, options, and names of the database."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import new_run, points, start
from labbench.store.writer import Writer

Labbench = Callable[..., Result]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    """Return a database of three runs; a name has spaces, one is hostile."""
    path = tmp_path / "runs.db"
    names = ("lr=0.1 adam s0", "lr=0.1 sgd s0", "x\x1b[31m\nplain,y")
    with Writer(path) as writer:
        runs = start(writer, [new_run(i, name=name, optimizer="adam") for i, name in enumerate(names)])
        writer.write([points(runs[0], "val/loss", [0.5]), points(runs[0], "val/accuracy", [0.5])])
    return path


def completions(labbench: Labbench, line: str, shell: str = "bash") -> list[str]:
    """Return the completions of a line up to the cursor; where bash breaks words at `=`, of the last part."""
    words = line.split(" ")
    environ = {
        "_LABBENCH_COMPLETE": f"{shell}_complete",
        "COMP_LINE": line,
        "COMP_WORDS": line,
        "COMP_CWORD": words[-1] if shell == "fish" else str(len(words) - 1),
    }
    lines = labbench(env=environ).stdout.splitlines()
    if shell == "zsh":
        return [value for kind, value in zip(lines[::3], lines[1::3], strict=True) if kind == "plain"]
    return [line.partition(",")[2].partition("\t")[0] for line in lines if line.startswith("plain,")]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_commands_options_and_names_are_completed(shell: str, labbench: Labbench, db: Path) -> None:
    assert {"run", "ls", "completion"} <= set(completions(labbench, "labbench ", shell))
    assert completions(labbench, "labbench ls --lim", shell) == ["--limit"]
    assert completions(labbench, "labbench why val/", shell) == ["val/loss", "val/accuracy"]
    assert completions(labbench, "labbench plot val/loss --group opt", shell) == ["optimizer"]
    assert completions(labbench, "labbench ls --columns lr,val/l", shell) == ["lr,val/loss"]
    assert completions(labbench, "labbench rename gr", shell) == ["grid"]
    assert completions(labbench, "labbench tasks dig", shell) == ["digits"]
    assert "optimizer" in completions(labbench, "labbench ls opt", shell)


def test_bash_gets_the_rest_of_a_word_with_equals_signs_and_spaces(labbench: Labbench, db: Path) -> None:
    assert sorted(completions(labbench, "labbench show lr")) == ["lr=0.1\\ adam\\ s0", "lr=0.1\\ sgd\\ s0"]
    assert completions(labbench, "labbench show lr=0.1\\ a") == ["0.1\\ adam\\ s0"]
    assert completions(labbench, "labbench show 'lr=0.1 a") == ["lr=0.1 adam s0"]
    assert completions(labbench, "labbench ls optimizer=a") == ["adam"]


def test_names_that_a_terminal_would_obey_are_left_out(labbench: Labbench, db: Path) -> None:
    names = completions(labbench, "labbench show ")
    assert len(names) == 2 + 3, "two names, three keys"
    assert not any("\x1b" in name or name == "y" for name in names)


def test_the_database_of_the_line_is_read_and_a_broken_one_completes_nothing(
    labbench: Labbench, db: Path, tmp_path: Path
) -> None:
    db.rename(tmp_path / "other.db")
    assert completions(labbench, "labbench why val/") == []
    assert completions(labbench, "labbench --db other.db why val/") == ["val/loss", "val/accuracy"]
    assert completions(labbench, "labbench why --db other.db val/") == ["val/loss", "val/accuracy"]
    db.write_bytes(b"SQLite format 3\0" + b"x" * 5000)
    assert completions(labbench, "labbench why val/") == []
    assert completions(labbench, "labbench ls opt") == []
    assert {path.name for path in tmp_path.iterdir()} <= {"runs.db", "other.db"}


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_completes_in_bash(labbench: Labbench, db: Path, tmp_path: Path) -> None:
    program = tmp_path / "labbench"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m labbench "$@"\n')
    program.chmod(0o755)
    line = "labbench show lr=0.1\\ a"
    commands = f"""
{labbench("completion", "bash").stdout}
COMP_LINE={shlex.quote(line)} COMP_POINT={len(line)}
_labbench_completion {shlex.quote(str(program))}
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
    result = subprocess.run(["bash", "--norc", "-c", commands], cwd=tmp_path, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("0.1\\ adam\\ s0\n", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell: str, labbench: Labbench) -> None:
    script = labbench("completion", shell).stdout
    assert f"_LABBENCH_COMPLETE={shell}_complete" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
