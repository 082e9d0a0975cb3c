"""Run a user's forward and loss in float64 although the code names float32."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map

CASTS = ("float", "to", "type")
"""Methods of a tensor that change its dtype."""
SCALARS = {type(None), bool, int, float, str, torch.dtype, torch.device, type(torch.strided), type}
"""Types of arguments that contain no tensors."""


class Float64Mode(TorchFunctionMode):
    """Context manager that promotes tensors that meet a float64 tensor.

    In training they would meet a float32 tensor: class weights, masks and states that the code makes itself. A cast of
    a float64 tensor to float32 is the identity, as it would be in training. Tensors that meet none keep their dtype, so
    that values which the code caches for later are not changed.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        tensors = _find_tensors(args, kwargs)
        if not any(tensor.dtype == torch.float64 for tensor in tensors) or _is_in_place(func):
            return func(*args, **kwargs)
        name = getattr(func, "__name__", "")
        if name in CASTS and args[0].dtype == torch.float64:
            if name == "float":
                return args[0]
            return func(args[0], *tree_map(_promote_dtype, args[1:]), **tree_map(_promote_dtype, kwargs))
        if any(map(_is_lower, tensors)):
            args, kwargs = tree_map(_promote, (tuple(args), dict(kwargs)))
        return func(*args, **kwargs)


def _find_tensors(args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Tensor]:
    """Return the tensors of any shape in the arguments of a function, also those inside lists and other containers."""
    tensors = []
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            tensors.append(value)
        elif type(value) not in SCALARS:  # to search every argument takes longer than most functions
            tensors += [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]
    return tensors


def _is_in_place(func: Callable[..., Any]) -> bool:
    """Return True if a function changes its first argument, which must then be the tensor itself."""
    name = getattr(func, "__name__", "")
    return (name.endswith("_") and not name.endswith("__")) or name in ("__setitem__", "__set__")


def _is_lower(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and value.dtype != torch.float64


def _promote(value: Any) -> Any:
    return value.double() if _is_lower(value) else value


def _promote_dtype(value: Any) -> Any:
    return torch.float64 if value == torch.float32 and isinstance(value, torch.dtype) else _promote(value)
