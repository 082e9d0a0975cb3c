"""Data read sample by sample on demand: a task's `Dataset`s, behind torch's `DataLoader`.

The order of the samples and the random numbers drawn for a sample depend on the run's seed, the epoch and the sample
only, not on the process that reads the sample. Runs with the same seed share the samples that are read.
"""

from __future__ import annotations

import signal
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Sampler, default_collate

from labbench.errors import InputError, SampleError
from labbench.train.data.dataset import HOST, Split, SplitName, usable_samples
from labbench.train.data.samples import concatenate, count_samples, list_tensors, map_tensors, sample_problem
from labbench.train.data.sampling import IndexSampler, check_sampler, epoch_order
from labbench.train.failures import error_location
from labbench.train.host_copies import to_device
from labbench.train.precision import trained_dtype
from labbench.train.rng import Purpose, generator_seeds, seed_all, seeded_generators

VALIDATION_SAMPLES = 256
"""Default number of validation samples for diagnostics; small, since reading each takes time."""


class MapDataset(Protocol):
    """Map-style torch `Dataset`, or a similar object.

    It has a length and indexed samples (inputs, target).
    """

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Any: ...


@dataclass(frozen=True)
class Datasets:
    """Data read on demand: `train`, and optionally `val` and `test`.

    A task returns it instead of `Data`. A sample is a pair (inputs, target) of tensors, arrays or numbers, or of tuples
    or dicts of them; class targets are integers. Random numbers that `__getitem__` draws from torch, numpy or Python
    depend on the run's seed and the epoch in `train`, and are always the same in `val` and `test`. A generator owned by
    the dataset is not seeded.

    Raises:
        InputError: If a split is an IterableDataset, lacks `__len__` or `__getitem__`, or is empty.
    """

    train: MapDataset
    val: MapDataset | None = None
    test: MapDataset | None = None
    collate_fn: Callable[[list[Any]], Any] | None = None
    """Function from a list of N samples to the batch (inputs, targets); default: torch's `default_collate`."""
    sampler: IndexSampler | None = None
    """torch Sampler of the training samples of an epoch; default: each once, in random order."""

    def __post_init__(self) -> None:
        for name, split in self.splits().items():
            if isinstance(split, IterableDataset):
                raise InputError(
                    f"data: `{name}` is an IterableDataset, which determines its own order; use a Dataset with __len__ "
                    "and __getitem__, so that each run can read the samples in the order of its seed"
                )
            if isinstance(split, DataLoader):
                raise InputError(
                    f"data: `{name}` is a DataLoader: pass its dataset; labbench forms the batches itself, as the "
                    "parameter batch_size says"
                )
            if not (hasattr(split, "__len__") and hasattr(split, "__getitem__")):
                raise InputError(f"data: `{name}` must be a Dataset with __len__ and __getitem__, not {split!r}")
            if len(split) == 0:
                raise InputError(f"data: `{name}` has no samples")

        check_sampler(self.sampler)

    def splits(self) -> dict[str, MapDataset]:
        """Return the splits by name, without missing ones."""
        splits = {"train": self.train, "val": self.val, "test": self.test}
        return {name: split for name, split in splits.items() if split is not None}


@dataclass(frozen=True)
class ReadRequest:
    """Samples of a split to read, with a seed of the random generators for each."""

    split: str
    indices: list[int]
    generator_seeds: list[int]


@dataclass(frozen=True)
class ReadFailure:
    """Error of a read request as text, since an exception may not be picklable."""

    message: str
    traceback: str


