"""Objects that stand for what labbench does not record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from labbench.tracking.messages import warn_once


class Ignored:
    """Object whose calls, attributes and items do nothing; it is empty and false."""

    def __init__(self, name: str = "") -> None:
        self.__dict__["_name"] = name

    def __getattr__(self, name: str) -> Ignored:
        if name.startswith("__"):
            raise AttributeError(name)
        return Ignored(f"{self._name}.{name}")

    def __setattr__(self, name: str, value: Any) -> None: ...

    def __call__(self, *args: Any, **kwargs: Any) -> Ignored:
        return self

    def __getitem__(self, key: Any) -> Ignored:
        return self

    def __setitem__(self, key: Any, value: Any) -> None: ...

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __len__(self) -> int:
        return 0

    def __enter__(self) -> Ignored:
        return self

    def __exit__(self, *_: object) -> None: ...

    def __repr__(self) -> str:
        return f"<{self._name}: not recorded by labbench>"


def ignore(name: str) -> Ignored:
    """Return an object that does nothing, and print a warning that names it, once."""
    warn_once(f"{name} does nothing in labbench")
    return Ignored(name)
