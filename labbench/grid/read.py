"""Reader of grid files, which checks the structure of every table.

`expansion` checks the values against the task's parameters.

docs/reference/grid.md describes the tables, `expansion` the order in which they are applied.
"""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import did_you_mean
from labbench.files import expand_home
from labbench.grid.checks import quote_value
from labbench.grid.command_template import Word, expand_home_in_word, placeholders
from labbench.grid.constraints import Constraint, ConstraintError, parse_constraint
from labbench.grid.other_names import TOP_LEVEL, suggest_name
from labbench.grid.other_spellings import read_other_spelling
from labbench.grid.random_draws import RandomAxis, read_draws
from labbench.grid.ranges import replace_ranges
from labbench.grid.run_options import read_metrics, read_resources, read_runtime, read_stop
from labbench.grid.search import Search, read_search
from labbench.grid.source import GridSource, Setting, Table, override_settings, read_source
from labbench.grid.toml_positions import Path as TomlPath
from labbench.metrics import Goal
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING
from labbench.records import Resources, Runtime, Stop

TABLES = (
    "params",
    "grid",
    "zip",
    "random",
    "branch",
    "repeat",
    "exclude",
    "include",
    "set",
    "require",
    "metrics",
    "stop",
    "search",
    "runtime",
    "resources",
    "env",
)
MAX_SEEDS = 100_000
KEYS = ("name", "task", "command", "cwd")

NO_EFFECT_ON_COMMANDS = {
    "runtime": "it loads, trains and keeps the model itself; pass settings as words of the command",
}
"""Tables that only affect tasks, with the reason."""


@dataclass(frozen=True, slots=True)
class Axis:
    """Axis of a grid: a key of `[grid]`, or the keys of a `[[zip]]`."""

    keys: tuple[str, ...]
    points: tuple[tuple[Setting, ...], ...]
    """For each point, one setting per key."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Condition on a config and its effect: `[[exclude]]` drops the run, `[[set]]` sets `then`."""

    when: Mapping[str, Setting]
    then: Mapping[str, Setting]
    path: TomlPath


@dataclass(frozen=True, slots=True)
class Branch:
    """Axes of `[[branch]]`, for the configs that match a condition."""

    when: Mapping[str, Setting]
    axes: tuple[Axis, ...]
    path: TomlPath


@dataclass(frozen=True, slots=True)
class Requirement:
    """Constraint of `[[require]]` with its position."""

    constraint: Constraint
    path: TomlPath


@dataclass(frozen=True, slots=True)
class Grid:
    """Grid file whose tables have the right structure."""

    path: Path
    name: str
    """Name of the experiment; default: the file's name without suffix."""
    task: str
    """Built-in task, `/absolute/file.py:Class`, or "" for a command."""
    command: tuple[Word, ...]
    env: Mapping[str, str]
    """Environment variables of the command, with placeholders."""
    cwd: str
    """Working directory of the command, relative to the grid file's folder, with placeholders."""
    metrics: Mapping[str, Goal]
    stop: Stop | None
    runtime: Runtime
    resources: Resources
    source: GridSource
    params: Mapping[str, Setting]
    axes: tuple[Axis, ...]
    draws: RandomAxis | None
    branches: tuple[Branch, ...]
    includes: tuple[Mapping[str, Setting], ...]
    excludes: tuple[Rule, ...]
    sets: tuple[Rule, ...]
    requirements: tuple[Requirement, ...]
    seeds: tuple[Setting, ...]
    """Seeds of `[repeat]`; empty if there is none."""
    pinned: Mapping[str, tuple[Setting, ...]]
    """Settings of `--set`: one for every run, or several that each multiply the runs."""
    search: Search | None = None
    """None: every run of the grid trains to its end."""

    @property
    def text(self) -> str:
        """The text of the file."""
        return self.source.text

    @property
    def axis_keys(self) -> list[str]:
        """Keys of all axes: keys in `[grid]`, `[[zip]]`, `[random]`, `[[branch]]` and `--set`."""
        keys = [key for axis in self.axes for key in axis.keys] + (self.draws.keys if self.draws else [])
        keys += [key for branch in self.branches for axis in branch.axes for key in axis.keys]
        return list(dict.fromkeys([*keys, *self.pinned]))

    def pins(self, keys: Iterable[str]) -> bool:
        """Return True if `--set` pins all of these keys."""
        return self.pinned.keys() >= set(keys)

    @property
    def implied_keys(self) -> set[str]:
        """Keys that only `[[set]]` sets, whose values follow from the other keys of a config."""
        implied = {key for rule in self.sets for key in rule.then}
        return implied.difference(self.axis_keys, *self.includes)


