"""Forward passes mapped over runs by `vmap`, and calls of functions of stacked tensors from inside it.

Inside `vmap` a module sees the tensors of one run. A function that is faster, or only possible, for the tensors of all
runs at once is called here with a leading dimension of S runs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn, vmap
from torch._C import _functorch as functorch
from torch._functorch.pyfunctorch import retrieve_current_functorch_interpreter
from torch.func import functional_call

from labbench.train.data.samples import Samples, arguments_of


def call_stacked(function: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
    """Return `function` of the tensors of all runs, as the tensor of one run.

    The function maps tensors of shape (S, ...) to one tensor of shape (S, ...). Outside `vmap`, S is 1.

    Inside `vmap`, this is what an `autograd.Function` with a vmap rule does, without its overhead of about a hundred
    microseconds.
    """
    if not any(isinstance(tensor, Tensor) and functorch.is_batchedtensor(tensor) for tensor in tensors):
        return function(*(None if tensor is None else tensor.unsqueeze(0) for tensor in tensors)).squeeze(0)
    interpreter: Any = retrieve_current_functorch_interpreter()
    level = interpreter.level()
    stacked: list[Tensor | None] = []
    for tensor in tensors:
        if tensor is None:
            stacked.append(None)
        elif functorch.is_batchedtensor(tensor) and functorch.maybe_get_level(tensor) == level:
            stacked.append(functorch.get_unwrapped(tensor).movedim(functorch.maybe_get_bdim(tensor), 0))
        else:
            stacked.append(tensor.expand(interpreter.batch_size(), *tensor.shape))
    with interpreter.lower():
        result = function(*stacked)
    return functorch._add_batch_dim(result, 0, level)


def stack_embeddings(model: nn.Module) -> None:
    """Make the embeddings with a padding row train inside `vmap` as outside, where the row has no gradient."""
    for module in model.modules():
        if type(module) is nn.Embedding and module.padding_idx is not None and module.max_norm is None:
            module.forward = _PaddedEmbedding(module)  # type: ignore[method-assign, assignment]


class _PaddedEmbedding:
    """Forward of an embedding without the argument `padding_idx`, which `vmap` ignores."""

    def __init__(self, module: nn.Embedding) -> None:
        self.module = module

    def __call__(self, indices: Tensor) -> Tensor:
        """Return the rows of the weight, shape (..., E), for indices (...)."""
        module: Any = self.module
        rows = torch.arange(module.num_embeddings, device=indices.device).unsqueeze(1)  # (V, 1)
        weight = torch.where(rows.eq(module.padding_idx), module.weight.detach(), module.weight)
        return F.embedding(indices, weight, None, None, 2.0, module.scale_grad_by_freq)


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
