"""Axes as other tools spell them: the error gives the valid spelling with the same numbers, at its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from labbench.errors import GridError
from labbench.grid import Expansion, expand, read_grid
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING

DIGITS = {**TRAINING, **BUILTIN["digits"]}

RANDOM = "[random]\nsamples = 3\n"
COMMAND = "command = ['python', 'train.py', '{lr}']\n"
OTHERS = [
    # W&B sweeps
    ("[grid]\nlr = ▸{ values = [0.1, 0.01] }", "lr = [0.1, 0.01]"),
    ("[grid.▸lr]\nvalues = [0.1, 0.01]", "lr = [0.1, 0.01]"),
    ("[grid]\nlr = ▸{ value = 0.1 }", "one value belongs under [params]: lr = 0.1"),
    ("[grid]\nlr = ▸{ min = 0.1, max = 0.5 }", "lr = { from = 0.1, to = 0.5, count = 5 }"),
    ("[grid]\nlr = ▸{ min = 0.1, max = 0.5 }", "under [random] as lr = { uniform = [0.1, 0.5] }"),
    (
        "[grid]\nlr = ▸{ distribution = 'log_uniform_values', min = 1e-4, max = 0.1 }",
        "a distribution belongs under [random]: lr = { loguniform = [0.0001, 0.1] }",
    ),
    (
        RANDOM + "lr = ▸{ distribution = 'log_uniform', min = -9.2, max = -2.3 }",
        "lr = { loguniform = [0.000101, 0.1] }",
    ),
    (RANDOM + "lr = ▸{ distribution = 'q_uniform', min = 0.0, max = 1.0, q = 0.1 }", "[0.0, 1.0], step = 0.1 }"),
    (RANDOM + "lr = ▸{ distribution = 'normal', mu = 0.1, sigma = 0.01 }", "lr = { normal = [0.1, 0.01] }"),
    (
        RANDOM + "lr = ▸{ distribution = 'q_log_uniform_values', min = 0.1, max = 0.5, q = 0.1 }",
        "write the distribution as lr = { loguniform = [0.1, 0.5], step = 0.1 }",
    ),
    (
        RANDOM + "lr = ▸{ distribution = 'q_log_uniform_values', min = 0.01, max = 0.5, q = 0.1 }",
        "lr = { loguniform = [0.01, 0.5], step = 0.1 }; its values begin at 0.01, while those of q_log_uniform_values "
        "are multiples of 0.1, with 0",
    ),
    (
        "[grid]\nlr = ▸{ distribution = 'q_log_uniform_values', min = 0.1, max = 0.5, q = 0.1 }",
        "a distribution belongs under [random]: lr = { loguniform = [0.1, 0.5], step = 0.1 }",
    ),
    (
        RANDOM + "batch_size = ▸{ distribution = 'q_log_uniform', min = 3.4657, max = 5.5452 }",
        "batch_size = { logint = [32, 256] }",
    ),
    (RANDOM + "lr = ▸{ distribution = 'q_uniform', min = 0.05, max = 1.0, q = 0.1 }", "{ uniform = [0.0, 1.0], step"),
    (RANDOM + "lr = ▸{ min = 0.2, max = 1.0, q = 0.1 }", "lr = { uniform = [0.2, 1.0], step = 0.1 }"),
    (RANDOM + "epochs = ▸{ distribution = 'q_uniform', min = 2, max = 10, q = 2 }", "{ uniform = [2, 10], step = 2 }"),
    (
        RANDOM + "lr = ▸{ distribution = 'inv_log_uniform_values', min = 1e-4, max = 0.1 }",
        "lr = { loguniform = [0.0001, 0.1] }; the inverse of a log-uniform number is log-uniform, too",
    ),
    (
        RANDOM + "lr = ▸{ distribution = 'inv_log_uniform', min = 2.302585, max = 9.21034 }",
        "lr = { loguniform = [0.0001, 0.1] }",
    ),
    (RANDOM + "lr = ▸{ distribution = 'log_uniform', min = 0, max = 1 }", "{ loguniform = [1.0, 2.72] }; the ends of"),
    (RANDOM + "lr = ▸{ distribution = 'normal' }", "lr = { normal = [0, 1] }"),
    (RANDOM + "lr = ▸{ distribution = 'log_normal', mu = 0, sigma = 1 }", "`lr`: no distribution here equals log_norm"),
    (RANDOM + "lr = ▸{ distribution = 'triangular', min = 0.1, max = 1.0 }", "no distribution here equals triangular"),
    (
        RANDOM + "lr = ▸{ values = [0.1, 0.2], probabilities = [0.7, 0.3] }",
        "lr = { choice = [0.1, 0.2] }; weighted choices do not exist: a value that is written twice is drawn twice",
    ),
    (
        "[grid]\nlr = ▸{ values = [0.1, 0.2], probabilities = [0.7, 0.3] }",
        "an axis is a list under [grid]: lr = [0.1, 0.2]; weighted choices do not exist",
    ),
    ("[grid]\nhidden = ▸{ value = [128, 64] }", "one value belongs under [params]: hidden = [128, 64]"),
    (COMMAND + RANDOM + "o.parameters.lr = ▸{ min = 0.0, max = 1.0 }", "write the distribution as o.lr = { uniform"),
    (COMMAND + "[grid]\no.parameters.lr = ▸{ min = 0, max = 1 }", "write the range under [grid] as o.lr = "),
    (
        "command = ['train', '{o.lr}']\n[grid]\no.parameters.lr = ▸{ values = [1, 2] }",
        "an axis is a list under [grid]: o.lr = [1, 2]",
    ),
    (RANDOM + "epochs = ▸{ min = 1, max = 10 }", "epochs = { int = [1, 10] }"),
    (RANDOM + "lr = ▸{ values = [0.1, 0.2] }", "lr = { choice = [0.1, 0.2] }"),
    (RANDOM + "lr = ▸{ value = 0.1 }", "one value belongs under [params]: lr = 0.1"),
    ("[▸parameters.lr]\nvalues = [0.1]", "axes belong under [grid]"),
    ("[▸metric]\nname = 'val/loss'\ngoal = 'minimize'", '"val/loss" = "min" under [metrics]'),
    ("▸method = 'bayes'", 'method = "tpe" under [search]'),
    ("▸program = 'train.py'", 'write command = ["python", "train.py"'),
    # Optuna, Ray Tune, NNI
    (RANDOM + "lr = ▸{ low = 1e-4, high = 0.1, log = true }", "lr = { loguniform = [0.0001, 0.1] }"),
    ("[grid]\nlr = ▸{ suggest_categorical = [0.1, 0.2] }", "lr = [0.1, 0.2]"),
    ("[grid]\nlr = ▸{ grid_search = [0.1, 0.2] }", "lr = [0.1, 0.2]"),
    ("[grid]\nlr = ▸'tune.loguniform(1e-4, 1e-1)'", "lr = { loguniform = [0.0001, 0.1] }"),
    ("[grid]\nepochs = ▸{ _type = 'randint', _value = [1, 5] }", "epochs = { int = [1, 4] }; randint excludes"),
    (RANDOM + "epochs = ▸'tune.qrandint(2, 10, 2)'", "epochs = { int = [2, 10], step = 2 }"),
    (RANDOM + "epochs = ▸'tune.qlograndint(2, 10, 2)'", "no distribution here equals qlograndint"),
    (RANDOM + "epochs = ▸'tune.lograndint(2, 10)'", "epochs = { logint = [2, 9] }; lograndint excludes its upper end"),
    (RANDOM + "lr = ▸'tune.quniform(0.1, 1.0, 0.1)'", "lr = { uniform = [0.1, 1.0], step = 0.1 }"),
    (RANDOM + "lr = ▸'tune.qrandn(0, 1, 0.2)'", "lr = { normal = [0, 1], step = 0.2 }"),
    (RANDOM + "lr = ▸{ suggest_loguniform = [1e-4, 0.1] }", "lr = { loguniform = [0.0001, 0.1] }"),
    (RANDOM + "lr = ▸{ suggest_discrete_uniform = [0.05, 1.0, 0.1] }", "lr = { uniform = [0.05, 1.0], step = 0.1 }"),
    (RANDOM + "lr = ▸{ suggest_float = { low = 0.05, high = 1.0, step = 0.1 } }", "{ uniform = [0.05, 1.0], step = "),
    (RANDOM + "lr = ▸{ quniform = [0, 1, 0.1] }", "lr = { uniform = [0, 1], step = 0.1 }"),
    ("▸n_trials = 20", "write samples = 20 under [random]"),
    # Hydra, Guild
    ("[grid]\nlr = ▸'0.1,0.01'", "lr = [0.1, 0.01]"),
    ("[grid]\nmodel = ▸'choice(mlp, cnn)'", 'model = ["mlp", "cnn"]'),
    ("[grid]\nepochs = ▸'range(1, 10)'", "epochs = { from = 1, to = 9, step = 1 }"),
    ("[grid]\nlr = ▸'loguniform[1e-4:1e-1]'", "lr = { loguniform = [0.0001, 0.1] }"),
    (RANDOM + "lr = ▸'uniform(0, 1)'", "lr = { uniform = [0, 1] }"),
    # numpy
    ("[grid]\nlr = ▸{ linspace = [0, 1, 5] }", "lr = { from = 0, to = 1, count = 5 }"),
    ("[grid]\nlr = ▸{ logspace = [-4, 0, 5] }", "lr = { from = 0.0001, to = 1.0, count = 5, log = true }"),
    ("[grid]\n▸lr.logspace = [1e-4, 1, 5]", "lr = { from = 0.0001, to = 1, count = 5, log = true }"),
    ("[grid]\nlr = ▸{ start = 0, stop = 1, num = 3 }", "lr = { from = 0, to = 1, count = 3 }"),
    (
        "[[zip]]\nlr = ▸{ arange = [0.0, 1.0, 0.5] }\nmomentum = [0.1, 0.2, 0.3]",
        "lr = { from = 0.0, to = 1.0, step = 0.5 }",
    ),
    # names
    ("[params]\n▸learning_rate = 0.1", "did you mean `lr`?"),
    ("[grid]\n▸random_seed = [1]", "did you mean `seed`?"),
    ("[params]\n▸max_grad_norm = 1", "did you mean `clip`?"),
    ("[params]\n▸device = 'cuda'", "it is an option of the command: labbench run --device"),
    ("[runtime]\n▸workers = 2", "labbench run --workers"),
    ("▸device = 'cuda'", "labbench run --device"),
    ("[runtime]\n▸num_workers = 2", "did you mean `loaders`?"),
    ("[stop]\n▸monitor = 'val/loss'\npatience = 1", "did you mean `metric`?"),
    ("[search]\nmetric = 'val/loss'\nmethod = ▸'bayes'", "did you mean `tpe`?"),
    ("[search]\nmetric = 'val/loss'\nmethod = 'halving'\n▸reduction_factor = 3", "did you mean `eta`?"),
    ("[metrics]\n'val/loss' = ▸'minimize'", "did you mean `min`?"),
    ("[[exclude]]\n▸when = { lr = 1 }", "an [[exclude]] needs no `when`: write its keys directly, lr = 1"),
    # nearly right
    ("[params]\nlr = ▸[0.1, 0.2]", "an axis is a list under [grid]: lr = [0.1, 0.2]"),
    ("[params]\nlr = ▸'0.1, 0.2'", "an axis is a list under [grid]: lr = [0.1, 0.2]"),
    ("[params]\nlr = ▸{ values = [0.1, 0.2] }", "an axis is a list under [grid]: lr = [0.1, 0.2]"),
    ("[grid]\nlr = { from = 0, to = 1, ▸num = 5 }", "write `count`"),
    ("[grid]\nlr = ▸{ from = 1e-4, to = 1, log = true }", "{ from = 1e-4, to = 1, count = 5, log = true }"),
    ("[grid]\nlr = ▸{ normal = [0, 1], low = 0 }", "a distribution belongs under [random]"),
    (RANDOM + "lr = ▸{ normal = [0, 1], low = 0 }", "several distributions in one range: `lr` has `normal`, `low`"),
    (
        RANDOM + "lr = ▸{ uniform = [0, 1], choice = [1] }",
        "several distributions in one range: `lr` has `uniform`, `choice`; keep one",
    ),
    (RANDOM + "lr = ▸{ uniform = [0, 1], q = 0.1 }", "as `step`: `lr` has `uniform`, `q`"),
    (RANDOM + "lr = { uniform = ▸{ min = 0, max = 1 } }", "takes a list of two numbers, [low, high]"),
    (RANDOM + "lr = ▸{ from = 0, to = 1, step = 0.1 }", "a range belongs under [grid]: lr = { from = 0"),
    # commands, whose parameters may have any name
    (COMMAND + "[grid]\nlr = ▸{ values = [1, 2] }", "lr = [1, 2]"),
    (COMMAND + "[grid]\nlr = ▸{ logspace = [-4, 0, 5] }", "from = 0.0001, to = 1.0, count = 5, log = true"),
    (COMMAND + "[grid]\nlr = ▸{ min = 1, max = 2 }", "lr = { from = 1, to = 2, count = 5 }"),
    (COMMAND + RANDOM + "lr = ▸'uniform(0, 1)'", "lr = { uniform = [0, 1] }"),
]


@pytest.fixture
def expand_text(tmp_path: Path) -> Callable[[str], Expansion]:
    def expand_text(text: str) -> Expansion:
        path = tmp_path / "grid.toml"
        path.write_text(text)
        grid = read_grid(path)
        return expand(grid, {} if grid.command else DIGITS)

    return expand_text


@pytest.mark.parametrize(("marked", "remedy"), OTHERS, ids=[f"{m} -> {r}".replace("\n", " ") for m, r in OTHERS])
def test_the_spelling_of_another_tool_is_answered_with_ours_at_its_place(
    expand_text: Callable[[str], Expansion], marked: str, remedy: str
) -> None:
    text = marked if marked.startswith("command") else f'task = "digits"\n{marked}'
    before, _, after = text.partition("▸")
    with pytest.raises(GridError) as caught:
        expand_text(before + after)
    assert remedy in caught.value.message
    assert (caught.value.line, caught.value.column) == (before.count("\n") + 1, len(before) - before.rfind("\n"))


@pytest.mark.parametrize(
    "text",
    [
        COMMAND + "[grid]\nlr = [1]\nmodel = { values = [1, 2] }\nx = { min = [1], max = [2] }",
        COMMAND + "[params]\nlr = 'uniform(0, 1)'\nnames = ['a', 'b']\nclamp = { min = 0, max = 1 }",
        COMMAND + "[grid]\nlr = ['choice(1, 2)', 'a,b']",
        COMMAND + RANDOM + "lr = { choice = ['1,2'] }\nx = { min = { int = [0, 1] }, max = { int = [2, 3] } }",
    ],
)
def test_parameters_of_commands_may_have_these_names_and_values(
    expand_text: Callable[[str], Expansion], text: str
) -> None:
    assert expand_text(text).configs


@pytest.mark.parametrize("word", ["${lr}", "$lr", "%(lr)s", "<lr>", "{ lr }", "{lr!r}"])
def test_an_axis_in_the_placeholder_of_another_tool_is_warned_of_with_ours(
    expand_text: Callable[[str], Expansion], word: str
) -> None:
    (warning,) = expand_text(f"command = ['python', 'train.py', '--lr={word}']\n[grid]\nlr = [1]\n").warnings
    assert warning.endswith(f":3:1: no word of the command uses `lr`; write {{lr}} instead of {word}")


def test_a_seed_that_no_run_has_is_answered_with_repeat_and_a_long_line_is_cut_around_the_caret(
    expand_text: Callable[[str], Expansion],
) -> None:
    options = ", ".join(f'"--option-{index}", "{{lr}}"' for index in range(20))
    command = f'command = ["python", "train.py", {options}, "--seed", "{{seed}}", {options}]\n'
    with pytest.raises(GridError) as caught:
        expand_text(command + "[grid]\nlr = [1]\n")
    message, line, caret = str(caught.value).splitlines()
    assert "no run has `seed`; add [repeat] with seeds = 3, or set it in [params]" in message
    assert len(line) <= 80
    assert line[caret.index("^") :].startswith("{seed}")
    assert line.strip()[0] == line.strip()[-1] == "…"
