"""Data in tensors, the `DataSource` interface of the training loop, stratified splits, and the digits.

Data too large for tensors is read sample by sample (`loading`), through the same interface.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, Protocol, TypeAlias

import numpy as np
import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.train.data.samples import Samples, count_samples, list_tensors, map_tensors, split_samples
from labbench.train.data.sampling import IndexSampler, check_sampler, epoch_order
from labbench.train.host_copies import to_device
from labbench.train.precision import place
from labbench.train.rng import Purpose, keys, words

Split: TypeAlias = tuple[Samples, Samples]
"""(inputs, targets) of N samples."""

SplitName: TypeAlias = Literal["train", "val", "test"]

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
        """Number of training samples in an epoch."""

    @property
    def shape(self) -> tuple[torch.Size, ...]:
        """Shapes of the tensors of one input."""

    @property
    def has_validation(self) -> bool:
        """True if there is a split `val`."""

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

    def evaluation_batches(self, name: SplitName, size: int) -> Iterator[Split]:
        """Yield all samples of a split in order, in batches of `size` samples on `device`."""

    def sample_validation(self, count: int | None = None) -> Split:
        """Return up to `count` validation samples on `device`, training samples if there is no validation data.

        The default is as many as diagnostics need.
        """

    def close(self) -> None:
        """Release worker processes and file handles."""


@dataclass(frozen=True)
class Data:
    """Data in CPU tensors: `train`, and optionally `val` and `test`.

    Each split is a pair (inputs (N, ...), targets (N, ...)). Class targets are integers. Inputs and targets may also be
    tuples or dicts of tensors (N, ...): a model gets them as positional and as keyword arguments, a loss as they are.

    Raises:
        InputError: If a split is not a pair of tensors of the same length, at least 1, or the sampler is not usable.
    """

    train: Split
    val: Split | None = None
    test: Split | None = None
    dtype: torch.dtype = torch.float32
    """Floating-point dtype in which models are trained; set by `to`, like `device` and `resident`."""
    device: torch.device = HOST
    """Device of the models."""
    resident: bool = True
    """True if the tensors are stored on `device`; else they are on the host, and each batch is copied on demand."""
    sampler: IndexSampler | None = None
    """torch Sampler of the training samples of an epoch; default: each once, in random order."""

    def __post_init__(self) -> None:
        for name, split in (("train", self.train), ("val", self.val), ("test", self.test)):
            if split is not None:
                _check_split(name, split)
        check_sampler(self.sampler)

    @property
    def home(self) -> torch.device:
        """Device of the tensors and of sample numbers."""
        device: torch.device = next(list_tensors(self.train[0])).device
        return device

    @property
    def samples(self) -> int:
        return count_samples(self.train[0]) if self.sampler is None else len(self.sampler)

    @property
    def shape(self) -> tuple[torch.Size, ...]:
        return tuple(tensor.shape[1:] for tensor in list_tensors(self.train[0]))

    @property
    def has_validation(self) -> bool:
        return self.val is not None

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
        order = epoch_order(self.sampler, count_samples(self.train[0]), seeds, epoch, self.home)  # (S, samples)
        return iter(order[:, : usable_samples(self.samples, size)].split(size, dim=1))

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        """Return the sample indices of the first batch of the first epoch, shape (S, N)."""
        return next(self.batches(seeds, 1, size))

    def gather(self, numbers: Tensor) -> Split:
        """Return the training samples with these indices, shape (N,), on `device`."""
        inputs, targets = (map_tensors(lambda x: x.index_select(0, numbers), part) for part in self.train)
        return self.to_device((inputs, targets))

    def evaluation_batches(self, name: SplitName, size: int) -> Iterator[Split]:
        split: Split = getattr(self, name)
        return map(self.to_device, zip(*(split_samples(part, size) for part in split), strict=True))

    def sample_validation(self, count: int | None = None) -> Split:
        inputs, targets = (map_tensors(lambda x: x[:count], part) for part in self.val or self.train)
        return self.to_device((inputs, targets))

    def close(self) -> None:
        """No-op: tensors hold no processes or files."""

    def to_device(self, split: Split) -> Split:
        """Return samples of this data on `device`.

        Copies to CUDA are asynchronous, from pinned memory.
        """
        if self.resident:
            return split

        inputs, targets = (map_tensors(lambda x: to_device(x, self.device), part) for part in split)
        return inputs, targets

    def to(self, device: torch.device, dtype: torch.dtype, *, resident: bool = True) -> Data:
        """Return this data for models on `device`, floating-point tensors as `dtype`.

        Integers keep their dtype.
        """
        home = device if resident else HOST

        def place_split(split: Split) -> Split:
            inputs, targets = (map_tensors(lambda x: place(x, home, dtype).contiguous(), part) for part in split)
            return inputs, targets

        return replace(self.map_splits(place_split), dtype=dtype, device=device, resident=resident)

    def map_splits(self, function: Callable[[Split], Split]) -> Data:
        """Return this data with each split replaced by `function` of it."""
        train, val, test = (None if split is None else function(split) for split in (self.train, self.val, self.test))
        assert train is not None
        return replace(self, train=train, val=val, test=test)


def _check_split(name: str, split: Split) -> None:
    is_pair = isinstance(split, tuple | list) and len(split) == 2
    tensors = list(list_tensors(split)) if is_pair else []
    if not tensors or not all(isinstance(x, Tensor) for x in tensors):
        has_arrays = any(isinstance(x, np.ndarray) for x in tensors)
        remedy = "convert numpy arrays by torch.from_numpy(array).float(), classes by .long(); " if has_arrays else ""
        raise InputError(
            f"data: `{name}` must be a pair of tensors (inputs, targets), or of tuples or dicts of tensors; "
            f"{remedy}pass a torch Dataset, or any other object with samples one at a time, to "
            "labbench.Datasets(train, val)"
        )
    if any(not list(list_tensors(part)) for part in split):
        raise InputError(f"data: inputs and targets of `{name}` must each have at least one tensor")
    if any(x.dim() == 0 for x in tensors) or len({len(x) for x in tensors}) > 1 or len(tensors[0]) == 0:
        shapes = " and ".join(str(tuple(x.shape)) for x in tensors)
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
