"""Selection of the runs and keys that an answer is about.

An answer covers one experiment, one task and one version of its code, unless several are requested. Config keys that
say nothing about the configuration are set apart: seeds, and keys that identify a run (its folder, time, host).
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias

from labbench.analysis.best_values import BestValues
from labbench.analysis.run_keys import find_rank_key, find_run_keys, split_words
from labbench.analysis.table import freeze, is_number
from labbench.analysis.tuning.budgets import Sampling
from labbench.errors import InputError, did_you_mean
from labbench.metrics import Goal
from labbench.records import NEW_SEED_TAG, PairedPoint, RunRecord
from labbench.records.continuations import without_continued

SEED = "seed"
"""Key of the seed in the configs of a selection."""

PRUNED: str = "pruned"
"""Status of runs that a search stopped early by comparison with others."""

At: TypeAlias = Literal["best", "last"]

Network: TypeAlias = Literal["best step", "measured step", "last", "restored"]
"""Network of a run whose values choose and judge its configuration.

- `best step`: the network at the best step of the tuning metric, among the steps at which both metrics were measured;
- `measured step`: the network at the only step at which the judged metric was measured, such as the final network;
- `last`: each metric counts with its last value;
- `restored`: the judged metric was measured once, on weights that a script restored from the best step.
"""


@dataclass(frozen=True, slots=True)
class KeyOptions:
    """Config keys with a role that the user chose."""

    seeds: tuple[str, ...] = ()
    """Keys of the seed; empty: recognised by their names."""
    ignored: tuple[str, ...] = ()
    """Keys left out of the configurations."""
    kept: tuple[str, ...] = ()
    """Keys that stay in the configurations, even if they seem to identify a run or to be a seed other than `seed`."""

    def named(self) -> tuple[str, ...]:
        """Return all keys."""
        return self.seeds + self.ignored + self.kept


@dataclass(frozen=True, slots=True)
class Tuning:
    """Metric for choosing configurations, if they are judged on another one."""

    metric: str
    goal: Goal
    network: Network = "best step"
    """Network of a run that is chosen and judged."""

    @property
    def at(self) -> At:
        """Value of the tuning metric that counts."""
        return "best" if self.network in ("best step", "restored") else "last"


@dataclass(frozen=True, slots=True)
class Scope:
    """Runs, keys and values that an answer is about."""

    at: At = "best"
    """Value of a run: its best, or its last one."""
    tuning: Tuning | None = None
    """Metric for choosing configurations; None: the metric of the answer itself."""
    bests: BestValues = field(default_factory=BestValues)
    """Best values of the runs compared with their last ones."""
    linear: bool = False
    """True to compare differences also if losses span more than a decade."""
    experiments: tuple[str, ...] = ()
    """Experiments of the selected runs, newest first."""
    other_experiments: tuple[str, ...] = ()
    """Experiments left out because a newer one measured the metric, newest first."""
    other_tasks: int = 0
    """Number of runs left out because they are of another task than the newest run."""
    older_code: int = 0
    """Number of runs left out because they are of older code than their grid has now."""
    other_code: int = 0
    """Number of runs left out because another version of the code computed them."""
    continued: int = 0
    """Number of runs left out because others continue them with more epochs."""
    pruned: int = 0
    """Number of runs that a search stopped early by comparison with others."""
    choosing: int = 0
    """Number of runs among which a search chose its finalists, pruned ones included; not compared in the answer."""
    new_seeds: int = 0
    """Number of selected runs whose configurations a search chose by other selected runs."""
    other_ranks: int = 0
    """Number of runs left out because they are of other processes of a distributed job than the first."""
    commits: int = 1
    """Number of git commits of the runs without a recorded code version, such as runs of scripts."""
    seed_keys: tuple[str, ...] = ()
    """Keys that were used as the seed."""
    run_keys: tuple[str, ...] = ()
    """Keys left out because they identify a run."""
    ignored: tuple[str, ...] = ()
    """Keys left out on request."""
    not_set: tuple[tuple[str, int], ...] = ()
    """Keys that only some runs have, with the number of runs without a value."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Selected runs and their scope."""

    runs: tuple[RunRecord, ...]
    """Runs whose configs hold the seed as `seed` and no key that was left out."""
    scope: Scope
    sampling: Sampling | None = None
    """Random draw of the configurations; None if they were not drawn, or depend on results."""
    pairs: Mapping[str, PairedPoint] = field(default_factory=dict)
    """Values of both metrics that belong to one network, by key of the run; empty without a tuning metric, or if each
    metric counts with its own value."""


