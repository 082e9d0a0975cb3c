"""Grid file of a task: its parameters with their defaults, and a first axis."""

from __future__ import annotations

from labbench.params.builtin import BUILTIN
from labbench.params.param import Param
from labbench.scaffolding.toml_text import commented_lines, toml_key, toml_value

N_SEEDS = 3
"""Number of seeds in a first grid; with one, no difference can be judged."""

_LEARNING_RATES = [0.1, 0.01]

MORE = """\
# More tables of grid files, ready to use without the leading "# ":
#
# [random]                              # draws instead of [grid]; remove the lines of the same keys
# samples = 20
# lr = { loguniform = [1e-4, 1.0] }
#
# [stop]                                # end a run once this many epochs bring no better value
# metric = "val/loss"
# patience = 5
#
# [search]                              # train only the best configurations to the end
# method = "halving"
#
# [runtime]
# watch = true                          # pictures of the network for `labbench show`
# keep = "best"                         # the model, for labbench.load_model
"""


def task_grid(task: str) -> str:
    """Return the grid file for a built-in task, or for a task `FILE.py:CLASS`."""
    params = BUILTIN.get(task, {})
    name = task if task in BUILTIN else task.partition(":")[0].removesuffix(".py").rpartition("/")[2]
    listed = f"labbench tasks {task}"
    lines = [
        f"# Trains the task {task} with two optimizers and two learning rates.",
        f"name = {toml_value(name)}",
        f"task = {toml_value(task)}",
        "",
        f"[params]  # the same for every run; `{listed}` lists all parameters and the values that they take",
        "epochs = 10",
        *_required_lines(task),
        *commented_lines([_param_line(key, param) for key, param in params.items() if _is_shown(key, param)]),
        "",
        "[grid]  # every combination of these lists",
        'optimizer = ["sgd", "adam"]',
        f"lr = {toml_value(_LEARNING_RATES)}",
        "",
        "[repeat]",
        f"seeds = {N_SEEDS}  # every combination with {N_SEEDS} seeds, which show how certain a difference is",
        "",
        "[metrics]",
        *_goal_lines(task),
    ]
    return "\n".join(lines) + "\n\n" + MORE


def _required_lines(task: str) -> list[str]:
    return ['path = "data.csv"  # your .csv or .npz file, or a folder with a folder of images for each class'] * (
        task == "own"
    )


def _is_shown(key: str, param: Param) -> bool:
    return key not in ("path", "init_from") and param.default is not None


def _param_line(key: str, param: Param) -> tuple[str, str]:
    return f"# {toml_key(key)} = {toml_value(param.default)}", param.help


def _goal_lines(task: str) -> list[str]:
    """Return the goals of the metrics; the task `own` may be a regression, without an accuracy."""
    return ['"val/accuracy" = "max"'] * (task != "own") + ['"val/loss" = "min"']
