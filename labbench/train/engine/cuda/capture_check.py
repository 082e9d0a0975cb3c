"""Check that a CUDA graph can hold a step.

A graph repeats the same kernels on the same addresses. A step that copies from the host, reads a value of the device,
allocates a size that depends on data, or draws from torch's generator either cannot be captured or would repeat what
it did in the capture. torch tags its operators accordingly, so that one ordinary step shows all of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from labbench.train.engine.cuda.device_check import DeviceCheck, DeviceError, iter_tensors, operation_name

REFUSED_TAGS = {
    torch.Tag.data_dependent_output: "reads a value of the device on the host",
    torch.Tag.dynamic_output_shape: "allocates a size that depends on data",
    torch.Tag.nondeterministic_seeded: "draws from torch's generator, and its numbers would depend on other runs",
}
"""Tags of operators that a graph cannot hold, each with the reason."""

REFUSED_OPERATIONS = {
    "aten::_linalg_check_errors": "reads the error status of the device on the host",
    "aten::embedding_renorm_": "allocates a size that depends on data",
    "aten::repeat_interleave.Tensor": "allocates a size that depends on data",
}
"""Operators that a graph cannot hold although torch does not tag them, each with the reason."""

INDEXING = ("aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_unsafe_index.Tensor")
"""Operators whose result has a fixed size unless an index is a boolean mask."""
DROPOUT_ARGUMENTS = ("dropout_p", "dropout", "p")
"""Arguments of operators that draw random numbers only if the argument is not zero."""

HOST_CONSTRUCTORS = (torch.tensor, torch.as_tensor, torch.asarray, torch.from_numpy, Tensor.new_tensor)
"""Functions that make a tensor of host data; torch hides the copy to the device from dispatch modes."""


class CaptureError(DeviceError):
    """Step that a CUDA graph cannot hold; the message is the reason."""


class CaptureCheck(DeviceCheck):
    """Context manager that raises CaptureError for what a CUDA graph cannot hold."""

    def __init__(self, device: torch.device) -> None:
        super().__init__(device)
        self._constructors = _ConstructorCheck()

    def __enter__(self) -> CaptureCheck:
        super().__enter__()
        self._constructors.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._constructors.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def copy_to_host(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Raise CaptureError: a graph has no sync points."""
        raise CaptureError(f"{operation_name(func)} copies a tensor from the device to the host")

    def upload(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Raise CaptureError: the host's tensor would be read only once."""
        raise CaptureError(f"{operation_name(func)} copies a tensor from the host to the device")

    def check_operation(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise CaptureError for an operation that a graph cannot hold."""
        name = operation_name(func)
        if name in INDEXING:
            if any(tensor.dtype in (torch.bool, torch.uint8) for tensor in iter_tensors(args[1])):
                raise CaptureError(f"{name} with a boolean mask allocates a size that depends on data")
            return
        reasons = [reason for tag, reason in REFUSED_TAGS.items() if tag in func.tags]
        if name in REFUSED_OPERATIONS or (reasons and not draws_nothing(func, args, kwargs)):
            raise CaptureError(f"{name} {REFUSED_OPERATIONS.get(name) or reasons[0]}")

    def check_tensors(self, name: str, tensors: Any) -> None:
        """Raise CaptureError for tensors of any shape that are elsewhere."""
        for tensor in tensors:
            if tensor.device.type != self.device.type:
                raise CaptureError(f"{name} uses a tensor on {tensor.device}, which a graph would read only once")


def draws_nothing(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """Return True if an operator has a dropout probability, and it is zero."""
    arguments = [argument.name for argument in func._schema.arguments]
    values = {**dict(zip(arguments, args, strict=False)), **kwargs}
    defaults = {argument.name: argument.default_value for argument in func._schema.arguments}
    names = [name for name in DROPOUT_ARGUMENTS if name in arguments]
    return bool(names) and not any(values.get(name, defaults[name]) for name in names)


class _ConstructorCheck(TorchFunctionMode):
    """Raise CaptureError for tensors made of host data."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        has_host_index = func in (Tensor.__getitem__, Tensor.__setitem__) and any(
            isinstance(index, list | np.ndarray) for index in (args[1] if isinstance(args[1], tuple) else args[1:2])
        )
        if func in HOST_CONSTRUCTORS or has_host_index:
            raise CaptureError(f"{func.__name__} copies numbers from the host to the device")
        return func(*args, **(kwargs or {}))
