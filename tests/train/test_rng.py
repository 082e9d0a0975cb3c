"""Streams of random numbers: pinned values, independence of device and neighbours, statistical tests."""

from __future__ import annotations

import random

import pytest

torch = pytest.importorskip("torch")

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers.cuda import needs_cuda
from helpers.training import CPU
from labbench.train.rng import (
    Purpose,
    generator_seed,
    keys,
    permutations,
    seeded_generators,
    seeded_torch_generator,
    words,
)


def reference_words(seed: int, purpose: int, layer: int, step: int, count: int) -> list[int]:
    """The same stream in Python integers, written from the description alone."""

    def mix(word: int) -> int:
        word ^= word >> 16
        word = word * 0x85EBCA6B & 0xFFFFFFFF
        word ^= word >> 13
        word = word * 0xC2B2AE35 & 0xFFFFFFFF
        return word ^ word >> 16

    key = []
    for word in (0x243F6A88, 0x85A308D3):
        for value in (seed, purpose, layer, step):
            word = mix(((word + 0x9E3779B9) & 0xFFFFFFFF) ^ value)
        key.append(word)
    start, increment = key[0], key[1] | 1
    unsigned = [mix((start + i * increment) & 0xFFFFFFFF) for i in range(count)]
    return [word - 2**32 if word >= 2**31 else word for word in unsigned]


@pytest.mark.parametrize(
    ("seed", "purpose", "layer", "step", "expected"),
    [
        (0, Purpose.WEIGHTS, 0, 0, [-1639186012, -1910227375, 1561293177, -1050974387, -930788817]),
        (1, Purpose.DROPOUT, 3, 1000, [1201456579, -1301516150, 53136090, 795076905, 1673333918]),
        (2**31 - 1, Purpose.ORDER, 0, 2**31 - 1, [1615954819, -841981592, 2090997230, 1286109206, -1310186257]),
    ],
)
def test_words_never_change_between_releases(
    seed: int, purpose: Purpose, layer: int, step: int, expected: list[int]
) -> None:
    """Recorded curves depend on these numbers: never change an expected value here."""
    key = keys([seed], purpose, layer=layer, steps=[step], device=CPU)[0, 0]
    assert words(key, 5).tolist() == expected


def test_orders_and_generator_seeds_never_change_between_releases() -> None:
    assert permutations([0, 7], 1, 10, CPU).tolist() == [[9, 6, 5, 4, 0, 7, 2, 3, 1, 8], [6, 4, 5, 3, 0, 9, 7, 1, 8, 2]]
    assert generator_seed(0, Purpose.WEIGHTS) == 11201914610701892245
    assert generator_seed(5, Purpose.GENERATOR, 3) == 11981317671416381675


@settings(max_examples=50, deadline=None)
@given(
    seed=st.integers(0, 2**31 - 1),
    purpose=st.sampled_from(Purpose),
    layer=st.integers(0, 2**20),
    step=st.integers(0, 2**31 - 1),
    count=st.integers(1, 40),
)
def test_words_are_exact_integer_arithmetic(seed: int, purpose: Purpose, layer: int, step: int, count: int) -> None:
    key = keys([seed], purpose, layer=layer, steps=[step], device=CPU)[0, 0]
    assert words(key, count).tolist() == reference_words(seed, purpose, layer, step, count)


def test_a_seed_has_the_same_streams_alone_and_among_others() -> None:
    together = words(keys([3, 1, 4], Purpose.DROPOUT, layer=2, steps=range(5, 9), device=CPU), 100)
    for row, seed in enumerate([3, 1, 4]):
        for column, step in enumerate(range(5, 9)):
            alone = words(keys([seed], Purpose.DROPOUT, layer=2, steps=[step], device=CPU), 100)
            assert torch.equal(together[row, column], alone[0, 0])
    assert torch.equal(permutations([3, 1, 4], 2, 50, CPU)[1], permutations([1], 2, 50, CPU)[0])


def test_fewer_words_are_a_prefix_of_more() -> None:
    key = keys([0], Purpose.DROPOUT, steps=[0], device=CPU)
    assert torch.equal(words(key, 1000)[..., :77], words(key, 77))


