"""Precision of training: dtypes, bfloat16 autocast, TF32, torch.compile and determinism.

Floating-point and complex tensors follow `precision`, all others keep their dtype. `precision = "bf16"` keeps weights,
gradients and optimizer state in float32; matrix products and convolutions of the forward and the backward pass use
bfloat16. bfloat16 has the range of float32, so losses need not be scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from inspect import unwrap
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from labbench.errors import InputError
from labbench.records import Runtime
from labbench.train.devices import resolve_devices, select_part

STORAGE_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
"""Dtype of data, weights, gradients and losses, by the value of `[runtime] precision`."""

Forward = TypeVar("Forward", bound=Callable[..., Any])
Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Precision:
    """Options of the forward pass.

    The equivalence check before a stack uses the defaults.
    """

    bf16: bool = False
    compiles: bool = False

    @property
    def plain(self) -> bool:
        """True if the forward pass uses neither bfloat16 nor compilation."""
        return not (self.bf16 or self.compiles)

    def adapt_batch_norm(self, model: nn.Module) -> None:
        """If `bf16` is set, convert the inputs of the model's batch normalization to float32.

        Means need more digits than bfloat16 has, and `vmap` does not support mixed dtypes.
        """
        for module in model.modules():
            if self.bf16 and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_pre_hook(_widen_inputs)

    def maybe_compile(self, forward: Forward, uncompiled: type[nn.Module]) -> Forward:
        """Return the forward pass, compiled by torch if `compiles` is set, without modules of class `uncompiled`."""
        if not self.compiles:
            return forward
        # here and not as a decorator: torch imports its compiler for it, which takes as long as to import torch itself
        uncompiled.forward = torch.compiler.disable(unwrap(uncompiled.forward))
        # not dynamic: torch cannot evaluate the guards on dynamic sizes, and there are only a few sizes
        compiled: Forward = torch.compile(forward, dynamic=False)  # type: ignore[assignment]
        return compiled

    def run_forward(self, device: torch.device, forward: Callable[[], Any]) -> Any:
        """Return the outputs of the forward pass, with bfloat16 converted to float32.

        Outputs are tensors of any shape, alone or nested.
        """
        if not self.bf16:
            return forward()
        with self._autocast(device):
            outputs = forward()
        return tree_map_only(Tensor, _widen, outputs)

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        # each weight is used once per pass, so a cache has no benefit; a CUDA graph must not capture cached weights
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def _widen_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(map(_widen, inputs))


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def resolve_precision(runtime: Runtime, device: str) -> tuple[torch.dtype, Precision]:
    """Return the storage dtype and the options of the forward pass.

    Raises:
        InputError: If the precision is unknown, or torch cannot compile for the device.
    """
    if runtime.precision not in STORAGE_DTYPES:
        raise InputError(f"[runtime] precision = {runtime.precision!r}: use one of {', '.join(STORAGE_DTYPES)}")
    if runtime.compile:
        reason = compile_error(device)
        if reason is not None:
            raise InputError(
                f"[runtime] compile = true: torch cannot compile on {device} here ({reason}); set it to false"
            )
    return STORAGE_DTYPES[runtime.precision], Precision(runtime.precision == "bf16", runtime.compile)


@cache
def compile_error(device: str) -> str | None:
    """Return the error of a trial compilation, or None if it works.

    Takes some seconds; the result is cached per device.
    """
    try:
        torch.compile(_compile_probe, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:  # a missing C++ compiler, Triton or Python header raises a different type each
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        return lines[0].strip() if lines else type(error).__name__
    return None


def _compile_probe(x: Tensor) -> Tensor:
    return x.sin() + 1


def prepare_device(device: str, *, tf32: bool = False) -> str:
    """Select the device, make it deterministic and return its torch name.

    With `tf32`, CUDA rounds the inputs of float32 matrix products and convolutions to TF32 (a mantissa of 10 bits). On
    the CPU, torch and BLAS are limited to one thread.

    Raises:
        InputError: If the device is unknown or not available.
    """
    name = select_part(resolve_devices(device)[0])
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
        torch.backends.cuda.matmul.allow_tf32 = tf32
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.deterministic = True
    elif name == "cpu":
        use_one_thread()
    return name


@cache
def use_one_thread() -> None:
    """Limit torch and BLAS to one thread.

    Several threads would sum in a different order, so that results would depend on the executor.
    """
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")  # numpy's BLAS may have been loaded before any environment variable was set


def trained_dtype(dtype: torch.dtype, precision: torch.dtype) -> torch.dtype:
    """Return the dtype in which a tensor of `dtype` is trained.

    Complex tensors become complex64 with float32 and complex128 with float64; `nn.Module.to` would drop the imaginary
    part.
    """
    if dtype.is_floating_point:
        return precision
    return precision.to_complex() if dtype.is_complex else dtype


def place(tensor: Tensor, device: torch.device, precision: torch.dtype) -> Tensor:
    """Return a tensor of any shape on `device` in its training dtype."""
    return tensor.to(device, trained_dtype(tensor.dtype, precision))


def place_model(model: Model, device: torch.device, precision: torch.dtype) -> Model:
    """Move parameters and buffers to `device`, each in its training dtype."""
    model._apply(lambda tensor: place(tensor, device, precision))  # type: ignore[no-untyped-call]
    return model
