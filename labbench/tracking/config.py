"""`run.config`: the configuration of a run as a flat dict of JSON values."""

from __future__ import annotations

import dataclasses
import json
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from labbench.errors import InputError
from labbench.files import expand_home
from labbench.tracking.messages import as_text

_MAX_INTEGER_BITS = 4_096
"""Maximum bits of an integer that is stored as a number; Python's JSON is limited to integers of 4,300 digits."""

_MAX_DEPTH = 20
"""Maximum levels of nesting; the bound also ends the recursion for a config that contains itself."""


class RunConfig(Mapping[str, Any]):
    """Configuration of a run: `run.config["lr"]`, `run.config.lr`, `run.config.update({"model": {"width": 128}})`.

    Nested keys are joined with `.`. Values that JSON cannot represent are stored as text, with a warning.
    """

    def __init__(self, values: Mapping[str, Any], on_change: Callable[[dict[str, Any]], None]) -> None:
        self.__dict__["_values"] = dict(values)
        self.__dict__["_on_change"] = on_change

    def update(self, config: Any = None, /, **settings: Any) -> None:
        """Add or replace keys, from a dict, an argparse namespace, a dataclass or keywords.

        Raises:
            InputError: If `config` is none of these, or the run has ended.
        """
        self._set({**plain_config(config, stacklevel=4), **plain_config(settings, stacklevel=4)})

    def __setitem__(self, key: str, value: Any) -> None:
        self._set(plain_config({key: value}, stacklevel=4))

    def __setattr__(self, key: str, value: Any) -> None:
        self._set(plain_config({key: value}, stacklevel=4))

    def __getitem__(self, key: str) -> Any:
        return self._values[key]

    def __getattr__(self, key: str) -> Any:
        try:
            return self.__dict__["_values"][key]
        except KeyError:
            raise AttributeError(f"the config has no `{key}`") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return f"RunConfig({self._values!r})"

    def _set(self, new: dict[str, Any]) -> None:
        values = {**self._values, **new}
        self.__dict__["_values"] = values  # replaced, not changed: the writer's thread may be reading the old one
        self._on_change(values)


def plain_config(config: Any, *, stacklevel: int = 3) -> dict[str, Any]:
    """Return a config as a flat dict of JSON values.

    Warns of values that JSON cannot represent, which become text.

    Raises:
        InputError: If `config` is not a dict, a namespace or a dataclass.
    """
    texts: list[str] = []
    flat = dict(_flatten(_as_mapping(config), "", texts, 0))
    if texts:
        warnings.warn(
            f"the config is stored as JSON, which cannot represent {', '.join(texts)}: stored as text",
            stacklevel=stacklevel,
        )
    return flat


def read_config(path: str) -> dict[str, Any]:
    """Read the config file that `labbench run` wrote for the run of this process.

    Raises:
        InputError: If the file cannot be read or does not hold a JSON object.
    """
    try:
        with expand_home(path).open(encoding="utf-8") as file:
            config = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: the config file named by LABBENCH_CONFIG cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise InputError(f"{path}: the config file named by LABBENCH_CONFIG does not hold a JSON object")
    return config


def _as_mapping(config: Any) -> Mapping[Any, Any]:
    if config is None:
        return {}
    if isinstance(config, Mapping):
        return config
    if _is_namespace(config):
        return dict(vars(config))
    if _is_dataclass(config):
        return {field.name: getattr(config, field.name) for field in dataclasses.fields(config)}
    raise InputError(f"the config must be a dict, a namespace or a dataclass, not {type(config).__name__}")


def _is_namespace(value: Any) -> bool:
    return type(value).__name__ in ("Namespace", "SimpleNamespace")  # by name: importing argparse costs 6 ms


def _is_dataclass(value: Any) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _flatten(config: Mapping[Any, Any], prefix: str, texts: list[str], depth: int) -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        name = f"{prefix}{key}"
        if _is_namespace(value) or _is_dataclass(value):
            value = _as_mapping(value)
        if isinstance(value, Mapping) and value and depth < _MAX_DEPTH:
            yield from _flatten(value, f"{name}.", texts, depth + 1)
        else:
            yield name, _to_json_value(value, name, texts, 0)


def _to_json_value(value: Any, name: str, texts: list[str], depth: int) -> Any:
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, float) or (
        isinstance(value, int) and value.bit_length() <= _MAX_INTEGER_BITS
    ):  # numpy.float64 and IntEnum too
        return float(value) if isinstance(value, float) else int(value)
    if isinstance(value, os.PathLike):
        return os.fsdecode(os.fspath(value))
    if isinstance(value, list | tuple) and depth < _MAX_DEPTH:
        return [_to_json_value(item, name, texts, depth + 1) for item in value]
    if isinstance(value, Mapping) and not value:
        return {}
    number = _scalar(value)
    if number is not None:
        return number
    texts.append(f"`{name}` ({type(value).__name__})")
    return as_text(value)


def _scalar(value: Any) -> Any:
    """Return the number in a numpy scalar or one-element tensor.

    Returns None for any other value.
    """
    item = getattr(value, "item", None)
    if not callable(item):
        return None
    try:
        number = item()
    except (RuntimeError, TypeError, ValueError):
        return None
    return number if isinstance(number, int | float | bool | str) else None