def read_grid(path: Path, *, overrides: Sequence[str] = ()) -> Grid:
    """Read a grid file and check the structure of its tables.

    `overrides` are the `key=value` texts of `--set`.

    Raises:
        GridError: The file cannot be read, or a key or value is invalid; the error has its position.
    """
    source = read_source(path, overrides)
    _require_known_tables(source)
    metrics, pinned = read_metrics(source), override_settings(source)
    task, command = _read_task(source, path.parent)
    stop = read_stop(source, metrics)
    grid = Grid(
        path=path,
        name=_read_name(source, path),
        task=task,
        command=command,
        env=_read_environment(source, command),
        cwd=_read_working_folder(source, command, path.parent),
        metrics=metrics,
        stop=stop,
        runtime=read_runtime(source),
        resources=read_resources(source),
        source=source,
        params=source.settings(source.table("params"), ("params",)),
        axes=_read_axes(source),
        draws=read_draws(source),
        branches=tuple(_read_branch(source, table, path) for path, table in source.tables("branch")),
        includes=tuple(_read_include(source, table, path) for path, table in source.tables("include")),
        excludes=tuple(_read_exclude(source, table, path) for path, table in source.tables("exclude")),
        sets=tuple(_read_set(source, table, path) for path, table in source.tables("set")),
        requirements=tuple(_read_requirement(source, table, path) for path, table in source.tables("require")),
        seeds=_read_seeds(source),
        pinned=pinned,
        search=read_search(source, metrics, stop),
    )
    _require_one_axis_per_key(grid)
    _require_no_other_seed(grid)
    return grid


def _require_known_tables(source: GridSource) -> None:
    for name, value in source.document.items():
        if name in TABLES or name in KEYS:
            continue
        remedy = f"; {TOP_LEVEL[name]}" if name in TOP_LEVEL else ""
        if isinstance(value, dict) or (isinstance(value, list) and value and isinstance(value[0], dict)):
            hint = remedy or did_you_mean(name, TABLES) or f"; the tables are {', '.join(TABLES)}"
            raise source.error(f"unknown table [{name}]{hint}", (name,), at="key")
        hint = remedy or suggest_name(name, (*KEYS, *TABLES)) or "; put parameters under [params] or [grid]"
        raise source.error(f"unknown key `{name}` at the top of the file{hint}", (name,), at="key")


def _read_name(source: GridSource, path: Path) -> str:
    name = source.document.get("name", path.stem)
    if not isinstance(name, str) or not name.strip():
        raise source.error(f"name must be a string that is not empty, not {quote_value(name)}", ("name",))
    return name


def _read_task(source: GridSource, folder: Path) -> tuple[str, tuple[Word, ...]]:
    """Return (task, command), one of them empty."""
    keys = [key for key in ("task", "command") if key in source.document]
    if not keys:
        raise source.error('a grid needs a task: task = "digits", or command = ["python", "train.py"]', ())
    if len(keys) == 2:
        raise source.error("task and command are both given: remove one", ("command",), at="key")
    if keys == ["task"]:
        return _resolve_task(source, source.document["task"], folder), ()
    command = _read_command(source, source.document["command"])
    _require_no_training_tables(source)
    return "", command


def _read_command(source: GridSource, words: object) -> tuple[Word, ...]:
    if not isinstance(words, list) or not words:
        raise source.error(f"command must be a list of words, {_list_of_words(words)}", ("command",))
    command: list[Word] = []
    for index, word in enumerate(words):
        if isinstance(word, list) and word and index:
            command.append(tuple(_read_word(source, item, ("command", index, i)) for i, item in enumerate(word)))
        else:
            command.append(_read_word(source, word, ("command", index)))
    return tuple(command)


def _read_word(source: GridSource, word: object, path: TomlPath) -> str:
    if not isinstance(word, str):
        raise source.error(f"a word of command must be a string, not {quote_value(word)}", path)
    if "\0" in word:
        raise source.error("a word of command cannot contain a zero byte", path)
    return word


def _list_of_words(words: object) -> str:
    """Return the list of words that a command line stands for, or an example."""
    try:
        split = shlex.split(words) if isinstance(words, str) else []
    except ValueError:  # a quotation mark is missing
        split = []
    return json.dumps(split or ["python", "train.py"], ensure_ascii=False)


def _require_no_training_tables(source: GridSource) -> None:
    for name, reason in NO_EFFECT_ON_COMMANDS.items():
        if name in source.document:
            key = next(iter(source.table(name)), "")
            path, shown = ((name, key), f"[{name}] {key}") if key else ((name,), f"[{name}]")
            raise source.error(f"{shown} has no effect on a command: {reason}", path, at="key")


