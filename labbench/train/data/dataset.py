"""What a task trains on: three pairs of tensors, and what a training asks of them. Here too are the digits.

What is too large for tensors is read sample by sample instead (`loading`): to a training both are a `DataSource`.
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
"""A split that is held out."""

HOST = torch.device("cpu")

DIGITS_FILE = Path(__file__).with_name("digits.npz")
DIGITS_SPLIT_SEED = 1998
"""Decides which digits are trained on; part of `digits@1`."""
DIGITS_HELD_OUT = 270
"""Samples for validation, and as many for the test; the other 1,257 are trained on."""


class DataSource(Protocol):
    """What a training asks of its data, wherever they lie."""

    @property
    def dtype(self) -> torch.dtype:
        """The floating-point type in which models are trained on it."""

    @property
    def device(self) -> torch.device:
        """Where models are trained on it."""

    @property
    def resident(self) -> bool:
        """Whether it lies there, too, so that a batch waits for nothing."""

    @property
    def samples(self) -> int:
        """How many there are to train on."""

    @property
    def shape(self) -> torch.Size:
        """Of one input."""

    @property
    def has_test(self) -> bool:
        """Whether there is a split `test`."""

    def batches(self, seeds: Sequence[int], epoch: int, size: int) -> Iterator[Tensor]:
        """The training samples of an epoch in the order of each of S seeds: numbers (S, N) that `gather` understands.

        It understands those of a batch until the next one is asked for.
        """

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        """The first of the batches of the first epoch, for a trial."""

    def gather(self, numbers: Tensor) -> Split:
        """The training samples with these numbers (N,), where the models are."""

    def held_out_batches(self, name: HeldOutSplit, size: int) -> Iterator[Split]:
        """A held-out split in parts of so many samples, where the models are."""

    def sample_validation(self, count: int | None = None) -> Split:
        """Up to `count` samples of the validation data, where the models are; None: as many as are good to look at."""

    def close(self) -> None:
        """Give back what reading it took."""


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
                _check_split(name, split)

    @property
    def home(self) -> torch.device:
        """Where the tensors lie, and the indices of samples with them."""
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
        """How many classes there are, in whichever split: the largest number and one."""
        splits = [split for split in (self.train, self.val, self.test) if split is not None]
        return max(int(targets.max()) for _, targets in splits) + 1

    def batches(self, seeds: Sequence[int], epoch: int, size: int) -> Iterator[Tensor]:
        order = permutations(seeds, epoch, self.samples, self.home)  # (S, samples)
        return iter(order[:, : usable_samples(self.samples, size)].split(size, dim=1))

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        return next(self.batches(seeds, 1, size))

    def gather(self, numbers: Tensor) -> Split:
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
        """Nothing: it took only memory."""

    def to_device(self, split: Split) -> Split:
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
            inputs, targets = (place(x, home, dtype).contiguous() for x in split)
            return inputs, targets

        test = None if self.test is None else moved(self.test)
        return Data(moved(self.train), moved(self.val), test, dtype, device, resident)


def _check_split(name: str, split: Split) -> None:
    if not (isinstance(split, tuple | list) and len(split) == 2 and all(isinstance(x, Tensor) for x in split)):
        raise InputError(
            f"data: `{name}` must be a pair of tensors (inputs, targets); what gives one sample at a time, "
            "such as a torch Dataset, goes into labbench.Datasets(train, val)"
        )
    inputs, targets = split
    if inputs.dim() == 0 or targets.dim() == 0 or not len(inputs) == len(targets) > 0:
        shapes = f"{tuple(inputs.shape)} and {tuple(targets.shape)}"
        raise InputError(f"data: inputs and targets of `{name}` must have one length, at least 1; they are {shapes}")


@cache
def load_digits() -> Data:
    """The UCI digits: inputs float32 (N, 1, 8, 8) from 0 to 1, classes 0-9; 1,257 / 270 / 270 samples."""
    with np.load(DIGITS_FILE) as file:
        inputs = torch.from_numpy(file["images"]).unsqueeze(1).to(torch.float32) / 16
        targets = torch.from_numpy(file["targets"]).to(torch.int64)
    train, val, test = split_stratified(targets, DIGITS_HELD_OUT, seed=DIGITS_SPLIT_SEED)
    return Data((inputs[train], targets[train]), (inputs[val], targets[val]), (inputs[test], targets[test]))


def split_stratified(targets: Tensor, held_out: int, *, seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Ascending indices of train, val and test: `held_out` samples each for the last two, every class in proportion."""
    val, test, train = stratified_order(targets, seed=seed).split([held_out, held_out, len(targets) - 2 * held_out])
    return train.sort().values, val.sort().values, test.sort().values


def stratified_order(targets: Tensor, *, seed: int, purpose: Purpose = Purpose.SPLIT) -> Tensor:
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
