"""Recognition of config keys that identify a run, such as its folder, start time or host, by their names and values."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any, TypeAlias

from labbench.analysis.table import freeze

MIN_LABELLED_RUNS = 6
"""Minimum number of runs for a text that differs in every run to count as a label of the run."""
FIRST_TIME, LAST_TIME = 1e9, 5e9
"""Range of Unix times in seconds: the years 2001 to 2128."""

Column: TypeAlias = Sequence[object]
"""Values of one key, one per run; None if a run lacks it."""

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_DATE_AND_TIME = re.compile(r".*\d{4}-?\d\d-?\d\d[T _-]?\d\d[:-]?\d\d.*", re.DOTALL)
_RANDOM_ID = re.compile(r"(?=.*[0-9])[0-9a-f]{8,}(-[0-9a-f]{4,})*", re.IGNORECASE)
_NUMBERED_DEVICE = re.compile(r"(cuda|gpu|xpu|mps):[0-9]+")
_DEVICES = {"gpu", "cuda", "device"}

_RANK_NAMES = ("globalrank", "rank", "processrank", "ddprank", "localrank", "noderank", "processindex")
_WORLD_NAMES = {"worldsize", "numprocesses", "nproc", "nnodes", "numnodes", "localrank", "masteraddr", "masterport"}
_TIMES = {"timestamp", "datetime", "date", "now", "created", "createdat", "startedat", "starttime", "launchtime"}
_MACHINES = {
    *("host", "hostname", "machine", "nodename", "nodelist", "pid", "ppid", "uuid", "guid", "cwd", "port"),
    *("masterport", "gpuid", "deviceid", "cudavisibledevices", "globalrank", *_RANK_NAMES[2:]),
}
_RUN_WORDS = {"run", "job", "slurm", "process", "trial", "wandb", "mlflow", "clearml", "neptune", "comet"}
_ID_WORDS = {"id", "number", "num", "no", "index", "idx", "uuid", "hash"}
_OUTPUT_WORDS = {
    *("output", "outputs", "out", "log", "logs", "logging", "save", "run", "runs", "job", "work", "working", "dump"),
    *("result", "results", "experiment", "exp", "tensorboard", "tb", "wandb", "mlflow", "artifact", "artifacts"),
    *("tmp", "temp", "trial", "hydra"),
}
_PLACE_WORDS = {"dir", "directory", "path", "folder", "file", "filename", "uri", "url", "prefix"}
_PLACES = {"outdir", "logdir", "workdir", "rundir", "savedir", "outpath", "logfile", "logpath", "saveto"}
_NAMED_WORDS = _RUN_WORDS | {"experiment", "exp", "sweep", "checkpoint", "ckpt", "version", "group"}


def split_words(key: str) -> list[str]:
    """Return the lower-case words of the last part of a key: `trainer.randomState` has `random` and `state`."""
    return [word.lower() for word in _WORD.findall(re.split(r"[./]", key)[-1])]


def find_rank_key(configs: Sequence[Mapping[str, Any]]) -> str | None:
    """Return the key of the rank in a distributed job, if it varies.

    A key `rank` without the size of the job is a hyperparameter, such as the rank of a matrix.
    """
    keys = {"".join(split_words(key)): key for key in dict.fromkeys(key for config in configs for key in config)}
    for name in _RANK_NAMES:
        is_rank = name != "rank" or not _WORLD_NAMES.isdisjoint(keys)
        if name in keys and is_rank and len({freeze(config.get(keys[name])) for config in configs}) > 1:
            return keys[name]
    return None


def find_run_keys(
    configs: Sequence[Mapping[str, Any]], seeds: Sequence[int | None], kept: Collection[str] = ()
) -> tuple[str, ...]:
    """Return the keys that identify a run instead of its configuration.

    These are times, hosts, processes, identifiers and output folders; names of runs that separate only repetitions; and
    texts and counters that differ in every run. A number that was swept is never one of them. `configs` are without
    seeds, and `kept` are names that are never returned.
    """
    names = [name for name in dict.fromkeys(key for config in configs for key in config) if name not in kept]
    columns = {name: [config.get(name) for config in configs] for name in dict.fromkeys((*names, *kept))}
    codes = {name: [freeze(value) for value in column] for name, column in columns.items()}
    varying = [name for name in columns if len(set(codes[name])) > 1]
    certain = [name for name in varying if name in names and _is_certain(name, columns[name])]
    unsure = [
        name for name in varying if name in names and name not in certain and _may_label_runs(name, columns[name])
    ]
    rest = [codes[name] for name in varying if name not in certain + unsure]
    groups: dict[object, list[int | None]] = {}
    for i, seed in enumerate(seeds):
        groups.setdefault(tuple(column[i] for column in rest), []).append(seed)
    known = [seed for seed in seeds if seed is not None]
    repeated = any(_has_duplicates([seed for seed in group if seed is not None]) for group in groups.values())
    merges = len(groups) < len(configs)

    def is_label(name: str) -> bool:
        """Return True if nothing is lost without the key: its values separate runs of different seeds, or all runs."""
        is_unique = len(set(codes[name])) == len(configs)
        if repeated or not (rest or known) or not (is_unique or known):
            return False
        if _names_runs(name):
            return True
        if _is_counter(columns[name]):
            return is_unique and merges and bool(rest) and bool(known)
        return is_unique and bool(rest) and len(configs) >= MIN_LABELLED_RUNS

    labels = {name for name in unsure if is_label(name)}
    return tuple(name for name in names if name in certain or name in labels)


def _has_duplicates(values: Sequence[int]) -> bool:
    return len(set(values)) < len(values)


def _is_certain(name: str, column: Column) -> bool:
    """Return True for times, machines, identifiers of runs and output folders, which do not affect a result."""
    words = split_words(name)
    joined = "".join(words)
    by_name = (
        joined in _TIMES | _MACHINES | _PLACES
        or (words[-1:] and words[-1] in _PLACE_WORDS and not _OUTPUT_WORDS.isdisjoint(words[:-1]))
        or (words[-1:] and words[-1] in _ID_WORDS and not _RUN_WORDS.isdisjoint(words[:-1]))
        or joined in {word + part for word in _RUN_WORDS for part in _ID_WORDS}
    )
    values = [value for value in column if value is not None]
    is_device_number = joined in _DEVICES and 0 in values and all(type(value) is int for value in values)
    is_by_value = _is_time(values) or _are_texts(values, _RANDOM_ID, unique=True) or _are_devices(values)
    return bool(by_name) or is_device_number or is_by_value


def _is_time(values: Column) -> bool:
    if _are_texts(values, _DATE_AND_TIME):
        return True
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    in_range = len(numbers) == len(values) and all(FIRST_TIME <= number <= LAST_TIME for number in numbers)
    return in_range and any(number % 1000 for number in numbers)  # 1e9 and 2e9 were chosen by a person


def _are_devices(values: Column) -> bool:
    """Return True for texts such as `cuda:0` and `cuda:1`: equal devices of one machine."""
    return _are_texts(values, _NUMBERED_DEVICE)


def _are_texts(values: Column, pattern: re.Pattern[str], *, unique: bool = False) -> bool:
    texts = [value for value in values if isinstance(value, str) and pattern.fullmatch(value)]
    return len(texts) == len(values) and (not unique or len(set(texts)) == len(texts))


def _may_label_runs(name: str, column: Column) -> bool:
    is_unique = len({freeze(value) for value in column}) == len(column)
    return _names_runs(name) or (is_unique and (all(isinstance(value, str) for value in column) or _is_counter(column)))


def _names_runs(name: str) -> bool:
    """Return True for keys such as `run_name`, `exp_id`, `run.name` and `checkpoint_path`; not for `optimizer.name`."""
    words = split_words(name)
    parents = [word.lower() for word in _WORD.findall("".join(re.split(r"([./])", name)[:-1]))]
    if len(words) == 1 and parents and _NAMED_WORDS.isdisjoint(parents):
        return False
    return words[-1:] != [] and (
        (words[-1] in _ID_WORDS | _PLACE_WORDS | {"name", "label", "tag"} and not _NAMED_WORDS.isdisjoint(words[:-1]))
        or "".join(words) in {"name", "label", "id", "tag", "comment", *(f"{word}name" for word in _NAMED_WORDS)}
    )


def _is_counter(column: Column) -> bool:
    """Return True for consecutive whole numbers."""
    numbers = [value for value in column if isinstance(value, int) and not isinstance(value, bool)]
    return len(numbers) == len(column) > 1 and max(numbers) - min(numbers) == len(set(numbers)) - 1 == len(numbers) - 1