def _read_environment(source: GridSource, command: Sequence[Word]) -> dict[str, str]:
    if "env" not in source.document:
        return {}
    _require_command(source, command, "env")
    environment: dict[str, str] = {}
    for name, value in source.table("env").items():
        path = ("env", name)
        if not isinstance(value, str | int | float):
            raise source.error(f"an environment variable must be text or a number, not {quote_value(value)}", path)
        if not name or "=" in name or "\0" in f"{name}{value}":
            raise source.error(f"{quote_value(name)} cannot be an environment variable", path, at="key")
        if name.startswith("LABBENCH_"):
            raise source.error(f"{name} is set by labbench: choose another name", path, at="key")
        environment[name] = value if isinstance(value, str) else json.dumps(value)
    return environment


def _read_working_folder(source: GridSource, command: Sequence[Word], folder: Path) -> str:
    if "cwd" not in source.document:
        return ""
    _require_command(source, command, "cwd")
    cwd = source.document["cwd"]
    if not isinstance(cwd, str) or not cwd:
        raise source.error(f"cwd must be the path of a folder, not {quote_value(cwd)}", ("cwd",))
    absolute = folder.resolve() / expand_home_in_word(cwd)
    if not any(placeholders([cwd])) and not absolute.is_dir():
        raise source.error(f"no such folder: {absolute} (paths are relative to the grid file)", ("cwd",))
    return cwd


def _require_command(source: GridSource, command: Sequence[Word], key: str) -> None:
    if not command:
        raise source.error(f"`{key}` needs a command: a task trains in labbench's own processes", (key,), at="key")


def _resolve_task(source: GridSource, task: object, folder: Path) -> str:
    """Return a built-in task, or `/absolute/file.py:Class`; check only that the file exists."""
    if not isinstance(task, str):
        raise source.error(f"task must be a string, not {quote_value(task)}", ("task",))
    if task in BUILTIN:
        return task
    file, colon, name = task.rpartition(":")
    if not colon and not task.endswith(".py"):
        hint = did_you_mean(task, BUILTIN) or f'; built-in tasks: {", ".join(BUILTIN)}; your own task: "file.py:Class"'
        raise source.error(f"unknown task `{task}`{hint}", ("task",))
    if not file or not name.isidentifier():
        raise source.error(f'the class of the task is missing: write "{task.rstrip(":")}:MyTask"', ("task",))
    absolute = (folder / expand_home(file)).resolve()
    if not absolute.is_file():
        raise source.error(f"no such file: {absolute} (paths are relative to the grid file)", ("task",))
    return f"{absolute}:{name}"


def _read_axes(source: GridSource) -> tuple[Axis, ...]:
    """Read the axes of `[grid]` and of each `[[zip]]`, in the file's order."""
    if "grid" in source.document and not source.table("grid"):
        raise source.error("[grid] is empty: add an axis, such as lr = [0.1, 0.01]", ("grid",), at="key")
    single = replace_ranges(source, source.table("grid"), ("grid",))
    axes = [_read_axis(source, [setting]) for setting in source.settings(single, ("grid",)).values()]
    for path, table in source.tables("zip"):
        settings = list(source.settings(replace_ranges(source, table, path), path).values())
        if not settings:
            raise source.error("this [[zip]] is empty: add the keys that vary together", path, at="key")
        axes.append(_read_axis(source, settings))
    return tuple(axes)


def _read_axis(source: GridSource, settings: Sequence[Setting]) -> Axis:
    for setting in settings:
        if not isinstance(setting.value, list):
            other, value = read_other_spelling(setting.key, setting.value), quote_value(setting.value)
            message = f"an axis must be a list: {setting.key} = [{value}]; put constant parameters under [params]"
            raise source.error(message if other is None else other.in_grid(), setting.path)
        if not setting.value:
            raise source.error(f"the axis `{setting.key}` is empty: add a value", setting.path)
        if len(setting.value) != len(settings[0].value):
            first = settings[0]
            raise source.error(
                f"the lists of a [[zip]] must be equally long: `{setting.key}` has {len(setting.value)} values, "
                f"`{first.key}` has {len(first.value)}",
                setting.path,
            )
    points = zip(
        *([Setting(s.key, value, (*s.path, i)) for i, value in enumerate(s.value)] for s in settings), strict=True
    )
    return Axis(tuple(setting.key for setting in settings), tuple(points))


