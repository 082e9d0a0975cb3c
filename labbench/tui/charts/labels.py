"""Labels of runs and groups on charts, made of what differs between the runs, and colours among very many runs."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from labbench import text
from labbench.charts.glyphs import LEADER_COUNT, OTHER_SLOT
from labbench.configs import canonical_json, distinguishing_keys
from labbench.metrics import Goal
from labbench.records import RunRecord, rank_of_configuration
from labbench.spelling import respell_numbers, spell_value

_MAX_DETAILS = 4
_LONG_LIST = re.compile(r"(\[[^\]]{0,10})[^\]]{5,}\]")
"""A list of more than 15 characters; the group matches its beginning."""
_OMITTED_VALUES = (False, 0, None, "")
"""Values that the run names of a grid omit."""


def run_labels(runs: Sequence[RunRecord], others: Sequence[RunRecord] = ()) -> dict[str, str]:
    """Return a short label per run, by key: its name without the words that all names share.

    Shared words stay if a label without them would be the name of one of the `others`, which are not labelled.
    Differing config keys that the names do not mention are appended; runs that still have equal labels get their keys.
    """
    words = {run.key: text.clean(run.name).split() for run in runs}
    shared = set.intersection(*map(set, words.values())) if len(words) > 1 else set()
    short = {key: " ".join(word for word in name if word not in shared) for key, name in words.items()}
    if not all(short.values()) or _is_name_of_other(runs, short, others):
        short = {key: " ".join(name) for key, name in words.items()}
    keys = distinguishing_keys([run.config for run in runs])
    unmentioned = [key for key in keys if not is_in_names(runs, key)][:_MAX_DETAILS]
    for run in runs:
        details = " ".join(
            f"{text.clean(key)}={text.format_setting(run.config.get(key))}"
            for key in unmentioned
            if not mentions(run.name, key, run.config.get(key))
        )
        short[run.key] = f"{short[run.key]} {details}".strip()
    short = _abbreviate(_without_seeds(runs, short))
    counts = Counter(short.values())
    return {key: label if label and counts[label] == 1 else f"{label} {key}".strip() for key, label in short.items()}


def _is_name_of_other(runs: Sequence[RunRecord], labels: Mapping[str, str], others: Sequence[RunRecord]) -> bool:
    """Return True if a label, except for the seed, is the name of another run of another configuration."""
    configurations = {configuration_of(run) for run in runs}
    names = {_drop_seed(run, text.clean(run.name)) for run in others if configuration_of(run) not in configurations}
    return not names.isdisjoint(_drop_seed(run, labels[run.key]) for run in runs)


def _drop_seed(run: RunRecord, name: str) -> str:
    return " ".join(word for word in name.split() if word not in _seed_words(run))


def _without_seeds(runs: Sequence[RunRecord], labels: Mapping[str, str]) -> dict[str, str]:
    """Return the labels without words that name seeds, unless the runs differ only in their seed."""
    shortened = {run.key: _drop_seed(run, labels[run.key]) for run in runs}
    is_unique = all(shortened.values()) and len(set(shortened.values())) == len(shortened)
    return shortened if is_unique and len(runs) > 1 else dict(labels)


def _seed_words(run: RunRecord) -> tuple[str, ...]:
    seed = run.config.get("seed")
    return () if seed is None else (f"s{seed}", f"seed={seed}")


def _abbreviate(labels: Mapping[str, str]) -> dict[str, str]:
    """Shorten long lists in labels to their first items and `…`, unless labels would become equal."""
    shortened = {key: _LONG_LIST.sub(r"\1…]", label) for key, label in labels.items()}
    counts = Counter(shortened.values())
    return {key: label if counts[label] == 1 else labels[key] for key, label in shortened.items()}


def is_in_names(runs: Sequence[RunRecord], key: str) -> bool:
    """Return True if every run's name mentions its value of the key, or omits a value such as False or 0."""
    return all(
        value in _OMITTED_VALUES or mentions(run.name, key, value) for run in runs for value in [run.config.get(key)]
    )


def mentions(name: str, key: str, value: Any) -> bool:
    """Return True if a word of a run's name is the value of a config key, with or without the key."""
    if _has_word_for(name, key, value):
        return True
    respelled = respell_numbers(name)
    return respelled != name and _has_word_for(respelled, key, value)


def _has_word_for(name: str, key: str, value: Any) -> bool:
    words = name.split()
    spelled = {text.format_setting(value), spell_value(value), json.dumps(value, separators=(",", ":"))}
    if any(" " in spelling and f"={spelling}" in name for spelling in spelled):
        return True
    if value is True:
        return any(word in (key, "bn") or key.endswith(word) for word in words)
    if key == "seed" and f"s{value}" in words:
        return True
    is_number = isinstance(value, int | float)  # which needs its key: it may be anything else
    return any(word.rpartition("=")[2] in spelled and ("=" in word or not is_number) for word in words)


def group_labels(runs: Sequence[RunRecord], names: Mapping[str, str]) -> dict[str, str]:
    """Return the group label of each run, by key.

    Runs that differ only in their seed form a group; its label has the words that their labels share.
    """
    members: dict[str, list[str]] = {}
    for run in runs:
        members.setdefault(configuration_of(run), []).append(run.key)
    group_of_run = {}
    used: set[str] = set()
    for keys in members.values():
        words = [names[key].split() for key in keys]
        common = [word for word in words[0] if all(word in others for others in words)]
        label = " ".join(common) or names[keys[0]]
        while label in used:
            label += "'"
        used.add(label)
        group_of_run.update(dict.fromkeys(keys, label))
    return group_of_run


def configuration_of(run: RunRecord) -> str:
    """Return a text that runs of one experiment share if their configs differ only in the seed."""
    config = {key: value for key, value in run.config.items() if key.rpartition(".")[2] != "seed"}
    return f"{run.experiment} {canonical_json(config)}"


def leader_slots(runs: Sequence[RunRecord], metric: str, goal: Goal) -> dict[str, int]:
    """Return the slot of each run by key: from 1 on for the ten best configurations, `OTHER_SLOT` for the others.

    Configurations are ranked by the mean of their runs' best values; for the goal `none`, in the order of the runs.
    """
    members: dict[str, list[RunRecord]] = {}
    for run in runs:
        members.setdefault(configuration_of(run), []).append(run)
    ranked = sorted(members, key=lambda configuration: rank_of_configuration(members[configuration], metric, goal))
    slots = dict.fromkeys((run.key for run in runs), OTHER_SLOT)
    for slot, configuration in enumerate(ranked[:LEADER_COUNT], start=1):
        slots.update(dict.fromkeys((run.key for run in members[configuration]), slot))
    return slots
