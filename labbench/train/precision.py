"""What numbers are computed with: their type, bfloat16 where it is asked for, TF32, and torch's compiler.

`precision = "bf16"` keeps weights, gradients and optimizers in float32; matrix products and convolutions of the forward
pass, and so of the backward pass, take bfloat16. It has float32's range, so that no loss needs to be scaled.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeVar

import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from labbench.errors import InputError
from labbench.records import Runtime
from labbench.train.devices import resolve_devices

STORAGE_DTYPES = {"float32": torch.float32, "float64": torch.float64, "bf16": torch.float32}
"""By name the type of what is kept: data, weights, gradients, losses."""

Forward = TypeVar("Forward", bound=Callable[..., Any])


@dataclass(frozen=True)
class Precision:
    """How forward passes are computed; the check before a stack has it plain."""

    bf16: bool = False
    compiles: bool = False

    @property
    def plain(self) -> bool:
        """Whether numbers are computed in the type in which they are kept, one operation after another."""
        return not (self.bf16 or self.compiles)

    def adapt_batch_norm(self, model: nn.Module) -> None:
        """Let the model's batch normalisation see float32: means need more digits, and `vmap` takes no mixture."""
        for module in model.modules():
            if self.bf16 and isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.register_forward_pre_hook(_widen_inputs)

    def maybe_compile(self, forward: Forward) -> Forward:
        """The forward pass as torch compiles it, if it shall."""
        if not self.compiles:
            return forward
        # sizes left open come out as conditions that cannot be decided; there are only a few
        compiled: Forward = torch.compile(forward, dynamic=False)  # type: ignore[assignment]
        return compiled

    def run_forward(self, device: torch.device, forward: Callable[[], Any]) -> Any:
        """What the forward pass gives; from here on, losses too, in the type in which everything is kept."""
        if not self.bf16:
            return forward()
        with self._autocast(device):
            outputs = forward()
        return tree_map_only(Tensor, _widen, outputs)

    def _autocast(self, device: torch.device) -> AbstractContextManager[None]:
        # each weight is used once a pass: there is nothing to remember of it, and a captured graph must not
        return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)


def _widen_inputs(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(map(_widen, inputs))


def _widen(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


def resolve_precision(runtime: Runtime, device: str) -> tuple[torch.dtype, Precision]:
    """The type of what a training keeps, and how it computes. Raises InputError where the device cannot."""
    if runtime.precision not in STORAGE_DTYPES:
        raise InputError(f"[runtime] precision = {runtime.precision!r}: use one of {', '.join(STORAGE_DTYPES)}")
    if runtime.compile:
        reason = compile_error(device)
        if reason is not None:
            raise InputError(f"[runtime] compile = true: torch cannot compile on {device} here ({reason})")
    return STORAGE_DTYPES[runtime.precision], Precision(runtime.precision == "bf16", runtime.compile)


@cache
def compile_error(device: str) -> str | None:
    """What goes wrong when torch compiles a line for the device; None where nothing does. Takes some seconds."""
    try:
        torch.compile(_compile_probe, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:  # no C++ compiler, no Triton, no headers of Python's: each has an error of its own
        lines = [line for line in str(error).splitlines() if line.strip() and not line.endswith("raised:")]
        return lines[0].strip() if lines else type(error).__name__
    return None


def _compile_probe(x: Tensor) -> Tensor:
    return x.sin() + 1


def prepare_device(device: str, *, tf32: bool = False) -> str:
    """The name of a device that is there; float32 means float32 unless `tf32`, and the same seed gives the same curve.

    TF32 rounds what goes into CUDA's matrix products and convolutions to 10 bits behind the point.
    """
    name = resolve_devices(device)[0]
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
    """Several threads add up in another order: a result must not depend on the executor."""
    torch.set_num_threads(1)
    threadpool_limits(1, user_api="blas")  # numpy's, which may have been loaded before anybody could say so
