"""State that modules keep outside their parameters and buffers: counters, lists, plain tensors, generators.

It is described as a tree of JSON values with tensors beside it, so that a snapshot can hold it: nothing is pickled, and
nothing in a snapshot is run. What has no such form is named, so that a run can say that it would be lost.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from enum import Enum
from functools import partial
from types import ModuleType
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

Tree: TypeAlias = Any
"""A number, string, truth value or None as it is; anything else as a dict with its kind under `is`."""

OF_EVERY_MODULE = frozenset(vars(nn.Module()))
SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "deque": deque, "set": set, "frozenset": frozenset}
HOLDERS = ("types", "argparse")
"""Packages of the standard library whose objects hold other people's values, such as SimpleNamespace."""
DEPTH = 20
"""Levels of nested values that are looked into."""


@dataclass(frozen=True)
class Attributes:
    """Attributes of modules that have changed since the model was made, by path, such as `encoder.calls`."""

    trees: Mapping[str, Tree] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """What the trees name."""
    lost: tuple[str, ...] = ()
    """Paths of those that have no form in which they could be saved."""

    @property
    def changed(self) -> list[str]:
        """Paths of all that have changed."""
        return sorted([*self.trees, *self.lost])


@dataclass
class _Description:
    """What one attribute is described by."""

    path: str
    registered: Collection[int]
    """Identities of parameters and buffers, which are saved elsewhere."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    opaque: list[Any] = field(default_factory=list)
    """Values without a form, known by their identity alone."""
    seen: set[int] = field(default_factory=set)

    def describe(self, value: Any, depth: int = 0) -> Tree:
        """Return the tree of a value; its tensors are copied."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self.registered:
            return {"is": "registered"}
        if isinstance(value, Tensor) and value.layout == torch.strided:
            return {"is": "tensor", "name": self._put(value.detach().clone())}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            return {"is": "array", "name": self._put(torch.from_numpy(np.array(value)))}
        if isinstance(value, random.Random):
            version, words, gauss = value.getstate()
            return {"is": "random", "state": [version, list(words), gauss]}
        if isinstance(value, np.random.Generator):
            return {
                "is": "generator",
                "state": json.loads(json.dumps(value.bit_generator.state, default=np.ndarray.tolist)),
            }
        if isinstance(value, torch.Generator):
            return {"is": "torch generator", "name": self._put(value.get_state())}
        if id(value) in self.seen or depth > DEPTH:
            return self._unknown(value)
        self.seen.add(id(value))
        inner = partial(self.describe, depth=depth + 1)
        if isinstance(value, torch.dtype | torch.device):
            return {"is": "constant", "value": str(value)}
        if type(value) in (*SEQUENCES.values(), torch.Size):
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            most = value.maxlen if isinstance(value, deque) else None
            kind = "tuple" if isinstance(value, tuple) else type(value).__name__
            return {"is": kind, "items": [inner(item) for item in items], "most": most}
        if isinstance(value, dict):
            return {"is": "dict", "items": [[inner(key), inner(item)] for key, item in value.items()]}
        if is_plain_object(value):
            made_by = type(value)
            fields = {name: inner(item) for name, item in vars(value).items()}
            return {"is": "object", "type": f"{made_by.__module__}.{made_by.__qualname__}", "fields": fields}
        return self._unknown(value)

    def _put(self, tensor: Tensor) -> str:
        name = f"{self.path}/{len(self.tensors)}"
        self.tensors[name] = tensor
        return name

    def _unknown(self, value: Any) -> Tree:
        self.opaque.append(value)
        return {"is": "unknown", "id": id(value)}

    def digest(self, tree: Tree) -> bytes:
        """Return a hash that is equal for equal values."""
        found = hashlib.sha256(json.dumps(tree).encode())
        for tensor in self.tensors.values():
            found.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        return found.digest()


