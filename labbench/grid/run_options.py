"""Tables of a grid file that do not change configs: `[metrics]`, `[stop]`, `[runtime]` and `[resources]`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from labbench.errors import did_you_mean
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


def _parse_slurm_gpus(value: Any) -> Any:
    """Parse `gpus` of a job: a number, or a type and a number, such as "a100:1"."""
    if not isinstance(value, str):
        return convert_value(Param("int", None, low=0), value)
    if re.fullmatch(r"[A-Za-z][\w.-]*:\d+", value) is None:
        raise BadValueError(f'must be a number, or a type and a number such as "a100:1", not {quote_value(value)}')
    return value


def _parse_sbatch_value(value: Any) -> Any:
    """Parse the value of an option of sbatch: text, a number, or true for an option without a value."""
    if value is True:
        return True
    if isinstance(value, bool) or not isinstance(value, str | int | float) or not str(value).isprintable():
        raise BadValueError(f"must be text, a number, or true for an option without a value, not {quote_value(value)}")
    return str(value)


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
    "gpus": _parse_slurm_gpus,
    "cpus": Param("int", None, low=1),
    "memory": Param("float", None, above=0),
    "array": Param("int", None, low=1),
    "setup": _parse_commands,
    "account": Param("str", None),
    "qos": Param("str", None),
    "grace": parse_duration,
    "cluster": Param("str", None, choices=("slurm", "local", "debug")),
}

_SBATCH_KEYS: Mapping[str, str] = {
    **{name: name for name in ("partition", "account", "qos", "time", "array")},
    **dict.fromkeys(("gpus", "gpus-per-node", "gpus-per-socket", "gpus-per-task"), "gpus"),
    **dict.fromkeys(("cpus-per-task", "cpus-per-gpu"), "cpus"),
    "mem": "memory",
    "signal": "grace",
}
"""Options of sbatch that a key of `[resources.slurm]` sets."""

_SBATCH_RESERVED = frozenset([
    "chdir", "error", "export-file", "input", "no-requeue", "nodes", "ntasks", "ntasks-per-node", "open-mode", "output",
    "parsable", "quiet", "test-only", "wait", "wrap",
])  # fmt: skip
"""Options of sbatch that labbench or submitit sets, or that change what sbatch does and prints."""

_SBATCH_OTHERS = frozenset([
    "acctg-freq", "batch", "bb", "bbf", "begin", "cluster-constraint", "clusters", "comment", "constraint", "container",
    "contiguous", "core-spec", "cores-per-socket", "cpu-freq", "deadline", "delay-boot", "dependency", "distribution",
    "exclude", "exclusive", "export", "extra", "extra-node-info", "get-user-env", "gid", "gpu-bind", "gpu-freq", "gres",
    "gres-flags", "hint", "hold", "ignore-pbs", "job-name", "kill-on-invalid-dep", "licenses", "mail-type", "mail-user",
    "mcs-label", "mem-bind", "mem-per-cpu", "mem-per-gpu", "mincpus", "network", "nice", "no-kill", "nodefile",
    "nodelist", "ntasks-per-core", "ntasks-per-gpu", "ntasks-per-socket", "overcommit", "oversubscribe", "power",
    "prefer", "priority", "profile", "propagate", "reboot", "requeue", "reservation", "resv-ports", "segment",
    "sockets-per-node", "spread-job", "switches", "thread-spec", "threads-per-core", "time-min", "tmp", "tres-bind",
    "tres-per-task", "uid", "use-min-nodes", "verbose", "wait-all-nodes", "wckey",
])  # fmt: skip
"""Other options of sbatch(1), to find misspelt ones; plugins of a site may define more."""

_MISSPELT = 0.8
"""Minimum similarity of a name to an option of sbatch whose misspelling it is; `container-image` is a plugin's."""


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
    for name in table:
        if name not in _SLURM and _as_sbatch_name(name) in _SBATCH_OTHERS:
            message = f"options of sbatch such as `{_as_sbatch_name(name)}` belong under [resources.slurm.options]"
            raise source.error(message, (*path, name), at="key")
    source.require_known(table, path, {**_SLURM, "options": None})
    values = {key: source.read(_SLURM[key], value, key, (*path, key)) for key, value in table.items() if key in _SLURM}
    options = SlurmOptions(**values, options=_read_sbatch_options(source, table.get("options", {})))
    if options.grace >= options.time:
        message = (
            f"a job of {options.time:g} s has no time to train before it saves its runs {options.grace:g} s "
            "before its end (`grace`); raise time, or lower grace"
        )
        raise source.error(message, (*path, "time" if "time" in table else "grace"))
    return _count_gres(source, options)


def _read_sbatch_options(source: GridSource, table: Any) -> dict[str, str | bool]:
    """Read `[resources.slurm.options]`: other options of sbatch. Raises GridError if one is invalid."""
    path = ("resources", "slurm", "options")
    if not isinstance(table, dict):
        raise source.error("options must be a table: [resources.slurm.options]", path)
    for name in table:
        if (problem := _find_sbatch_problem(name)) is not None:
            raise source.error(problem, (*path, name), at="key")
    return {name: source.read(_parse_sbatch_value, value, name, (*path, name)) for name, value in table.items()}


def _find_sbatch_problem(name: str) -> str | None:
    """Return the reason why a name is no option of `[resources.slurm.options]`; None if it may be one."""
    from difflib import get_close_matches  # takes 2 ms, needed only for these options

    if (key := _SBATCH_KEYS.get(name)) is not None:
        return f"`{name}` of sbatch is `{key}` in [resources.slurm]"
    if name in _SBATCH_RESERVED:
        return f"labbench needs the option `{name}` of sbatch for itself"
    if name in _SBATCH_OTHERS:
        return None
    if not re.fullmatch(r"[a-z][a-z0-9-]*", name):
        hint = did_you_mean(_as_sbatch_name(name), _SBATCH_OTHERS)
        return f"`{name}` is not the long name of an option of sbatch, such as `mail-type`{hint}"
    if similar := get_close_matches(name, sorted(_SBATCH_OTHERS), n=1, cutoff=_MISSPELT):
        return f"unknown option of sbatch `{name}`; did you mean `{similar[0]}`?"
    return None


def _as_sbatch_name(name: str) -> str:
    return name.lstrip("-").replace("_", "-").lower()


def _count_gres(source: GridSource, options: SlurmOptions) -> SlurmOptions:
    """Count the GPUs that `gres` requests. Raises GridError if `gpus` requests some, too."""
    if not options.requests_gpus_by_gres:
        return options
    path = ("resources", "slurm", "options", "gres")
    if options.gpus is not None:
        raise source.error("both `gres` and `gpus` of [resources.slurm] request GPUs: remove one of them", path)
    requests = str(options.options["gres"]).split(",")
    counts = [request.rpartition(":")[2] for request in requests if request.partition(":")[0] == "gpu"]
    return replace(options, gpus=sum(int(count) if count.isdecimal() else 1 for count in counts))