class SampleReader:
    """Reader of the samples of requests, in a worker process or in this one."""

    def __init__(self, splits: Mapping[str, MapDataset], collate_fn: Callable[[list[Any]], Any] | None = None) -> None:
        self.splits, self._collate_fn = splits, collate_fn

    def __getitem__(self, request: ReadRequest) -> Split | ReadFailure:
        samples = []
        # this process may be the one that trains: the block restores its generators
        with seeded_generators(request.generator_seeds[0]):
            for index, generator_seed in zip(request.indices, request.generator_seeds, strict=True):
                seed_all(generator_seed)
                try:
                    samples.append(self.splits[request.split][index])
                except (Exception, SystemExit) as error:  # a user's code may raise anything
                    message = f"sample {index} of `{request.split}` cannot be read: {error_location(error)}"
                    return ReadFailure(message, traceback.format_exc())
        if self._collate_fn is not None:
            return self._collate(self._collate_fn, samples, request)
        problem = sample_problem(samples[0], self.splits[request.split])
        if problem is not None:
            return ReadFailure(f"samples of `{request.split}` must be pairs (inputs, target): {problem}", "")
        try:
            inputs, targets = default_collate(samples)
            kinds = {type(leaf).__name__ for leaf in list_tensors((inputs, targets)) if not isinstance(leaf, Tensor)}
            if kinds:
                remedy = " (replace texts by numbers, such as the numbers of classes)" if "str" in kinds else ""
                raise TypeError(f"they contain {' and '.join(sorted(kinds))}{remedy}")
        except (TypeError, ValueError, RuntimeError) as error:
            message = (
                f"samples of `{request.split}` must be pairs (inputs, target) of tensors, arrays or numbers, or of "
                f"tuples or dicts of them, all of the same shape: {error}; for others pass collate_fn to Datasets"
            )
            return ReadFailure(message, traceback.format_exc())
        return inputs, targets

    def _collate(
        self, collate_fn: Callable[[list[Any]], Any], samples: list[Any], request: ReadRequest
    ) -> Split | ReadFailure:
        """Return the batch of the user's `collate_fn`, which draws the random numbers of the batch's first sample."""
        seed_all(request.generator_seeds[0])
        try:
            batch = collate_fn(samples)
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            return ReadFailure(f"collate_fn fails: {error_location(error)}", traceback.format_exc())
        leaves = list(list_tensors(batch)) if isinstance(batch, tuple | list) and len(batch) == 2 else [None]
        if not all(isinstance(leaf, Tensor) and leaf.dim() and len(leaf) == len(samples) for leaf in leaves):
            return ReadFailure(
                f"collate_fn must return a pair (inputs, targets) of tensors of shape ({len(samples)}, ...), or of "
                f"tuples or dicts of them: one row for each of the {len(samples)} samples",
                "",
            )
        return batch[0], batch[1]


class _RequestSampler(Sampler[ReadRequest]):
    """Sampler of the requests of the loader's next pass."""

    requests: Iterable[ReadRequest] = ()

    def __iter__(self) -> Iterator[ReadRequest]:
        return iter(self.requests)


