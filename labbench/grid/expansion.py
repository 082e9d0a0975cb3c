"""Expansion of a grid to checked configs of its runs."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeAlias

from labbench.configs import canonical_json
from labbench.errors import GridError, InputError, did_you_mean
from labbench.grid.checks import BadValueError, convert_setting, convert_value, is_equal
from labbench.grid.command_template import BUILT_IN, Placeholder, TemplateError, fill_word, placeholders
from labbench.grid.constraints import ConstraintError
from labbench.grid.other_names import suggest_name
from labbench.grid.other_spellings import read_other_spelling
from labbench.grid.read import Axis, Branch, Grid, Rule
from labbench.grid.source import Setting
from labbench.grid.toml_positions import Path
from labbench.params.builtin import sample_and_classes
from labbench.params.layers import LayerError, read_layers, require_scores
from labbench.params.param import BadItem, Param, Params

Values: TypeAlias = dict[str, Any]

Condition: TypeAlias = dict[str, tuple[Any, ...]]
"""Values by key: a config matches if each key has one of its values."""

MAX_RUNS = 100_000
"""Maximum number of runs without `--yes`; more are probably a mistake."""


@dataclass(frozen=True, slots=True)
class Expansion:
    """Configs of a grid's runs, and warnings about probable mistakes."""

    configs: list[Values]
    """Complete configs, with defaults for parameters that the grid does not mention."""
    warnings: list[str]
    """One line each, `file:line:col: message`."""
    removed: int = 0
    """Number of configs that `[[require]]` has removed."""


def expand(grid: Grid, params: Params, *, limit_without_yes: int = MAX_RUNS, yes: bool = False) -> Expansion:
    """Return the configs of a grid.

    `params` are all parameters of the grid's task; a command accepts any key and value.

    Raises:
        GridError: A value does not fit its parameter, layers do not fit the data, no run is left, or there are more
            than `limit_without_yes` runs without `yes`.
        InputError: A default that the task declares does not fit its own parameter.
    """
    if not yes:
        _require_at_most(limit_without_yes, grid, count_runs(grid))
    checker = _Checker(grid, params)
    rules = _Rules(grid, checker)
    base = {**_default_config(params), **checker.values(grid.params)}
    pins = [_merge_points(points) for points in itertools.product(*map(checker.pins, grid.pinned.values()))]
    axes = [checker.axis(axis) for axis in grid.axes] + checker.draws()
    includes = [{**checker.values(include), **pinned} for include in grid.includes for pinned in pins]

    points = [_merge_points(point) for point in itertools.product(*axes)] if axes or not includes else []
    product = [point | pinned for point in points for pinned in pins]
    runs = [(values, {**base, **values}) for values in product]
    for branch in grid.branches:
        runs = rules.branch(branch, runs)
        if not yes:
            _require_at_most(limit_without_yes, grid, len(runs) * _seed_count(grid))
    runs = [(values, config) for values, config in runs if not rules.exclude(config)]
    runs += [(values, {**base, **values}) for values in includes]
    if not runs:
        raise grid.source.error("[[exclude]] excludes every run of the grid", ("exclude", 0), at="key")
    configs = [rules.complete(config, values.keys()) for values, config in runs]
    if grid.seeds and "seed" not in grid.pinned:
        configs = [{**config, "seed": seed.value} for config in configs for seed in grid.seeds]
    distinct: dict[str, Values] = {}
    for config in configs:
        distinct.setdefault(canonical_json(config), config)
    configs = _meet_requirements(grid, list(distinct.values()))
    _require_placeholders(grid, configs)
    require_networks(grid, configs)
    return Expansion(configs, [*rules.warnings(), *_unused_axes(grid)], len(distinct) - len(configs))


def count_runs(grid: Grid) -> int:
    """Return the number of runs before `[[branch]]` and `[[exclude]]`, without expanding the grid."""
    axes = [1 if grid.pins(axis.keys) else len(axis.points) for axis in grid.axes]
    axes += [1 if grid.pins(grid.draws.keys) else grid.draws.samples] if grid.draws else []
    product = math.prod(axes) if axes or not grid.includes else 0
    return (product + len(grid.includes)) * _seed_count(grid) * math.prod(map(len, grid.pinned.values()))


