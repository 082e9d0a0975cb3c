"""State that modules keep outside parameters and buffers: counters, lists, plain tensors, generators.

An attribute is encoded as a tree of JSON values with separate tensors, so that a checkpoint can store it without
pickle: nothing in a checkpoint is executed. Attributes that have no such encoding are listed by path, so that a run can
report that they will be lost.
"""

from __future__ import annotations

import hashlib
import json
import random
import sys
from collections import deque
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor, nn

from labbench.train.host_copies import SyncPoint, to_host
from labbench.train.tasks.attributes import TaskAttributes
from labbench.train.tasks.object_state import ObjectState, is_plain_object

Tree: TypeAlias = Any
"""A number, string, bool or None; any other value is a dict with its kind under the key `is`."""

MODULE_ATTRIBUTES = frozenset(vars(nn.Module()))
"""Attributes that torch sets on every module."""
SEQUENCES: dict[str, Any] = {"list": list, "tuple": tuple, "deque": deque, "set": set, "frozenset": frozenset}
CONTAINER_PACKAGES = ("types", "argparse")
"""Packages of the standard library whose objects hold user values, such as SimpleNamespace."""
MAX_DEPTH = 20
"""Maximum nesting depth of a value that is encoded."""


@dataclass(frozen=True)
class Attributes:
    """Attributes of modules, and variables of the task's code, that have changed since the model was made.

    Keys are paths such as `encoder.calls`, and `the task: self.calls` (`TaskVariables`).
    """

    trees: Mapping[str, Tree] = field(default_factory=dict)
    tensors: Mapping[str, Tensor] = field(default_factory=dict)
    """Tensors that the trees refer to, by name."""
    lost: tuple[str, ...] = ()
    """Paths of changed attributes that cannot be saved."""

    def __or__(self, other: Attributes) -> Attributes:
        return Attributes({**self.trees, **other.trees}, {**self.tensors, **other.tensors}, self.lost + other.lost)

    @property
    def changed(self) -> list[str]:
        """Paths of all changed attributes."""
        return sorted([*self.trees, *self.lost])


@dataclass
class _Encoder:
    """Encoder of one attribute to a tree and tensors."""

    path: str
    registered: Collection[int]
    """Ids of parameters, buffers and modules, which are saved elsewhere."""
    tensors: dict[str, Tensor] = field(default_factory=dict)
    opaque: list[Any] = field(default_factory=list)
    """Values that cannot be encoded, compared by identity."""
    seen: set[int] = field(default_factory=set)

    def encode(self, value: Any, depth: int = 0) -> Tree:
        """Return the tree of a value; tensors are copied to `self.tensors`."""
        if value is None or type(value) in (bool, int, float, str):
            return value
        if id(value) in self.registered:
            return {"is": "registered"}
        if isinstance(value, Tensor) and value.layout == torch.strided:
            return {"is": "tensor", "name": self._add_tensor(value.detach().clone())}
        if isinstance(value, np.ndarray | np.generic) and value.dtype.kind in "biufc":
            return {"is": "array", "name": self._add_tensor(torch.from_numpy(np.array(value)))}
        if isinstance(value, random.Random):
            version, words, gauss = value.getstate()
            return {"is": "random", "state": [version, list(words), gauss]}
        if isinstance(value, np.random.Generator):
            return {
                "is": "generator",
                "state": json.loads(json.dumps(value.bit_generator.state, default=np.ndarray.tolist)),
            }
        if isinstance(value, torch.Generator):
            return {"is": "torch generator", "name": self._add_tensor(value.get_state())}
        if id(value) in self.seen or depth > MAX_DEPTH:
            return self._add_opaque(value)
        self.seen.add(id(value))
        inner = partial(self.encode, depth=depth + 1)
        if isinstance(value, torch.dtype | torch.device):
            return {"is": "constant", "value": str(value)}
        if type(value) in (*SEQUENCES.values(), torch.Size):
            items = sorted(value, key=repr) if isinstance(value, set | frozenset) else value
            maxlen = value.maxlen if isinstance(value, deque) else None
            kind = "tuple" if isinstance(value, tuple) else type(value).__name__
            return {"is": kind, "items": [inner(item) for item in items], "most": maxlen}
        if isinstance(value, dict):
            return {"is": "dict", "items": [[inner(key), inner(item)] for key, item in value.items()]}
        if _is_saved_by_attributes(value):
            cls = type(value)
            fields = {name: inner(item) for name, item in vars(value).items()}
            return {"is": "object", "type": f"{cls.__module__}.{cls.__qualname__}", "fields": fields}
        return self._add_opaque(value)

    def _add_tensor(self, tensor: Tensor) -> str:
        name = f"{self.path}/{len(self.tensors)}"
        self.tensors[name] = tensor
        return name

    def _add_opaque(self, value: Any) -> Tree:
        self.opaque.append(value)
        return {"is": "unknown", "id": id(value)}

    def digest(self, tree: Tree) -> bytes:
        """Return the SHA-256 digest of the tree and of `self.tensors`."""
        sha256 = hashlib.sha256(json.dumps(tree).encode())
        for tensor in self.tensors.values():
            sha256.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            sha256.update(to_host(tensor.contiguous().flatten().view(torch.uint8), SyncPoint.ATTRIBUTES).tobytes())
        return sha256.digest()


def _is_saved_by_attributes(value: Any) -> bool:
    """Return True if the attributes of an object are its whole state.

    Objects of torch, numpy or the standard library, except modules and namespaces, may also have hidden state.
    """
    if not is_plain_object(value):
        return False
    package = type(value).__module__.partition(".")[0]
    has_hidden_state = package not in CONTAINER_PACKAGES and package in (*sys.stdlib_module_names, "torch", "numpy")
    return isinstance(value, nn.Module) or not has_hidden_state


