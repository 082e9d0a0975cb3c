"""Groups of models that have one structure.

Two models have the same structure if they differ only in the values of their parameters and buffers, and in dropout
probabilities. Everything else that a forward may read is compared by value: types of modules, settings, hooks,
functions, configuration objects, tensors kept as plain attributes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from labbench.train.engine.dropout import SPATIAL_DIMENSIONS
from labbench.train.tasks.object_state import ObjectState, capture, difference

IGNORED_ATTRIBUTES = frozenset(("_parameters", "_buffers", "_modules", "_flat_weight_refs"))
"""Attributes with tensors and modules, which are compared by shape, and weak references to tensors."""
HOOKS = frozenset(name for name in vars(nn.Module()) if name.endswith(("_hooks", "_hooks_with_kwargs")))


@dataclass
class StructureGroup:
    """Models of one structure, by index."""

    indices: list[int]
    difference: str | None = None
    """First difference from the first group."""


def group_by_structure(models: Sequence[nn.Module]) -> list[StructureGroup]:
    """Return the models in groups of one structure, ordered by their first model."""
    groups: list[StructureGroup] = []
    for index, model in enumerate(models):
        reason = None
        for group in groups:
            found = structural_difference(models[group.indices[0]], model)
            if found is None:
                group.indices.append(index)
                break
            reason = reason or found
        else:
            groups.append(StructureGroup([index], reason))
            groups[0].difference = groups[0].difference or reason
    return groups


def structural_difference(first: nn.Module, second: nn.Module) -> str | None:
    """Return a message that names the first difference between two structures, or None."""
    modules, others = dict(first.named_modules()), dict(second.named_modules())
    for path in [*(path for path in modules if path not in others), *(path for path in others if path not in modules)]:
        return f"`{_attribute(path)}` is a module of some models only"
    for path, module in modules.items():
        if _module_type(module) is not _module_type(others[path]):
            types = f"{type(module).__name__} or {type(others[path]).__name__}"
            return f"`{_attribute(path)}` is {types}" if path else f"the model is {types}"
    specs, other_specs = _tensor_specs(first), _tensor_specs(second)
    for name in [*specs, *(name for name in other_specs if name not in specs)]:
        if specs.get(name) != other_specs.get(name):
            return f"`{_attribute(name)}` differs in shape or dtype"
    for (name, tied_to), (_, other_tied_to) in zip(_ties(first), _ties(second), strict=True):
        if tied_to != other_tied_to:
            return f"`{_attribute(name)}` is not tied alike"
    ours, theirs = _registered(first), _registered(second)
    for path, module in modules.items():
        settings, other_settings = (
            capture(_settings(each), dict(memo)) for each, memo in ((module, ours), (others[path], theirs))
        )
        found = difference(settings, other_settings, "")
        if found is not None:
            return f"`{_attribute(path)}{_as_attribute(found)}` differs"
    return None


def _module_type(module: nn.Module) -> type[nn.Module]:
    """Return the class of a module; torch makes a new subclass for each parametrized module."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


def _tensor_specs(model: nn.Module) -> dict[str, tuple[object, ...]]:
    """Return what must be equal of each parameter and buffer, by name."""
    return {name: (tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in _tensors(model)}


def _ties(model: nn.Module) -> list[tuple[str, str]]:
    """Return the name of each tensor with the first name of the same tensor."""
    first_names: dict[int, str] = {}
    return [(name, first_names.setdefault(id(tensor), name)) for name, tensor in _tensors(model)]


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    """Return all parameters and buffers, tied ones with each of their names."""
    return [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]


def _registered(model: nn.Module) -> dict[int, ObjectState]:
    """Return a state for each module, parameter and buffer that is equal for equal paths."""
    registered = [*model.named_modules(), *model.named_parameters(), *model.named_buffers()]
    return {id(value): ObjectState(f"registered {name}") for name, value in registered}


def _settings(module: nn.Module) -> dict[str, object]:
    """Return the attributes that a forward may read; hooks without their keys, which torch counts up."""
    ignored = IGNORED_ATTRIBUTES | ({"p"} if type(module) in SPATIAL_DIMENSIONS else set())
    if type(module) is nn.MultiheadAttention:
        ignored |= {"dropout"}
    return {
        name: list(value.values()) if name in HOOKS else value
        for name, value in vars(module).items()
        if name not in ignored and "state_dict" not in name
    }


def _attribute(path: str) -> str:
    return f"self.{path}" if path else "self"


def _as_attribute(path: str) -> str:
    """Return a path such as `['pe'].x` as `.pe.x`."""
    name, _, rest = path.removeprefix("['").partition("']")
    return f".{name}{rest}"
