"""Check that a computation stays on its device.

torch copies silently between host and device in many places, and a step on a GPU then waits for the host. The check
sees every operation below autograd. With the device `meta`, whose tensors have shapes but no values, it runs without a
GPU: there, torch itself reports some mistakes, but not operands on the CPU of `bmm`, `conv2d`, `index_select` or
`copy_`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

import labbench.train.engine.cuda.meta_kernels  # noqa: F401 (registers them)
from labbench.train.host_copies import SyncPoint, current_sync_point

HOST = torch.device("cpu")

COPY, READ = "aten::_to_copy", "aten::_local_scalar_dense"
"""Operators that copy a tensor, and that read the value of a tensor on the host."""
WRITE = "aten::copy_"
"""Operator that writes to a tensor, on any device."""
LABEL = "aten::lift_fresh"
"""Marks a new tensor of host data, and computes nothing."""

HOST_SCALAR_OPERATIONS = {
    "aten::zeros": "torch's RMSprop and Adagrad start their step counts on the host",
    "aten::_foreach_add_.Tensor": "torch's RMSprop and Adagrad count steps on the host",
    READ: "torch's Adagrad reads its step count",
    "aten::clone": "the step count of an optimizer is copied with its state",
}
"""Operations allowed on 0-dimensional tensors on the CPU, each with the reason."""

WAITING_TAGS = {
    torch.Tag.data_dependent_output: "reads a value of the device on the host",
    torch.Tag.dynamic_output_shape: "allocates a size that depends on data",
}
"""torch's tags of operators for which the host waits for the device, each with the reason."""

WAITING_OPERATIONS = {
    "aten::_linalg_check_errors": "reads the error status of the device on the host",
    "aten::embedding_renorm_": "allocates a size that depends on data",
    "aten::repeat_interleave.Tensor": "allocates a size that depends on data",
}
"""Operators for which the host waits although torch does not tag them, each with the reason."""

INDEXING = ("aten::index.Tensor", "aten::index_put", "aten::index_put_", "aten::_unsafe_index.Tensor")
"""Operators whose result has a fixed size unless an index is a boolean mask."""

CONSTRUCTORS = (torch.tensor, torch.as_tensor, torch.asarray, Tensor.new_tensor)
"""Functions that make a tensor of host data; torch hides the copy to the device from dispatch modes."""


class DeviceError(RuntimeError):
    """Operation on a tensor that is not on the expected device, or that waits for the device."""


