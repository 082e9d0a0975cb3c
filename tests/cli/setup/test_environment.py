"""Environment that `labbench doctor` explains."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench import __version__
from labbench.cli.setup import environment
from labbench.cli.setup.environment import environment_facts
from labbench.store.writer import Writer


def test_doctor_explains_the_environment_and_checks_the_database(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    Writer(tmp_path / "runs.db").close()
    result = labbench("doctor")
    assert result.exit_code == 0, result.output
    for words in (f"labbench:      {__version__}, Python", "CPU core", "file system:", "terminal:      none", "sound"):
        assert words in result.stdout
    assert "Python" not in labbench("doctor", "--fix").stdout
    missing = labbench("doctor", "--db", "nothing.db")
    assert (missing.exit_code, "CPU core" in missing.stdout) == (2, True)


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        (
            {"TERM": "xterm-256color", "COLORTERM": "truecolor", "LANG": "C.UTF-8"},
            ["16 million", "UTF-8", "no Kitty"],
        ),
        ({"TERM": "xterm-kitty", "LC_ALL": "C.UTF-8"}, ["16 colours", ", Kitty graphics"]),
        (
            {"TERM": "screen-256color", "TMUX": "x,1,0", "TERM_PROGRAM": "ghostty"},
            ["tmux", "256 colours", "no Kitty"],
        ),
        ({"TERM": "screen", "STY": "1.pts", "COLORTERM": "truecolor"}, ["screen", "16 colours"]),
        ({"TERM": "dumb", "LC_ALL": "C"}, ["no colours", "no UTF-8: ASCII"]),
        ({"TERM": "xterm", "NO_COLOR": "1"}, ["no colours (NO_COLOR)"]),
    ],
)
def test_abilities_of_the_terminal_are_read_from_its_environment(
    environ: dict[str, str], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setattr(environment, "_devices", lambda: "")
    terminal = environment_facts(tmp_path / "runs.db", environ)["terminal"]
    assert all(word in terminal for word in words), terminal
