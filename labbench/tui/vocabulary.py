"""Vocabulary of the filter's completion: keys, values and metrics of a database, read in a thread worker."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from labbench.filters.completion import Vocabulary
from labbench.filters.parser import Comparison
from labbench.metrics import charted_metrics
from labbench.spelling import spell_value
from labbench.store.reader import Reader

_HAS_TAG = Comparison("tag", None, "!=", (None,), ("none",))


def read_vocabulary(path: Path) -> Vocabulary:
    """Return keys, values and metrics for the completion of filters."""
    if not path.exists():
        return Vocabulary()
    with Reader(path) as reader:
        keys = reader.config_keys()
        values: dict[str, dict[str, None]] = {key: {} for key in keys}
        for settings in {row[1] for row in reader.values([], by=keys)}:
            for key, value in zip(keys, json.loads(settings), strict=False):
                if value is not None and len(values[key]) < _MAX_VALUES_PER_KEY:
                    values[key][_format_value(value)] = None
        words = {key: sorted(values_of_key, key=_value_sort_key) for key, values_of_key in values.items()}
        words["experiment"] = reader.experiments()
        words["tag"] = sorted(
            {tag for run in reader.runs(_HAS_TAG, summaries=False, limit=_MAX_VALUES_PER_KEY) for tag in run.tags}
        )
        return Vocabulary(words, charted_metrics(reader.metrics()))


_MAX_VALUES_PER_KEY = 200
"""Maximum number of completions of one key."""


def _format_value(value: Any) -> str:
    return value if isinstance(value, str) else spell_value(value)


def _value_sort_key(word: str) -> tuple[bool, float, str]:
    """Sort numbers by size, then words."""
    try:
        return False, float(word), word
    except ValueError:
        return True, 0.0, word
