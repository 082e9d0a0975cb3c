"""Grid of a script: the words that a grid passes are those that the script would have without any."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import pytest

from labbench.errors import InputError
from labbench.grid.command_template import fill_command
from labbench.runner.expanded_grid import load_grid
from labbench.scaffolding.command_grid import CommandGrid, command_grid
from labbench.scaffolding.script_files import read_script

HEAD = "import argparse, os\nfrom pathlib import Path\nSIZE = 64\np = argparse.ArgumentParser()\n"


def make_grid(folder: Path, script: str) -> CommandGrid:
    (folder / "train.py").write_text(script)
    made = command_grid(read_script(folder / "train.py"), folder)
    (folder / "grid.toml").write_text(made.text)
    return made


def words_of(folder: Path, overrides: Sequence[str] = ()) -> list[str]:
    """Return the words of the grid's first run, after the script."""
    expanded = load_grid(folder / "grid.toml", overrides=overrides)
    return fill_command(expanded.grid.command or (), expanded.runs[0].config)[2:]


def parse(script: str, words: Sequence[str]) -> argparse.Namespace:
    names: dict[str, object] = {}
    exec(script, names)
    parser = names["p"]
    assert isinstance(parser, argparse.ArgumentParser)
    return parser.parse_args(words)


@pytest.mark.parametrize(
    "declaration",
    [
        "'--lr', type=float, default=0.1",
        "'--lr', '-l', type=float, default=1e-05",
        "'-b', '--batch-size', type=int, default=SIZE",
        "'--batch', type=int, default='32'",
        "'-b', type=int, default=8",
        "'--optimizer', choices=['sgd', 'adam'], default='sgd', help='update rule, 100%% (default: %(default)s)'",
        "'--hidden', type=int, nargs='+', default=[64, 32]",
        "'--hidden', type=int, nargs='+', default=64",
        "'--hidden', type=int, nargs='*', default=[]",
        "'--betas', type=float, nargs=2, default=(0.9, 0.999)",
        "'--amp', action='store_true'",
        "'--no-shuffle', dest='shuffle', action='store_false'",
        "'--half', action='store_const', const='fp16', dest='precision', default='fp32'",
        "'--bn', action=argparse.BooleanOptionalAction, default=True",
        "'--bn', action=argparse.BooleanOptionalAction, default=False",
        "'--clip', type=float",
        "'--clip', type=float, default=None, help='maximum norm'",
        "'--workers', type=int, default=os.cpu_count()",
        "'--tag', action='append'",
        "'--data', type=Path, default=Path('data sets')",
        "'--name', default=''",
        "'--name', default='a \"quoted\" {text}'",
        "'--name', default='é 日本'",
        "'--warm', default=argparse.SUPPRESS",
        "'--seed', type=int, default=42",
        "'--random-seed', type=int, default=7",
        "'--depth', type=int, choices=range(1, 9), default=3",
        "'data', nargs='?', default='here'",
        "'--model.width', type=int, default=3",
        "'--lr', type=lambda text: float(text), default=0.5",
        "'--sizes', type=lambda text: text.split(','), default=['a', 'b']",
        "'--shift', type=float, default=-0.5",
        "'-v', action='count', default=0",
        "'--flag', type=bool, default=True",
        "'rest', nargs=argparse.REMAINDER",
    ],
)
def test_a_run_of_the_grid_starts_the_script_with_its_own_defaults(declaration: str, tmp_path: Path) -> None:
    script = f"{HEAD}p.add_argument({declaration})\n"
    make_grid(tmp_path, script)
    by_hand, by_grid = parse(script, []), parse(script, words_of(tmp_path))
    for by_texts in (by_hand, by_grid):  # `type` makes no difference between a list and a tuple
        vars(by_texts).update({k: list(v) if isinstance(v, tuple) else v for k, v in vars(by_texts).items()})
    assert by_grid == by_hand


