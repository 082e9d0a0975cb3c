"""State of objects: captured, restored and compared.

Changes in place are undone in plain collections, small tensors and arrays, random generators, and objects of a user's
own classes; all other objects are compared by identity or equality.
"""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.train.rng import GENERATORS, generator_state, set_generator_state
from labbench.train.tasks.import_context import is_of_library

LARGE = 10_000
"""Collections with more items and tensors with more elements are not copied."""


@dataclass
class ObjectState:
    """State of an object at one time."""

    value: Any
    copy: Any = None
    """Contents of a small tensor, array or set, or the state of a random generator."""
    version: int | None = None
    """torch's version counter of a tensor, which counts changes in place."""
    parts: Mapping[Any, ObjectState] | None = None
    """States of the parts by name, key or index."""

    @property
    def is_fixed(self) -> bool:
        """True for an object that is immutable or compared by identity only."""
        return self.parts is None and self.copy is None and self.version is None


def capture(value: Any, memo: dict[int, ObjectState] | None = None) -> ObjectState:
    """Capture the state of an object and its parts.

    `memo` maps ids to the states captured so far.
    """
    memo = {} if memo is None else memo
    if id(value) in memo:
        return memo[id(value)]
    state = memo[id(value)] = ObjectState(value)
    if isinstance(value, Tensor):
        state.version = 0 if value.is_inference() else value._version
        state.copy = value.detach().clone() if value.numel() <= LARGE else None
    elif isinstance(value, np.ndarray):
        state.copy = value.copy() if value.size <= LARGE else None
    elif isinstance(value, set):
        state.copy = set(value)
    elif isinstance(value, GENERATORS):
        state.copy = generator_state(value)
    parts = _parts(value)
    if parts is not None:
        state.parts = {key: capture(part, memo) for key, part in parts.items()}
    return state


def restore(state: ObjectState, path: str = "self", done: set[int] | None = None) -> None:
    """Restore the contents of an object and its parts to a captured state.

    Raises:
        InputError: If a large tensor, which was not copied, was changed in place.
    """
    done = set() if done is None else done
    if state.is_fixed or id(state) in done:
        return
    done.add(id(state))
    value, copy = state.value, state.copy
    if isinstance(value, Tensor) and not value.is_inference() and value._version != state.version:
        if copy is None:
            raise InputError(
                f"the task changes the tensor `{path}` in place, so that runs would see each other's values; "
                "create a new tensor in data() or model() instead"
            )
        with torch.no_grad():
            value.copy_(copy)
        state.version = value._version
    elif isinstance(value, np.ndarray) and copy is not None and not np.array_equal(value, copy):
        value[...] = copy
    elif isinstance(value, set) and value != copy:
        value.clear()
        value.update(copy)
    elif isinstance(value, GENERATORS) and copy is not None:
        set_generator_state(value, copy)
    if state.parts is None:
        return
    parts = {key: part.value for key, part in state.parts.items()}
    now = _parts(value)
    if now is None or now.keys() != parts.keys() or any(now[key] is not parts[key] for key in parts):
        if isinstance(value, list):
            value[:] = parts.values()
        elif isinstance(value, dict) or _has_state(value):
            contents = value if isinstance(value, dict) else vars(value)
            contents.clear()
            contents.update(parts)
    for key, part in state.parts.items():
        restore(part, _inside(value, path, key), done)


def difference(
    ours: ObjectState, theirs: ObjectState, path: str = "self", done: set[tuple[int, int]] | None = None
) -> str | None:
    """Return the path of the first difference, such as `self.weights[1]`.

    Return None if the states agree.
    """
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


def _parts(value: Any) -> Mapping[Any, Any] | None:
    """Return the parts of an object for comparison; None to compare it as a whole."""
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
        return {"contents": value.cell_contents} if value != CellType() else {}  # an empty cell is assigned later
    return dict(vars(value)) if _has_state(value) else None


def is_plain_object(value: Any) -> bool:
    """Return True if an object may keep state in its `__dict__`.

    False for classes, functions, Python modules, members of enumerations and tensors.
    """
    is_other = isinstance(value, type | FunctionType | MethodType | partial | ModuleType | Enum | Tensor)
    return hasattr(value, "__dict__") and not is_other


def _has_state(value: Any) -> bool:
    """Return True for an object that is compared by its attributes.

    These are objects of a user's class, an nn.Module, a namespace, a dataclass. The attributes of a library's objects
    may change without a change of their meaning, such as a cache.
    """
    if not is_plain_object(value):
        return False
    if isinstance(value, nn.Module | SimpleNamespace | Namespace) or is_dataclass(value):
        return True
    module = sys.modules.get(type(value).__module__)
    if module is None or module.__name__ == "__main__":  # the import context of its file is closed
        return True
    file = getattr(module, "__file__", None)
    return file is not None and not is_of_library(Path(file))


def _equal_contents(ours: ObjectState, theirs: ObjectState) -> bool:
    """Compare two objects of the same type, without their parts."""
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
    if isinstance(mine, set) or (isinstance(mine, GENERATORS) and ours.copy is not None):
        return bool(ours.copy == theirs.copy)
    if isinstance(mine, FunctionType):
        return mine.__code__ is other.__code__
    if ours.parts is not None or mine is other:
        return True
    try:
        return bool(mine == other)
    except Exception:  # a user's class may define __eq__
        return False


def _inside(value: Any, path: str, key: Any) -> str:
    return f"{path}[{key!r}]" if isinstance(value, dict | list | tuple) else f"{path}.{key}"
