"""Forward passes mapped over runs by `vmap`, and calls of functions of stacked tensors from inside it.

Inside `vmap` a module sees the tensors of one run. A function that is faster, or only possible, for the tensors of all
runs at once is called here with a leading dimension of S runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn, vmap
from torch.func import functional_call

from labbench.train.data.samples import Samples, arguments_of


def call_stacked(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """Return `function` of the tensors of all runs, as the tensor of one run.

    The function maps tensors of shape (S, ...) to one tensor of shape (S, ...). Outside `vmap`, S is 1.
    """
    if any(isinstance(tensor, Tensor) and torch._C._functorch.is_batchedtensor(tensor) for tensor in tensors):
        result: Tensor = _StackedCall.apply(function, *tensors)  # type: ignore[no-untyped-call]
        return result
    return function(*(None if tensor is None else tensor.unsqueeze(0) for tensor in tensors)).squeeze(0)


class _StackedCall(torch.autograd.Function):
    """An autograd function whose vmap rule gets the tensors of all runs at once."""

    @staticmethod
    def forward(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        raise NotImplementedError("called outside vmap")

    @staticmethod
    def setup_context(*_: Any) -> None: ...

    @staticmethod
    def vmap(
        info: Any, dims: tuple[int | None, ...], function: Callable[..., Tensor], *tensors: Tensor | None
    ) -> tuple[Tensor, int]:
        stacked = [
            tensor
            if tensor is None
            else tensor.expand(info.batch_size, *tensor.shape)
            if dim is None
            else tensor.movedim(dim, 0)
            for tensor, dim in zip(tensors, dims[1:], strict=True)
        ]
        return function(*stacked), 0


def map_forward(model: nn.Module) -> Callable[[Mapping[str, Tensor], Samples], Any]:
    """Return the module's forward, mapped over runs.

    The result maps tensors (S, ...) and inputs (S, N, ...) to outputs (S, N, ...).
    """

    def forward(tensors: Mapping[str, Tensor], inputs: Samples) -> Any:
        return functional_call(model, dict(tensors), *arguments_of(inputs))

    def forward_of_runs(tensors: Mapping[str, Tensor], inputs: Samples) -> Any:
        fastpath = torch.backends.mha.get_fastpath_enabled()  # its fused kernel cannot be mapped
        torch.backends.mha.set_fastpath_enabled(False)
        try:
            return vmap(forward)(tensors, inputs)
        finally:
            torch.backends.mha.set_fastpath_enabled(fastpath)

    return forward_of_runs
