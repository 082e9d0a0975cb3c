"""Placeholders in the words of a command."""

from __future__ import annotations

from pathlib import Path

import pytest

from labbench.errors import GridError
from labbench.grid import expand, grid_code, read_grid
from labbench.grid.command_template import fill_command
from labbench.grid.identity import find_script, former_task_identity

VALUES = {
    "lr": 0.1,
    "opt.lr": 1e-05,
    "seed": 3,
    "hidden": [16, 8],
    "none": [],
    "bn": True,
    "amp": False,
    "text": 'it\'s a "b"',
    "act": "relu",
    "clip": "none",
    "größe": 2,
}


def fill(*words: str | tuple[str, ...]) -> list[str]:
    return fill_command(words, VALUES)


@pytest.mark.parametrize(
    ("word", "filled"),
    [
        ("--lr={lr}", "--lr=0.1"),
        ("{opt.lr}", "1e-05"),
        ("{größe}", "2"),
        ("{text}", 'it\'s a "b"'),
        ("{hidden}", "[16, 8]"),
        ("{bn}", "true"),
        ('{"lr": {lr}}', '{"lr": 0.1}'),
        ('{"a":{"b":{lr},"c":"{act}"}}', '{"a":{"b":0.1,"c":"relu"}}'),
        ("model={hidden:{hidden},act:gelu}", "model={hidden:[16, 8],act:gelu}"),
        ("'{lr}'", "'0.1'"),
        ("{{{lr}}}", "{0.1}"),
        ("${HOME}/{lr}", "${HOME}/0.1"),
        ("${OUT:-{lr}}", "${OUT:-0.1}"),
        (r"C:\data\{lr}\new", r"C:\data\0.1\new"),
        ("{lr:.3e}", "1.000e-01"),
        ("{seed:03d}-{seed:02}", "003-03"),
        ("--norm={bn:batch}", "--norm=batch"),
    ],
)
def test_a_placeholder_is_replaced_by_the_value(word: str, filled: str) -> None:
    assert fill(word) == [filled]


@pytest.mark.parametrize(
    "word",
    ["$HOME", "${HOME}", "${lr}", "$${lr}", "${{lr}}", "{}", "{ lr }", "{0}", "a{3}", "{print $1}", "{a: 1}", "{1..3}"],
)
def test_other_braces_are_text(word: str) -> None:
    assert fill(word) == [word]


@pytest.mark.parametrize("text", ["{lr}", "{lr:.3e}", "{hidden...}", "{clip?}", "{print}"])
def test_double_braces_around_a_placeholder_are_an_escape(text: str) -> None:
    assert fill(f"a {{{text}}} b") == [f"a {text} b"]


def test_flags_lists_and_optional_words() -> None:
    assert fill("{bn:--use-bn}", "{amp:--amp}", "x") == ["--use-bn", "x"]
    assert fill("--hidden", "{hidden...}", "--size={hidden...}", "{none...}") == [
        *("--hidden", "16", "8"),
        *("--size=16", "--size=8"),
    ]
    assert fill("--clip={clip?}", ("--clip", "{clip?}"), ("--lr", "{lr?}"), ("{amp:--amp}", "O1")) == ["--lr", "0.1"]
    assert fill("--missing={missing?}") == []
    for optional_list in ("{hidden...?}", "{hidden?...}"):
        assert fill(("--hidden", optional_list)) == ["--hidden", "16", "8"]
        assert fill(f"{{{optional_list}}}", optional_list.replace("hidden", "missing")) == [optional_list]


def test_tilde_is_expanded_at_the_start_of_a_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "train.py").touch()
    assert fill("~/bin/python", "~/train.py", "--out=~x", "") == [
        *(f"{tmp_path}/bin/python", f"{tmp_path}/train.py"),
        *("--out=~x", ""),
    ]
    assert find_script(["python", "~/train.py"], Path("/")) == tmp_path / "train.py"


def grid_error(tmp_path: Path, command: str, rest: str = "[grid]\nlr = [0.1]\n") -> GridError:
    path = tmp_path / "grid.toml"
    path.write_text(f"command = {command}\n{rest}")
    with pytest.raises(GridError) as caught:
        expand(read_grid(path), {})
    return caught.value