def test_settings_of_the_grid_reach_the_script(tmp_path: Path) -> None:
    script = HEAD + (
        "p.add_argument('folder')\np.add_argument('--hidden', type=int, nargs='+', default=[1])\n"
        "p.add_argument('--clip', type=float)\np.add_argument('--no-bn', dest='bn', action='store_false')\n"
        "p.add_argument('--tag', action='append')\n"
        "g = p.add_argument_group()\ng.add_argument('--mode', required=True)\n"
    )
    made = make_grid(tmp_path, script)
    assert made.required == ("folder", "mode")
    settings = ["folder=here", "mode=fast", "hidden=[64, 32]", "clip=1.5", "no_bn=true", 'tag=["a", "b"]']
    assert vars(parse(script, words_of(tmp_path, settings))) == {
        "folder": "here", "mode": "fast", "hidden": [64, 32], "clip": 1.5, "bn": False, "tag": ["a", "b"],
    }  # fmt: skip


def test_set_defaults_and_the_first_subcommand_count(tmp_path: Path) -> None:
    script = HEAD + (
        "p.add_argument('--lr', type=float, default=0.1)\np.set_defaults(lr=0.5)\nsub = p.add_subparsers()\n"
        "train = sub.add_parser('train')\ntrain.add_argument('--epochs', type=int, default=2)\n"
        "test = sub.add_parser('test')\ntest.add_argument('--split', default='val')\n"
    )
    made = make_grid(tmp_path, script)
    assert words_of(tmp_path) == ["--lr", "0.5", "train", "--epochs", "2"]
    assert "subcommand train" in made.notes[0]


def test_the_script_is_not_run_and_its_local_modules_are_read(tmp_path: Path) -> None:
    (tmp_path / "utils").mkdir()
    (tmp_path / "utils" / "options.py").write_text(f"{HEAD}p.add_argument('--width', type=int, default=8)\n")
    make_grid(tmp_path, "from utils.options import p\nraise SystemExit('run')\n")
    assert words_of(tmp_path) == ["--width", "8"]


def test_options_that_cannot_be_passed_are_named_with_the_reason(tmp_path: Path) -> None:
    made = make_grid(
        tmp_path,
        f"{HEAD}import wandb\nfor n in 'ab':\n    p.add_argument('--' + n)\np.add_argument('-v', action='count')\n"
        "p.add_argument('--amp', type=bool, default=False)\n",
    )
    notes = "\n".join(made.notes)
    assert "computed name" in notes
    assert "-v is not in the grid: it is counted" in notes
    assert "use action='store_true'" in notes
    assert "from labbench import wandb" in notes


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("import click\n@click.command()\n@click.option('--lr')\ndef main(lr): ...\n", "reads its options with click"),
        ("from tyro import cli\n", "with tyro"),
        ("import hydra\n", '"lr={lr}"'),
        ("import labbench\nrun = labbench.start()\n", "run.config"),
        ("lr = 0.1\n", "parser.add_argument"),
        ("def broken(:\n", "train.py:1: not Python"),
        ("\0", "not Python"),
    ],
)
def test_a_script_without_argparse_is_refused_with_the_next_step(text: str, hint: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        make_grid(tmp_path, text)
    assert hint in str(error.value)


def test_the_suggested_tables_are_valid(tmp_path: Path) -> None:
    for option, n_runs in (("--lr", 50), ("--width", 1)):
        made = make_grid(tmp_path, f"{HEAD}p.add_argument('{option}', type=float, default=0.5)\n")
        text, _, more = made.text.partition("# More tables")
        tables = more.partition("\n")[2].replace("\n# ", "\n").removeprefix("# ")
        (tmp_path / "grid.toml").write_text(f"{text.partition('[grid]')[0]}{tables.removeprefix('#')}")
        expanded = load_grid(tmp_path / "grid.toml")
        assert (len(expanded.runs), expanded.grid.search is not None) == (n_runs, True)
        assert expanded.grid.stop is not None
