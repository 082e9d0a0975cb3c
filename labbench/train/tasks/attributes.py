"""The attributes that a task sets on itself in `data` and `model`, kept apart between runs.

`data` begins with the attributes that the constructor left, `model` with those that `data` left, so that no run sees
what another one set. Changes in place are undone as well, in plain collections, small tensors and arrays, and objects
of a user's own classes; all other objects are known by identity or equality.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, is_dataclass
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.train.tasks.import_context import is_of_library

LARGE = 10_000
"""Items of a collection or numbers of a tensor: with more, it is not copied."""


@dataclass
class Noted:
    """An object as it was at some time."""

    value: Any
    copy: Any = None
    """The contents of a small tensor, array or set."""
    version: int | None = None
    """Of a tensor, counts the changes in place."""
    parts: Mapping[Any, Noted] | None = None
    """By name, key or index."""

    @property
    def is_fixed(self) -> bool:
        """True for an object that does not change, or is known by its identity alone."""
        return self.parts is None and self.copy is None and self.version is None


def note(value: Any, memo: dict[int, Noted] | None = None) -> Noted:
    """Note an object and all that it consists of; `memo` gets every object that was met, by its id."""
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    noted = memo[id(value)] = Noted(value)
    if isinstance(value, Tensor):
        noted.version = 0 if value.is_inference() else value._version
        noted.copy = value.detach().clone() if value.numel() <= LARGE else None
    elif isinstance(value, np.ndarray):
        noted.copy = value.copy() if value.size <= LARGE else None
    elif isinstance(value, set):
        noted.copy = set(value)
    parts = _parts(value)
    if parts is not None:
        noted.parts = {key: note(part, memo) for key, part in parts.items()}
    return noted


def put_back(noted: Noted, path: str = "self", done: set[int] | None = None) -> None:
    """Give an object and all that it consists of the contents they had.

    Raises:
        InputError: A large tensor was changed in place; it was not copied.
    """
    done = set() if done is None else done
    if noted.is_fixed or id(noted) in done:
        return
    done.add(id(noted))
    value, copy = noted.value, noted.copy
    if isinstance(value, Tensor) and not value.is_inference() and value._version != noted.version:
        if copy is None:
            raise InputError(
                f"the task changes the tensor `{path}` in place, so that runs would see each other's values: "
                "make a new tensor in data() or model()"
            )
        with torch.no_grad():
            value.copy_(copy)
        noted.version = value._version
    elif isinstance(value, np.ndarray) and copy is not None and not np.array_equal(value, copy):
        value[...] = copy
    elif isinstance(value, set) and value != copy:
        value.clear()
        value.update(copy)
    if noted.parts is None:
        return
    parts = {key: part.value for key, part in noted.parts.items()}
    now = _parts(value)
    if now is None or now.keys() != parts.keys() or any(now[key] is not parts[key] for key in parts):
        if isinstance(value, list):
            value[:] = parts.values()
        elif isinstance(value, dict) or _has_state(value):
            there = value if isinstance(value, dict) else vars(value)
            there.clear()
            there.update(parts)
    for key, part in noted.parts.items():
        put_back(part, _inside(value, path, key), done)


def difference(ours: Noted, theirs: Noted, path: str = "self", done: set[tuple[int, int]] | None = None) -> str | None:
    """Return the path of the first part in which two objects differ, such as `self.weights[1]`; None if in nothing."""
    done = set() if done is None else done
    if ours is theirs or (ours.value is theirs.value and ours.is_fixed) or (id(ours), id(theirs)) in done:
        return None
    done.add((id(ours), id(theirs)))
    if type(ours.value) is not type(theirs.value) or not _equal_contents(ours, theirs):
        return path
    if ours.parts is None or theirs.parts is None:
        return path if ours.parts is not theirs.parts else None
    for key in ours.parts.keys() ^ theirs.parts.keys():
        return _inside(ours.value, path, key)
    for key, part in ours.parts.items():
        inner = difference(part, theirs.parts[key], _inside(ours.value, path, key), done)
        if inner is not None:
            return inner
    return None


class TaskAttributes:
    """The attributes of a user's task."""

    def __init__(self, instance: object) -> None:
        self._instance = instance
        self._made = self._given = note(instance)

    @contextmanager
    def during_data(self) -> Iterator[None]:
        """Let `data` begin with what the constructor left, and `model` with what it leaves."""
        with self._beginning(self._made, "data"):
            yield
        self._given = self.now()

    @contextmanager
    def during_model(self) -> Iterator[None]:
        """Let `model` begin with what `data` left."""
        with self._beginning(self._given, "model"):
            yield

    @contextmanager
    def _beginning(self, attributes: Noted, part: str) -> Iterator[None]:
        """Begin with these attributes. Raises InputError where the loss or the metrics are replaced."""
        put_back(attributes)
        before = [getattr(self._instance, name, None) for name in ("loss", "metrics")]
        yield
        for name, value in zip(("loss", "metrics"), before, strict=True):
            if getattr(self._instance, name, None) != value:
                raise InputError(f"the task sets `self.{name}` in {part}(): make {name} a method that takes the config")

    def now(self, memo: dict[int, Noted] | None = None) -> Noted:
        """Note the attributes as they are."""
        return note(self._instance, memo)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Undo afterwards what happens to the attributes."""
        before = self.now()
        yield
        put_back(before)


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """The parts of an object by which it is compared; None where it is compared as a whole."""
    if isinstance(value, dict):
        return dict(value) if len(value) <= LARGE else None
    if isinstance(value, list | tuple):
        return dict(enumerate(value)) if len(value) <= LARGE else None
    if isinstance(value, partial):
        return {"func": value.func, "args": value.args, "keywords": value.keywords}
    if isinstance(value, MethodType):
        return {"__func__": value.__func__, "__self__": value.__self__}
    if isinstance(value, FunctionType):
        cells = dict(zip(value.__code__.co_freevars, value.__closure__ or (), strict=True))
        return {**cells, "__defaults__": value.__defaults__, "__kwdefaults__": value.__kwdefaults__}
    if isinstance(value, CellType):
        return {"contents": value.cell_contents} if value != CellType() else {}  # empty: assigned later
    return dict(vars(value)) if _has_state(value) else None


def _has_state(value: Any) -> bool:
    """Return True for an object that is known by its attributes: one of a user's own class, a module, a namespace."""
    if isinstance(value, type | FunctionType | MethodType | partial | Tensor) or not hasattr(value, "__dict__"):
        return False
    if isinstance(value, nn.Module | SimpleNamespace | Namespace) or is_dataclass(value):
        return True
    module = sys.modules.get(type(value).__module__)
    if module is None or module.__name__ == "__main__":  # of a task file that is not open now, or typed in
        return True
    file = getattr(module, "__file__", None)
    return file is not None and not is_of_library(Path(file))


def _equal_contents(ours: Noted, theirs: Noted) -> bool:
    """Compare two objects of one type, but for their parts."""
    mine, other = ours.value, theirs.value
    if isinstance(mine, Tensor):
        if mine is other and ours.version == theirs.version:
            return True
        if (mine.shape, mine.dtype, mine.device) != (other.shape, other.dtype, other.device):
            return False
        if ours.copy is None:
            return mine is not other and torch.equal(mine, other)
        return torch.equal(ours.copy, theirs.copy)
    if isinstance(mine, np.ndarray):
        first, second = (each.value if each.copy is None else each.copy for each in (ours, theirs))
        return (mine is other and ours.copy is None) or (first.dtype == second.dtype and np.array_equal(first, second))
    if isinstance(mine, set):
        return bool(ours.copy == theirs.copy)
    if isinstance(mine, FunctionType):
        return mine.__code__ is other.__code__
    if ours.parts is not None or mine is other:
        return True
    try:
        return bool(mine == other)
    except Exception:  # any class may define it
        return False


def _inside(value: Any, path: str, key: Any) -> str:
    return f"{path}[{key!r}]" if isinstance(value, dict | list | tuple) else f"{path}.{key}"