@needs_cuda
def test_words_and_orders_do_not_depend_on_the_device() -> None:
    cuda = torch.device("cuda")
    for seeds in ([0], [5, 6, 7]):
        on_cpu, on_gpu = (keys(seeds, Purpose.ORDER, steps=range(9), device=device) for device in (CPU, cuda))
        assert torch.equal(words(on_cpu, 999), words(on_gpu, 999).cpu())
        assert torch.equal(permutations(seeds, 3, 1257, CPU), permutations(seeds, 3, 1257, cuda).cpu())


def uniform(key: torch.Tensor, count: int) -> torch.Tensor:
    """Return 16-bit draws of streams as numbers from -1 to 1 with variance 1/3."""
    return words(key, count).view(torch.int16).to(torch.float64) / 32768


def z_scores_of_correlation(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """Return the correlation of each pair of streams (..., count) in standard errors."""
    return 3 * (left * right).mean(dim=-1) * left.shape[-1] ** 0.5


def test_every_bit_of_a_word_is_set_half_the_time() -> None:
    drawn = words(keys(range(20), Purpose.DROPOUT, steps=range(20), device=CPU), 1024)
    for bit in range(32):
        share = ((drawn >> bit) & 1).double().mean().item()
        assert abs(share - 0.5) * 2 * drawn.numel() ** 0.5 < 5


def test_streams_are_uncorrelated_across_seeds_steps_layers_and_purposes() -> None:
    """The z-scores of thousands of pairs have the spread of a normal distribution and no outlier."""
    drawn = uniform(keys(range(30), Purpose.DROPOUT, steps=range(30), device=CPU), 512)  # (seeds, steps, draws)
    layer = uniform(keys(range(30), Purpose.DROPOUT, layer=1, steps=range(30), device=CPU), 512)
    order = uniform(keys(range(30), Purpose.ORDER, steps=range(30), device=CPU), 512)
    pairs = {
        "seeds": (drawn[1:], drawn[:-1]),
        "steps": (drawn[:, 1:], drawn[:, :-1]),
        "seed and step exchanged": (drawn, drawn.transpose(0, 1)),
        "layers": (drawn, layer),
        "purposes": (drawn, order),
        "neighbours": (drawn[..., 1:], drawn[..., :-1]),
        "words": (drawn[..., 2:], drawn[..., :-2]),
    }
    for name, (left, right) in pairs.items():
        scores = z_scores_of_correlation(left, right)
        if name == "seed and step exchanged":
            scores = scores[torch.triu(torch.ones(30, 30), 1).bool()]
        assert scores.abs().max() < 5, name
        assert 0.85 < scores.std() < 1.15, name


def test_permutations_are_uniformly_distributed() -> None:
    orders = torch.cat([permutations(range(1000), epoch, 20, CPU) for epoch in range(1, 11)])  # (10000, 20)
    assert torch.equal(orders.sort(dim=1).values, torch.arange(20).expand(10_000, 20))
    counts = torch.stack([row.bincount(minlength=20) for row in orders.T]).double()  # of each sample at each position
    chi_square = ((counts - 500) ** 2 / 500).sum().item()
    assert abs(chi_square - 361) / (2 * 361) ** 0.5 < 5


def test_each_epoch_and_seed_has_its_own_order() -> None:
    orders = [tuple(permutations([seed], epoch, 100, CPU)[0].tolist()) for seed in range(5) for epoch in range(1, 6)]
    assert len(set(orders)) == 25


def test_generators_are_seeded_inside_the_block_and_restored_afterwards() -> None:
    def draw() -> tuple[float, float, float]:
        return torch.rand(1).item(), float(np.random.rand()), random.random()

    with seeded_generators(1):
        first = draw()
    draw()
    before = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]
    with seeded_generators(1):
        assert draw() == first
    after = torch.get_rng_state(), np.random.get_state()[1].tolist(), random.getstate()  # type: ignore[union-attr]
    assert torch.equal(before[0], after[0])
    assert before[1:] == after[1:]


def test_seeding_queues_no_calls_for_cuda() -> None:
    """torch.manual_seed queues a call with its stack trace each time: a leak in a long training without CUDA."""
    from torch.cuda import _queued_calls

    before = len(_queued_calls)
    for _ in range(3):
        with seeded_torch_generator(1, CPU):
            torch.rand(1)
    assert len(_queued_calls) == before
