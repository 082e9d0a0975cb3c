"""Configs in the database: JSON that SQL can look into, and which of their keys tell runs apart."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from labbench.store.rows import storable

# stand for the infinities while a config is written: no text that a person would set
_INFINITY, _MINUS_INFINITY = "\0+inf", "\0-inf"


def config_json(config: Mapping[str, Any]) -> str:
    """A config as JSON that SQLite can read too.

    JSON has no infinities, but a number that overflows is one; NaN, which it cannot say, becomes the string "nan".
    """
    try:
        text = json.dumps(dict(config), ensure_ascii=False, allow_nan=False)
    except ValueError:
        text = json.dumps(_with_marks(dict(config)), ensure_ascii=False)
        text = text.replace(json.dumps(_INFINITY), "9e999").replace(json.dumps(_MINUS_INFINITY), "-9e999")
    return storable(text)


def set_config(connection: sqlite3.Connection, run_id: int, config: Mapping[str, Any]) -> None:
    """Give a run these values; keys that it has beside them, such as those that its script has added, stay."""
    [text] = connection.execute("SELECT config FROM runs WHERE id = ?", (run_id,)).fetchone()
    recorded = json.loads(text)
    new = config_json({**recorded, **config} if isinstance(recorded, dict) else config)
    if new != text:
        connection.execute("UPDATE runs SET config = ? WHERE id = ?", (new, run_id))


@lru_cache(maxsize=2)  # whoever watches a database asks again after each commit, and its configs are as they were
def config_keys(configs: tuple[str, ...]) -> tuple[tuple[str, ...], Mapping[str, Any]]:
    """The keys of configs (JSON) in the order they first come, and those that have one value in all, with it.

    Not having a key counts as a value of it.
    """
    keys: dict[str, None] = {}
    constant: dict[str, Any] | None = None
    for text in configs:
        config = json.loads(text)
        if constant is None:
            constant = config
        else:
            constant = {key: value for key, value in constant.items() if key in config and config[key] == value}
        if not config.keys() <= keys.keys():
            keys |= dict.fromkeys(config)
    return tuple(keys), constant or {}


def _with_marks(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_marks(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_with_marks(item) for item in value]
    if not isinstance(value, float) or math.isfinite(value):
        return value
    return "nan" if math.isnan(value) else _INFINITY if value > 0 else _MINUS_INFINITY