@pytest.mark.parametrize(
    ("command", "marked", "message"),
    [
        ("['sh', 'x {lr} {word}']", "{word}", "no run has `word`; for the text {word} write {{word}}"),
        ("['sh', ['-c', '{lrr}']]", "{lrr}", "did you mean `lr`?"),
        ("['sh', '{lrr?}']", "{lrr?}", "no run has `lrr`"),
        ("['sh', '{lr...}']", "{lr...}", "needs a list, not 0.1"),
        ("['sh', '{lr:--flag}']", "{lr:--flag}", "for the text {lr:--flag} write {{lr:--flag}}"),
        ("['sh', '{lr:d}']", "{lr:d}", "a number and its format, as in {lr:.3e}, not 0.1"),
        ("['sh', '{act:relu}']", "{act:relu}", "no run has `act`"),
        ("['{lr?}']", "'{lr?}'", "the first word is the program"),
        ('"python train.py --lr {lr}"', '"python', '["python", "train.py", "--lr", "{lr}"]'),
    ],
)
def test_an_invalid_placeholder_is_reported_at_its_place(
    tmp_path: Path, command: str, marked: str, message: str
) -> None:
    error = grid_error(tmp_path, command)
    assert message in error.message
    assert (error.line, error.column) == (1, len("command = ") + command.index(marked) + 1)


@pytest.mark.parametrize(
    ("rest", "line", "message"),
    [
        ("[runtime]\nkeep = 'best'\n", 3, "[runtime] keep has no effect on a command"),
        ("[runtime]\nprecision = 'bf16'\n", 3, "[runtime] precision has no effect on a command"),
        ("cwd = 'missing'\n", 2, "no such folder"),
        ("[env]\nX = [1]\n", 3, "must be text or a number"),
        ("[env]\nX = '{word}'\n", 3, "no run has `word`"),
        ("[env]\nX = '{h...}'\n[params]\nh = [1, 2]\n", 3, "repeats a word of `command` alone"),
        ("[env]\nLABBENCH_RUN = 'x'\n", 3, "is set by labbench"),
    ],
)
def test_tables_without_effect_on_a_command_are_refused(tmp_path: Path, rest: str, line: int, message: str) -> None:
    error = grid_error(tmp_path, "['true', '{lr?}']", f"{rest}\n[grid]\nlr = [1]\n")
    assert message in error.message
    assert error.line == line


def test_env_and_cwd_need_a_command(tmp_path: Path) -> None:
    for text in ('task = "digits"\ncwd = "."\n', 'task = "digits"\n[env]\nX = 1\n'):
        (tmp_path / "grid.toml").write_text(text)
        with pytest.raises(GridError, match="needs a command"):
            read_grid(tmp_path / "grid.toml")


def test_an_axis_that_no_word_uses_causes_a_warning(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        "command = ['true', '--lr={lr}', '--clip={clip?}']\n[grid]\nlr = [1]\nwidth = [8]\nset = [1]\nvar = [1]\n"
        "[[set]]\nwhen = { set = 1 }\nclip = 1\n[repeat]\nseeds = [0]\n[env]\nVAR = '{var}'\n"
    )
    warnings = expand(read_grid(path), {}).warnings
    assert [warning.removeprefix(f"{path}:") for warning in warnings] == [
        "4:1: no word of the command uses `width`; only the script's config has it",
        "11:1: no word of the command uses `seeds`; only the script's config has it".replace("seeds", "seed"),
    ]


def test_commands_that_are_filled_as_in_the_first_release_keep_their_identity(tmp_path: Path) -> None:
    def code(command: str, rest: str = "") -> tuple[str, bool]:
        (tmp_path / "grid.toml").write_text(f"command = {command}\n{rest}")
        grid = read_grid(tmp_path / "grid.toml")
        return grid_code(grid).version, bool(former_task_identity(grid))

    before = "ce75431ef3eb3af3e8cf3e8a7a124d2f423af6c3c2d71ebd329d8a2d37df53fd"
    assert code("['python', '--lr={lr}', '${HOME}']") == (before, True)
    for command in ("['a', '{{lr}}']", "['a', '{\"lr\": {lr}}']", "['a', '{lr?}']", "['a', ['{lr}']]"):
        assert not code(command)[1]
    plain = code("['a']")
    assert (
        len({plain, code("['a']", "[env]\nX = 1\n"), code("['a']", "[env]\nX = 2\n"), code("['a']", "cwd = '.'")}) == 4
    )