class DatasetSource:
    """Datasets for models on `device`, read by `loaders` processes.

    With 0 loaders this process reads the samples. The samples of a batch are read with one request per seed, and held
    until the next batch is requested.
    """

    resident = False
    is_ragged: bool
    """True if batches may differ in shape."""

    def __init__(self, datasets: Datasets, device: torch.device, dtype: torch.dtype, loaders: int) -> None:
        self.device, self.dtype = device, dtype
        self._reader, self._loaders = SampleReader(datasets.splits(), datasets.collate_fn), loaders
        self._sampler = datasets.sampler
        self.is_ragged = datasets.collate_fn is not None
        self._pass, self._loader = _RequestSampler(), None  # type: tuple[_RequestSampler, DataLoader[Any] | None]
        self._batch: Split
        self._validation_samples: dict[int, Split] = {}

    @property
    def samples(self) -> int:
        return len(self._reader.splits["train"] if self._sampler is None else self._sampler)

    @property
    def shape(self) -> tuple[torch.Size, ...]:
        return tuple(tensor.shape[1:] for tensor in list_tensors(self.sample_validation(1)[0]))

    @property
    def has_validation(self) -> bool:
        return "val" in self._reader.splits

    @property
    def has_test(self) -> bool:
        return "test" in self._reader.splits

    def batches(self, seeds: Sequence[int], epoch: int, size: int) -> Iterator[Tensor]:
        """Read an epoch's batches; yield the numbers of each for `gather`, shape (S, N)."""
        distinct, rows = _unique_seeds(seeds)
        order, samples = self._order(distinct, epoch), usable_samples(self.samples, size)
        steps = [order[:, start : min(start + size, samples)] for start in range(0, samples, size)]
        requests = (
            _training_request(seed, indices, epoch)
            for step in steps
            for seed, indices in zip(distinct, step.tolist(), strict=True)
        )
        read = self._read(requests, ahead=len(distinct))
        for _ in steps:
            yield self._set_batch([next(read) for _ in distinct], rows)

    def first_batch(self, seeds: Sequence[int], size: int) -> Tensor:
        """Read the first batch of the first epoch in this process.

        Return its rows for `gather`, shape (S, N).
        """
        distinct, rows = _unique_seeds(seeds)
        order = self._order(distinct, 1)[:, :size].tolist()
        requests = [_training_request(seed, indices, 1) for seed, indices in zip(distinct, order, strict=True)]
        return self._set_batch([self._read_here(request) for request in requests], rows)

    def gather(self, numbers: Tensor) -> Split:
        """Return the samples of the current batch with these numbers, shape (N,), on `device`."""
        inputs, targets = (map_tensors(lambda x: x.index_select(0, numbers), part) for part in self._batch)
        return inputs, targets

    def evaluation_batches(self, name: SplitName, size: int) -> Iterator[Split]:
        indices = range(len(self._reader.splits[name]))
        return self._read(self._evaluation_request(name, indices[start : start + size]) for start in indices[::size])

    def sample_validation(self, count: int | None = None) -> Split:
        """Return samples spread evenly over the validation data; cached.

        The data may be sorted by class.
        """
        name = "val" if self.has_validation else "train"
        length = len(self._reader.splits[name])
        count = min(count or VALIDATION_SAMPLES, length)
        if count not in self._validation_samples:
            indices = torch.linspace(0, length - 1, count).long().tolist()
            self._validation_samples[count] = self._read_here(self._evaluation_request(name, indices))
        return self._validation_samples[count]

    def close(self) -> None:
        """End the loader processes by dropping the last reference to them."""
        self._loader = None

    def _set_batch(self, parts: list[Split], rows: list[int]) -> Tensor:
        """Hold the samples of each seed as the current batch.

        Return the numbers of each run's samples, (S, N).
        """
        self._batch = concatenate(parts)
        count = count_samples(parts[0][1])
        first = to_device(torch.tensor(rows), self.device)[:, None] * count  # (S, 1)
        return first + torch.arange(count, device=self.device)

    def _order(self, seeds: Sequence[int], epoch: int) -> NDArray[np.int64]:
        """Return the indices of an epoch's samples, shape (S, samples)."""
        return epoch_order(self._sampler, len(self._reader.splits["train"]), seeds, epoch, HOST).numpy()

    def _evaluation_request(self, name: str, indices: Sequence[int]) -> ReadRequest:
        return ReadRequest(name, list(indices), generator_seeds(0, Purpose.AUGMENTATION, indices))

    def _read_here(self, request: ReadRequest) -> Split:
        """Read the samples of a request in this process."""
        return self._to_device(self._reader[request])

    def _read(self, requests: Iterable[ReadRequest], *, ahead: int = 1) -> Iterator[Split]:
        """Yield the samples of the requests in order.

        Workers read up to about `ahead` requests in advance.
        """
        if self._loader is None:
            self._loader = self._new_loader(ahead)
        self._pass.requests = requests
        for answer in self._loader:
            yield self._to_device(answer)

    def _new_loader(self, ahead: int) -> DataLoader[Any]:
        worker_options: dict[str, Any] = {}
        if self._loaders:
            # forked: a spawned process could not import classes from a user's file, and a fork shares memory
            worker_options = {
                "multiprocessing_context": "fork",
                "persistent_workers": True,
                "prefetch_factor": max(2, -(-ahead // self._loaders)),
                "worker_init_fn": _ignore_signals,
            }
        return DataLoader(
            self._reader,  # type: ignore[arg-type]  # torch types the index of a Dataset as an integer
            batch_size=None,  # a request is a whole batch
            sampler=self._pass,
            collate_fn=_identity,
            num_workers=self._loaders,
            pin_memory=self.device.type == "cuda",
            generator=torch.Generator(),  # else it would draw from the global generator, which a model may use
            **worker_options,
        )

    def _to_device(self, answer: Split | ReadFailure) -> Split:
        """Return the samples on `device` in the training dtype.

        Raises SampleError if they could not be read.
        """
        if isinstance(answer, ReadFailure):
            raise SampleError(answer.message) from RuntimeError(answer.traceback)
        inputs, targets = (map_tensors(self._place, part) for part in answer)
        return inputs, targets

    def _place(self, tensor: Tensor) -> Tensor:
        tensor = to_device(tensor, self.device)
        return tensor.to(trained_dtype(tensor.dtype, self.dtype))


def _unique_seeds(seeds: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return the distinct seeds, and the index of each run's seed."""
    distinct = list(dict.fromkeys(seeds))
    return distinct, [distinct.index(seed) for seed in seeds]


def _training_request(seed: int, indices: list[int], epoch: int) -> ReadRequest:
    return ReadRequest("train", indices, generator_seeds(seed, Purpose.AUGMENTATION, indices, layer=epoch))


def _identity(answer: Any) -> Any:
    return answer


def _ignore_signals(loader: int) -> None:
    """Ignore Ctrl-C and hang-up, which reach all processes of a terminal.

    The training process ends its loaders.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
