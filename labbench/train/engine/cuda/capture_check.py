"""Check that a CUDA graph can hold a step.

A graph repeats the same kernels on the same addresses. A step that copies from the host, reads a value of the device,
allocates a size that depends on data, or draws from torch's generator either cannot be captured or would repeat what
it did in the capture. torch tags its operators accordingly, so that one ordinary step shows all of this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from labbench.train.engine.cuda.device_check import DeviceCheck, DeviceError, operation_name

DROPOUT_ARGUMENTS = ("dropout_p", "dropout", "p")
"""Arguments of operators that draw random numbers only if the argument is not zero."""


class CaptureError(DeviceError):
    """Step that a CUDA graph cannot hold; the message is the reason."""


class CaptureCheck(DeviceCheck):
    """Context manager that raises CaptureError for what a CUDA graph cannot hold."""

    error = CaptureError

    def copy_to_host(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Raise CaptureError: a graph has no sync points."""
        raise CaptureError(f"{operation_name(func)} copies a tensor from the device to the host")

    def upload(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Raise CaptureError: the host's tensor would be read only once."""
        raise CaptureError(f"{operation_name(func)} copies a tensor from the host to the device")

    def check_operation(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise CaptureError for an operation that a graph cannot hold."""
        super().check_operation(func, args, kwargs)
        if torch.Tag.nondeterministic_seeded in func.tags and not draws_nothing(func, args, kwargs):
            raise CaptureError(
                f"{operation_name(func)} draws from torch's generator, and its numbers would depend on other runs"
            )

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
