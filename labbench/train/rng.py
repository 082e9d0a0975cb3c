"""Random numbers as a pure function of (seed, purpose, layer, step): the same alone, stacked, resumed, on every device.

A key of two 32-bit words names a stream. Its words are murmur3's finaliser over a Weyl sequence that starts at the
first word of the key and goes on by the second, which is odd (a SplitMix of 32 bits). int32 arithmetic wraps around
exactly, in numpy (for the few keys) as in torch (for the many words), so a word does not depend on device, thread or
shape. What comes out is pinned by tests and part of every recorded curve: it never changes.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import IntEnum
from typing import TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Int32s: TypeAlias = NDArray[np.int32]
Words = TypeVar("Words", Tensor, Int32s)


class Purpose(IntEnum):
    """What a stream is for. The numbers are part of the streams: add, never renumber."""

    WEIGHTS = 0
    ORDER = 1
    DROPOUT = 2
    GENERATOR = 3
    """The generators during an epoch (layer 0) and during the test (layer 1), for a forward that draws from them."""
    DATA = 4
    """The generators while a task makes its data: the same for every seed."""
    SPLIT = 5
    SUBSET = 6
    """Which training samples stay when a config asks for fewer."""
    LABEL_NOISE = 7
    LABEL_ORDER = 8
    """Where each label goes when they are shuffled."""
    INPUT_NOISE = 9
    INPUT_SPARSITY = 10
    SYNTHETIC_DATA = 11
    """Data that the project makes itself."""
    PRETRAINING = 12
    """Weights of a network that learns something before the run begins."""
    AUGMENTATION = 13
    """The generators while a sample of a `Dataset` is read: the layer is the epoch, the step the sample."""


CPU = torch.device("cpu")

INITIAL_KEY = (0x243F6A88, -0x7A5CF72D)
"""Where the two words of a key begin: the digits of pi, 0x243F6A88 and 0x85A308D3."""
GOLDEN = -0x61C88647
"""0x9E3779B9 as int32, so that zeros fold to something."""


def keys(
    seeds: Sequence[int], purpose: Purpose, *, layer: int = 0, steps: Sequence[int], device: torch.device
) -> Tensor:
    """The keys of the streams of S seeds at T steps: int32 (S, T, 2), the second word odd."""
    words = _fold(np.array(INITIAL_KEY, dtype=np.int32), np.array(seeds, dtype=np.int32)[:, None])  # (S, 2)
    words = _fold(_fold(words, int(purpose)), layer)
    words = _fold(words[:, None], np.array(steps, dtype=np.int32)[:, None])  # (S, T, 2)
    words[..., 1] |= 1
    return torch.from_numpy(words).to(device)


def words(keys: Tensor, count: int) -> Tensor:
    """The first `count` words of each stream: int32 (..., 2) -> (..., count). Fewer words are a prefix of more."""
    if keys.device.type == "cpu":
        return torch.from_numpy(words_at(keys.numpy(), np.arange(count, dtype=np.uint32)))
    sequence = torch.arange(count, dtype=torch.int32, device=keys.device) * keys[..., 1:]
    sequence += keys[..., :1]
    return _mix_(sequence)


def words_at(keys: Int32s, places: NDArray[np.uint32]) -> Int32s:
    """The words at these places (n,) of each stream, on the CPU: (..., 2) -> (..., n).

    In unsigned numbers, which torch cannot shift: no masks, and one buffer, are half the time.
    """
    unsigned = keys.view(np.uint32)
    words = places * unsigned[..., 1:]
    words += unsigned[..., :1]
    shifted = np.empty_like(words)
    for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
        np.right_shift(words, np.uint32(shift), out=shifted)
        words ^= shifted
        if factor != 1:
            words *= np.uint32(factor)
    return words.view(np.int32)


def uniform(words: Tensor) -> Tensor:
    """Words as numbers from 0 to below 1: float64, the same shape."""
    return (words.to(torch.int64) & 0xFFFFFFFF).to(torch.float64) / 2**32


def normal(words: Tensor) -> Tensor:
    """Standard normal numbers, float64 (..., n) from words (..., 2 * n): Box and Muller's cosine."""
    first, second = uniform(words).chunk(2, dim=-1)
    return (-2 * torch.log1p(-first)).sqrt() * (2 * torch.pi * second).cos()


def permutations(seeds: Sequence[int], epoch: int, size: int, device: torch.device) -> Tensor:
    """The order of data in an epoch, one row a seed: int64 (S, size). Equal hashes keep their order."""
    drawn = words(keys(seeds, Purpose.ORDER, steps=[epoch], device=device)[:, 0], size)
    return drawn.argsort(dim=1, stable=True)


def generator_seed(seed: int, purpose: Purpose, step: int = 0) -> int:
    """A seed of 64 bits for a generator that is not ours."""
    return generator_seeds(seed, purpose, [step])[0]


def generator_seeds(seed: int, purpose: Purpose, steps: Sequence[int], *, layer: int = 0) -> list[int]:
    """The same for each of these steps."""
    drawn = keys([seed], purpose, layer=layer, steps=steps, device=torch.device("cpu"))[0].tolist()
    return [(high & 0xFFFFFFFF) << 32 | (low & 0xFFFFFFFF) for high, low in drawn]


@contextmanager
def seeded_torch_generator(seed: int, device: torch.device) -> Iterator[None]:
    """torch's generators, of the CPU and of the current `device`, seeded inside; afterwards as they were."""
    on_cpu = device.type == "cpu"
    with torch.random.fork_rng([] if on_cpu else [device], device_type="cuda" if on_cpu else device.type):
        torch.default_generator.manual_seed(seed)  # torch.manual_seed also queues a call for CUDA, for ever
        if not on_cpu:
            torch.get_device_module(device).manual_seed(seed)
        yield


@contextmanager
def seeded_generators(seed: int, device: torch.device = CPU) -> Iterator[None]:
    """Seed the generators of torch (of the CPU and of `device`), numpy and Python inside; restore them afterwards."""
    numpy_state, python_state = np.random.get_state(), random.getstate()
    try:
        with seeded_torch_generator(seed, device):
            seed_all(seed)
            yield
    finally:
        np.random.set_state(numpy_state)
        random.setstate(python_state)


def generator_states() -> tuple[object, ...]:
    """Return what tells whether torch (CPU), numpy or Python has drawn a number in between."""
    _, words, place, *gauss = np.random.get_state()
    return torch.get_rng_state().numpy().tobytes(), (np.asarray(words).tobytes(), place, gauss), random.getstate()


def seed_all(seed: int) -> None:
    """Seed the generators of torch (CPU), numpy and Python."""
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed & 0xFFFFFFFF)
    random.seed(seed)


def _fold(words: Int32s, value: Int32s | int) -> Int32s:
    return _mix_((words + np.int32(GOLDEN)) ^ value)


def _mix_(words: Words) -> Words:
    """murmur3's finaliser, in place. `>>` copies the sign of an int32, hence the masks."""
    words ^= (words >> 16) & 0xFFFF
    words *= -0x7A143595  # 0x85EBCA6B
    words ^= (words >> 13) & 0x7FFFF
    words *= -0x3D4D51CB  # 0xC2B2AE35
    words ^= (words >> 16) & 0xFFFF
    return words
