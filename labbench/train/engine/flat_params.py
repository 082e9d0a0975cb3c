"""The parameters of S runs as one tensor: a row a run, so that an optimizer updates all of a stack in a few kernels."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod

import torch
from torch import Tensor

ALIGNMENT = 64
"""Rows are padded to a multiple of this, so that a run's numbers meet the same vector instructions in every row."""


class FlatParameters:
    """Where each parameter of a model lies in a row of P numbers."""

    def __init__(self, shapes: Mapping[str, torch.Size]) -> None:
        self.shapes = dict(shapes)
        self._starts: dict[str, int] = {}
        end = 0
        for name, shape in self.shapes.items():
            self._starts[name] = end
            end += prod(shape)
        self.width = -(-end // ALIGNMENT) * ALIGNMENT

    def views(self, rows: Tensor) -> dict[str, Tensor]:
        """By parameter the part of the rows (S, P) that holds it: (S, *shape)."""
        return {
            name: rows[:, start : start + prod(self.shapes[name])].view(len(rows), *self.shapes[name])
            for name, start in self._starts.items()
        }

    def pack(self, runs: list[Mapping[str, Tensor]], like: Tensor) -> Tensor:
        """Rows (S, P) that hold these parameters of each run, in the type and place of `like`."""
        rows = like.new_zeros(len(runs), self.width)
        for name, view in self.views(rows).items():
            view.copy_(torch.stack([run[name].detach() for run in runs]))
        return rows
