"""Flat parameters: one tensor row per run.

An optimizer updates a whole stack in a few kernels. PyTorch's FSDP flattens the parameters of one model in the same way
(`FlatParameter`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from math import prod

import torch
from torch import Tensor, nn

ALIGNMENT = 64
"""Divisor of the row length, so that every row is processed by the same vector instructions."""


class FlatParameters:
    """Layout of a model's parameters in a row of P numbers."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        self.shapes = dict(shapes)
        self._starts: dict[str, int] = {}
        end = 0
        for name, shape in self.shapes.items():
            self._starts[name] = end
            end += prod(shape)
        self.width = -(-end // ALIGNMENT) * ALIGNMENT  # P

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """Return views of `rows` (S, P) by parameter name, each of shape (S, *shape)."""
        return {
            name: rows[:, start : start + prod(self.shapes[name])].view(len(rows), *self.shapes[name])
            for name, start in self._starts.items()
        }

    def write(self, rows: Tensor, views: Collection[Tensor], values: Sequence[Tensor | None], *, at_once: bool) -> None:
        """Write one tensor (S, *shape) per parameter to `rows` (S, P), whose `views` are given; None leaves zeros.

        With `at_once` it is a single copy, for a GPU; a CPU takes less time for several copies.
        """
        if not at_once:
            given = [(view, value) for view, value in zip(views, values, strict=True) if value is not None]
            torch._foreach_copy_([view for view, _ in given], [value for _, value in given])
            return
        parts = [
            rows.new_zeros(1, 1).expand(len(rows), prod(shape)) if value is None else value.reshape(len(rows), -1)
            for shape, value in zip(self.shapes.values(), values, strict=True)
        ]
        if parts:
            torch.cat(parts, dim=1, out=rows[:, : sum(part.shape[1] for part in parts)])

    def pack(self, runs: list[Mapping[str, Tensor]], like: Tensor) -> Tensor:
        """Return rows (S, P) with the parameters of each run.

        The rows have the device and dtype of `like`.
        """
        rows = like.new_zeros(len(runs), self.width)  # (S, P)
        for name, view in self.views(rows).items():
            view.copy_(torch.stack([run[name].detach() for run in runs]))
        return rows


def canonical_names(model: nn.Module) -> dict[str, str]:
    """Map each name in a state_dict to its tensor's first name.

    Tied parameters have several names; `named_parameters` lists the first one.
    """
    listed = [*model.named_parameters(), *model.named_buffers()]
    by_tensor = {id(tensor): name for name, tensor in listed}
    return {name: by_tensor[id(tensor)] for name, tensor in model.state_dict(keep_vars=True).items()}
