"""Data in tensors, the `DataSource` interface of the training loop, stratified splits, and the digits.

Data too large for tensors is read sample by sample (`loading`), through the same interface.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.train.dtypes import place
from labbench.train.rng import Purpose, keys, permutations, words

Split: TypeAlias = tuple[Tensor, Tensor]
"""(inputs (N, ...), targets (N, ...))"""

HeldOutSplit: TypeAlias = Literal["val", "test"]
"""Name of a held-out split."""

HOST = torch.device("cpu")

DIGITS_FILE = Path(__file__).with_name("digits.npz")
DIGITS_SPLIT_SEED = 1998
"""Seed of the split of the digits; part of `digits@1`."""
DIGITS_HELD_OUT = 270
"""Samples in each of `val` and `test`; the other 1,257 are in `train`."""


class DataSource(Protocol):
    """Data as the training loop reads it."""

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point dtype in which models are trained."""

    @property
    def device(self) -> torch.device:
        """Device of the models."""

    @property
    def resident(self) -> bool:
        """True if the data is stored on `device`, so that a batch needs no copy."""

    @property
    def samples(self) -> int:
        """Number of training samples."""

    @property
    def shape(self) -> torch.Size:
        """Shape of one input."""

    @property
    def has_test(self) -> bool:
        """True if there is a split `test`."""

    def batches(self, seeds: Sequence[int], epoch: int, size: int) -> Iterator[Tensor]:
        """Yield the sample numbers of an epoch's batches, shape (S, N).

        The numbers of a batch are valid until the next batch is requested.
        """

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        """Return the sample numbers of the first batch of the first epoch, shape (S, N)."""

    def gather(self, numbers: Tensor) -> Split:
        """Return the training samples with these numbers, shape (N,), on `device`."""

    def held_out_batches(self, name: HeldOutSplit, size: int) -> Iterator[Split]:
        """Yield a held-out split in batches of `size` samples on `device`."""

    def sample_validation(self, count: int | None = None) -> Split:
        """Return up to `count` validation samples on `device`.

        The default is as many as diagnostics need.
        """

    def close(self) -> None:
        """Release worker processes and file handles."""


@dataclass(frozen=True)
class Data:
    """Data in CPU tensors: `train`, `val` and optionally `test`.

    Each split is a pair (inputs (N, ...), targets (N, ...)). Class targets are integers.

    Raises:
        InputError: If a split is not a pair of tensors of the same length, at least 1.
    """

    train: Split
    val: Split
    test: Split | None = None
    dtype: torch.dtype = torch.float32
    """Floating-point dtype in which models are trained; set by `to`, like `device` and `resident`."""
    device: torch.device = HOST
    """Device of the models."""
    resident: bool = True
    """True if the tensors are stored on `device`; else they are on the host, and each batch is copied on demand."""

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if split is not None:
                _check_split(name, split)

    @property
    def home(self) -> torch.device:
        """Device of the tensors and of sample numbers."""
        return self.train[0].device

    @property
    def samples(self) -> int:
        return len(self.train[0])

    @property
    def shape(self) -> torch.Size:
        return self.train[0].shape[1:]

    @property
    def has_test(self) -> bool:
        return self.test is not None

    @property
    def classes(self) -> int:
        """Number of classes: the largest class in any split plus one."""
        splits = [split for split in (self.train, self.val, self.test) if split is not None]
        return max(int(targets.max()) for _, targets in splits) + 1

    def batches(self, seeds: Sequence[int], epoch: int, size: int) -> Iterator[Tensor]:
        """Yield the sample indices of an epoch's batches, shape (S, N)."""
        order = permutations(seeds, epoch, self.samples, self.home)  # (S, samples)
        return iter(order[:, : usable_samples(self.samples, size)].split(size, dim=1))

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        """Return the sample indices of the first batch of the first epoch, shape (S, N)."""
        return next(self.batches(seeds, 1, size))

    def gather(self, numbers: Tensor) -> Split:
        """Return the training samples with these indices, shape (N,), on `device`."""
        inputs, targets = (part.index_select(0, numbers) for part in self.train)
        return self.to_device((inputs, targets))

    def held_out_batches(self, name: HeldOutSplit, size: int) -> Iterator[Split]:
        split = self.val if name == "val" else self.test
        assert split is not None
        return (
            self.to_device((inputs, targets)) for inputs, targets in zip(*(x.split(size) for x in split), strict=True)
        )

    def sample_validation(self, count: int | None = None) -> Split:
        return self.to_device((self.val[0][:count], self.val[1][:count]))

    def close(self) -> None:
        """No-op: tensors hold no processes or files."""

    def to_device(self, split: Split) -> Split:
        """Return samples of this data on `device`.

        Copies to CUDA are asynchronous, from pinned memory.
        """
        if self.resident:
            return split
        if self.device.type == "cuda":
            split = split[0].pin_memory(), split[1].pin_memory()
        inputs, targets = (part.to(self.device, non_blocking=True) for part in split)
        return inputs, targets

    def to(self, device: torch.device, dtype: torch.dtype, *, resident: bool = True) -> Data:
        """Return this data for models on `device`, floating-point tensors as `dtype`.

        Integers keep their dtype.
        """
        home = device if resident else HOST

        def place_split(split: Split) -> Split:
            inputs, targets = (place(x, home, dtype).contiguous() for x in split)
            return inputs, targets

        test = None if self.test is None else place_split(self.test)
        return Data(place_split(self.train), place_split(self.val), test, dtype, device, resident)