def is_plain_object(value: Any) -> bool:
    """Return True for an object whose state is its `__dict__`: no class, function, Python module, logger or writer."""
    if isinstance(value, nn.Module):
        return True
    if isinstance(value, type | ModuleType | Enum) or callable(value) or not hasattr(value, "__dict__"):
        return False
    package = type(value).__module__.partition(".")[0]
    return package in HOLDERS or package not in (*sys.stdlib_module_names, "torch", "numpy")


def may_be_set(module: nn.Module, name: str) -> bool:
    """Return True for a name of a module's own state: nothing that torch keeps, and no method."""
    return name not in OF_EVERY_MODULE and not callable(getattr(type(module), name, None))


class AttributeWatch:
    """Compares the attributes of a model's modules with those that it was made with."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        described = self._described()
        self._first = {path: description.digest(tree) for path, tree, description in described}
        self._held = [description.opaque for _, _, description in described]  # no new value takes their identities

    def now(self) -> Attributes:
        """Return the attributes that differ from those at the beginning."""
        trees: dict[str, Tree] = {}
        tensors: dict[str, Tensor] = {}
        lost = []
        for path, tree, description in self._described():
            if description.digest(tree) == self._first.get(path):
                continue
            if description.opaque:
                lost.append(path)
            else:
                trees[path] = tree
                tensors |= description.tensors
        return Attributes(trees, tensors, tuple(lost))

    def restore(self, attributes: Attributes) -> None:
        """Give the modules these attributes."""
        modules = dict(self._model.named_modules())
        for path, tree in attributes.trees.items():
            module, _, name = path.rpartition(".")
            if module in modules and may_be_set(modules[module], name):
                own = modules[module].__dict__
                own[name] = _made(tree, attributes.tensors, own.get(name))

    def _described(self) -> list[tuple[str, Tree, _Description]]:
        registered = {id(tensor) for tensor in [*self._model.parameters(), *self._model.buffers()]}
        registered |= {id(module) for module in self._model.modules()}
        found = []
        for prefix, module in self._model.named_modules():
            if type(module).__module__.startswith(("labbench.", "torch.nn.modules.")):  # torch's keep no such state
                continue
            for name, value in vars(module).items():
                if name not in OF_EVERY_MODULE:
                    path = f"{prefix}.{name}" if prefix else name
                    description = _Description(path, registered)
                    found.append((path, description.describe(value), description))
        return found


def _made(tree: Tree, tensors: Mapping[str, Tensor], before: Any) -> Any:
    """Return the value that a tree describes; generators and objects are those of `before`, set to their state."""
    if not isinstance(tree, dict):
        return tree
    match tree["is"]:
        case "tensor":
            tensor = tensors[tree["name"]].clone()
            if isinstance(before, nn.Parameter) and before.shape == tensor.shape:
                before.data.copy_(tensor)
                return before
            return tensor
        case "array":
            array = tensors[tree["name"]].cpu().numpy().copy()
            return array[()] if isinstance(before, np.generic) else array
        case "random" if isinstance(before, random.Random):
            version, words, gauss = tree["state"]
            before.setstate((version, tuple(words), gauss))
        case "generator" if isinstance(before, np.random.Generator):
            before.bit_generator.state = tree["state"]
        case "torch generator" if isinstance(before, torch.Generator):
            before.set_state(tensors[tree["name"]].cpu())
        case "dict":
            old = before if isinstance(before, dict) else {}
            pairs = ((_made(key, tensors, None), item) for key, item in tree["items"])
            items = {key: _made(item, tensors, old.get(key)) for key, item in pairs}
            if isinstance(before, dict):  # a defaultdict stays one
                before.clear()
                before.update(items)
                return before
            return items
        case "object" if before is not None:
            for name, value in tree["fields"].items():
                vars(before)[name] = _made(value, tensors, vars(before).get(name))
        case "deque":
            return deque((_made(item, tensors, None) for item in tree["items"]), tree["most"])
        case kind if kind in SEQUENCES:
            olds = list(before) if isinstance(before, list | tuple) else []
            return SEQUENCES[kind](
                _made(item, tensors, olds[index] if index < len(olds) else None)
                for index, item in enumerate(tree["items"])
            )
    return before
