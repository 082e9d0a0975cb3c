"""Dtypes in training: floating-point and complex tensors follow `precision`, all others keep theirs."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


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
