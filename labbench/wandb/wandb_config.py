"""`wandb.config`: the configuration of a run with the methods of W&B's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from labbench.tracking.config import RunConfig, plain_config


class WandbConfig(Mapping[str, Any]):
    """Nested view of the configuration of a run, whose keys are stored joined with `.`."""

    def __init__(self, config: RunConfig) -> None:
        self.__dict__["_config"] = config
        self.__dict__["_hidden"] = set()

    def _add_hidden(self, values: Mapping[str, Any]) -> None:
        """Record values whose keys do not exist, which this view does not list: `Model(**wandb.config)`."""
        missing = {key: value for key, value in values.items() if key not in self}
        self._hidden.update(missing)
        if missing:
            self._config.update(missing)

    def _is_hidden(self, key: str) -> bool:
        return key in self._hidden or key.startswith("summary/")

    def update(self, config: Any = None, allow_val_change: bool | None = None) -> None:
        """Add or replace keys; labbench always allows the change of a value.

        Raises:
            InputError: If `config` has no named values.
        """
        self._config.update(config)

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
        self._hidden.discard(key)
        self._config[key] = value

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
