"""Short names of a grid's runs, such as `adam lr=0.01 bn s0`.

A name has the keys that differ between the runs.

Values that are off are left out: false, a missing key, a default of 0 or None (`dropout`), and any default of a key
without an axis. A flag or a string is written without its key if no other key has the same text, so different configs
never share a name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from labbench.configs import distinguishing_keys, same_value
from labbench.params.param import Params
from labbench.records import Config
from labbench.spelling import spell_value

SHORT = {"batchnorm": "bn", "batch_size": "bs", "dropout": "drop", "weight_decay": "wd"}
"""Common abbreviations of keys; other keys are called by the last part of their name."""

_ABSENT = object()
_NEVER_OMITTED = object()


def make_names(
    configs: Sequence[Config], params: Params, *, axes: Sequence[str], implied: Collection[str] = (), same: str
) -> list[str]:
    """Return a name for each config, with the keys of `axes` first, in their order.

    `implied` are keys whose values follow from other keys, so that they are not needed in names; `same` is the name of
    all configs if no key differs.
    """
    keys = [key for key in distinguishing_keys(configs) if key not in implied]
    if not keys:
        return [same for _ in configs]
    keys.sort(key=lambda key: (key == "seed", axes.index(key) if key in axes else len(axes)))
    labels = _short_labels(keys)
    columns = [[config.get(key, _ABSENT) for config in configs] for key in keys]
    omitted = [
        _omitted_value(key, values, params, is_axis=key in axes) for key, values in zip(keys, columns, strict=True)
    ]
    spellings = [
        _spell_values(values, off, _spell_value(key, label, values))
        for key, label, values, off in zip(keys, labels, columns, omitted, strict=True)
    ]
    shared = Counter(word for words in spellings for word in set(words) if word)
    for index, words in enumerate(spellings):
        if any(shared[word] > 1 for word in words):
            spellings[index] = _spell_values(columns[index], omitted[index], _spell_pair(labels[index]))
    names = [" ".join(filter(None, words)) for words in zip(*spellings, strict=True)]
    return [name or _name_of_default(labels[0], omitted[0]) for name in names]


def _short_labels(keys: Sequence[str]) -> list[str]:
    """Return a short name for each key, or the whole key if the short name is not unique."""
    last = [key.rpartition(".")[2] for key in keys]
    short = [SHORT.get(word, word) for word in last]
    return [label if short.count(label) == 1 else key for key, label in zip(keys, short, strict=True)]


def _omitted_value(key: str, values: Sequence[Any], params: Params, *, is_axis: bool) -> Any:
    """Return the value of a key that names leave out, `_NEVER_OMITTED` if there is none."""
    if any(value is _ABSENT for value in values):
        return _ABSENT
    if all(isinstance(value, bool) for value in values):
        return False
    if key == "seed" or key not in params:
        return _NEVER_OMITTED
    default = params[key].default
    return default if default is None or default == 0 or not is_axis else _NEVER_OMITTED


def _spell_values(values: Sequence[Any], off: Any, word: Callable[[Any], str]) -> list[str]:
    """Return the word for each value, "" for the omitted one.

    Each distinct value is spelled only once.
    """
    spellings: dict[str, str] = {}
    words = []
    for value in values:
        text = repr(value)
        if text not in spellings:
            spellings[text] = "" if value is off or same_value(value, off) else word(value)
        words.append(spellings[text])
    return words


def _name_of_default(label: str, off: Any) -> str:
    """Return the name of the run whose values are all off."""
    return f"no {label}" if off is _ABSENT else _spell_pair(label)(off)


def _spell_value(key: str, label: str, values: Sequence[Any]) -> Callable[[Any], str]:
    """Return a function that spells values, without their key where that is unambiguous."""
    present = [value for value in values if value is not _ABSENT]
    if all(isinstance(value, bool) for value in values):
        return lambda value: label
    if key == "seed" and all(isinstance(value, int) for value in present):
        return lambda value: f"s{value}"
    if all(
        isinstance(value, str) and value and not any(c.isspace() or c in "=\"'" for c in value) for value in present
    ):
        return str
    return _spell_pair(label)


def _spell_pair(label: str) -> Callable[[Any], str]:
    """Return a function that spells `lr=0.01`.

    Strings are quoted only if they look like another type.
    """

    def spell(value: Any) -> str:
        is_plain = isinstance(value, str) and value.isidentifier() and value not in ("true", "false", "null")
        return f"{label}={value if is_plain else spell_value(value)}"

    return spell