def _seed_count(grid: Grid) -> int:
    return 1 if "seed" in grid.pinned else max(1, len(grid.seeds))


def _require_at_most(limit: int, grid: Grid, count: int) -> None:
    if count > limit:
        when = " (before [[exclude]])" if grid.excludes else ""
        message = (
            f"{count:,} runs{when}, more than {limit:,}: pin an axis with --set KEY=VALUE, or allow them with --yes"
        )
        raise GridError(message, file=grid.source.file)


class _Checker:
    """Converter of the settings of a grid file to values of the declared types."""

    def __init__(self, grid: Grid, params: Params) -> None:
        self.grid, self.params = grid, params

    def param(self, setting: Setting) -> Param | None:
        """Return the parameter of a setting, None for a command, which accepts any key.

        Raises GridError if the task has no such parameter.
        """
        param = self.params.get(setting.key)
        if param is None and not self.grid.command:
            path = setting.path
            while len(path) > 1 and isinstance(path[-1], int):
                path = path[:-1]
            parent = setting.key.rpartition(".")[0]
            if parent in self.params and (other := read_other_spelling(parent, self.grid.source.value_at(path[:-1]))):
                raise self.grid.source.error(other.in_grid(), path[:-1])
            hint = suggest_name(setting.key, self.params) or f"; the parameters are {', '.join(self.params)}"
            raise self.grid.source.error(f"unknown parameter `{setting.key}`{hint}", path, at="key")
        return param

    def value(self, setting: Setting) -> Any:
        param = self.param(setting)
        if param is None:
            return setting.value
        if setting.path[0] == "params" and param.type in ("int", "float", "bool"):
            self._require_one_value(setting)
        return self.grid.source.read(partial(convert_setting, param), setting.value, setting.key, setting.path)

    def _require_one_value(self, setting: Setting) -> None:
        """Raise GridError if `[params]` gives a number or boolean several values."""
        value: Any = setting.value
        other = read_other_spelling(setting.key, {"values": value} if isinstance(value, list) else value)
        if other is not None:
            raise self.grid.source.error(other.in_grid(), setting.path)

    def pins(self, settings: Sequence[Setting]) -> list[Values]:
        """Return the values of one key of `--set`; for a parameter that is no list, each item of a list is a value."""
        first = settings[0]
        param = self.param(first)
        if len(settings) == 1 and param is not None and isinstance(first.value, list) and first.value:
            is_list = param.type in ("ints", "floats", "strs")
            if not is_list or all(isinstance(item, list) for item in first.value):
                settings = [Setting(first.key, item, first.path) for item in first.value]
        return [{setting.key: self.value(setting)} for setting in settings]

    def values(self, settings: Mapping[str, Setting]) -> Values:
        return {key: self.value(setting) for key, setting in settings.items()}

    def axis(self, axis: Axis) -> list[Values]:
        """Return the points of an axis, only one if `--set` pins it. Raises GridError if a value is invalid."""
        for setting in axis.points[0]:
            param = self.param(setting)
            if param and param.type in ("ints", "floats", "strs") and not isinstance(setting.value, list):
                message = f"`{setting.key}` is a list, so its axis is a list of lists: {setting.key} = [[...], [...]]"
                raise self.grid.source.error(message, setting.path[:-1])
        points = [{setting.key: self.value(setting) for setting in point} for point in axis.points]
        return points[:1] if self.grid.pins(axis.keys) else points

    def draws(self) -> list[list[Values]]:
        """Return a list with the axis of `[random]`; empty if there is none."""
        draws = self.grid.draws
        if draws is None:
            return []
        samples = 1 if self.grid.pins(draws.keys) else draws.samples
        columns = []
        for distribution in draws.distributions:
            key, path = distribution.key, distribution.path
            self.param(Setting(key, None, path[:-1]))
            for end in distribution.ends():
                self.value(end)
            values = distribution.draw(samples, draws.seed)
            columns.append([self.value(Setting(key, value, path)) for value in values])
        return [[dict(zip(draws.keys, row, strict=True)) for row in zip(*columns, strict=True)]]

    def condition(self, settings: Mapping[str, Setting]) -> Condition:
        return {key: self.alternatives(setting) for key, setting in settings.items()}

    def alternatives(self, setting: Setting) -> tuple[Any, ...]:
        """Return the values that match a condition.

        A list stands for any of its items; for a parameter that is a list, a list of lists stands for any of these.
        """
        value, param = setting.value, self.param(setting)
        is_list = param is not None and param.type in ("ints", "floats", "strs")
        if not isinstance(value, list) or (is_list and not (value and all(isinstance(item, list) for item in value))):
            return (self.value(setting),)
        items = tuple(self.value(Setting(setting.key, item, (*setting.path, i))) for i, item in enumerate(value))
        return (*items, value) if param is None else items


