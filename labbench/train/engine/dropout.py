"""Dropout with masks that depend on (seed, layer, step, sample, feature) only.

torch.nn.Dropout draws from a generator, so that its masks depend on everything drawn before, and it takes twice as long
on a CPU. Here each mask comes from a counter-based hash (`train/rng.py`). A hash is a dozen small operations, so the
masks of several steps are made at once.

Dropout: Srivastava et al., 2014; dropout of whole channels (Dropout1d to 3d): Tompson et al., 2015.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.train.engine.attention import find_attentions, seed_attention
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.vmap_calls import call_stacked
from labbench.train.host_copies import to_device
from labbench.train.rng import Purpose, keys, words, words_at

SPATIAL_DIMENSIONS: dict[type[nn.Module], int] = {nn.Dropout: 0, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}
"""torch's dropout modules, each with the number of trailing dimensions that share a draw."""

KEY_STEPS = 64
"""Number of steps whose keys are made at once, and maximum number of steps whose masks are made at once."""

MAX_BLOCK_ELEMENTS = 2**17
"""Maximum number of mask elements made at once: half a megabyte of float32, which fits in the cache of a core."""
MAX_GPU_BLOCK_ELEMENTS = 2**24
"""The same on a GPU: 64 MiB of float32, because a hash of any size takes as many kernels."""


