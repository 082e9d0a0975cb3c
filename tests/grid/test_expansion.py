"""Configs of a grid, and the names of its runs."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from labbench.configs import canonical_json
from labbench.errors import GridError, InputError
from labbench.grid import count_runs, expand, new_runs, read_grid
from labbench.grid.names import make_names
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Param
from labbench.records import NewRun

DIGITS = {**TRAINING, **BUILTIN["digits"]}
DEFAULTS = {key: param.default for key, param in DIGITS.items()}

Expand = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def new_runs_of(tmp_path: Path) -> Callable[..., list[NewRun]]:
    """Return a function from the text of a grid to its runs."""

    def new_runs_of(text: str, *overrides: str) -> list[NewRun]:
        path = tmp_path / "grid.toml"
        path.write_text(text if text.lstrip().startswith("command") else f'task = "digits"\n{text}')
        grid = read_grid(path, overrides=overrides)
        params = {} if grid.command else DIGITS
        return new_runs(grid, expand(grid, params).configs, params)

    return new_runs_of


@pytest.fixture
def configs(new_runs_of: Callable[..., list[NewRun]]) -> Expand:
    """Return a function from the text of a grid to its configs, without values at their defaults."""

    def configs(text: str, *overrides: str) -> list[dict[str, Any]]:
        return [non_defaults(run.config) for run in new_runs_of(text, *overrides)]

    return configs


@pytest.fixture
def names(new_runs_of: Callable[..., list[NewRun]]) -> Callable[..., list[str]]:
    return lambda text, *overrides: [run.name for run in new_runs_of(text, *overrides)]


def error_message(configs: Expand, text: str) -> str:
    """Return the message of the error in the text of a grid."""
    with pytest.raises(GridError) as caught:
        configs(text)
    return caught.value.message


def non_defaults(config: Any) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in DEFAULTS or value != DEFAULTS[key]}


EXAMPLE = """
name = "optimizers"
task = "digits"
[params]
epochs = 20
model = "mlp"
hidden = [128, 64]
[grid]
optimizer = ["sgd", "adam"]
lr        = [0.1, 0.01, 0.001]
dropout   = [0.0, 0.5]
batchnorm = [false, true]
[[zip]]
batch_size = [32, 128]
weight_decay = [0.0, 1e-4]
[repeat]
seeds = [0, 1, 2]
[[exclude]]
optimizer = "sgd"
lr = [0.001]
[[set]]
when = { optimizer = "sgd" }
momentum = 0.9
[[include]]
optimizer = "adam"
lr = 0.003
[metrics]
"val/accuracy" = "max"
[stop]
metric = "val/loss"
patience = 5
"""


def test_the_large_example_has_123_runs(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text(EXAMPLE)
    grid = read_grid(tmp_path / "grid.toml")
    expansion = expand(grid, DIGITS)
    runs = new_runs(grid, expansion.configs, DIGITS)
    assert expansion.warnings == []
    assert len(runs) == len({run.name for run in runs}) == len({run.identity for run in runs}) == 123
    assert runs[0].name == "sgd lr=0.1 bs=32 s0"
    assert runs[3 * 7].name == "sgd lr=0.1 drop=0.5 bn bs=128 wd=0.0001 s0"
    assert runs[-1].name == "adam lr=0.003 bs=64 s2"
    for run in runs:
        assert list(run.config) == list(DIGITS)
        assert run.config["momentum"] == (0.9 if run.config["optimizer"] == "sgd" else 0.0)
        assert (run.config["epochs"], run.config["beta1"]) == (20, 0.9)


def test_the_last_axis_varies_first_and_seeds_before_it(configs: Expand) -> None:
    expanded = configs("[grid]\nlr = [1, 2]\nmomentum = [0.1, 0.2]\n[repeat]\nseeds = [4, 3]")
    assert [(c["lr"], c["momentum"], c["seed"]) for c in expanded] == [
        (lr, momentum, seed) for lr in (1, 2) for momentum in (0.1, 0.2) for seed in (4, 3)
    ]


def test_values_have_their_declared_types(configs: Expand) -> None:
    [config] = configs("[params]\nlr = 1\nepochs = 3.0\nhidden = [8.0, 4]")
    assert (config["lr"], type(config["lr"])) == (1.0, float)
    assert (config["epochs"], type(config["epochs"])) == (3, int)
    assert [type(width) for width in config["hidden"]] == [int, int]


def test_an_invalid_default_of_a_task_is_refused(tmp_path: Path) -> None:
    (tmp_path / "grid.toml").write_text('task = "digits"')
    with pytest.raises(InputError, match="declares `width` with a default that must be at least 1, not 0"):
        expand(read_grid(tmp_path / "grid.toml"), {"width": Param("int", 0, low=1)})


def test_a_grid_without_axes_is_one_run_or_its_includes(configs: Expand) -> None:
    assert configs("") == [{}]
    assert configs("[params]\nlr = 0.5") == [{"lr": 0.5}]
    assert configs("[params]\nepochs = 2\n[[include]]\nlr = 0.5\n[[include]]\nlr = 0.6") == [
        {"epochs": 2, "lr": 0.5},
        {"epochs": 2, "lr": 0.6},
    ]


def test_an_axis_of_lists_has_lists_as_values(configs: Expand) -> None:
    assert configs("[grid]\nhidden = [[32], [64, 16]]") == [{"hidden": [32]}, {"hidden": [64, 16]}]


def test_an_axis_overrides_a_param_and_an_include_starts_from_the_params(configs: Expand) -> None:
    text = "[params]\nlr = 0.5\n[grid]\nlr = [0.1]\n[[include]]\nmomentum = 0.9"
    assert configs(text) == [{"lr": 0.1}, {"lr": 0.5, "momentum": 0.9}]


def test_an_exclude_needs_all_of_its_keys_and_any_of_its_values(configs: Expand) -> None:
    grid = '[grid]\noptimizer = ["adam", "adamw"]\nlr = [1, 2, 3]\n'
    left = configs(grid + '[[exclude]]\noptimizer = "adam"\nlr = [1, 3.0]\n[[exclude]]\nlr = 2')
    assert [(c["optimizer"], c["lr"]) for c in left] == [("adamw", 1.0), ("adamw", 3.0)]


def test_an_exclude_of_a_list_matches_that_list_or_any_of_several(configs: Expand) -> None:
    grid = "[grid]\nhidden = [[1], [2], [3, 4]]\n[[exclude]]\nhidden = "
    assert configs(grid + "[3, 4]") == [{"hidden": [1]}, {"hidden": [2]}]
    assert configs(grid + "[[1], [3, 4]]") == [{"hidden": [2]}]


def test_conditions_match_defaults_and_params(configs: Expand) -> None:
    text = "[params]\nepochs = 5\n[grid]\nlr = [1, 2]\n[[set]]\nwhen = { epochs = 5, dropout = 0 }\nbatchnorm = true"
    assert [c["batchnorm"] for c in configs(text)] == [True, True]


def test_excludes_do_not_apply_to_includes(configs: Expand) -> None:
    assert configs("[grid]\nlr = [1, 2]\n[[exclude]]\nlr = 2\n[[include]]\nlr = 2\nepochs = 3") == [
        {"lr": 1.0},
        {"lr": 2.0, "epochs": 3},
    ]


def test_a_set_overrides_params_but_not_the_values_of_axes_and_includes(configs: Expand) -> None:
    rule = '[[set]]\nwhen = { model = "mlp" }\nmomentum = 0.9\n'
    assert configs(f"[params]\nmomentum = 0.5\n{rule}") == [{"momentum": 0.9}]
    assert configs(f"[grid]\nmomentum = [0.5]\n{rule}") == [{"momentum": 0.5}]
    assert configs(f"[[include]]\nmomentum = 0.5\n{rule}") == [{"momentum": 0.5}]
    assert configs(rule, "momentum=0.5") == [{"momentum": 0.5}]


def test_sets_apply_in_file_order_to_the_results_of_earlier_sets(configs: Expand) -> None:
    first = "[[set]]\nwhen = { lr = 0.01 }\nmomentum = 0.9\nbeta1 = 0.5\n"
    second = "[[set]]\nwhen = { momentum = 0.9 }\nnesterov = true\nbeta1 = 0.6\n"
    assert configs(first + second) == [{"momentum": 0.9, "nesterov": True, "beta1": 0.6}]
    assert configs(second + first) == [{"momentum": 0.9, "beta1": 0.5}]


def test_duplicate_configs_are_kept_once_at_their_first_position(configs: Expand) -> None:
    expanded = configs("[grid]\nlr = [1, 2, 1.0]\n[[include]]\nlr = 2\n[[include]]\nlr = 3\n[repeat]\nseeds = [1, 1]")
    assert [c["lr"] for c in expanded] == [1, 2, 3]


def test_an_override_replaces_a_param_and_pins_an_axis(configs: Expand) -> None:
    text = """[params]\nepochs = 5\n[grid]\nlr = [1, 2]\n[[zip]]\nbatch_size = [1, 2]\nmomentum = [0.1, 0.2]
              [[include]]\nlr = 9\n[repeat]\nseeds = [1, 2]"""
    assert {c["epochs"] for c in configs(text, "epochs=7")} == {7}
    assert [c["lr"] for c in configs(text, "lr=3")] == [3] * 6
    assert {(c.get("batch_size"), c["momentum"]) for c in configs(text, "momentum=0.5", "lr=1")} == {
        (1, 0.5),
        (2, 0.5),
        (None, 0.5),
    }
    assert {c["seed"] for c in configs(text, "seed=7")} == {7}
    assert configs("", "optimizer=adam", "lr=1", "lr=2", "hidden=[8]") == [
        {"optimizer": "adam", "lr": 2.0, "hidden": [8]},
    ]
    assert configs("command = ['a']\n[grid]\nopt.lr = [1, 2]", "opt={lr=3, name='x'}", "s=1e-3x") == [
        {"opt.lr": 3, "opt.name": "x", "s": "1e-3x"},
    ]


RANDOM = """
[random]
samples = %d
seed = 1
lr = { loguniform = [1e-4, 1e-1] }
dropout = { uniform = [0.0, 0.5] }
epochs = { int = [1, 3] }
hidden = { choice = [[16], [32, 32]] }
"""


def test_random_draws_stay_within_their_distributions(configs: Expand) -> None:
    expanded = configs(RANDOM % 200)
    assert len(expanded) == 200
    lrs = sorted(c["lr"] for c in expanded)
    assert 1e-4 <= lrs[0] < 2e-4
    assert 5e-2 < lrs[-1] <= 1e-1
    assert math.log10(lrs[100]) == pytest.approx(-2.5, abs=0.4)
    assert all(0 <= c.get("dropout", 0) <= 0.5 for c in expanded)
    assert {c["epochs"] for c in expanded} == {1, 2, 3}
    assert {tuple(c["hidden"]) for c in expanded} == {(16,), (32, 32)}
    assert all(len(f"{c['lr']:g}") >= len(repr(c["lr"]).lstrip("0.")) for c in expanded)


def test_random_draws_depend_only_on_the_file(configs: Expand) -> None:
    """Exact numbers, since a release that drew others would train existing grids again."""
    random.seed(3)
    [first, second] = configs(RANDOM % 2)
    assert (first["lr"], first["dropout"], first["epochs"], first["hidden"]) == FIRST_DRAW
    assert configs(RANDOM % 9)[:2] == [first, second]
    assert [c["lr"] for c in configs(RANDOM % 2, "dropout=0.1")] == [first["lr"], second["lr"]]
    assert configs((RANDOM % 2).replace("seed = 1", "seed = 2"))[0]["lr"] != first["lr"]
    alone = configs("[random]\nsamples = 1\nseed = 1\nlr = { loguniform = [1e-4, 1e-1] }")
    assert alone[0]["lr"] == first["lr"]


FIRST_DRAW = (0.000395131, 0.227214, 1, [32, 32])


def test_random_draws_are_one_axis_beside_the_others(configs: Expand) -> None:
    expanded = configs(RANDOM % 3 + "[grid]\nmomentum = [0.1, 0.2]")
    assert [c["momentum"] for c in expanded] == [0.1] * 3 + [0.2] * 3
    assert [c["lr"] for c in expanded[:3]] == [c["lr"] for c in expanded[3:]]


def test_a_too_large_grid_is_refused_before_it_is_expanded(tmp_path: Path) -> None:
    axes = "\n".join(f"{key} = [{', '.join(map(str, range(1, 101)))}]" for key in ("lr", "epochs", "batch_size"))
    path = tmp_path / "grid.toml"
    path.write_text(
        f'task = "digits"\n[grid]\n{axes}\n[random]\nsamples = 1000000000\ndropout = {{ uniform = [0, 0.5] }}'
    )
    grid = read_grid(path)
    with pytest.raises(GridError, match=r"1,000,000,000,000,000 runs, more than 100,000.*--yes"):
        expand(grid, DIGITS)
    small = read_grid(path, overrides=["dropout=0.5", "lr=1", "epochs=1"])
    assert count_runs(small) == 100
    with pytest.raises(GridError, match="100 runs, more than 99"):
        expand(small, DIGITS, limit_without_yes=99)
    assert len(expand(small, DIGITS, limit_without_yes=99, yes=True).configs) == 100


def test_ten_thousand_runs_have_distinct_names_and_identities(new_runs_of: Callable[..., list[NewRun]]) -> None:
    runs = new_runs_of(
        f"""
        [grid]
        optimizer = ["sgd", "adam"]
        lr = {[n / 1000 for n in range(1, 26)]}
        dropout = [0.0, 0.1, 0.2, 0.3, 0.5]
        batchnorm = [false, true]
        [[zip]]
        batch_size = [32, 64]
        weight_decay = [0.0, 0.1]
        [[set]]
        when = {{ optimizer = "sgd" }}
        momentum = 0.9
        [repeat]
        seeds = {list(range(10))}
        """
    )
    assert len(runs) == len({run.name for run in runs}) == len({run.identity for run in runs}) == 10_000


axis_values = {
    "optimizer": st.sampled_from(["sgd", "adam", "adamw"]),
    "lr": st.floats(0, 1) | st.integers(0, 3),
    "batch_size": st.integers(1, 512),
    "dropout": st.floats(0, 0.9),
    "batchnorm": st.booleans(),
    "nesterov": st.booleans(),
    "hidden": st.lists(st.integers(1, 9), max_size=2),
    "activation": st.sampled_from(["relu", "tanh"]),
    "momentum": st.floats(0, 0.9),
}


def spelled(value: Any) -> str:
    """Return JSON that is the same for 1 and 1.0."""
    return json.dumps(value, sort_keys=True).removesuffix(".0")


def distinct(values: st.SearchStrategy[Any], size: int | None = None) -> st.SearchStrategy[list[Any]]:
    return st.lists(
        values, min_size=size or 1, max_size=size or 3, unique_by=lambda value: json.dumps(value).removesuffix(".0")
    )


@st.composite
def grids(draw: st.DrawFn) -> tuple[str, int]:
    """Draw a grid of distinct values and its number of runs."""
    keys = draw(st.lists(st.sampled_from(sorted(axis_values)), min_size=1, max_size=4, unique=True))
    split = draw(st.integers(0, len(keys)))
    lines, count = ["[grid]"] if split else [], 1
    for key in keys[:split]:
        values = draw(distinct(axis_values[key]))
        lines.append(f"{key} = {json.dumps(values)}")
        count *= len(values)
    if keys[split:]:
        lines.append("[[zip]]")
        lines += [f"{key} = {json.dumps(draw(distinct(axis_values[key], 2)))}" for key in keys[split:]]
        count *= 2
    seeds = draw(st.lists(st.integers(0, 99), max_size=3, unique=True))
    if seeds:
        lines.append(f"[repeat]\nseeds = {seeds}")
    return "\n".join(lines), count * max(1, len(seeds))


one_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


@one_folder
@given(grids())
def test_a_grid_has_as_many_runs_as_the_product_of_its_axes(
    new_runs_of: Callable[..., list[NewRun]], grid: tuple[str, int]
) -> None:
    text, count = grid
    runs = new_runs_of(text)
    assert len(runs) == count
    assert len({run.name for run in runs}) == count
    assert len({run.identity for run in runs}) == count
    assert new_runs_of(text) == runs


words = st.sampled_from(["a", "a b", "bn", "s1", "lr=1", "true", ""])
free_values = st.none() | st.booleans() | st.integers(-2, 2) | st.floats(-1, 1) | words
free_keys = st.sampled_from(["lr", "x.lr", "bn", "batchnorm", "seed", "opt", "a"])
free_configs = st.lists(
    st.dictionaries(free_keys, free_values, max_size=5), min_size=1, max_size=6, unique_by=canonical_json
)


@settings(deadline=None)
@given(free_configs, st.booleans())
def test_different_configs_never_share_a_name(configs: list[dict[str, Any]], are_axes: bool) -> None:
    names = make_names(configs, {}, axes=["opt", "lr"] if are_axes else [], same="grid")
    assert all(names)
    assert len(set(names)) == len(configs)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ["grid"]),
        ("[grid]\nbatchnorm = [true, false]", ["bn", "bn=false"]),
        ("[grid]\ndropout = [0, 0.5]", ["drop=0", "drop=0.5"]),
        ("[grid]\nlr = [1e-5, 1]", ["lr=1e-5", "lr=1"]),
        ("[grid]\nlr = [0.1, 1e6, 1e15, 1e25]", ["lr=0.1", "lr=1e6", "lr=1e15", "lr=1e25"]),
        ("command = ['x']\n[grid]\nn = [[1e6, 2], [1_000_001]]", ["n=[1e6,2]", "n=[1000001]"]),
        ("[grid]\nlr = [0.01, 0.02]", ["lr=0.01", "lr=0.02"]),
        ("[grid]\nhidden = [[8], [8, 4]]", ["hidden=[8]", "hidden=[8,4]"]),
        ("[grid]\nactivation = ['relu', 'tanh']\nmodel = ['mlp']", ["relu", "tanh"]),
        ("[repeat]\nseeds = [0, 5]", ["s0", "s5"]),
        ("[params]\nlr = 0.1\n[[include]]\noptimizer = 'adam'\n[[include]]\nnesterov = true", ["adam", "nesterov"]),
        ("[grid]\nlr = [0.1]\n[[include]]\nlr = 0.2\nbeta1 = 0.8", ["lr=0.1", "lr=0.2 beta1=0.8"]),
        ("command = ['x']\n[grid]\na = ['p', 'q']\nb = ['p', 'r']", ["a=p b=p", "a=p b=r", "a=q b=p", "a=q b=r"]),
        (
            "command = ['x']\n[grid]\na.lr = [1, 2]\nb.lr = [3, 4]",
            ["a.lr=1 b.lr=3", "a.lr=1 b.lr=4", "a.lr=2 b.lr=3", "a.lr=2 b.lr=4"],
        ),
        ("command = ['x']\n[grid]\nnet.width = [1, 2.5]", ["width=1", "width=2.5"]),
        ("command = ['x']\n[grid]\na = ['x y', 'z']", ['a="x y"', "a=z"]),
        ("command = ['x']\n[grid]\na = [true, 'true', 1]", ["a=true", 'a="true"', "a=1"]),
        ("command = ['x']\n[grid]\na = [0, 1]\n[[include]]\nb = 2", ["a=0", "a=1", "b=2"]),
        ("command = ['x']\n[[include]]\nb = 2\n[[include]]\nc = 1", ["b=2", "c=1"]),
        ("command = ['x']\n[params]\na = 1\n[[include]]\na = 1\n[[include]]\nb = 2", ["no b", "b=2"]),
    ],
)
def test_names_have_the_keys_that_differ_and_are_on(
    names: Callable[..., list[str]], text: str, expected: list[str]
) -> None:
    assert names(text) == expected


def test_seeds_may_be_given_by_their_number(configs: Expand) -> None:
    assert configs("[repeat]\nseeds = 3") == configs("[repeat]\nseeds = [0, 1, 2]")


@pytest.mark.parametrize(
    ("axis", "values"),
    [
        ("dropout = { from = 0, to = 0.5, step = 0.1 }", [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]),
        ("dropout = { from = 0.1, to = 0.5, step = 0.15 }", [0.1, 0.25, 0.4]),
        ("epochs = { from = 10, to = 30, step = 10 }", [10, 20, 30]),
        ("lr = { from = 1e-4, to = 1, count = 5, log = true }", [1e-4, 1e-3, 1e-2, 0.1, 1.0]),
        ("lr = { from = 0, to = 1, count = 4 }", [0.0, 0.333333, 0.666667, 1.0]),
        ("batch_size = { from = 16, to = 256, count = 5, log = true }", [16, 32, 64, 128, 256]),
        ('clip = ["none", 1.0]', [None, 1.0]),
    ],
)
def test_an_axis_may_be_a_range_and_have_no_value(configs: Expand, axis: str, values: list[object]) -> None:
    key = axis.partition(" ")[0]
    assert [(DEFAULTS | config)[key] for config in configs(f"[grid]\n{axis}")] == values
    assert [
        (DEFAULTS | config)[key] for config in configs(f"[[zip]]\n{axis}\nmomentum = {[0.5] * len(values)}")
    ] == values


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ("lr = { from = 0, to = 1 }", "either `step` or `count`"),
        ("lr = { from = 0, to = 1, step = 1, count = 2 }", "either `step` or `count`"),
        ("lr = { from = 1, to = 0, step = 1 }", "`from` must be below `to`"),
        ("lr = { from = 0, to = 1, step = 0 }", "`step` must be above 0"),
        ("lr = { from = 0, to = 1, count = 3, log = true }", "`from` above 0"),
        ("lr = { from = 0, to = 1, steps = 3 }", "did you mean `step`?"),
        ("lr = { from = 0, to = 1, step = 1e-9 }", "a range has at most 100,000 values"),
        ("lr = { uniform = [0, 1] }", "a distribution belongs under [random]"),
        ("lr = [True]", "invalid value: write true"),
        ("lr = [null]", 'write "none", since TOML has no null'),
        ("lr = [.1]", "write 0.1"),
        ("lr = range(3)", "write { from = 0"),
        ('lr = ["none"]', 'lr must be a number, not "none"'),
        ('clip = ["x"]', 'clip must be a number, not "x" ("none": no value)'),
    ],
)
def test_a_mistake_in_an_axis_names_the_remedy(configs: Expand, axis: str, message: str) -> None:
    assert message in error_message(configs, f"[grid]\n{axis}")


@pytest.mark.parametrize(
    ("option", "key", "values"),
    [
        ("lr=0.1,0.2", "lr", [0.1, 0.2]),
        ("lr=[0.1, 0.2]", "lr", [0.1, 0.2]),
        ("optimizer=sgd,adam", "optimizer", ["sgd", "adam"]),
        ("hidden=[8],[16,8]", "hidden", [[8], [16, 8]]),
        ("hidden=[[8],[16,8]]", "hidden", [[8], [16, 8]]),
        ("hidden=[16,8]", "hidden", [[16, 8]]),
        ("clip=none,1", "clip", [None, 1.0]),
        ("seed=3,4", "seed", [3, 4]),
    ],
)
def test_an_override_with_several_values_replaces_an_axis(
    configs: Expand, option: str, key: str, values: list[object]
) -> None:
    assert [(DEFAULTS | config)[key] for config in configs("[repeat]\nseeds = [7]", option)] == values
    both = configs("[grid]\nlr = [1, 2]\nmomentum = [0.1, 0.2]", option)
    assert len(both) == (2 if key == "lr" else 4) * len(values)


def test_draws_with_steps_normal_draws_and_draws_of_whole_numbers_on_a_log_scale(configs: Expand) -> None:
    draws = configs(
        "[random]\nsamples = 300\nlr = { normal = [0.1, 0.001] }\ndropout = { uniform = [0.1, 0.5], step = 0.1 }\n"
        "epochs = { logint = [1, 1000] }\nwarmup = { int = [0, 10], step = 5 }\n"
        "label_smoothing = { loguniform = [0.01, 0.5], step = 0.01 }"
    )
    lrs = sorted((DEFAULTS | config)["lr"] for config in draws)
    assert lrs[150] == pytest.approx(0.1, abs=2e-4)
    assert lrs[252] - lrs[48] == pytest.approx(0.002, rel=0.2)  # 16 % to 84 %: two standard deviations
    assert {config.get("dropout", 0) for config in draws} == {0.1, 0.2, 0.3, 0.4, 0.5}
    assert {config.get("warmup", 0) for config in draws} == {0, 5, 10}
    assert all(round(config.get("label_smoothing", 0) * 100, 9).is_integer() for config in draws)
    epochs = sorted((DEFAULTS | config)["epochs"] for config in draws)
    assert (epochs[0] >= 1, epochs[-1] <= 1000, 15 < epochs[150] < 70) == (True, True, True)


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        ("{ normal = [0, 0] }", "standard deviation must be above 0"),
        ("{ normal = [0.1] }", "[mean, standard deviation]"),
        ("{ logint = [0, 3] }", "numbers above 0"),
        ("{ uniform = [0, 1], step = 0 }", "`step` must be a number above 0"),
        ("{ choice = [0, 1], step = 1 }", "`step` cannot be combined with `choice`"),
        ("{ normal = [0, 1] }", "lr must be at least 0"),
    ],
)
def test_an_invalid_distribution_is_refused(configs: Expand, draw: str, message: str) -> None:
    assert message in error_message(configs, f"[random]\nsamples = 9\nlr = {draw}")


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("lr * batch_size <= 10", [(0.1, 32), (0.1, 64), (0.01, 32), (0.01, 64), (0.01, 512)]),
        ("lr < 0.1 or batch_size == 32", [(0.1, 32), (0.01, 32), (0.01, 64), (0.01, 512)]),
        ("not batch_size in [32, 64]", [(0.1, 512), (0.01, 512)]),
        ("32 < batch_size <= 512 // 2", [(0.1, 64), (0.01, 64)]),
        ("clip == none and -lr ** 2 > -1e-3", [(0.01, 32), (0.01, 64), (0.01, 512)]),
        ('optimizer == "sgd" and batch_size % 512 == 0 and batchnorm == false', [(0.1, 512), (0.01, 512)]),
    ],
)
def test_require_keeps_the_configs_that_meet_the_condition(
    configs: Expand, condition: str, kept: list[tuple[float, int]]
) -> None:
    text = f"[grid]\nlr = [0.1, 0.01]\nbatch_size = [32, 64, 512]\n[[require]]\ncondition = '{condition}'"
    both = [(config.get("lr", 0.01), config.get("batch_size", 64)) for config in configs(text)]
    assert both == kept


def test_require_sees_set_include_and_seeds(configs: Expand) -> None:
    text = """
        [grid]
        optimizer = ["sgd", "adam"]
        [repeat]
        seeds = 2
        [[set]]
        when = { optimizer = "sgd" }
        momentum = 0.9
        [[include]]
        optimizer = "rmsprop"
        [[require]]
        condition = 'momentum > 0.5 or optimizer == "rmsprop" and seed < 1'
    """
    assert configs(text) == [
        {"momentum": 0.9},
        {"momentum": 0.9, "seed": 1},
        {"optimizer": "rmsprop"},
    ]


def test_require_reads_dotted_keys_and_missing_values_of_a_command(configs: Expand) -> None:
    text = """
        command = ["echo", "{model.width}"]
        [grid]
        model.width = [16, 64]
        clip = ["none", 1.0]
        [[require]]
        condition = "clip == none or clip * 16 < model.width"
    """
    values = [(config["model.width"], config["clip"]) for config in configs(text)]
    assert values == [(16, "none"), (64, "none"), (64, 1.0)]


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        ("lr < 1 and bach_size > 2", r"5:25: no run has `bach_size`; did you mean `batch_size`\?"),
        ("lr = 1", "not an expression; write `==` for `=`"),
        ("lr < 1 && lr > 0", "write `and` for `&&`"),
        ("__import__('os').system('true')", "cannot be used in a condition"),
        ("[x for x in hidden]", "cannot be used in a condition"),
        ("lr", "`lr` is 0.1, not true or false"),
        ("lr < optimizer", "0.1 and 'sgd' in `lr < optimizer` have no order"),
        ("clip < 1", "none and 1 in `clip < 1` have no order; write `key == none or ...`"),
        ("1 / (lr - lr) > 0", "has no value with"),
        ("9 ** 9 ** 9 ** 9 > 0", "has no value with"),
        ("lr > 1", "5:13: no run of the grid meets this condition"),
    ],
)
def test_invalid_condition_is_reported_at_its_place(configs: Expand, condition: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        configs(f'[grid]\nlr = [0.1, 0.01]\n[[require]]\ncondition = "{condition}"')


def test_branches_add_axes_to_the_runs_that_match_and_nest_by_conditions(configs: Expand) -> None:
    text = """
        [grid]
        optimizer = ["sgd", "adam"]
        [[branch]]
        when = { optimizer = "sgd" }
        momentum = [0.0, 0.9]
        [[branch]]
        when = { optimizer = "adam" }
        beta1 = { from = 0.8, to = 0.9, step = 0.1 }
        [[branch]]
        when = { momentum = 0.9 }
        nesterov = [false, true]
        [[exclude]]
        beta1 = 0.8
    """
    assert configs(text) == [
        {},
        {"momentum": 0.9},
        {"momentum": 0.9, "nesterov": True},
        {"optimizer": "adam"},
    ]
    assert configs(text, "momentum=0.5", "optimizer=sgd") == [{"momentum": 0.5}]


def test_set_does_not_replace_the_values_of_a_branch(configs: Expand) -> None:
    text = """
        [[branch]]
        when = { optimizer = "sgd" }
        momentum = [0.1, 0.2]
        [[set]]
        when = { optimizer = "sgd" }
        momentum = 0.9
    """
    assert configs(text) == [{"momentum": 0.1}, {"momentum": 0.2}]


def test_runs_of_a_command_have_the_keys_of_their_branch_alone(
    configs: Expand, names: Callable[..., list[str]]
) -> None:
    text = """
        command = ["train", "{model}", "{depth?}"]
        [grid]
        model = ["linear", "tree"]
        [[branch]]
        when = { model = "tree" }
        depth = [2, 4]
    """
    assert configs(text) == [{"model": "linear"}, {"model": "tree", "depth": 2}, {"model": "tree", "depth": 4}]
    assert names(text) == ["linear", "tree depth=2", "tree depth=4"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[branch]]\nmomentum = [0.1]", r"\[\[branch\]\] needs a condition"),
        ('[[branch]]\nwhen = { optimizer = "sgd" }', "2:1: this .* is empty"),
        ('[[branch]]\nwhen = { optimizer = "sgd" }\nmomentum = 0.9', "4:12: an axis must be a list"),
        ('[[branch]]\nwhen = { optimizer = "sgd" }\nmomentun = [0.9]', "4:1: unknown parameter .* `momentum`"),
        (
            '[grid]\nmomentum = [0.1]\n[[branch]]\nwhen = { optimizer = "sgd" }\nmomentum = [0.9]',
            r"6:1: `momentum` already has an axis in \[grid\]",
        ),
        (
            '[[branch]]\nwhen = { optimizer = "sgd" }\nlr = [0.1]\n[[branch]]\nwhen = { seed = 0 }\nlr = [0.1]',
            r"7:1: `lr` already has an axis in another \[\[branch\]\]",
        ),
    ],
)
def test_invalid_branch_is_reported_at_its_place(configs: Expand, text: str, message: str) -> None:
    with pytest.raises(GridError, match=message):
        configs(text)


def test_branches_respect_the_maximum_number_of_runs(tmp_path: Path) -> None:
    path = tmp_path / "grid.toml"
    path.write_text(
        'task = "digits"\n[[branch]]\nwhen = { optimizer = "sgd" }\nlr = { from = 0.01, to = 0.99, step = 0.01 }'
    )
    grid = read_grid(path)
    assert len(expand(grid, DIGITS).configs) == 99
    with pytest.raises(GridError, match="99 runs, more than 50"):
        expand(grid, DIGITS, limit_without_yes=50)