def select_runs(
    runs: Sequence[RunRecord],
    metric: str,
    *,
    pooled: bool = False,
    all_code: bool = False,
    keys: KeyOptions = KeyOptions(),  # frozen
    at: At = "best",
) -> Selection:
    """Select the runs of the newest experiment that measured `metric`, and set seeds and run identifiers apart.

    Args:
        runs: Runs that match a filter.
        metric: Metric of the answer.
        pooled: Select runs of all experiments, as far as their task is the one of the newest run.
        all_code: Select runs of all versions of the code.
        keys: Roles of keys that the user chose.
        at: Value of a run that is analysed; recorded in the scope.

    Raises:
        InputError: A key of `keys` is in no config.
    """
    chosen, others = (list(runs), []) if pooled else _newest_experiment(runs, metric)
    same_task, same_code = _match_newest_run(chosen, metric, all_code=all_code)
    n_of_same_code = len(same_code)
    same_code = without_continued(same_code)
    _require_keys(keys, same_code)
    judged = _judged_runs(same_code, metric)
    selected = _first_ranks(judged, keys)
    split = _split_configs([run.config for run in selected], keys)
    scope = replace(
        _scope(selected, split, keys, at),
        other_experiments=_experiments(others),
        other_tasks=len(chosen) - len(same_task),
        other_code=len(same_task) - n_of_same_code,
        continued=n_of_same_code - len(same_code),
        other_ranks=len(judged) - len(selected),
    )
    return Selection(_with_configs(selected, split), _with_search_counts(scope, same_code, judged))


def _scope(selected: Sequence[RunRecord], split: _SplitConfigs, keys: KeyOptions, at: At) -> Scope:
    """Return the scope of the selected runs, without the number of runs left out."""
    return Scope(
        at=at,
        experiments=_experiments(selected),
        commits=len({run.git_commit for run in selected if run.code_version is None and run.git_commit}),
        seed_keys=split.seed_keys,
        run_keys=split.run_keys,
        ignored=tuple(dict.fromkeys(keys.ignored)),
        not_set=_count_not_set(split.settings),
    )


def _with_search_counts(scope: Scope, runs: Sequence[RunRecord], judged: Sequence[RunRecord]) -> Scope:
    """Return the scope with the numbers of runs that a search stopped, chose by, and trained with new seeds."""
    return replace(
        scope,
        pruned=sum(run.status == PRUNED for run in runs),
        choosing=sum(NEW_SEED_TAG not in run.tags for run in runs) if judged is not runs else 0,
        new_seeds=_count_new_seeds(judged),
    )


def _newest_experiment(runs: Sequence[RunRecord], metric: str) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the runs of the newest experiment that measured the metric, and the runs of the others that did."""
    measured = [run for run in runs if metric in run.summary]
    ended = [run for run in measured if run.status not in ("queued", "running")]
    names = tuple(dict.fromkeys((*_experiments(ended), *_experiments(measured)))) or _experiments(runs)
    return [run for run in runs if run.experiment in names[:1]], [
        run for run in measured if run.experiment in names[1:]
    ]


def _match_newest_run(
    runs: Sequence[RunRecord], metric: str, *, all_code: bool
) -> tuple[list[RunRecord], list[RunRecord]]:
    """Return the runs with the newest run's task, and the ones that also have its code.

    The newest run is the newest of the runs that measured the metric.
    """
    measured = [run for run in runs if metric in run.summary] or runs
    newest = max(measured, key=lambda run: (run.created, run.id), default=None)
    if newest is None:
        return [], []
    same_task = [run for run in runs if _has_same_task(run, newest)]
    return same_task, [run for run in same_task if all_code or _has_same_code(run, newest)]


def _experiments(runs: Iterable[RunRecord]) -> tuple[str, ...]:
    """Return the names of the experiments, starting with the newest run's."""
    ordered = sorted(runs, key=lambda run: (run.created, run.id), reverse=True)
    return tuple(dict.fromkeys(run.experiment for run in ordered))


def _has_same_task(run: RunRecord, newest: RunRecord) -> bool:
    """Return True for equal names, or for equal code under another name, such as a task file that was moved."""
    return run.task == newest.task or (run.code_version is not None and run.code_version == newest.code_version)


def _has_same_code(run: RunRecord, newest: RunRecord) -> bool:
    """Return False if both code versions are recorded and differ."""
    return run.code_version is None or newest.code_version is None or run.code_version == newest.code_version


def _judged_runs(runs: Sequence[RunRecord], metric: str) -> Sequence[RunRecord]:
    """Return the runs with new seeds and the pruned ones if a search has judged its finalists, else all runs.

    A finalist was chosen for its values with the other seeds, so these are optimistic. Pruned runs have no value to
    compare; they show what the finalists were chosen from.
    """
    new = [run for run in runs if NEW_SEED_TAG in run.tags]
    pruned = [run for run in runs if run.status == PRUNED]
    has_judged = any(run.status == "finished" and metric in run.summary for run in new)
    return [*pruned, *new] if has_judged and pruned else runs


def _count_new_seeds(runs: Sequence[RunRecord]) -> int:
    """Return the number of runs with new seeds, 0 if all runs have some."""
    count = sum(NEW_SEED_TAG in run.tags for run in runs)
    return count if count < len(runs) else 0


def _first_ranks(runs: Sequence[RunRecord], keys: KeyOptions) -> list[RunRecord]:
    """Return the runs of the first process of each distributed job; all processes train one model."""
    rank = find_rank_key([run.config for run in runs])
    if rank is None or rank in keys.named():
        return list(runs)
    return [run for run in runs if run.config.get(rank) in (None, 0)]


