"""`wandb.config`: the configuration of a run with the methods of W&B's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labbench.errors import InputError
from labbench.messages import warn_once
from labbench.tracking.config import RunConfig, plain_config
from labbench.wandb.ignored import Error


class ConfigError(Error, InputError):
    """A value of `wandb.config` would change without `allow_val_change`."""


class WandbConfig(Mapping[str, Any]):
    """Nested view of the configuration of a run, whose keys are stored joined with `.`."""

    def __init__(self, config: RunConfig) -> None:
        self.__dict__["_config"] = config
        self.__dict__["_hidden"] = set()
        self._restrict(frozenset(), allows_changes=False)

    def _restrict(self, locked: frozenset[str], *, allows_changes: bool) -> None:
        """Keep the values of the keys in `locked`; `allows_changes` is the default of `update(allow_val_change=)`."""
        self.__dict__["_locked"], self.__dict__["_allows_changes"] = locked, allows_changes

    def _add_hidden(self, values: Mapping[str, Any]) -> None:
        """Record values whose keys do not exist, which this view does not list: `Model(**wandb.config)`."""
        missing = {key: value for key, value in values.items() if key not in self}
        self._hidden.update(missing)
        if missing:
            self._config.update(missing)

    def _is_hidden(self, key: str) -> bool:
        return key in self._hidden or key.startswith("summary/")

    def update(self, config: Any = None, allow_val_change: bool | None = None) -> None:
        """Add keys, and with `allow_val_change` replace their values; the values of a grid stay, with a warning.

        Raises:
            ConfigError: If a value would change without `allow_val_change`.
            InputError: If `config` has no named values.
        """
        values = plain_config(config)
        changed = {key for key, value in values.items() if key in self._config and self._config[key] != value}
        locked = sorted(changed & self._locked)
        if locked:
            warn_once(f"wandb.config: {', '.join(locked)} stay as the grid sets them")
        allowed = self._allows_changes if allow_val_change is None else allow_val_change
        for key in sorted(changed - self._locked - self._hidden):
            if not allowed:
                raise ConfigError(
                    f"wandb.config: `{key}` is {self._config[key]!r} and cannot become {values[key]!r}; "
                    f"to change it: wandb.config.update({{{key!r}: ...}}, allow_val_change=True)"
                )
        self._hidden.difference_update(values)
        self._config.update({key: value for key, value in values.items() if key not in locked})

    def setdefaults(self, config: Any) -> None:
        """Add the keys that do not exist.

        Raises:
            InputError: If `config` has no named values.
        """
        self._config.update({key: value for key, value in plain_config(config).items() if key not in self._config})

    def as_dict(self) -> dict[str, Any]:
        """Return a nested copy."""
        return _nest({key: value for key, value in self._config.items() if not self._is_hidden(key)})

    def __getitem__(self, key: str) -> Any:
        if key in self._config:
            return self._config[key]
        beneath = {name.removeprefix(f"{key}."): each for name, each in self._config.items() if _is_in(name, key)}
        if not beneath:
            raise KeyError(key)
        return _nest(beneath)

    def __setitem__(self, key: str, value: Any) -> None:
        self.update({key: value})

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(f"the config has no `{key}`") from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __iter__(self) -> Iterator[str]:
        return iter(self.as_dict())

    def __len__(self) -> int:
        return len(self.as_dict())

    def __repr__(self) -> str:
        return str(self.as_dict())


def _is_in(name: str, key: str) -> bool:
    return name.startswith(f"{key}.")


def _nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return a nested dict with the keys split at `.`; a key that is also a prefix of another stays as it is."""
    nested: dict[str, Any] = {}
    for name, value in flat.items():
        first, _, rest = name.partition(".")
        if rest and first and first not in flat:
            nested.setdefault(first, {})[rest] = value
        else:
            nested[name] = value
    return {
        key: _nest(value) if isinstance(value, dict) and key not in flat else value for key, value in nested.items()
    }
