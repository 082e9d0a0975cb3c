"""Names of parameters, keys and tables in other tools, and the names in a grid file, for the hints of errors."""

from __future__ import annotations

from collections.abc import Iterable

from labbench.errors import did_you_mean

TOP_LEVEL = {
    **dict.fromkeys(
        ("parameters", "hyperparameters", "param_grid", "param_space", "search_space", "space", "sweep"),
        "axes belong under [grid], single values under [params]",
    ),
    **dict.fromkeys(("config", "args", "hparams"), "put parameters under [params] or [grid]"),
    **dict.fromkeys(("program", "script", "entrypoint"), 'write command = ["python", "train.py", "--lr", "{lr}"]'),
    **dict.fromkeys(("num_samples", "n_trials", "run_cap", "samples"), "write samples = 20 under [random]"),
    **dict.fromkeys(("seeds", "repeats", "num_seeds"), "write seeds = 3 under [repeat]"),
    **dict.fromkeys(("metric", "objective", "direction"), 'write "val/loss" = "min" under [metrics]'),
    **dict.fromkeys(("early_terminate", "pruner", "early_stopping"), "use [search] to prune runs, [stop] to end them"),
    **dict.fromkeys(("method", "sampler", "algorithm"), 'write method = "tpe" under [search]; [grid] needs no method'),
}
"""Remedies by the name of a table or key that other tools have at the top of the file."""

_COMMAND_LINE = {
    **dict.fromkeys(("device", "devices", "accelerator"), "--device"),
    **dict.fromkeys(("workers", "num_processes", "n_jobs"), "--workers"),
}
"""Options of `labbench run` that other tools have in their configuration."""

_NAMES = {
    "learning_rate": "lr",
    "bs": "batch_size",
    **dict.fromkeys(("wd", "l2"), "weight_decay"),
    **dict.fromkeys(("random_seed", "random_state", "manual_seed"), "seed"),
    **dict.fromkeys(("clip_grad_norm", "max_grad_norm", "gradient_clip_val", "max_norm"), "clip"),
    **dict.fromkeys(("opt", "optim"), "optimizer"),
    **dict.fromkeys(("max_t", "iterations", "max_iter"), "epochs"),
    **dict.fromkeys(("bn", "use_bn"), "batchnorm"),
    **dict.fromkeys(("arch", "architecture"), "model"),
    **dict.fromkeys(("width", "widths", "units"), "hidden"),
    "act": "activation",
    "adam_eps": "eps",
    "ema": "ema_decay",
    "monitor": "metric",
    "mode": "goal",
    "num_workers": "loaders",
    "amp": "precision",
    **dict.fromkeys(("save", "checkpoint", "checkpoints"), "keep"),
    "reduction_factor": "eta",
    **dict.fromkeys(("grace_period", "min_resource"), "min_epochs"),
    **dict.fromkeys(("bayes", "bayesian", "optuna"), "tpe"),
    "bohb": "hyperband",
    **dict.fromkeys(("asha", "sha", "successive_halving"), "halving"),
    "minimize": "min",
    "maximize": "max",
}
"""Names in a grid file by the names in other tools."""


def suggest_name(name: str, names: Iterable[str]) -> str:
    """Return a hint at the one of `names` that another tool calls `name`, or the most similar one; "" without one."""
    names, lower = list(names), name.lower()
    if (other := _NAMES.get(lower)) in names:
        return f"; did you mean `{other}`?"
    if lower in _COMMAND_LINE:
        return f"; it is an option of the command: labbench run {_COMMAND_LINE[lower]}"
    return did_you_mean(name, names)