def _check_split(name: str, split: Split) -> None:
    if not (isinstance(split, tuple | list) and len(split) == 2 and all(isinstance(x, Tensor) for x in split)):
        raise InputError(
            f"data: `{name}` must be a pair of tensors (inputs, targets); pass a torch Dataset, or any other object "
            "with samples one at a time, to labbench.Datasets(train, val)"
        )
    inputs, targets = split
    if inputs.dim() == 0 or targets.dim() == 0 or not len(inputs) == len(targets) > 0:
        shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise InputError(
            f"data: inputs and targets of `{name}` must have the same length, at least 1; their shapes are {shapes}"
        )


@cache
def load_digits() -> Data:
    """Return the UCI digits: 1,257 / 270 / 270 samples.

    Inputs are float32 (N, 1, 8, 8) in [0, 1], targets the classes 0 to 9.
    """
    with np.load(DIGITS_FILE) as file:
        inputs = torch.from_numpy(file["images"]).unsqueeze(1).to(torch.float32) / 16
        targets = torch.from_numpy(file["targets"]).to(torch.int64)
    train, val, test = split_stratified(targets, DIGITS_HELD_OUT, seed=DIGITS_SPLIT_SEED)
    return Data((inputs[train], targets[train]), (inputs[val], targets[val]), (inputs[test], targets[test]))


def split_stratified(targets: Tensor, held_out: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Split the classes (N,) into train, val and test.

    Return the indices of each, ascending, shape (n,).

    val and test get `held_out` samples each; every split has all classes in proportion.
    """
    val, test, train = stratified_order(targets, seed=seed).split([held_out, held_out, len(targets) - 2 * held_out])
    return train.sort().values, val.sort().values, test.sort().values


def stratified_order(targets: Tensor, *, seed: int, purpose: Purpose = Purpose.SPLIT) -> Tensor:
    """Return an order of the samples, shape (N,), in which every slice is stratified by class.

    Each class is shuffled; all samples are then sorted by their position in their class, relative to its size.
    """
    shuffled = words(keys([seed], purpose, steps=[0], device=targets.device)[0, 0], len(targets))
    by_class = shuffled.argsort(stable=True)
    by_class = by_class[targets[by_class].argsort(stable=True)]  # grouped by class, shuffled within
    sizes = targets.bincount()
    position = torch.arange(len(targets)) - (sizes.cumsum(0) - sizes).repeat_interleave(sizes)
    share = (2 * position + 1).to(torch.float64) / sizes.repeat_interleave(sizes)
    return by_class[share.argsort(stable=True)]


def usable_samples(samples: int, batch_size: int) -> int:
    """Return the number of samples used per epoch.

    All samples are used, except a last batch of one, which has no variance.
    """
    left_over = samples % batch_size
    return samples - 1 if left_over == 1 < batch_size and samples > 1 else samples
