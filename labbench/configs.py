"""Compare configs: which keys differ among them, and which values all have in common."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from labbench.records import Config

_ABSENT = object()


@dataclass(frozen=True, slots=True)
class ConfigKeys:
    """The keys of several configs, in the order in which they first come."""

    names: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()
    """Keys with more than one value. A missing key is not a value."""
    constant: Mapping[str, Any] = field(default_factory=dict)
    """Keys that every config has with the same value, and that value."""

    @property
    def varying(self) -> tuple[str, ...]:
        """The keys that are not constant: they differ, or only some configs have them."""
        return tuple(name for name in self.names if name not in self.constant)


def flatten(nested: Mapping[Any, Any], separator: str = ".", prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested dicts, with their keys joined by `separator`; an empty dict is a value."""
    for key, value in nested.items():
        if isinstance(value, dict) and value:
            yield from flatten(value, separator, f"{prefix}{key}{separator}")
        else:
            yield f"{prefix}{key}", value


def compare_configs(configs: Iterable[Config]) -> ConfigKeys:
    """Sort the keys of configs by whether their values differ, as `same_value` judges."""
    first_values: dict[str, Any] = {}
    differing: set[str] = set()
    partial: set[str] = set()
    for index, config in enumerate(configs):
        if index and config.keys() != first_values.keys():
            partial |= config.keys() ^ first_values.keys()
        for key, value in config.items():
            first = first_values.setdefault(key, value)
            if first is not value and key not in differing and not same_value(first, value):
                differing.add(key)
    constant = {key: value for key, value in first_values.items() if key not in differing | partial}
    return ConfigKeys(tuple(first_values), tuple(key for key in first_values if key in differing), constant)


def differing_keys(configs: Iterable[Config]) -> list[str]:
    """Return the keys with more than one value, in the order in which they first come."""
    return list(compare_configs(configs).differing)


def constant_values(configs: Iterable[Config]) -> dict[str, Any]:
    """Return the keys that every config has with the same value, and that value."""
    return dict(compare_configs(configs).constant)


def distinguishing_keys(configs: Sequence[Config]) -> list[str]:
    """Return the keys that name configs: configs that differ also differ in these keys.

    They are the differing keys if that suffices and every config has one of them, otherwise all that vary.
    """
    keys = compare_configs(configs)
    has_each_one = all(not config.keys().isdisjoint(keys.differing) for config in configs)
    if has_each_one and _count_distinct(configs, keys.differing) == _count_distinct(configs, keys.varying):
        return list(keys.differing)
    return list(keys.varying)


def same_value(left: Any, right: Any) -> bool:
    """Return True for values that are the same setting: 1 and 1.0 are, 1 and true are not, NaN is itself."""
    kind = type(left)
    if kind is type(right) and kind in (float, int, str, bool) and left == right:
        return True
    return bool(_comparable(left) == _comparable(right))


def _count_distinct(configs: Sequence[Config], keys: Sequence[str]) -> int:
    return len({tuple(_comparable(config.get(key, _ABSENT)) for key in keys) for config in configs})


def _comparable(value: Any) -> Any:
    """Return a hashable stand-in for a JSON value, equal for values that are the same setting."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, float) and value != value:
        return "nan", None
    if isinstance(value, list | tuple):
        return "list", *map(_comparable, value)
    if isinstance(value, Mapping):
        return "object", frozenset((key, _comparable(item)) for key, item in value.items())
    return value


def canonical_json(value: Any) -> str:
    """Return JSON that is the same for equal values.

    Keys are sorted, there are no spaces, and 1.0 is written as 1.
    """
    return _ENCODER.encode(_normalize(value))


_ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"))


def _normalize(value: Any) -> Any:
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, dict):
        return {key: _normalize(item) for key, item in value.items()}
    return [_normalize(item) for item in value] if isinstance(value, list) else value