@dataclass(frozen=True, slots=True)
class _SplitConfigs:
    """Configs of runs, split by the roles of their keys."""

    seed_keys: tuple[str, ...]
    run_keys: tuple[str, ...]
    """Keys that identify a run."""
    seeds: Sequence[int | None]
    """Seed of each run."""
    settings: Sequence[Mapping[str, Any]]
    """Configuration of each run: its config without seeds, keys that identify it and ignored keys."""


def _split_configs(configs: Sequence[Mapping[str, Any]], keys: KeyOptions) -> _SplitConfigs:
    recognised = (SEED,) if keys.seeds else find_seed_keys(configs)
    seed_keys = (*keys.seeds, *(key for key in recognised if key not in keys.named() and _has_key(configs, key)))
    seeds = _read_seeds(configs, seed_keys)
    settings = _without_keys(configs, {*seed_keys, *keys.ignored})
    run_keys = find_run_keys(settings, seeds, keys.kept)
    return _SplitConfigs(seed_keys, run_keys, seeds, _without_keys(settings, run_keys))


def _with_configs(runs: Sequence[RunRecord], split: _SplitConfigs) -> tuple[RunRecord, ...]:
    """Return the runs with their settings and seeds alone as configs."""
    return tuple(
        replace(run, config=settings if seed is None else {**settings, SEED: seed})
        for run, settings, seed in zip(runs, split.settings, split.seeds, strict=True)
    )


def _without_keys(configs: Sequence[Mapping[str, Any]], keys: Collection[str]) -> list[dict[str, Any]]:
    return [{key: value for key, value in config.items() if key not in keys} for config in configs]


def _has_key(configs: Iterable[Mapping[str, Any]], key: str) -> bool:
    return any(key in config for config in configs)


def _require_keys(keys: KeyOptions, runs: Sequence[RunRecord]) -> None:
    known = dict.fromkeys(key for run in runs for key in run.config)
    for key in keys.named() if runs else ():
        if key not in known:
            raise InputError(f"no configuration has the key `{key}`{did_you_mean(key, known)}")


def _count_not_set(configs: Sequence[Mapping[str, Any]]) -> tuple[tuple[str, int], ...]:
    names = dict.fromkeys(key for config in configs for key in config)
    counts = {name: sum(config.get(name) is None for config in configs) for name in names}
    lacking = {name for name in names if any(name not in config for config in configs)}
    return tuple((name, n) for name, n in counts.items() if name in lacking and n < len(configs))


# Seeds

_SEED_NAMES = {
    *("seed", "seeds", "randomstate", "seedeverything", "prngkey", "rngkey", "repeat", "repetition", "replicate"),
    *("trial", "fold", "cvfold", "foldid", "foldidx", "foldindex", "foldnumber"),
}
_SEED_GROUP = re.compile(r"(.*[./])?seeds?[./][^./]+", re.IGNORECASE)
"""Key of one of several seeds, such as `seed.numpy`."""


def find_seed_keys(configs: Sequence[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return the keys of seeds and other repetitions: `trainer.seed`, `random_state`, `repeat`, `fold`.

    Their values are whole numbers, or lists of them (`seeds`; a number there is their count). A `trial` that differs in
    every run is the number of a trial in a search, unless nothing else is a seed.
    """
    names = filter(_is_seed_name, dict.fromkeys(key for config in configs for key in config))
    keys = [name for name in names if name == SEED or all(_may_be_seed(name, config.get(name)) for config in configs)]
    numbered = [key for key in keys if split_words(key) == ["trial"] and _differs_in_every_run(configs, key)]
    return tuple(key for key in keys if key not in numbered or numbered == keys)


def _may_be_seed(name: str, value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_as_whole_number(item) is not None for item in value)
    return value is None or (split_words(name)[-1] != "seeds" and _as_whole_number(value) is not None)


def _differs_in_every_run(configs: Sequence[Mapping[str, Any]], key: str) -> bool:
    return len({freeze(config.get(key)) for config in configs}) == len(configs)


def _is_seed_name(key: str) -> bool:
    words = split_words(key)
    return bool(words) and (
        words[-1] == SEED or "".join(words) in _SEED_NAMES or _SEED_GROUP.fullmatch(key) is not None
    )


def _as_whole_number(value: object) -> int | None:
    """Return 3 for 3, 3.0 and "3"; None for any other value."""
    if isinstance(value, str) and re.fullmatch(r"\s*-?[0-9]{1,40}(\.0*)?\s*", value):
        return int(value.strip().partition(".")[0])
    return int(value) if is_number(value) and value == int(value) else None  # type: ignore[call-overload]


def _read_seeds(configs: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> list[int | None]:
    """Return the seed of each config; several keys, or values that are no whole numbers, are numbered from 0."""
    values = [tuple(config.get(key) for key in keys) for config in configs]
    if len(keys) == 1:
        numbers = [_as_whole_number(value) for (value,) in values]
        if all(number is not None or value is None for number, (value,) in zip(numbers, values, strict=True)):
            return numbers
    known = {freeze(value): value for value in values if any(part is not None for part in value)}
    index = {key: i for i, key in enumerate(known)}
    return [index.get(freeze(value)) for value in values]
