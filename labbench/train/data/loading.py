"""Data that is read sample by sample as it is needed: a task's own `Dataset`s, behind torch's `DataLoader`.

The order of samples is labbench's own, and so is the state of the random generators in which each is read: a function
of the run's seed, the epoch and the sample, not of the process that reads it. Runs of one seed share what is read.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler, default_collate

from labbench.errors import InputError, SampleError
from labbench.train.data.dataset import HOST, HeldOutSplit, Split, usable_samples
from labbench.train.dtypes import trained_dtype
from labbench.train.rng import Purpose, generator_seeds, permutations, seed_all, seeded_generators
from labbench.train.user_errors import error_location

VALIDATION_SAMPLES = 256
"""Samples for a look at the validation data where nobody says how many: each takes its time to read."""


class MapDataset(Protocol):
    """A torch `Dataset` of the map style, or anything else with a length and numbered samples (inputs, target)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Datasets:
    """What a task gives in place of `Data`: `train` and `val`, and `test` where there is one, read as they are needed.

    A sample is a pair (inputs, target) of tensors, arrays or numbers; classes are integers. What `__getitem__` draws
    from the generators of torch, numpy or Python differs by the run's seed and the epoch in `train`, and is always the
    same in the others. A generator of the dataset's own is not seeded.
    """

    train: MapDataset
    val: MapDataset
    test: MapDataset | None = None

    def __post_init__(self) -> None:
        for name, given in self.splits().items():
            if isinstance(given, IterableDataset):
                raise InputError(
                    f"data: `{name}` is an IterableDataset, whose order is its own: give a Dataset with __len__ and "
                    "__getitem__, of which each run can take the samples in the order of its seed"
                )
            if not (hasattr(given, "__len__") and hasattr(given, "__getitem__")):
                raise InputError(f"data: `{name}` must be a Dataset with __len__ and __getitem__, not {given!r}")
            if len(given) == 0:
                raise InputError(f"data: `{name}` has no samples")

    def splits(self) -> dict[str, MapDataset]:
        given = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in given.items() if split is not None}


@dataclass(frozen=True)
class ReadRequest:
    """Some samples of a split, and for each the state of the generators in which it is read."""

    split: str
    indices: list[int]
    generator_seeds: list[int]


@dataclass(frozen=True)
class ReadFailure:
    """Why a request could not be answered, and the whole story: an error may not be fit to leave its process."""

    message: str
    traceback: str


class SampleReader:
    """Answers requests, in whichever process."""

    def __init__(self, splits: Mapping[str, MapDataset]) -> None:
        self.splits = splits

    def __getitem__(self, request: ReadRequest) -> Split | ReadFailure:
        samples = []
        with seeded_generators(
            request.generator_seeds[0]
        ):  # which are as they were afterwards, if that is the training's
            for index, generator in zip(request.indices, request.generator_seeds, strict=True):
                seed_all(generator)
                try:
                    samples.append(self.splits[request.split][index])
                except (Exception, SystemExit) as error:  # a user's code may raise anything
                    message = f"sample {index} of `{request.split}` cannot be read: {error_location(error)}"
                    return ReadFailure(message, traceback.format_exc())
        try:
            inputs, targets = default_collate(samples)
            if not (isinstance(inputs, Tensor) and isinstance(targets, Tensor)):
                raise TypeError(f"inputs are {type(inputs).__name__}, targets {type(targets).__name__}")
        except (TypeError, ValueError, RuntimeError) as error:
            message = f"samples of `{request.split}` must be pairs (inputs, target) of tensors, arrays or numbers, "
            return ReadFailure(f"{message}all of one shape: {error}", traceback.format_exc())
        return inputs, targets


class _RequestSampler(Sampler[ReadRequest]):
    """What the loader reads when it is next gone through."""

    requests: Iterable[ReadRequest] = ()

    def __iter__(self) -> Iterator[ReadRequest]:
        return iter(self.requests)


