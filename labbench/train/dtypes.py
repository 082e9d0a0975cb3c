"""Number types of a training: floating-point and complex tensors follow its precision, all others keep their own."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


def trained_dtype(own: torch.dtype, precision: torch.dtype) -> torch.dtype:
    """Return the type in which a tensor of type `own` is trained: float32 goes with complex64, float64 with complex128.

    `nn.Module.to` would make complex tensors real and drop their imaginary part.
    """
    if own.is_floating_point:
        return precision
    return precision.to_complex() if own.is_complex else own


def place(tensor: Tensor, device: torch.device, precision: torch.dtype) -> Tensor:
    """Return the tensor on `device`, in the type in which it is trained."""
    return tensor.to(device, trained_dtype(tensor.dtype, precision))


def place_model(model: Model, device: torch.device, precision: torch.dtype) -> Model:
    """Move parameters and buffers of the model to `device`, each in the type in which it is trained."""
    model._apply(lambda tensor: place(tensor, device, precision))  # type: ignore[no-untyped-call]
    return model