class DropoutMasks:
    """Masks of one dropout layer for S runs.

    A draw has 16 bits, so the keep probability 1 - p is rounded to a multiple of 1/65536; kept values are scaled by the
    inverse of the rounded probability.
    """

    def __init__(
        self, seeds: Sequence[int], probabilities: Sequence[float], layer: int, step_counter: StepCounter
    ) -> None:
        self.seeds, self.layer, self.step_counter = seeds, layer, step_counter
        self.keep_limits = [round((1 - p) * 65536) for p in probabilities]
        """Number of the 65536 possible draws that keep a value, per run."""
        self._dropping_rows = [row for row, limit in enumerate(self.keep_limits) if limit < 65536]
        first, last = (self._dropping_rows[0], self._dropping_rows[-1]) if self._dropping_rows else (0, -1)
        is_contiguous = last - first + 1 == len(self._dropping_rows)
        self._rows = slice(first, last + 1) if is_contiguous else self._dropping_rows  # a slice needs no copy
        self.is_identity = not self._dropping_rows
        """True if no run drops anything."""
        self._blocks: list[MaskBlock] = []  # one per call within a step
        self._step = -1
        self._call = 0
        self._calls_to_repeat = 0
        """Number of calls whose masks a backward pass may ask for again."""
        self._is_repeated = False

    def draw(self, count: int, like: Tensor) -> Tensor:
        """Return a mask of shape (S, count): 0 if dropped, 1 / (1 - p) if kept.

        The mask has the dtype and device of `like`.
        A layer that is called several times in a step gets a different mask each time; a call inside a backward pass,
        which `torch.utils.checkpoint` does, gets the mask of the last call again. A mask is valid for its step.

        Raises:
            InputError: A backward pass repeats one of several calls.
        """
        block = self._block((count + count % 2,), like, count)
        return block.masks[:, self.step_counter.step - block.first, :count]

    def draw_columns(self, samples: int, features: int, like: Tensor) -> Tensor:
        """Return the mask of `draw` with shape (S, samples, features).

        The samples are innermost in memory. Use it on the CPU, for activations with this memory layout and an even
        number of features.
        """
        block = self._block((features, samples), like, samples * features)
        return block.masks[:, self.step_counter.step - block.first, :, :samples].transpose(1, 2)

    def _block(self, shape: tuple[int, ...], like: Tensor, count: int) -> MaskBlock:
        """Return the block with the masks of this call and step.

        Masks have shape (S, K, *shape), or are longer in the last dimension.
        """
        step = self.step_counter.step
        self._count_call(step)
        if self._call == len(self._blocks):
            self._blocks.append(self._new_block(shape, like, count))
        block = self._blocks[self._call]
        if not block.fits(shape) or block.masks.dtype != like.dtype:
            block = self._blocks[self._call] = self._new_block(shape, like, count)
        if not 0 <= step - block.first < block.masks.shape[1]:
            self._fill(block, step)
        return block

    def _count_call(self, step: int) -> None:
        """Set the number of this call within the step."""
        if step != self._step:
            self._step, self._call, self._calls_to_repeat, self._is_repeated = step, 0, 1, False
        elif torch._C._current_graph_task_id() != -1:  # inside a backward pass
            if self._calls_to_repeat > 1:
                raise InputError(
                    "torch.utils.checkpoint repeats a dropout layer that is called several times per step, so that its "
                    "masks are ambiguous: give each call an nn.Dropout of its own"
                )
            self._is_repeated = True
        else:
            self._call += 1
            self._calls_to_repeat = 1 if self._is_repeated else self._calls_to_repeat + 1
            self._is_repeated = False

    def _new_block(self, shape: tuple[int, ...], like: Tensor, count: int) -> MaskBlock:
        """Allocate the masks of K steps; the masks of runs that drop nothing are ones."""
        elements = MAX_BLOCK_ELEMENTS if like.device.type == "cpu" else MAX_GPU_BLOCK_ELEMENTS
        steps = max(1, min(KEY_STEPS, elements // (len(self.seeds) * count)))  # K
        limits = [self.keep_limits[row] for row in self._dropping_rows]
        limit = to_device(torch.tensor(limits), like.device)[:, None, None]  # (R, 1, 1)
        return MaskBlock(
            masks=like.new_ones(len(self.seeds), steps, *shape),
            highest_kept=(limit - 32769).clamp(min=-32768).to(torch.int16),
            scale=(65536 / limit).where(limit > 0, 0).to(like.dtype),
            keys=like.new_empty(0, dtype=torch.int32),
        )

    def _fill(self, block: MaskBlock, step: int) -> None:
        """Make the masks of the K steps from `step` on."""
        count = block.masks.shape[1]  # K
        if not 0 <= step - block.first_key <= KEY_STEPS - count:
            seeds = [self.seeds[row] for row in self._dropping_rows]
            layer, steps = self.layer + (self._call << 16), range(step, step + KEY_STEPS)
            block.keys = keys(seeds, Purpose.DROPOUT, layer=layer, steps=steps, device=block.masks.device)
            block.first_key = step
        start = step - block.first_key
        streams = block.keys[:, start : start + count]  # (R, K, 2)
        if block.masks.dim() == 4:
            self._fill_columns(block, streams)
        else:
            self._fill_rows(block, streams)
        block.first = step

    def _fill_rows(self, block: MaskBlock, streams: Tensor) -> None:
        """Fill masks (S, K, count) from keys (R, K, 2)."""
        draws = words(streams, block.masks.shape[2] // 2).view(torch.int16)  # (R, K, count)
        draws.le_(block.highest_kept)  # in place, because making booleans is slow on CPUs
        if isinstance(self._rows, slice):
            block.masks[self._rows].copy_(draws).mul_(block.scale)
        else:
            block.masks[self._rows] = draws * block.scale

    def _fill_columns(self, block: MaskBlock, streams: Tensor) -> None:
        """Fill masks (S, K, features, samples) from keys (R, K, 2).

        As in `_fill_rows`, each word of 32 bits decides for two neighbouring features of a sample.
        """
        masks: NDArray[Any] = block.masks.numpy()  # (S, K, F, N)
        features, samples = masks.shape[2:]
        counters = np.add.outer(
            np.arange(features // 2, dtype=np.uint32), np.arange(samples, dtype=np.uint32) * np.uint32(features // 2)
        )  # (F / 2, N)
        draws = words_at(streams.numpy(), counters.ravel())  # (R, K, F / 2 * N)
        draws = draws.reshape(*draws.shape[:2], features // 2, samples)
        # the upper half of a word is at most a limit if and only if the word is at most (limit << 16) + 65535
        limit = block.highest_kept.numpy()[..., None].astype(np.int32) * 65536 + 65535  # (R, 1, 1, 1)
        scale = block.scale.numpy()[..., None]
        masks[self._rows, :, 0::2] = (draws << 16 <= limit) * scale
        masks[self._rows, :, 1::2] = (draws <= limit) * scale


@dataclass
class MaskBlock:
    """Masks of one call of a dropout layer for K steps.

    The buffers are reused, so that they stay in the cache. R of the S runs drop values.
    """

    masks: Tensor
    """Shape (S, K, count) or (S, K, features, samples)."""
    highest_kept: Tensor
    """Largest draw that keeps a value, shape (R, 1, 1), int16."""
    scale: Tensor
    """Value of a kept element, 1 / (1 - p), shape (R, 1, 1)."""
    keys: Tensor
    """Keys of the hash, shape (R, KEY_STEPS, 2); empty before the first use."""
    first: int = -1 << 40
    """Step of the first masks."""
    first_key: int = -1 << 40
    """Step of the first keys."""

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Return True if the block's masks contain masks of this shape.

        A smaller batch uses a prefix along the last dimension.
        """
        *leading, last = self.masks.shape[2:]
        return [*shape[:-1]] == leading and shape[-1] <= last


class SeededDropout(nn.Module):
    """Multiply by `masks` in training mode; the identity in eval mode.

    Inputs have shape (N, ...) for one run or (S, N, ...) for a stack. With `spatial` > 0 the last `spatial` dimensions
    share a draw: whole channels are dropped. `torch.compile` leaves it out (`Precision.maybe_compile`): masks depend on
    the step, so that each step would recompile.
    """

    def __init__(self, masks: DropoutMasks, spatial: int = 0) -> None:
        super().__init__()
        self.masks = masks
        self.spatial = spatial

    def forward(self, inputs: Tensor) -> Tensor:
        """Return inputs of any shape, multiplied by the mask of this step."""
        mask = self.draw_mask(inputs)
        return inputs if mask is None else inputs * mask

    def draw_mask(self, inputs: Tensor) -> Tensor | None:
        """Return the mask for inputs of any shape; None if nothing is dropped.

        The mask has the shape of the inputs, with size 1 in the `spatial` dimensions.
        """
        if not self.training or self.masks.is_identity:
            return None
        if not self.spatial and len(inputs) == len(self.masks.seeds) and has_contiguous_samples(inputs):
            _, samples, features = inputs.shape
            return self.masks.draw_columns(samples, features, inputs)
        shape = inputs.shape[: inputs.dim() - self.spatial]
        mask = self.masks.draw(shape.numel() // len(self.masks.seeds), inputs)
        return mask.reshape(*shape, *[1] * self.spatial)


def has_contiguous_samples(inputs: Tensor) -> bool:
    """Return True if inputs have shape (S, samples, features), samples innermost, as `draw_columns` needs."""
    return (
        inputs.dim() == 3
        and inputs.device.type == "cpu"
        and inputs.dtype != torch.bfloat16  # numpy has no bfloat16
        and inputs.stride(1) == 1 < inputs.stride(2)
        and inputs.shape[2] % 2 == 0
    )


class VmapDropout(SeededDropout):
    """Dropout inside `vmap`.

    The module sees the inputs of one run, but the masks of all runs are one tensor.
    """

    def forward(self, inputs: Tensor) -> Tensor:
        """Return the inputs of one run, shape (N, ...), multiplied by that run's mask.

        Raises:
            NotImplementedError: If the inputs are the same for all runs.
        """
        if not self.training or self.masks.is_identity:
            return inputs
        if not torch._C._functorch.is_batchedtensor(inputs):
            raise NotImplementedError("dropout got an input that is the same for all runs")
        return call_stacked(partial(SeededDropout.forward, self), inputs)


def swap_dropout(model: nn.Module, seed: int, step_counter: StepCounter) -> None:
    """Replace torch's dropout layers in the model of a single run."""
    probabilities = dropout_probabilities(model)
    replace_dropout(
        model, SeededDropout, lambda layer: DropoutMasks([seed], [probabilities[layer]], layer, step_counter)
    )


def find_torch_dropouts(model: nn.Module) -> list[nn.Module]:
    """Return torch's dropout layers without duplicates, followed by the attention layers.

    The index of a layer in the list is its number in `DropoutMasks`.
    """
    children = [child for parent in model.modules() for child in parent.children() if type(child) in SPATIAL_DIMENSIONS]
    return [*dict.fromkeys(children), *find_attentions(model)]


def dropout_probabilities(model: nn.Module) -> list[float]:
    """Return p of each dropout layer, in the order of `find_torch_dropouts`."""
    return [
        module.dropout if isinstance(module, nn.MultiheadAttention) else module.p  # type: ignore[misc]
        for module in find_torch_dropouts(model)
    ]


def replace_dropout(
    model: nn.Module, kind: type[SeededDropout], masks: Callable[[int], DropoutMasks]
) -> list[SeededDropout]:
    """Replace torch's dropout layers by layers of class `kind`, also inside attention, and return these.

    `masks` makes the masks of a layer from its number.
    """
    replacements: dict[nn.Module, SeededDropout] = {}
    for number, module in enumerate(find_torch_dropouts(model)):
        if isinstance(module, nn.MultiheadAttention):
            replacements[module] = seed_attention(module, SeededDropout(masks(number)))
        else:
            replacements[module] = kind(masks(number), SPATIAL_DIMENSIONS[type(module)])
    for parent in list(model.modules()):
        for name, child in parent._modules.items():
            if child in replacements and not isinstance(child, nn.MultiheadAttention):
                setattr(parent, name, replacements[child])
    return list(replacements.values())
