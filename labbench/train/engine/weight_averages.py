"""Exponential moving averages of weights (`ema_decay`)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from labbench.train.host_copies import to_device


class WeightAverages:
    """Exponential moving averages of weights, which replace the weights in evaluations.

    As `torch.optim.swa_utils.AveragedModel` with `get_ema_multi_avg_fn`: the first update copies the weights, each
    further one moves the averages by a share of 1 - decay towards them. Buffers are not averaged.
    """

    def __init__(self, weights: Sequence[Tensor], decays: Tensor) -> None:
        """`weights` are updated by their optimizer in place; `decays` have a shape that broadcasts to each of them."""
        self.weights, self.averages = list(weights), [tensor.detach().clone() for tensor in weights]
        self._final_shares, self._shares = 1 - decays, torch.ones_like(decays)
        self._are_used = False
        """True while the averages are in the place of the weights."""

    @torch.no_grad()
    def load(self, averages: Sequence[Tensor], started: Tensor) -> None:
        """Restore averages; `started`, bool and of the shape of the decays, is False where none is recorded yet."""
        for average, value in zip(self.averages, averages, strict=True):
            average.copy_(value)
        self._shares.copy_(torch.where(started, self._final_shares, 1))

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the weights, after an optimizer step."""
        for average, weight in zip(self.averages, self.weights, strict=True):
            average.lerp_(weight, self._shares.to(average.dtype))
        self._shares.copy_(self._final_shares)

    @torch.no_grad()
    def use(self, averaged: bool) -> None:
        """Put the averages in the place of the weights, or the weights back."""
        if averaged == self._are_used:
            return
        self._are_used = averaged
        for average, weight in zip(self.averages, self.weights, strict=True):
            value = weight.clone()
            weight.copy_(average)
            average.copy_(value)

    @contextmanager
    def using(self, *, averaged: bool) -> Iterator[None]:
        """Use the averages, or the weights, within the block."""
        before = self._are_used
        self.use(averaged)
        yield
        self.use(before)

    def tensors(self) -> list[Tensor]:
        """Return all tensors that an update changes, not copied: averages, in the parameters' shapes, and shares."""
        return [*self.averages, self._shares]


def make_averages(parameters: Mapping[str, nn.Parameter], decay: float | None) -> WeightAverages | None:
    """Return the moving averages of the trained parameters, or None without a decay."""
    trained = [parameter for parameter in parameters.values() if parameter.requires_grad]
    if decay is None:
        return None
    return WeightAverages(trained, to_device(torch.tensor(decay, dtype=torch.float64), trained[0].device))
