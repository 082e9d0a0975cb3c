"""The device `meta` in place of a GPU: kernels that torch lacks, and the optimizers of a GPU.

A kernel of `meta` returns tensors without values. An operator that changes its operands in place returns nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

import torch
from torch.optim import optimizer as torch_optimizer
from torch.utils import _foreach_utils

from labbench.train.engine import optimizers

IN_PLACE_OPERATORS = ("_fused_sgd_",)
"""Operators of torch that change their operands in place."""

_library = torch.library.Library("aten", "IMPL")  # registers as long as it exists


def register_missing_kernels() -> None:
    """Register kernels for the operators that have none in this version of torch."""
    for name in IN_PLACE_OPERATORS:
        if not torch._C._dispatch_has_kernel_for_dispatch_key(f"aten::{name}", "Meta"):
            _library.impl(name, _change_nothing, "Meta")


@contextmanager
def gpu_optimizers() -> Iterator[None]:
    """Make torch's optimizers use the kernels of a GPU for parameters on `meta`, inside the block."""
    devices = [*_foreach_utils._get_foreach_kernels_supported_devices(), "meta"]
    fused_devices = [*_foreach_utils._get_fused_kernels_supported_devices(), "meta"]
    with (
        mock.patch.object(torch_optimizer, "_get_foreach_kernels_supported_devices", return_value=devices),
        mock.patch.object(torch_optimizer, "_get_fused_kernels_supported_devices", return_value=fused_devices),
        mock.patch.object(optimizers, "FUSED_DEVICES", (*optimizers.FUSED_DEVICES, "meta")),
    ):
        yield


def _change_nothing(*_: object, **__: object) -> None:
    """Do nothing: tensors on `meta` have no values."""


register_missing_kernels()