class _Rules:
    """Rules of `[[branch]]`, `[[exclude]]` and `[[set]]`, with a record of those that matched a run."""

    def __init__(self, grid: Grid, checker: _Checker) -> None:
        self.grid = grid
        self.branches = {
            branch.path: (checker.condition(branch.when), [(axis, checker.axis(axis)) for axis in branch.axes])
            for branch in grid.branches
        }
        self.excludes = [(rule, checker.condition(rule.when)) for rule in grid.excludes]
        self.sets = [(rule, checker.condition(rule.when), checker.values(rule.then)) for rule in grid.sets]
        self.matched: set[Path] = set()

    def branch(self, branch: Branch, runs: list[tuple[Values, Values]]) -> list[tuple[Values, Values]]:
        """Return the runs, as (values of axes, config), with those that match the branch multiplied by its axes.

        An axis whose key `--set` pins is left out. Raises GridError if another branch has given a run the same key.
        """
        condition, axes = self.branches[branch.path]
        points = [points for axis, points in axes if not self.grid.pins(axis.keys)]
        branched = []
        for values, config in runs:
            if not _matches(condition, config):
                branched.append((values, config))
                continue
            self.matched.add(branch.path)
            for point in map(_merge_points, itertools.product(*points)):
                for key in point.keys() & values.keys():
                    message = f"`{key}` already has an axis in another [[branch]] that applies to the same run"
                    raise self.grid.source.error(message, (*branch.path, *key.split(".")), at="key")
                branched.append(({**values, **point}, {**config, **point}))
        return branched

    def exclude(self, config: Values) -> bool:
        """Return True if a run is excluded. All rules are tested, to find those that match no run."""
        matching = [rule.path for rule, condition in self.excludes if _matches(condition, config)]
        self.matched.update(matching)
        return bool(matching)

    def complete(self, config: Values, fixed: Iterable[str]) -> Values:
        """Return the config with the values of matching `[[set]]` rules.

        The keys in `fixed` keep their values.
        """
        for rule, condition, then in self.sets:
            if _matches(condition, config):
                self.matched.add(rule.path)
                config = {**config, **{key: value for key, value in then.items() if key not in fixed}}
        return config

    def warnings(self) -> list[str]:
        """Return a warning for each rule that matched no run.

        Rules on keys that `--set` pins are left out.
        """
        rules: list[Rule | Branch] = [*self.grid.branches, *self.grid.excludes, *self.grid.sets]
        idle = [rule for rule in rules if rule.path not in self.matched]
        return [self._warning(rule) for rule in idle if not rule.when.keys() & self.grid.pinned.keys()]

    def _warning(self, rule: Rule | Branch) -> str:
        is_exclude = isinstance(rule, Rule) and not rule.then
        name, path = ("[[exclude]]", rule.path) if is_exclude else ("`when`", (*rule.path, "when"))
        return str(self.grid.source.error(f"this {name} matches no run", path, at="key")).partition("\n")[0]


