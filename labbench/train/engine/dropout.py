"""Dropout whose masks are a function of (seed, layer, step, sample, feature), swapped in for torch's own.

torch.nn.Dropout draws from a generator, so its masks depend on everything drawn before, and on a CPU it costs twice as
much. The masks of several steps are made at once, because a hash is a dozen small operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labbench.train.engine.schedules import StepCounter
from labbench.train.rng import Purpose, keys, words, words_at

SPATIAL_DIMENSIONS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""Modules that are swapped, and over how many trailing dimensions one draw of each holds."""

KEY_STEPS = 64
"""Steps whose keys are made at once, and whose masks are at the most."""

MAX_BLOCK_ELEMENTS = 2**17
"""Numbers made at once: half a megabyte of float32, which stays in a core's cache."""


class DropoutMasks:
    """The masks of one dropout layer of S runs.

    Keeping is decided by 16 bits, so 1 - p is rounded to a multiple of 1/65536, and kept values are scaled by
    exactly its inverse.
    """

    def __init__(
        self, seeds: Sequence[int], probabilities: Sequence[float], layer: int, step_counter: StepCounter
    ) -> None:
        self.seeds, self.layer, self.step_counter = seeds, layer, step_counter
        self.keep_limits = [round((1 - p) * 65536) for p in probabilities]
        self._dropping_rows = [row for row, kept in enumerate(self.keep_limits) if kept < 65536]
        first, last = (self._dropping_rows[0], self._dropping_rows[-1]) if self._dropping_rows else (0, -1)
        side_by_side = last - first + 1 == len(self._dropping_rows)
        self._rows = slice(first, last + 1) if side_by_side else self._dropping_rows  # a slice needs no copy
        self.is_identity = not self._dropping_rows
        """Whether nothing is dropped."""
        self._blocks: list[MaskBlock] = []  # of each call within a step
        self._step = -1
        self._call = 0

    def draw(self, count: int, like: Tensor) -> Tensor:
        """0 or 1 / (1 - p) for `count` values of each run, in `like`'s type and place: (S, count).

        A layer that is called several times in one step gets another mask each time. They are valid for that step.
        """
        block = self._block((count + count % 2,), like, count)
        return block.masks[:, self.step_counter.step - block.first, :count]

    def draw_columns(self, samples: int, features: int, like: Tensor) -> Tensor:
        """The same numbers for (S, samples, features), the samples of a feature side by side in memory.

        For activations that lie so, on the CPU, with an even number of features.
        """
        block = self._block((features, samples), like, samples * features)
        return block.masks[:, self.step_counter.step - block.first, :, :samples].transpose(1, 2)

    def _block(self, shape: tuple[int, ...], like: Tensor, count: int) -> MaskBlock:
        """The block of this call, which holds the masks of this step: (S, K, *shape), or longer in the last."""
        step = self.step_counter.step
        self._call = self._call + 1 if step == self._step else 0
        self._step = step
        if self._call == len(self._blocks):
            self._blocks.append(self._new_block(shape, like, count))
        block = self._blocks[self._call]
        if not block.holds(shape) or block.masks.dtype != like.dtype:
            block = self._blocks[self._call] = self._new_block(shape, like, count)
        if not 0 <= step - block.first < block.masks.shape[1]:
            self._fill(block, step)
        return block

    def _new_block(self, shape: tuple[int, ...], like: Tensor, count: int) -> MaskBlock:
        """Room for the masks of some steps, ones in the rows of runs that drop nothing."""
        several = max(1, min(KEY_STEPS, MAX_BLOCK_ELEMENTS // (len(self.seeds) * count)))
        kept = torch.tensor([self.keep_limits[row] for row in self._dropping_rows], device=like.device)[:, None, None]
        return MaskBlock(
            masks=like.new_ones(len(self.seeds), several, *shape),
            highest=(kept - 32769).clamp(min=-32768).to(torch.int16),
            scale=(65536 / kept).where(kept > 0, 0).to(like.dtype),
        )

    def _fill(self, block: MaskBlock, step: int) -> None:
        """Make the masks of this step and of those that follow in the block."""
        several = block.masks.shape[1]
        if not 0 <= step - block.first_key <= KEY_STEPS - several:
            seeds = [self.seeds[row] for row in self._dropping_rows]
            layer, steps = self.layer + (self._call << 16), range(step, step + KEY_STEPS)
            block.keys = keys(seeds, Purpose.DROPOUT, layer=layer, steps=steps, device=block.masks.device)
            block.first_key = step
        start = step - block.first_key
        streams = block.keys[:, start : start + several]
        if block.masks.dim() == 4:
            self._fill_columns(block, streams)
        else:
            self._fill_rows(block, streams)
        block.first = step

    def _fill_rows(self, block: MaskBlock, streams: Tensor) -> None:
        draws = words(streams, block.masks.shape[2] // 2).view(torch.int16)
        draws.le_(block.highest)  # in place, because making booleans is slow on CPUs
        if isinstance(self._rows, slice):
            block.masks[self._rows].copy_(draws).mul_(block.scale)
        else:
            block.masks[self._rows] = draws * block.scale

    def _fill_columns(self, block: MaskBlock, streams: Tensor) -> None:
        """Each word decides for two neighbouring features of a sample, as in rows; only where they are put differs."""
        masks: NDArray[Any] = block.masks.numpy()  # (S, K, F, N)
        features, samples = masks.shape[2:]
        places = np.add.outer(
            np.arange(features // 2, dtype=np.uint32), np.arange(samples, dtype=np.uint32) * np.uint32(features // 2)
        )  # (F / 2, N)
        draws = words_at(streams.numpy(), places.ravel())  # (R, K, F / 2 * N)
        draws = draws.reshape(*draws.shape[:2], features // 2, samples)
        # the higher half of a word is below a limit when the word is: no need to take it apart
        limit = block.highest.numpy()[..., None].astype(np.int32) * 65536 + 65535  # (R, 1, 1, 1)
        scale = block.scale.numpy()[..., None]
        masks[self._rows, :, 0::2] = (draws << 16 <= limit) * scale
        masks[self._rows, :, 1::2] = (draws <= limit) * scale


@dataclass
class MaskBlock:
    """The masks of one call of a dropout layer, for some steps; filled again and again, to stay in the cache."""

    masks: Tensor
    """(S, K, count), or (S, K, features, samples)"""
    highest: Tensor
    """The largest draw that is kept, (those that drop, 1, 1), and 1 / (1 - p):"""
    scale: Tensor
    first: int = -1 << 40
    """The step of the first masks."""
    keys: Tensor = field(default_factory=lambda: torch.empty(0))
    first_key: int = -1 << 40
    """The step of the first of `KEY_STEPS` keys."""

    def holds(self, shape: tuple[int, ...]) -> bool:
        """Whether a mask of that shape is the beginning of one of these."""
        *ahead, last = self.masks.shape[2:]
        return [*shape[:-1]] == ahead and shape[-1] <= last


class SeededDropout(nn.Module):
    """Dropout of single values, or with `spatial` of whole channels, by `masks`; the identity in eval mode.

    The input is (N, ...) of one run or (S, N, ...) of a stack.
    """

    def __init__(self, masks: DropoutMasks, spatial: int = 0) -> None:
        super().__init__()
        self.masks = masks
        self.spatial = spatial

    @torch.compiler.disable  # type: ignore[untyped-decorator] # masks depend on the step, for each of which it would be compiled anew
    def forward(self, inputs: Tensor) -> Tensor:
        mask = self.draw_mask(inputs)
        return inputs if mask is None else inputs * mask

    def draw_mask(self, inputs: Tensor) -> Tensor | None:
        """By what these are multiplied now: as large, but for the dimensions over which a draw holds."""
        if not self.training or self.masks.is_identity:
            return None
        if not self.spatial and len(inputs) == len(self.masks.seeds) and has_contiguous_samples(inputs):
            _, samples, features = inputs.shape
            return self.masks.draw_columns(samples, features, inputs)
        shape = inputs.shape[: inputs.dim() - self.spatial]
        mask = self.masks.draw(shape.numel() // len(self.masks.seeds), inputs)
        return mask.reshape(*shape, *[1] * self.spatial)


def has_contiguous_samples(inputs: Tensor) -> bool:
    """Whether these are (S, samples, features) with samples side by side, for which masks can be made likewise."""
    return (
        inputs.dim() == 3
        and inputs.device.type == "cpu"
        and inputs.dtype != torch.bfloat16  # which numpy does not know
        and inputs.stride(1) == 1 < inputs.stride(2)
        and inputs.shape[2] % 2 == 0
    )


class VmapDropout(SeededDropout):
    """The same inside `vmap`, where a module sees the inputs of a single run: the masks of all are one tensor's."""

    def forward(self, inputs: Tensor) -> Tensor:
        if not self.training or self.masks.is_identity:
            return inputs
        masked: Tensor = _VmapDropoutFunction.apply(inputs, self)  # type: ignore[no-untyped-call]
        return masked


class _VmapDropoutFunction(torch.autograd.Function):
    """What vmap calls with the inputs of all runs at once."""

    @staticmethod
    def forward(inputs: Tensor, dropout: VmapDropout) -> Tensor:
        raise NotImplementedError("dropout of what is the same for all runs")

    @staticmethod
    def setup_context(*_: Any) -> None: ...

    @staticmethod
    def vmap(info: Any, dims: tuple[int | None, None], inputs: Tensor, dropout: VmapDropout) -> tuple[Tensor, int]:
        assert dims[0] is not None
        return SeededDropout.forward(dropout, inputs.movedim(dims[0], 0)), 0


def swap_dropout(model: nn.Module, seed: int, step_counter: StepCounter) -> None:
    """Put our Dropout in the place of each of torch's in a model that is trained alone."""
    probabilities = dropout_probabilities(model)
    replace_dropout(
        model, SeededDropout, lambda layer: DropoutMasks([seed], [probabilities[layer]], layer, step_counter)
    )


def find_torch_dropouts(model: nn.Module) -> list[nn.Module]:
    """torch's dropout layers, numbered as `model.modules()` comes to the modules that hold them."""
    held = [child for parent in model.modules() for child in parent.children() if type(child) in SPATIAL_DIMENSIONS]
    return list(dict.fromkeys(held))


def dropout_probabilities(model: nn.Module) -> list[float]:
    """The p of each dropout layer."""
    return [module.p for module in find_torch_dropouts(model)]  # type: ignore[misc]


def replace_dropout(
    model: nn.Module, kind: type[SeededDropout], masks: Callable[[int], DropoutMasks]
) -> list[SeededDropout]:
    """Put our `kind` of dropout with the `masks` of its number in the place of each of torch's; returns all ours."""
    ours = {
        module: kind(masks(number), SPATIAL_DIMENSIONS[type(module)])
        for number, module in enumerate(find_torch_dropouts(model))
    }
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in ours:
                setattr(parent, name, ours[child])
    return list(ours.values())