def is_settable(module: nn.Module, name: str) -> bool:
    """Return True if `name` is user state of a module.

    Methods and attributes of nn.Module are not user state.
    """
    return name not in MODULE_ATTRIBUTES and not callable(getattr(type(module), name, None))


class AttributeTracker:
    """Track changes of module attributes since the model was made."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        encoded = self._encode_attributes()
        self._initial_digests = {path: encoder.digest(tree) for path, tree, encoder in encoded}
        self._opaque = [encoder.opaque for _, _, encoder in encoded]  # referenced, so that no new value reuses an id

    def changes(self) -> Attributes:
        """Return the attributes that differ from their initial values."""
        return _gather(
            (path, tree, encoder)
            for path, tree, encoder in self._encode_attributes()
            if encoder.digest(tree) != self._initial_digests.get(path)
        )

    def restore(self, attributes: Attributes) -> None:
        """Set the modules' attributes; paths that are not user state are ignored."""
        modules = dict(self._model.named_modules())
        for path, tree in attributes.trees.items():
            module, _, name = path.rpartition(".")
            if module in modules and is_settable(modules[module], name):
                module_dict = modules[module].__dict__
                module_dict[name] = _decode(tree, attributes.tensors, module_dict.get(name))

    def _encode_attributes(self) -> list[tuple[str, Tree, _Encoder]]:
        """Return path, tree and encoder of every user attribute of the model's modules."""
        registered = {id(tensor) for tensor in [*self._model.parameters(), *self._model.buffers()]}
        registered |= {id(module) for module in self._model.modules()}
        encoded = []
        for prefix, module in self._model.named_modules():
            if type(module).__module__.startswith(("labbench.", "torch.nn.modules.")):  # these keep no such state
                continue
            for name, value in vars(module).items():
                if name not in MODULE_ATTRIBUTES:
                    path = f"{prefix}.{name}" if prefix else name
                    encoder = _Encoder(path, registered)
                    encoded.append((path, encoder.encode(value), encoder))
        return encoded


class TaskTracker:
    """Track changes of the variables of a task's code since a run's model was made."""

    def __init__(self, model: nn.Module, attributes: TaskAttributes) -> None:
        parts = [*model.modules(), *model.parameters(), *model.buffers()]
        self._registered, self._variables = {id(part) for part in parts}, attributes.variables
        self._fixed = {id(part): ObjectState("part of the model") for part in parts}
        self._before = self._variables.capture(self._fixed)

    def changes(self) -> Attributes:
        """Return the variables that differ from their initial values."""
        changed = self._variables.changed_since(self._before, self._fixed)
        encoders = {path: _Encoder(path, self._registered) for path in changed}
        return _gather((path, encoders[path].encode(value), encoders[path]) for path, value in changed.items())

    def restore(self, attributes: Attributes) -> None:
        """Set the variables; paths of modules are ignored."""
        for path, tree in attributes.trees.items():
            self._variables.set(path, _decode(tree, attributes.tensors, self._variables.get(path)))


def _gather(encoded: Iterable[tuple[str, Tree, _Encoder]]) -> Attributes:
    """Return attributes given by path, tree and encoder; those that cannot be encoded are lost."""
    trees: dict[str, Tree] = {}
    tensors: dict[str, Tensor] = {}
    lost = []
    for path, tree, encoder in encoded:
        if encoder.opaque:
            lost.append(path)
        else:
            trees[path] = tree
            tensors |= encoder.tensors
    return Attributes(trees, tensors, tuple(lost))


def _decode(tree: Tree, tensors: Mapping[str, Tensor], current: Any) -> Any:
    """Return the value of a tree.

    Generators, dicts and objects of the `current` value are updated in place.
    """
    if not isinstance(tree, dict):
        return tree
    match tree["is"]:
        case "tensor":
            tensor = tensors[tree["name"]].clone()
            if isinstance(current, nn.Parameter) and current.shape == tensor.shape:
                current.data.copy_(tensor)
                return current
            return tensor
        case "array":
            array = tensors[tree["name"]].cpu().numpy().copy()
            return array[()] if isinstance(current, np.generic) else array
        case "random" if isinstance(current, random.Random):
            version, words, gauss = tree["state"]
            current.setstate((version, tuple(words), gauss))
        case "generator" if isinstance(current, np.random.Generator):
            current.bit_generator.state = tree["state"]
        case "torch generator" if isinstance(current, torch.Generator):
            current.set_state(tensors[tree["name"]].cpu())
        case "dict":
            return _decode_dict(tree["items"], tensors, current)
        case "object" if current is not None:
            for name, value in tree["fields"].items():
                vars(current)[name] = _decode(value, tensors, vars(current).get(name))
        case "deque":
            return deque((_decode(item, tensors, None) for item in tree["items"]), tree["most"])
        case kind if kind in SEQUENCES:
            old_items = list(current) if isinstance(current, list | tuple) else []
            return SEQUENCES[kind](
                _decode(item, tensors, old_items[index] if index < len(old_items) else None)
                for index, item in enumerate(tree["items"])
            )
    return current


def _decode_dict(pairs: list[tuple[Tree, Tree]], tensors: Mapping[str, Tensor], current: Any) -> dict[Any, Any]:
    old_values = current if isinstance(current, dict) else {}
    decoded_keys = ((_decode(key, tensors, None), item) for key, item in pairs)
    items = {key: _decode(item, tensors, old_values.get(key)) for key, item in decoded_keys}
    if not isinstance(current, dict):
        return items
    current.clear()  # keep the object: it may be a defaultdict
    current.update(items)
    return current
