"""What a task trains on: three pairs of tensors. Here too are the digits that labbench ships."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.train.random import Purpose, keys, words

Split: TypeAlias = tuple[Tensor, Tensor]
"""(inputs (N, ...), targets (N, ...))"""

HOST = torch.device("cpu")

DIGITS = Path(__file__).with_name("digits.npz")
DIGITS_SPLIT_SEED = 1998
"""Decides which digits are trained on; part of `digits@1`."""
DIGITS_HELD_OUT = 270
"""Samples for validation, and as many for the test; the other 1,257 are trained on."""


@dataclass(frozen=True)
class Data:
    """CPU tensors: `train` and `val`, and `test` where there is one. Classes are integers."""

    train: Split
    val: Split
    test: Split | None = None
    dtype: torch.dtype = torch.float32
    """The floating-point type in which models are trained on it; `to` sets this and the next two."""
    device: torch.device = HOST
    """Where models are trained on it."""
    resident: bool = True
    """Whether it lies there, too; otherwise on the host, and a batch is brought when it is needed."""

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if split is not None:
                _check(name, split)

    @property
    def home(self) -> torch.device:
        """Where the tensors lie, and the indices of samples with them."""
        return self.train[0].device

    @property
    def classes(self) -> int:
        """How many classes there are, in whichever split: the largest number and one."""
        splits = [split for split in (self.train, self.val, self.test) if split is not None]
        return max(int(targets.max()) for _, targets in splits) + 1

    def gather(self, indices: Tensor) -> Split:
        """The training samples with these indices (N,), where the models are."""
        inputs, targets = (part.index_select(0, indices) for part in self.train)
        return self.bring((inputs, targets))

    def bring(self, split: Split) -> Split:
        """Samples of this data where the models are. To CUDA they go from pinned memory while the host goes on."""
        if self.resident:
            return split
        if self.device.type == "cuda":
            split = split[0].pin_memory(), split[1].pin_memory()
        inputs, targets = (part.to(self.device, non_blocking=True) for part in split)
        return inputs, targets

    def to(self, device: torch.device, dtype: torch.dtype, *, resident: bool = True) -> Data:
        """The same for models on `device`, floating-point numbers as `dtype`; integers stay what they are."""
        home = device if resident else HOST

        def moved(split: Split) -> Split:
            inputs, targets = (x.to(home, dtype if x.is_floating_point() else x.dtype).contiguous() for x in split)
            return inputs, targets

        test = None if self.test is None else moved(self.test)
        return Data(moved(self.train), moved(self.val), test, dtype, device, resident)


def _check(name: str, split: Split) -> None:
    if not (isinstance(split, tuple | list) and len(split) == 2 and all(isinstance(x, Tensor) for x in split)):
        raise InputError(f"data: `{name}` must be a pair of tensors (inputs, targets)")
    inputs, targets = split
    if inputs.dim() == 0 or targets.dim() == 0 or not len(inputs) == len(targets) > 0:
        shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise InputError(f"data: inputs and targets of `{name}` must have one length, at least 1; they are {shapes}")


@cache
def digits() -> Data:
    """The UCI digits: inputs float32 (N, 1, 8, 8) from 0 to 1, classes 0-9; 1,257 / 270 / 270 samples."""
    with np.load(DIGITS) as file:
        inputs = torch.from_numpy(file["images"]).unsqueeze(1).to(torch.float32) / 16
        targets = torch.from_numpy(file["targets"]).to(torch.int64)
    train, val, test = stratified(targets, DIGITS_HELD_OUT, seed=DIGITS_SPLIT_SEED)
    return Data((inputs[train], targets[train]), (inputs[val], targets[val]), (inputs[test], targets[test]))


def stratified(targets: Tensor, held_out: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending indices of train, val and test: `held_out` samples each for the last two, every class in proportion."""
    val, test, train = in_proportion(targets, seed=seed).split([held_out, held_out, len(targets) - 2 * held_out])
    return train.sort().values, val.sort().values, test.sort().values


def in_proportion(targets: Tensor, *, seed: int, purpose: Purpose = Purpose.SPLIT) -> Tensor:
    """All indices in an order of which every stretch has every class in proportion.

    Each class is shuffled; a sample's place in its class, as a share of the class, orders all samples, and
    neighbours in that order are spread evenly over the classes.
    """
    shuffled = words(keys([seed], purpose, steps=[0], device=targets.device)[0, 0], len(targets))
    by_class = shuffled.argsort(stable=True)
    by_class = by_class[targets[by_class].argsort(stable=True)]  # grouped by class, shuffled within
    sizes = targets.bincount()
    place = torch.arange(len(targets)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    share = (2 * place + 1).to(torch.float64) / sizes.repeat_interleave(sizes)
    return by_class[share.argsort(stable=True)]


def usable_samples(samples: int, batch_size: int) -> int:
    """How many samples an epoch takes: all, but a single one left over, which has no variance to normalise by."""
    left_over = samples % batch_size
    return samples - 1 if left_over == 1 < batch_size and samples > 1 else samples