class DatasetSource:
    """Datasets for models on `device`, read by `loaders` processes beside this one, or by this one where that is 0.

    Of a batch every seed's samples are one request; they are held until the next batch is asked for.
    """

    resident = False

    def __init__(self, datasets: Datasets, device: torch.device, dtype: torch.dtype, loaders: int) -> None:
        self.device, self.dtype = device, dtype
        self._reader, self._loaders = SampleReader(datasets.splits()), loaders
        self._pass, self._loader = _RequestSampler(), None  # type: tuple[_RequestSampler, DataLoader[Any] | None]
        self._batch: Split
        self._validation_samples: dict[int, Split] = {}

    @property
    def samples(self) -> int:
        return len(self._reader.splits["train"])

    @property
    def shape(self) -> torch.Size:
        return self.sample_validation(1)[0].shape[1:]

    @property
    def has_test(self) -> bool:
        return "test" in self._reader.splits

    def batches(self, seeds: Sequence[int], epoch: int, size: int) -> Iterator[Tensor]:
        distinct, rows = _unique_seeds(seeds)
        order = permutations(distinct, epoch, self.samples, HOST)[:, : usable_samples(self.samples, size)]
        steps = order.split(size, dim=1)
        requests = (
            _training_request(*one, epoch) for step in steps for one in zip(distinct, step.tolist(), strict=True)
        )
        read = self._read(requests, ahead=len(distinct))
        for _ in steps:
            yield self._set_batch([next(read) for _ in distinct], rows)

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        distinct, rows = _unique_seeds(seeds)
        order = permutations(distinct, 1, self.samples, HOST)[:, :size].tolist()
        return self._set_batch(
            [self._read_here(_training_request(*one, 1)) for one in zip(distinct, order, strict=True)], rows
        )

    def gather(self, numbers: Tensor) -> Split:
        inputs, targets = (part.index_select(0, numbers) for part in self._batch)
        return inputs, targets

    def held_out_batches(self, name: HeldOutSplit, size: int) -> Iterator[Split]:
        indices = range(len(self._reader.splits[name]))
        return self._read(self._held_out_request(name, indices[start : start + size]) for start in indices[::size])

    def sample_validation(self, count: int | None = None) -> Split:
        """Spread evenly over the validation data, which may be sorted by class; read once."""
        count = min(count or VALIDATION_SAMPLES, len(self._reader.splits["val"]))
        if count not in self._validation_samples:
            indices = torch.linspace(0, len(self._reader.splits["val"]) - 1, count).long().tolist()
            self._validation_samples[count] = self._read_here(self._held_out_request("val", indices))
        return self._validation_samples[count]

    def close(self) -> None:
        self._loader = None  # its processes end with the last reference to it

    def _set_batch(self, parts: list[Split], rows: list[int]) -> Tensor:
        """Keep what was read for each seed; which of it is each run's: (S, N)."""
        self._batch = torch.cat([inputs for inputs, _ in parts]), torch.cat([targets for _, targets in parts])
        count = len(parts[0][1])
        return torch.tensor(rows, device=self.device)[:, None] * count + torch.arange(count, device=self.device)

    def _held_out_request(self, name: HeldOutSplit, indices: Sequence[int]) -> ReadRequest:
        return ReadRequest(name, list(indices), generator_seeds(0, Purpose.AUGMENTATION, indices))

    def _read_here(self, request: ReadRequest) -> Split:
        """What is asked for, read by this process."""
        return self._to_device(self._reader[request])

    def _read(self, requests: Iterable[ReadRequest], *, ahead: int = 1) -> Iterator[Split]:
        """The answers to the requests in their order, some `ahead` of which are made while they are not yet needed."""
        if self._loader is None:
            self._loader = self._new_loader(ahead)
        self._pass.requests = requests
        for answer in self._loader:
            yield self._to_device(answer)

    def _new_loader(self, ahead: int) -> DataLoader[Any]:
        apart: dict[str, Any] = {}
        if self._loaders:
            # forked, since a class of a user's file can be imported by nobody else; that takes no memory for a copy
            apart = {
                "multiprocessing_context": "fork",
                "persistent_workers": True,
                "prefetch_factor": max(2, -(-ahead // self._loaders)),
                "worker_init_fn": _ignore_signals,
            }
        return DataLoader(
            self._reader,  # type: ignore[arg-type]  # torch's type of a Dataset knows of integers alone
            batch_size=None,  # a request is a batch
            sampler=self._pass,
            collate_fn=_identity,
            num_workers=self._loaders,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from the one that a model may draw from
            **apart,
        )

    def _to_device(self, answer: Split | ReadFailure) -> Split:
        """What was read, where the models are, floating-point numbers in their type."""
        if isinstance(answer, ReadFailure):
            raise SampleError(answer.message) from RuntimeError(answer.traceback)
        inputs, targets = (part.to(self.device, non_blocking=True) for part in answer)
        return self._cast(inputs), self._cast(targets)

    def _cast(self, part: Tensor) -> Tensor:
        return part.to(trained_dtype(part.dtype, self.dtype))


def _unique_seeds(seeds: Sequence[int]) -> tuple[list[int], list[int]]:
    """Each seed once, and for each run where its own is."""
    distinct = list(dict.fromkeys(seeds))
    return distinct, [distinct.index(seed) for seed in seeds]


def _training_request(seed: int, indices: list[int], epoch: int) -> ReadRequest:
    return ReadRequest("train", indices, generator_seeds(seed, Purpose.AUGMENTATION, indices, layer=epoch))


def _identity(answer: Any) -> Any:
    return answer


def _ignore_signals(loader: int) -> None:
    """Ctrl-C and a hang-up reach all processes of a terminal; the training decides, and its end is that of these."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
