"""Tables of a grid file that do not change configs: `[metrics]`, `[stop]`, `[runtime]` and `[resources]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from labbench.grid.checks import BadValueError, convert_value, quote_value
from labbench.grid.source import GridSource, ValueParser
from labbench.metrics import GOALS, Goal, default_goal
from labbench.params.param import Param
from labbench.records import Resources, Runtime, SlurmOptions, Stop

_UNITS = {"d": 86_400, "h": 3_600, "m": 60, "s": 1}


def parse_duration(value: Any) -> Any:
    """Parse a duration in seconds: "2h", "90m", "1h30m", "30s", or a number.

    Raises:
        BadValueError: It is none of these, or not above 0.
    """
    if isinstance(value, str):
        if not re.fullmatch(r"(\d+(\.\d+)?[dhms])+", value):
            raise BadValueError(f'must be a time such as "2h", "90m" or "30s", not {quote_value(value)}')
        value = sum(float(part[:-1]) * _UNITS[part[-1]] for part in re.findall(r"[\d.]+[dhms]", value))
    return convert_value(Param("float", None, above=0), value)


def _parse_steps(value: Any) -> Any:
    """Parse `log_every`: a number of steps, or "auto"."""
    if isinstance(value, str) and value != "auto":
        raise BadValueError(f'must be a number of steps or "auto", not {quote_value(value)}')
    return value if value == "auto" else convert_value(Param("int", None, low=1), value)


def _parse_gpus(value: Any) -> Any:
    """Parse a number of GPUs: a whole number, or a part of one."""
    gpus = convert_value(Param("float", None, low=0), value)
    if gpus > 1 and gpus % 1:
        raise BadValueError(f"must be a whole number of GPUs or a part of one, such as 0.5, not {quote_value(value)}")
    return gpus


def _parse_commands(value: Any) -> Any:
    """Parse `setup`: a list of shell commands."""
    if not isinstance(value, list) or not all(isinstance(line, str) for line in value):
        raise BadValueError(f'must be a list of shell commands such as ["module load cuda"], not {quote_value(value)}')
    return tuple(value)


_GOAL = Param("str", None, choices=("min", "max"))

_DECLARED_GOAL = Param("str", None, choices=GOALS)

_STOP: dict[str, ValueParser] = {
    "metric": Param("str", None),
    "goal": _GOAL,
    "patience": Param("int", None, low=1),
    "target": Param("float", None),
    "min_delta": Param("float", None, low=0),
}

_RUNTIME: dict[str, ValueParser] = {
    "log_every": _parse_steps,
    "keep": Param("str", None, choices=("none", "last", "best", "resume")),
    "precision": Param("str", None, choices=("float32", "float64", "bf16")),
    "tf32": Param("bool", None),
    "compile": Param("bool", None),
    "data": Param("str", None, choices=("auto", "device", "host")),
    "loaders": Param("int", None, low=0),
    "engine": Param("str", None, choices=("auto", "loop", "stacked", "vmap")),
    "snapshot_every": parse_duration,
    "watch": Param("bool", None),
}

_RESOURCES: dict[str, ValueParser] = {
    "gpus": _parse_gpus,
    "retries": Param("int", None, low=0),
    "timeout": parse_duration,
    "cpus": Param("float", None, above=0),
    "memory": Param("float", None, above=0),
}

_SLURM: dict[str, ValueParser] = {
    "partition": Param("str", None),
    "time": parse_duration,
    "gpus": Param("int", None, low=0),
    "cpus": Param("int", None, low=1),
    "memory": Param("float", None, above=0),
    "array": Param("int", None, low=1),
    "setup": _parse_commands,
    "account": Param("str", None),
    "qos": Param("str", None),
    "grace": parse_duration,
    "cluster": Param("str", None, choices=("slurm", "local", "debug")),
}


def read_metrics(source: GridSource) -> dict[str, Goal]:
    """Read `[metrics]`: the goal of each metric. Raises GridError if it is invalid."""
    goals: dict[str, Goal] = {}
    for name, goal in source.table("metrics").items():
        if isinstance(goal, dict):
            raise source.error(
                f'put a metric name that contains a point in quotes: "{name}.…" = "max"', ("metrics", name), at="key"
            )
        goals[name] = source.read(_DECLARED_GOAL, goal, f"the goal of {name}", ("metrics", name))
    return goals


def read_stop(source: GridSource, metrics: Mapping[str, Goal]) -> Stop | None:
    """Read `[stop]`, None if there is none. Raises GridError if it is invalid or contradicts `metrics`."""
    if "stop" not in source.document:
        return None
    options = source.options("stop", _STOP)
    if "metric" not in options:
        raise source.error("[stop] needs a `metric`", ("stop",), at="key")
    if ("patience" in options) == ("target" in options):
        path = ("stop", "target") if "target" in options else ("stop",)
        raise source.error("[stop] needs either `patience` (epochs without a better value) or `target`", path, at="key")
    return Stop(**{**options, "goal": read_goal(source, "stop", options, metrics)})


def read_goal(source: GridSource, table: str, options: Mapping[str, Any], metrics: Mapping[str, Goal]) -> Goal:
    """Return the goal of the `metric` among the options of a table; `metrics` are declared goals.

    Raises GridError if the goal contradicts `metrics`, or the metric has no better direction.
    """
    metric = options["metric"]
    goal: Goal = metrics.get(metric) or options.get("goal") or default_goal(metric)
    if options.get("goal", goal) != goal:
        raise source.error(f'another table declares the goal of {metric} as "{goal}"', (table, "goal"))
    if goal == "none":
        raise source.error(f'{metric} has no better direction: add goal = "min" or "max"', (table, "metric"))
    return goal


def read_runtime(source: GridSource) -> Runtime:
    """Read `[runtime]`. Raises GridError if it is invalid."""
    return Runtime(**source.options("runtime", _RUNTIME))


def read_resources(source: GridSource) -> Resources:
    """Read `[resources]`. Raises GridError if it is invalid."""
    table = source.table("resources")
    source.require_known(table, ("resources",), {**_RESOURCES, "slurm": None})
    options = {
        key: source.read(_RESOURCES[key], value, key, ("resources", key))
        for key, value in table.items()
        if key != "slurm"
    }
    return Resources(**options, slurm=_read_slurm(source, table.get("slurm", {})))


def _read_slurm(source: GridSource, table: Any) -> SlurmOptions:
    """Read `[resources.slurm]`. Raises GridError if it is invalid."""
    path = ("resources", "slurm")
    if not isinstance(table, dict):
        raise source.error("slurm must be a table: [resources.slurm]", path)
    source.require_known(table, path, _SLURM)
    options = SlurmOptions(**{key: source.read(_SLURM[key], value, key, (*path, key)) for key, value in table.items()})
    if options.grace >= options.time:
        message = (
            f"a job of {options.time:g} s has no time to train before it saves its runs {options.grace:g} s "
            "before its end (`grace`); raise time, or lower grace"
        )
        raise source.error(message, (*path, "time" if "time" in table else "grace"))
    return options
