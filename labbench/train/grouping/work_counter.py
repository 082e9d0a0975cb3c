"""Count the work of a computation: operations, floating-point operations, and those in bfloat16.

Unlike times, counts depend only on the model and the batch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry


class WorkCounter(TorchDispatchMode):
    """Context manager that counts work.

    A multiplication and an addition are two floating-point operations.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0
        """Number of kernels started, without views."""
        self.flops = 0
        """Floating-point operations of matrix products, convolutions and attention."""
        self.convolution_flops = 0
        """Part of `flops` in convolutions."""
        self.bf16_flops = 0
        """Part of `flops` in operations with bfloat16 inputs."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        """Return False: nothing is compiled, and torch would import its compiler, which takes a second."""
        return False

    def __enter__(self) -> WorkCounter:
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        self.operations += not func.is_view
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            flops = int(count(*args, **kwargs, out_val=result))
            self.flops += flops
            self.convolution_flops += flops if "convolution" in func.__name__ else 0
            tensors = [leaf for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
            self.bf16_flops += flops if any(tensor.dtype == torch.bfloat16 for tensor in tensors) else 0
        return result
