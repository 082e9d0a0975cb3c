"""Order of the training samples in an epoch: a permutation, or the indices of a task's torch `Sampler`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.train.host_copies import to_device
from labbench.train.rng import Purpose, generator_seed, permutations, seeded_generators


class IndexSampler(Protocol):
    """A torch `Sampler` of single indices, or a similar object."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[int]: ...


def epoch_order(
    sampler: IndexSampler | None, samples: int, seeds: Sequence[int], epoch: int, device: torch.device
) -> Tensor:
    """Return the indices of an epoch's samples for S seeds, shape (S, K), int64.

    Without a sampler, K is `samples`. The sampler is iterated once for each seed; random generators are seeded by the
    seed and the epoch. A method `set_epoch` is called before, as for torch's `DistributedSampler`.

    Raises:
        InputError: The sampler yields anything but `len(sampler)` indices of the `samples` samples, or its order
            depends on how often it was iterated.
    """
    if sampler is None:
        return permutations(seeds, epoch, samples, device)
    orders = {seed: _draw(sampler, samples, seed, epoch) for seed in dict.fromkeys(seeds)}
    return to_device(torch.stack([orders[seed] for seed in seeds]), device)


def check_sampler(sampler: IndexSampler | None) -> None:
    """Check that a sampler can be used for any seed and epoch.

    Raises:
        InputError: The sampler has no length, is empty, or has a random generator of its own.
    """
    if sampler is None:
        return
    if not (hasattr(sampler, "__len__") and hasattr(sampler, "__iter__")) or len(sampler) == 0:
        raise InputError(f"data: `sampler` must be a torch Sampler with a length of at least 1, not {sampler!r}")
    if getattr(sampler, "generator", None) is not None:
        raise InputError(
            "data: `sampler` has a random generator of its own, so that its order would depend on the runs before; "
            "leave out `generator`: labbench seeds the sampler by the run's seed and the epoch"
        )


def _iterate(sampler: IndexSampler, seed: int, epoch: int) -> list[int]:
    with seeded_generators(generator_seed(seed, Purpose.SAMPLER, epoch)):
        return list(sampler)


def _plain_state(sampler: IndexSampler) -> dict[str, object]:
    """Return the attributes of a sampler that are numbers, texts or None, by name."""
    attributes = getattr(sampler, "__dict__", {})
    return {name: value for name, value in attributes.items() if value is None or isinstance(value, int | float | str)}


def _draw(sampler: IndexSampler, samples: int, seed: int, epoch: int) -> Tensor:
    if hasattr(sampler, "set_epoch"):
        sampler.set_epoch(epoch)
    before = _plain_state(sampler)
    indices = _iterate(sampler, seed, epoch)
    changed = [name for name, value in _plain_state(sampler).items() if before.get(name) != value]
    if changed and _iterate(sampler, seed, epoch) != indices:
        raise InputError(
            f"data: `sampler` changes `self.{changed[0]}` while it is iterated, so that its order would depend on the "
            "runs before: define set_epoch(epoch), which labbench calls before each epoch"
        )
    try:
        order = torch.tensor(indices, dtype=torch.int64)  # (K,)
    except (TypeError, ValueError, RuntimeError):
        order = torch.empty(0)
    if order.dim() != 1 or len(order) != len(sampler):
        raise InputError(f"data: `sampler` must yield {len(sampler)} single indices; a BatchSampler is not supported")
    if int(order.min()) < 0 or int(order.max()) >= samples:
        raise InputError(
            f"data: `sampler` yields indices from {int(order.min())} to {int(order.max())}, but `train` has {samples} "
            "samples"
        )
    return order
