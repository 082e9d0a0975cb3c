"""Dropout whose masks are a function of (seed, layer, step, sample, feature), swapped in for torch's own.

torch.nn.Dropout draws from a generator, so its masks depend on everything drawn before, and on a CPU it costs twice as
much. The masks of several steps are made at once, because a hash is a dozen small operations.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from labbench.train.clock import Clock
from labbench.train.random import Purpose, keys, words

SPATIAL_DIMENSIONS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""Modules that are swapped, and over how many trailing dimensions one draw of each holds."""

BLOCK = 2**17
"""Numbers made at once: half a megabyte of float32, which stays in a core's cache."""


class Masks:
    """The masks of one dropout layer of S runs.

    Keeping is decided by 16 bits, so 1 - p is rounded to a multiple of 1/65536, and kept values are scaled by
    exactly its inverse.
    """

    def __init__(self, seeds: Sequence[int], probabilities: Sequence[float], layer: int, clock: Clock) -> None:
        self.seeds, self.layer, self.clock = seeds, layer, clock
        self.kept = [round((1 - p) * 65536) for p in probabilities]
        self._blocks: list[tuple[int, Tensor]] = []  # of each call within a step: its first step, masks (S, K, count)
        self._step = -1
        self._call = 0

    def draw(self, count: int, like: Tensor) -> Tensor:
        """0 or 1 / (1 - p) for `count` values of each run, in `like`'s type and place: (S, count).

        A layer that is called several times in one step gets another mask each time.
        """
        step = self.clock.step
        self._call = self._call + 1 if step == self._step else 0
        self._step = step
        if self._call == len(self._blocks):
            self._blocks.append((step, self._make(step, count, like)))
        first, block = self._blocks[self._call]
        if not 0 <= step - first < block.shape[1] or count > block.shape[2] or block.dtype != like.dtype:
            first, block = self._blocks[self._call] = step, self._make(step, count, like)
        return block[:, step - first, :count]

    def _make(self, step: int, count: int, like: Tensor) -> Tensor:
        """The masks of this step and of some that follow: (S, K, count or one more)."""
        several = max(1, min(64, BLOCK // (len(self.seeds) * count)))
        layer = self.layer + (self._call << 16)
        streams = keys(self.seeds, Purpose.DROPOUT, layer=layer, steps=range(step, step + several), device=like.device)
        draws = words(streams, (count + 1) // 2).view(torch.int16)  # (S, K, count or one more)
        kept = torch.tensor(self.kept, device=like.device)[:, None, None]
        draws.le_((kept - 32769).clamp(min=-32768).to(torch.int16))  # in place, because making booleans is slow on CPUs
        scale = (65536 / kept).where(kept > 0, 0).to(like.dtype)
        return draws.to(like.dtype).mul_(scale)


class Dropout(nn.Module):
    """Dropout of single values, or with `spatial` of whole channels, by `masks`; the identity in eval mode.

    The input is (N, ...) of one run or (S, N, ...) of a stack.
    """

    def __init__(self, masks: Masks, spatial: int = 0) -> None:
        super().__init__()
        self.masks = masks
        self.spatial = spatial
        self.never = all(kept == 65536 for kept in masks.kept)

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.never:
            return inputs
        shape = inputs.shape[: inputs.dim() - self.spatial]
        mask = self.masks.draw(shape.numel() // len(self.masks.seeds), inputs)
        return inputs * mask.reshape(*shape, *[1] * self.spatial)


def swap_dropout(model: nn.Module, seed: int, clock: Clock) -> None:
    """Put our Dropout in the place of each of torch's in `model`; layers count in the order of `model.modules()`."""
    swapped: dict[nn.Module, Dropout] = {}
    for parent in list(model.modules()):
        for name, child in parent.named_children():
            spatial = SPATIAL_DIMENSIONS.get(type(child))
            if spatial is None:
                continue
            if child not in swapped:
                probability: float = child.p  # type: ignore[assignment]
                swapped[child] = Dropout(Masks([seed], [probability], len(swapped), clock), spatial)
            setattr(parent, name, swapped[child])