def _matches(condition: Condition, config: Values) -> bool:
    return all(
        key in config and any(is_equal(config[key], value) for value in values) for key, values in condition.items()
    )


def _merge_points(points: Iterable[Values]) -> Values:
    return {key: value for point in points for key, value in point.items()}


def _default_config(params: Params) -> Values:
    defaults = {}
    for key, param in params.items():
        default = list(param.default) if isinstance(param.default, tuple) else param.default
        try:
            defaults[key] = None if default is None else convert_value(param, default)
        except BadValueError as problem:
            raise InputError(f"the task declares `{key}` with a default that {problem}") from None
    return defaults


def _meet_requirements(grid: Grid, configs: list[Values]) -> list[Values]:
    """Return the configs that meet every constraint of `[[require]]`.

    Raises:
        GridError: A constraint has an unknown key or cannot be evaluated, or no config is left.
    """
    keys = {key for config in configs for key in config} if grid.requirements else set()
    for requirement in grid.requirements:
        path = requirement.path
        for key, part in requirement.constraint.used_keys():
            if key not in keys:
                hint = did_you_mean(key, sorted(keys)) or f"; the keys are {', '.join(sorted(keys))}"
                raise grid.source.error(f"no run has `{key}`{hint}", path, part=part)
        try:
            configs = [config for config in configs if requirement.constraint.holds(config)]
        except ConstraintError as problem:
            raise grid.source.error(str(problem), path, part=problem.part) from None
        if not configs:
            raise grid.source.error("no run of the grid meets this condition", path)
    return configs


def _require_placeholders(grid: Grid, configs: list[Values]) -> None:
    """Raise GridError if a run has no value for a `{key}` of the command, or one that does not fit."""
    common = {*BUILT_IN}.union(set(configs[0]).intersection(*configs))
    used = {key for config in configs for key in config}.union(BUILT_IN)
    for path, text in _templates(grid):
        fields = [part for _, part in placeholders([text])]
        if path == ("command", 0) and any(field.optional or field.repeats or field.form for field in fields):
            raise grid.source.error("the first word is the program, which cannot be left out or repeated", path)
        for field in fields:
            if field.key not in (used if field.optional else common):
                raise _missing_value(grid, field, path, has_some=field.key in used)
        if any(field.form is not None or field.repeats for field in fields):
            _require_values_that_fit(grid, text, path, fields, configs)


def _templates(grid: Grid) -> Iterator[tuple[Path, str]]:
    """Yield the texts of a command that may have placeholders, with their paths in the grid file."""
    for index, word in enumerate(grid.command):
        if isinstance(word, str):
            yield ("command", index), word
        else:
            yield from ((("command", index, inner), item) for inner, item in enumerate(word))
    yield from ((("env", name), value) for name, value in grid.env.items())
    if grid.cwd:
        yield ("cwd",), grid.cwd


def _missing_value(grid: Grid, field: Placeholder, path: Path, *, has_some: bool) -> GridError:
    keys = {setting.key for setting in _all_settings(grid)}.union(grid.draws.keys if grid.draws else (), BUILT_IN)
    if has_some:
        message = (
            f"the command uses `{field.source}`, but not every run has `{field.key}`; {{{field.key}?}} leaves the word "
            "out of the others"
        )
    else:
        parts = field.key.split(".")
        nested = [part for name in parts[:-1] for part in (name, "parameters")]  # as in sweeps of W&B
        for where in (("grid", field.key), ("grid", *parts), ("grid", *nested, parts[-1])):
            if (other := read_other_spelling(field.key, grid.source.value_at(where))) is not None:
                return grid.source.error(other.in_grid(), where)
        as_text = f"for the text {field.source} write {{{field.source}}}"
        remedy = "add [repeat] with seeds = 3, or set it in [params]" if field.key == "seed" else as_text
        hint = did_you_mean(field.key, sorted(keys))
        message = f"the command uses `{field.source}`, but no run has `{field.key}`{hint}; {remedy}"
    return grid.source.error(message, path, part=field.source)