class DeviceCheck(TorchDispatchMode):
    """Context manager that raises DeviceError for tensors outside a device, and where the host waits for the device.

    Allowed are copies by `host_copies.to_device` and the `HOST_SCALAR_OPERATIONS`; inside a sync point everything but
    operations on tensors of both. There, a copy of a `meta` tensor to the host gives zeros, or True.
    """

    error: type[DeviceError] = DeviceError
    """Class of the errors."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._constructors = _ConstructorCheck(self)
        self.device = device
        self.copies: Counter[SyncPoint] = Counter()
        """Number of copies to the host at each sync point."""
        self.uploads = 0
        """Number of copies to the device."""
        self._numbers: dict[int, Any] = {}
        """Tensors made of Python numbers by id: an operator takes their values along, and no copy waits."""

    def __enter__(self) -> Self:
        super().__enter__()  # type: ignore[no-untyped-call]
        self._constructors.__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        self._constructors.__exit__(*error)  # type: ignore[no-untyped-call]
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        point, name = current_sync_point(), operation_name(func)
        operands = [tensor for tensor in iter_tensors((args, kwargs)) if id(tensor) not in self._numbers]
        if name == COPY and not operands:  # inside vmap, a Python number becomes a tensor
            return self._add_number(func(*args, **kwargs))
        if name == COPY:
            source, target = operands[0].device, kwargs.get("device") or operands[0].device
            if source.type == self.device.type and target.type == HOST.type:
                return self.copy_to_host(func, args, kwargs)
            if source.type == HOST.type and target.type == self.device.type:
                self.uploads += 1
                return self.upload(func, args, kwargs)
        if name == READ and point is not None and operands[0].device.type == self.device.type:
            return self.copy_to_host(func, args, kwargs)
        if point is not None:
            self._check_equal_devices(name, operands)
            if self.device.type == "meta" and not func._schema.is_mutable and reason_to_wait(func, args) is not None:
                return compute_with_values(func, args, kwargs)
        elif name != LABEL:
            self.check_operation(func, args, kwargs)
            self.check_tensors(name, operands)
        result = func(*args, **kwargs)
        if point is None and name != LABEL:
            self.check_tensors(name, iter_tensors(result))
        return result

    def _add_number(self, number: Tensor) -> Tensor:
        """Return a tensor of shape () made of a Python number, which is allowed from now on."""
        self._numbers[id(number)] = number
        return number

    def copy_to_host(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Copy a tensor to the host; raise DeviceError outside of a sync point."""
        if (point := current_sync_point()) is None:
            raise DeviceError(f"the host waits for a copy of a tensor {tuple(args[0].shape)} on {self.device}")
        self.copies[point] += 1
        if self.device.type == "meta":
            values = make_values(args[0]).to(kwargs.get("dtype") or args[0].dtype)
            return values.item() if operation_name(func) == READ else values
        return func(*args, **kwargs)

    def upload(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """Copy a tensor to the device; raise DeviceError if the host waits for the copy outside of a sync point."""
        if current_sync_point() is None and not kwargs.get("non_blocking"):
            raise DeviceError(f"the host waits for a copy of a tensor {tuple(args[0].shape)} to {self.device}")
        return func(*args, **kwargs)

    def check_operation(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Raise DeviceError if the host waits for the operation."""
        on_host = operation_name(func) == READ and args[0].device.type == HOST.type
        if not on_host and (reason := reason_to_wait(func, args)) is not None:
            raise self.error(f"{operation_name(func)} {reason}")

    def _check_equal_devices(self, name: str, tensors: Sequence[Tensor]) -> None:
        """Raise DeviceError for operands of several elements on both host and device; only indices may be elsewhere."""
        kinds = {tensor.device.type for tensor in tensors if tensor.dim() > 0}
        if len(kinds) > 1 and name not in (WRITE, *INDEXING):
            raise DeviceError(f"{name} has tensors on the host and on {self.device}")

    def check_tensors(self, name: str, tensors: Sequence[Tensor] | Iterator[Tensor]) -> None:
        """Raise DeviceError for tensors of any shape that are elsewhere."""
        for tensor in tensors:
            is_listed = name in HOST_SCALAR_OPERATIONS and tensor.dim() == 0 and tensor.device.type == HOST.type
            if tensor.device.type != self.device.type and not is_listed:
                raise DeviceError(
                    f"{name} has a tensor of shape {tuple(tensor.shape)} on {tensor.device}, not on {self.device}"
                )


class _ConstructorCheck(TorchFunctionMode):
    """Raise an error for tensors on the device that are made of host data."""

    def __init__(self, check: DeviceCheck) -> None:
        super().__init__()
        self._check = check

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if current_sync_point() is None and self._copies_host_data(func, args, kwargs):
            raise self._check.error(f"{func.__name__} copies numbers from the host to the device")
        return func(*args, **kwargs)

    def _copies_host_data(self, func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
        kind = self._check.device.type
        if func in (Tensor.__getitem__, Tensor.__setitem__) and args[0].device.type == kind:
            return any(isinstance(i, list | np.ndarray) for i in (args[1] if isinstance(args[1], tuple) else args[1:2]))
        if func not in CONSTRUCTORS or isinstance(args[-1], Tensor):  # the data are the last positional argument
            return False
        default = args[0].device if func is Tensor.new_tensor else HOST
        return torch.device(kwargs.get("device") or default).type == kind


def reason_to_wait(func: Any, args: Sequence[Any]) -> str | None:
    """Return the reason why the host waits for the device in an operation, or None if it does not."""
    name = operation_name(func)
    if name in INDEXING:
        has_mask = any(tensor.dtype in (torch.bool, torch.uint8) for tensor in iter_tensors(args[1]))
        return "with a boolean mask allocates a size that depends on data" if has_mask else None
    reasons = [reason for tag, reason in WAITING_TAGS.items() if tag in func.tags]
    return WAITING_OPERATIONS.get(name) or (reasons[0] if reasons else None)


def make_values(tensor: Tensor) -> Tensor:
    """Return values on the host for a tensor on `meta`, same shape and dtype: zeros, or True."""
    return torch.full(tensor.shape, tensor.dtype == torch.bool, dtype=tensor.dtype)


def compute_with_values(func: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Return the result, on `meta`, of an operation whose size or value depends on the values of tensors on `meta`."""
    args, kwargs = tree_map_only(Tensor, make_values, (args, kwargs))
    return tree_map_only(Tensor, lambda result: result.to("meta"), func(*args, **kwargs))


def operation_name(func: Any) -> str:
    """Return the name of an operator with its overload, such as `aten::add.Tensor`."""
    name: str = func.name()
    return name


def iter_tensors(values: Any) -> Iterator[Tensor]:
    """Yield the tensors of any shape in nested tuples, lists and dicts."""
    return (leaf for leaf in tree_leaves(values) if isinstance(leaf, Tensor))
