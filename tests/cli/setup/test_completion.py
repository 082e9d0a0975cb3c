"""Completion in shells: commands, options, and names of the database."""

from __future__ import annotations

import os
import pty
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import new_run, points, start
from helpers.waiting import HANG_SECONDS
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


HOSTILE = ("a:b,c d", "It's [5] $HOME *", 'Q"uote\\back', "-n", "Naïve ü")
"""Names with characters to which shells or completion functions give a meaning; no key of a run starts as they do."""


@pytest.fixture
def user(labbench: Labbench, db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of a user with the command `labbench` and the database, with hostile names in addition."""
    with Writer(db) as writer:
        start(writer, [new_run(10 + i, name=name) for i, name in enumerate(HOSTILE)])
    program = tmp_path / "bin" / "labbench"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m labbench "$@"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(sys.modules["labbench"].__file__ or "").parents[1]))
    for name in ("HOME", "ZDOTDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "XDG_CACHE_HOME"):
        monkeypatch.setenv(name, str(tmp_path))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    return tmp_path


def type_lines(shell: Sequence[str], folder: Path, lines: Iterable[str]) -> None:
    """Type each line, Tab and Ctrl-X in a shell, as soon as the previous line is in the file `lines`."""
    descriptor, terminal = pty.openpty()
    process = subprocess.Popen(
        shell, cwd=folder, stdin=terminal, stdout=terminal, stderr=terminal, start_new_session=True
    )
    os.close(terminal)
    output, result = b"", folder / "lines"
    result.touch()
    deadline = time.monotonic() + HANG_SECONDS
    try:
        for number, line in enumerate(lines, start=1):
            os.write(descriptor, f"{line}\t\x18".encode())
            while len(result.read_bytes().splitlines()) < number:
                assert process.poll() is None, output
                assert time.monotonic() < deadline, output
                if select.select([descriptor], [], [], 0.05)[0]:
                    output += os.read(descriptor, 65536)
    finally:
        process.kill()
        process.wait()
        os.close(descriptor)


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_fish_completes_with_the_script(user: Path, labbench: Labbench) -> None:
    (user / "labbench.fish").write_text(labbench("completion", "fish").stdout)
    lines = {
        "labbench compl": "completion",
        "labbench ls --lim": "--limit",
        "labbench why val/l": "val/loss",
        "labbench ls --columns lr,val/l": "lr,val/loss",
        "labbench tasks dig": "digits",
        "labbench ls optimizer=a": "optimizer=adam",
        "labbench --db ru": "runs.db",
        "labbench show lr=0.1\\ a": "lr=0.1 adam s0",
        "labbench show 'lr=0.1 a": "lr=0.1 adam s0",
        "labbench show a:b": "a:b,c d",
        'labbench show "It': "It's [5] $HOME *",
        "labbench show Q": 'Q"uote\\back',
        "labbench show -- -": "-n",
        "labbench show N": "Naïve ü",
    }
    commands = "; ".join(["source labbench.fish", *(f"complete -C {shlex.quote(line)}" for line in lines)])
    result = subprocess.run(["fish", "--no-config", "-c", commands], cwd=user, capture_output=True, text=True)
    assert [line.partition("\t")[0] for line in result.stdout.splitlines()] == list(lines.values())
    assert result.stderr == ""


@pytest.mark.skipif(shutil.which("zsh") is None, reason="needs zsh")
@pytest.mark.parametrize(("start_up", "most_lines"), [("", 100), ("autoload -Uz compinit; compinit -D -u", 2)])
def test_zsh_completes_with_the_script(user: Path, start_up: str, most_lines: int) -> None:
    lines = {
        "labbench compl": "labbench completion ",
        "labbench ls --lim": "labbench ls --limit ",
        "labbench why val/l": "labbench why val/loss ",
        "labbench ls --columns lr,val/l": "labbench ls --columns lr,val/loss ",
        "labbench tasks dig": "labbench tasks digits ",
        "labbench ls optimizer=a": "labbench ls optimizer=adam ",
        "labbench --db ru": "labbench --db runs.db ",
        "labbench show lr=0.1\\ a": "labbench show lr=0.1\\ adam\\ s0 ",
        "labbench show 'lr=0.1 a": "labbench show 'lr=0.1 adam s0' ",
        "labbench show a:b": "labbench show a:b,c\\ d ",
        "labbench show It": "labbench show It\\'s\\ \\[5\\]\\ \\$HOME\\ \\* ",
        "labbench show Q": 'labbench show Q\\"uote\\\\back ',
        "labbench show -- -": "labbench show -- -n ",
    }
    # a key appends the line of the editor to a file, so nothing has to be read from the terminal
    (user / ".zshrc").write_text(f"""
        {start_up}
        eval "$(labbench completion zsh)"
        keep_line() {{ print -r -- "$BUFFER|" >> lines; BUFFER= }}
        zle -N keep_line
        bindkey '^X' keep_line
    """)
    type_lines(["zsh", "-i"], user, [*lines][:most_lines])
    completed = (user / "lines").read_text(encoding="utf-8").splitlines()
    assert completed == [f"{line}|" for line in lines.values()][:most_lines]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_of_each_shell_is_printed(shell: str, labbench: Labbench) -> None:
    script = labbench("completion", shell).stdout
    assert f"_LABBENCH_COMPLETE={shell}_complete" in script
    if shutil.which(shell) is not None:
        subprocess.run([shell, "-n"], input=script, text=True, check=True)
