"""Objects and functions that stand for what labbench does not record or offer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NoReturn

from labbench.errors import InputError
from labbench.messages import warn_once


class Error(Exception):
    """Base of W&B's exceptions: `except wandb.errors.CommError`. labbench raises subclasses."""


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


def refuse_reading(name: str) -> Callable[..., NoReturn]:
    """Return a function that takes the place of a reading call, whose result the script would use.

    Raises:
        InputError: When the returned function is called; the text names what to use.
    """

    def refuse(*args: Any, **kwargs: Any) -> NoReturn:
        raise InputError(
            f"{name} is not available in labbench, which has no server to read from. labbench.open() reads the runs of "
            "a database, such as `labbench.open().runs('experiment=mnist', sort='best(val/loss)')` and "
            "`labbench.open().artifacts(KEY)`; see docs/reference/python.md, Read a database"
        )

    return refuse


def refuse_sweep(*args: Any, **kwargs: Any) -> NoReturn:
    """Take the place of `wandb.sweep`, `agent` and `controller`, without which a script would train nothing.

    Raises:
        InputError: Always; the text names what takes the place of sweeps.
    """
    raise InputError(
        "wandb.sweep, wandb.agent and wandb.controller are not available in labbench, and nothing would be trained. "
        "`labbench new --from train.py` writes a grid of the script, with the values in [grid] or drawn in [random]; "
        "a task of labbench can also be tuned with [search]. `labbench run grid.toml` trains it; "
        "see docs/howto/script.md, From a W&B sweep to a grid"
    )