def _require_values_that_fit(
    grid: Grid, text: str, path: Path, fields: Sequence[Placeholder], configs: Sequence[Values]
) -> None:
    """Raise GridError if a value cannot be formatted, or is no list to repeat a word for."""
    keys = {field.key for field in fields}
    built_in = dict.fromkeys(BUILT_IN, "")
    for values in {repr(row): row for config in configs for row in [{key: config.get(key) for key in keys}]}.values():
        try:
            words = fill_word(text, {**built_in, **values})
        except TemplateError as problem:
            raise grid.source.error(str(problem), path, part=fields[0].source) from None
        if path[0] != "command" and words is not None and len(words) != 1:
            raise grid.source.error(f"`{fields[0].source}` repeats a word of `command` alone", path)


def _unused_axes(grid: Grid) -> list[str]:
    """Return a warning for each axis that no word of a command uses."""
    if not grid.command:
        return []
    used = {field.key for _, text in _templates(grid) for _, field in placeholders([text])}
    used |= {key for rule in grid.sets if used & rule.then.keys() for key in rule.when}
    used |= {
        key
        for branch in grid.branches
        if any(used.intersection(axis.keys) for axis in branch.axes)
        for key in branch.when
    }
    all_axes = [*grid.axes, *(axis for branch in grid.branches for axis in branch.axes)]
    axes = [(setting.key, setting.path[:-1]) for axis in all_axes for setting in axis.points[0]]
    axes += [(draw.key, draw.path[:-1]) for draw in grid.draws.distributions] if grid.draws else []
    axes += [("seed", ("repeat", "seeds"))] if grid.seeds else []
    errors = [
        grid.source.error(f"no word of the command uses `{key}`; {_unused_remedy(grid, key)}", path, at="key")
        for key, path in axes
        if key not in used and key not in grid.pinned
    ]
    return [str(error).partition("\n")[0] for error in errors]


def _unused_remedy(grid: Grid, key: str) -> str:
    """Return the consequence of an axis without a placeholder, or the placeholder to write for another tool's."""
    name = re.escape(key)
    other_forms = rf"\$\{{{name}\}}|\${name}\b|%\({name}\)\w|<{name}>|\{{ *{name}\b[^{{}}]*\}}"
    for _, text in _templates(grid):
        if match := re.search(other_forms, text):
            return f"write {{{key}}} instead of {match[0]}"
    return "only the script's config has it"


def require_networks(grid: Grid, configs: Iterable[Mapping[str, Any]]) -> None:
    """Check the lists of layers, if the data's shape is known.

    Raises:
        GridError: A list does not fit, with its position in the grid file.
    """
    valid = set()
    for config in configs:
        layers: list[str] | None = config.get("layers")
        if layers is None:
            continue
        data = sample_and_classes(grid.task, config)
        if data is None or (tuple(layers), data) in valid:
            continue
        shape, classes = data
        try:
            require_scores(read_layers(layers, shape), shape, classes)
        except BadItem as problem:
            raise grid.source.error(f"layers{problem}", (*position_of(grid, "layers", layers), problem.index)) from None
        except LayerError as problem:
            raise grid.source.error(str(problem), (*position_of(grid, "layers", layers), len(layers) - 1)) from None
        valid.add((tuple(layers), data))


def position_of(grid: Grid, key: str, value: Any) -> Path:
    """Return the path of a key's value in the grid file.

    A value that is not in the file was drawn by `[random]`.
    """
    paths = (setting.path for setting in _all_settings(grid) if setting.key == key and setting.value == value)
    return next(paths, ("random", key))


def _all_settings(grid: Grid) -> Iterator[Setting]:
    """Yield all settings of the grid, those with the highest precedence first."""
    yield from (setting for settings in grid.pinned.values() for setting in settings)
    axes = (*grid.axes, *(axis for branch in grid.branches for axis in branch.axes))
    yield from (setting for axis in axes for point in axis.points for setting in point)
    yield from (setting for include in grid.includes for setting in include.values())
    yield from (setting for rule in grid.sets for setting in rule.then.values())
    yield from grid.params.values()