def _read_seeds(source: GridSource) -> tuple[Setting, ...]:
    if "repeat" not in source.document:
        return ()
    table = source.table("repeat")
    source.require_known(table, ("repeat",), ("seeds",))
    seeds = table.get("seeds")
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= MAX_SEEDS:
        seeds = list(range(seeds))
    if not isinstance(seeds, list) or not seeds:
        message = "[repeat] needs a list of seeds or their number: seeds = [0, 1, 2], or seeds = 3"
        raise source.error(message, ("repeat", "seeds"))
    return tuple(
        Setting(
            "seed",
            source.read(TRAINING["seed"], seed, "a seed", ("repeat", "seeds", index)),
            ("repeat", "seeds", index),
        )
        for index, seed in enumerate(seeds)
    )


def _read_include(source: GridSource, table: Table, path: TomlPath) -> Mapping[str, Setting]:
    settings = source.settings(table, path)
    if not settings:
        raise source.error("this [[include]] is empty: add the values of the extra run", path, at="key")
    return settings


def _read_exclude(source: GridSource, table: Table, path: TomlPath) -> Rule:
    condition = table.get("when")
    if isinstance(condition, dict) and condition:
        key, value = next(iter(condition.items()))
        message = f"an [[exclude]] needs no `when`: write its keys directly, {key} = {quote_value(value)}"
        raise source.error(message, (*path, "when"), at="key")
    when = source.settings(table, path)
    if not when:
        raise source.error("this [[exclude]] is empty, which would exclude every run: add a condition", path, at="key")
    return Rule(when, {}, path)


def _read_set(source: GridSource, table: Table, path: TomlPath) -> Rule:
    when, rest = _read_condition(source, table, path)
    then = source.settings(rest, path)
    if not then:
        raise source.error("this [[set]] sets nothing: add a key beside `when`", path, at="key")
    return Rule(when, then, path)


def _read_branch(source: GridSource, table: Table, path: TomlPath) -> Branch:
    when, rest = _read_condition(source, table, path)
    settings = source.settings(replace_ranges(source, rest, path), path)
    if not settings:
        raise source.error("this [[branch]] is empty: add an axis beside `when`", path, at="key")
    return Branch(when, tuple(_read_axis(source, [setting]) for setting in settings.values()), path)


def _read_condition(source: GridSource, table: Table, path: TomlPath) -> tuple[Mapping[str, Setting], Table]:
    """Return the settings of `when`, and the rest of the table."""
    condition = table.get("when")
    if not isinstance(condition, dict) or not condition:
        raise source.error(f'[[{path[0]}]] needs a condition: when = {{ optimizer = "sgd" }}', (*path, "when"))
    rest = {key: value for key, value in table.items() if key != "when"}
    return source.settings(condition, (*path, "when")), rest


def _read_requirement(source: GridSource, table: Table, path: TomlPath) -> Requirement:
    source.require_known(table, path, ("condition",))
    path, text = (*path, "condition"), table.get("condition")
    if not isinstance(text, str):
        raise source.error('[[require]] needs a condition in quotes: condition = "step_epochs < epochs"', path)
    try:
        return Requirement(parse_constraint(text), path)
    except ConstraintError as problem:
        raise source.error(str(problem), path, part=problem.part) from None


def _require_one_axis_per_key(grid: Grid) -> None:
    axes = [(setting.key, setting.path[:-1]) for axis in grid.axes for setting in axis.points[0]]
    draws = [(draw.key, draw.path[:-1]) for draw in grid.draws.distributions] if grid.draws else []
    first: dict[str, TomlPath] = {}
    for key, path in axes + draws:
        if key in first:
            raise grid.source.error(f"`{key}` already has an axis in [{first[key][0]}]: remove one", path, at="key")
        first[key] = path
    for branch in grid.branches:
        for setting in (axis.points[0][0] for axis in branch.axes):
            if setting.key in first:
                message = f"`{setting.key}` already has an axis in [{first[setting.key][0]}], for every run: remove one"
                raise grid.source.error(message, setting.path[:-1], at="key")


def _require_no_other_seed(grid: Grid) -> None:
    if not grid.seeds:
        return
    tables = [grid.params, *grid.includes, *(rule.when for rule in grid.excludes)]
    tables += [settings for rule in grid.sets for settings in (rule.when, rule.then)]
    tables += [branch.when for branch in grid.branches]
    paths = [table["seed"].path for table in tables if "seed" in table]
    axes = [*grid.axes, *(axis for branch in grid.branches for axis in branch.axes)]
    paths += [setting.path[:-1] for axis in axes for setting in axis.points[0] if setting.key == "seed"]
    paths += [draw.path[:-1] for draw in grid.draws.distributions if draw.key == "seed"] if grid.draws else []
    for path in paths:
        raise grid.source.error("[repeat] sets the seeds, after everything else: remove `seed` here", path, at="key")
