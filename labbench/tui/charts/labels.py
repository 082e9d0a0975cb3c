"""What the lines of a chart are called: by what differs among the runs, never by their keys alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from labbench import text
from labbench.configs import distinguishing_keys
from labbench.records import RunRecord

_MAX_DETAILS = 4
_OMITTED_VALUES = (False, 0, None, "")
"""Values that a grid's names leave out."""


def run_labels(runs: Sequence[RunRecord]) -> dict[str, str]:
    """A short text for each run, by key: its name without the words that all names share.

    Names say what differs within a grid, so what is left is what differs among these; the config keys that differ and
    that a name does not tell come behind it. Only runs that nothing tells apart get their keys.
    """
    words = {run.key: text.clean(run.name).split() for run in runs}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    short = {key: " ".join(word for word in name if word not in shared) for key, name in words.items()}
    if not all(short.values()):
        short = {key: " ".join(name) for key, name in words.items()}
    keys = distinguishing_keys([run.config for run in runs])
    untold = [key for key in keys if not _is_in_names(runs, key)][:_MAX_DETAILS]
    for run in runs:
        details = " ".join(f"{text.clean(key)}={text.format_setting(run.config.get(key))}" for key in untold)
        short[run.key] = f"{short[run.key]} {details}".strip()
    seen: dict[str, int] = {}
    for label in short.values():
        seen[label] = seen.get(label, 0) + 1
    return {key: label if label and seen[label] == 1 else f"{label} {key}".strip() for key, label in short.items()}


def _is_in_names(runs: Sequence[RunRecord], key: str) -> bool:
    """Every run's name says its value of the key, or leaves it out because it is off."""
    return all(
        value in _OMITTED_VALUES or _mentions(run.name, key, value) for run in runs for value in [run.config.get(key)]
    )


def _mentions(name: str, key: str, value: Any) -> bool:
    words = name.split()
    spelled = {text.format_setting(value), json.dumps(value, separators=(",", ":"))}
    if value is True:
        return any(word in (key, "bn") or key.endswith(word) for word in words)
    if key == "seed" and f"s{value}" in words:
        return True
    return any(word.rpartition("=")[2] in spelled for word in words)


def group_labels(runs: Sequence[RunRecord], names: Mapping[str, str]) -> dict[str, str]:
    """The group of each run, by key: what the labels of the runs that differ by their seed alone have in common."""
    members: dict[str, list[str]] = {}
    for run in runs:
        members.setdefault(f"{run.experiment} {_config_without_seed(run.config)}", []).append(run.key)
    found = {}
    taken: set[str] = set()
    for keys in members.values():
        words = [names[key].split() for key in keys]
        common = [word for word in words[0] if all(word in others for others in words)]
        label = " ".join(common) or names[keys[0]]
        while label in taken:
            label += "'"
        taken.add(label)
        found.update(dict.fromkeys(keys, label))
    return found


def _config_without_seed(config: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in config.items() if key.rpartition(".")[2] != "seed"}
    return json.dumps(rest, sort_keys=True, default=str)
