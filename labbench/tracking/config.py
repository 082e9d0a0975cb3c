"""`run.config`: the configuration of a run as a flat dict of JSON values."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from types import ModuleType
from typing import Any

from labbench.configs import flatten
from labbench.errors import InputError
from labbench.files import expand_home
from labbench.tracking.config_values import JsonConverter, entries_of

_MAX_NOTES = 10
"""Problems of a config that one warning lists."""


class RunConfig(Mapping[str, Any]):
    """Configuration of a run: `run.config["lr"]`, `run.config.lr`, `run.config.update({"model": {"width": 128}})`.

    Nested keys are joined with `.`. Values that JSON does not have are converted, see `config_values`.
    """

    def __init__(self, values: Mapping[str, Any], on_change: Callable[[dict[str, Any]], None]) -> None:
        self.__dict__["_values"] = dict(values)
        self.__dict__["_on_change"] = on_change

    def update(self, config: Any = None, /, **settings: Any) -> None:
        """Add or replace keys, from keywords, or from a config as `labbench.start` accepts it.

        Raises:
            InputError: If `config` has no named values, or the run has ended.
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

    Warns of values that JSON cannot represent, of those that cannot be read, and of keys that are set twice.

    Raises:
        InputError: If `config` is neither a mapping nor an object with fields or attributes.
    """
    if config is None:
        return {}
    converter = JsonConverter()
    attributes = _attributes(config)
    nested = converter.convert(config if attributes is None else attributes)
    if not isinstance(nested, dict):
        raise InputError(
            "the config must be a dict, a namespace, a dataclass or another object with named fields, "
            f"not {type(config).__name__}"
        )
    flat: dict[str, Any] = {}
    for name, value in flatten(nested):
        if name in flat and flat[name] != value:
            converter.note_collision(name)
        flat[name] = value
    if converter.notes:
        more = f"; and {len(converter.notes) - _MAX_NOTES} more" if len(converter.notes) > _MAX_NOTES else ""
        warnings.warn(
            f"the config is stored as JSON: {'; '.join(converter.notes[:_MAX_NOTES])}{more}", stacklevel=stacklevel
        )
    return flat


def _attributes(config: Any) -> dict[str, Any] | None:
    """Return the public attributes of a class, module or plain object that serves as a config: `class CFG: lr = 0.1`.

    Classes within the class are nested configs; functions and classes that a module imports are left out. Returns None
    for other values, and without attributes.
    """
    if isinstance(config, ModuleType):
        names = [name for name, value in vars(config).items() if _is_setting(name, value) and not callable(value)]
        return {name: vars(config)[name] for name in names} or None
    kind = config if isinstance(config, type) else type(config)
    is_plain = isinstance(config, type) or not (callable(config) or isinstance(config, os.PathLike | Iterable))
    if not is_plain or kind.__module__ == "builtins" or entries_of(config) is not None:
        return None
    sources: list[Mapping[str, Any]] = [vars(ancestor) for ancestor in reversed(kind.__mro__[:-1])]
    if config is not kind:
        sources.append(getattr(config, "__dict__", {}))
    attributes: dict[str, Any] = {}
    for name, value in chain.from_iterable(source.items() for source in sources):
        value_kind = value if isinstance(value, type) else type(value)
        if value_kind.__qualname__.startswith(f"{kind.__qualname__}.") and not name.startswith("_"):
            attributes[name] = _attributes(value) or value
        elif _is_setting(name, value):
            attributes[name] = value
    return attributes or None


def _is_setting(name: str, value: Any) -> bool:
    """Return False for private names, modules, functions, properties and other descriptors."""
    return not name.startswith("_") and not isinstance(value, ModuleType) and not hasattr(type(value), "__get__")


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
