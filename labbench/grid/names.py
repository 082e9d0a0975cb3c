"""Short names for the runs of a grid: what tells each from the others, `adam lr=0.01 bn s0`, and nothing else.

What is off is left out: false, or a number at its default of zero (`dropout`). A flag or a string stands alone while
no other key could have said it, so two configs that differ never share a name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Any

from labbench.configs import distinguishing_keys, same_value
from labbench.params.param import Params
from labbench.records import Config

SHORT = {"batchnorm": "bn", "batch_size": "bs", "dropout": "drop", "weight_decay": "wd"}
"""What people call these; other keys go by the last part of their name."""

_ABSENT = object()
_NEVER_OMITTED = object()


def make_names(
    configs: Sequence[Config], params: Params, *, axes: Sequence[str], implied: Collection[str] = (), same: str
) -> list[str]:
    """A name for each config, with the keys of `axes` first and in their order; `same` where nothing differs.

    `implied` are keys that follow from the others, which the names need not say.
    """
    keys = [key for key in distinguishing_keys(configs) if key not in implied]
    if not keys:
        return [same for _ in configs]
    keys.sort(key=lambda key: (key == "seed", axes.index(key) if key in axes else len(axes)))
    labels = _short_labels(keys)
    columns = [[config.get(key, _ABSENT) for config in configs] for key in keys]
    offs = [_omitted_value(key, values, params, is_axis=key in axes) for key, values in zip(keys, columns, strict=True)]
    spellings = [
        _spell_values(values, off, _spell_value(key, label, values))
        for key, label, values, off in zip(keys, labels, columns, offs, strict=True)
    ]
    shared = Counter(word for words in spellings for word in set(words) if word)
    for index, words in enumerate(spellings):
        if any(shared[word] > 1 for word in words):
            spellings[index] = _spell_values(columns[index], offs[index], _spell_pair(labels[index]))
    names = [" ".join(filter(None, words)) for words in zip(*spellings, strict=True)]
    return [name or _name_of_default(labels[0], offs[0]) for name in names]


def _short_labels(keys: Sequence[str]) -> list[str]:
    """A short name for each key, its whole name where that is another's too."""
    last = [key.rpartition(".")[2] for key in keys]
    short = [SHORT.get(word, word) for word in last]
    return [label if short.count(label) == 1 else key for key, label in zip(keys, short, strict=True)]


def _omitted_value(key: str, values: Sequence[Any], params: Params, *, is_axis: bool) -> Any:
    """The one value of a key that its names leave out, `_NEVER_OMITTED` where there is none."""
    if any(value is _ABSENT for value in values):
        return _ABSENT
    if all(isinstance(value, bool) for value in values):
        return False
    if key == "seed" or key not in params:
        return _NEVER_OMITTED
    default = params[key].default
    return default if default is None or default == 0 or not is_axis else _NEVER_OMITTED


def _spell_values(values: Sequence[Any], off: Any, word: Callable[[Any], str]) -> list[str]:
    """The word for each value, "" for the one that is off. Values repeat a lot: each is spelled once."""
    known: dict[str, str] = {}
    words = []
    for value in values:
        text = repr(value)
        if text not in known:
            known[text] = "" if value is off or same_value(value, off) else word(value)
        words.append(known[text])
    return words


def _name_of_default(label: str, off: Any) -> str:
    """The name of the one run for which everything is off: what is off first."""
    return f"no {label}" if off is _ABSENT else _spell_pair(label)(off)


def _spell_value(key: str, label: str, values: Sequence[Any]) -> Callable[[Any], str]:
    """How values are spelled where the value says enough."""
    told = [value for value in values if value is not _ABSENT]
    if all(isinstance(value, bool) for value in values):
        return lambda value: label
    if key == "seed" and all(isinstance(value, int) for value in told):
        return lambda value: f"s{value}"
    if all(isinstance(value, str) and value and not any(c.isspace() or c in "=\"'" for c in value) for value in told):
        return str
    return _spell_pair(label)


def _spell_pair(label: str) -> Callable[[Any], str]:
    """`lr=0.01`; strings in quotes only where they would read as something else."""

    def spell(value: Any) -> str:
        text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
        if isinstance(value, float):
            text = text.removesuffix(".0").replace("e-0", "e-")
        elif isinstance(value, str) and value.isidentifier() and value not in ("true", "false", "null"):
            text = value
        return f"{label}={text}"

    return spell
