"""Synthetic data sets, small enough to see what a network does with them.

All draws are counter-based (`labbench.train.rng`), so that the data is the same on every machine and for every run.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import TypeAlias

import torch
from torch import Tensor

from labbench.train.data.dataset import Data, Split, split_stratified
from labbench.train.rng import Purpose, keys, normal, uniform, words

SPLIT_SIZES = (1000, 500, 500)
"""Samples of train, val and test, except for `flowers`."""
FLOWER_SAMPLES = 150
FLOWERS_HELD_OUT = 30
HIDDEN_WEIGHTS = (7, -5, 3, -3, 1, 1, -1, 5, -7, 3, -1)
"""Weights of the inputs in the rule of `separable`: an odd number of odd weights, so that no vote is a tie."""
TOPICS = 4
COMMON_WORDS, TOPIC_WORDS = 600, 100
"""Words common to all texts, and words per topic."""
VOCABULARY = COMMON_WORDS + TOPICS * TOPIC_WORDS
TOPIC_SHARE = 0.15
"""Expected share of topic words in a text."""

SplitMaker: TypeAlias = Callable[["RandomDraws", int], Split]


class RandomDraws:
    """Random numbers for one split of a data set.

    Each call draws new ones.
    """

    def __init__(self, split: int) -> None:
        self._split, self._calls = split, 0

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1), float64, of the given shape."""
        return uniform(self._words(math.prod(shape))).view(shape)

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, float64, of the given shape."""
        return normal(self._words(2 * math.prod(shape))).view(shape)

    def _words(self, count: int) -> Tensor:
        self._calls += 1
        device = torch.device("cpu")
        key = keys([0], Purpose.SYNTHETIC_DATA, layer=self._split, steps=[self._calls], device=device)[0, 0]
        return words(key, count)


@cache
def make_toy(name: str, noise: float | None) -> Data:
    """Return the data set `name`: inputs float32 (N, F), classes int64 (N,).

    `noise` is the standard deviation of normal noise added to the inputs; None for the default of the data set.
    """
    make, default_noise = TOYS[name]
    deviation = default_noise if noise is None else noise

    def split(number: int, size: int) -> Split:
        draws = RandomDraws(number)
        inputs, classes = make(draws, size)
        return (inputs + deviation * draws.normal(*inputs.shape)).to(torch.float32), classes

    if name == "flowers":
        inputs, classes = split(0, FLOWER_SAMPLES)
        parts = split_stratified(classes, FLOWERS_HELD_OUT, seed=0)
        train, val, test = ((inputs[part], classes[part]) for part in parts)
    else:
        train, val, test = (split(number, size) for number, size in enumerate(SPLIT_SIZES))
    return Data(train, val, test)


def alternating_classes(count: int, classes: int = 2) -> Tensor:
    """Return the classes 0, 1, ..., 0, 1, ...: int64, shape (count,)."""
    return torch.arange(count) % classes


def moons(draws: RandomDraws, count: int) -> Split:
    """Two interleaved half circles of radius 1."""
    classes = alternating_classes(count)
    angle = math.pi * draws.uniform(count)
    upper = torch.stack([angle.cos(), angle.sin()], dim=1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], dim=1)
    return upper.where(classes[:, None] == 0, lower), classes


def spirals(draws: RandomDraws, count: int) -> Split:
    """Two interleaved spirals of one and a half turns, from radius 0.1 to 1."""
    classes = alternating_classes(count)
    along = draws.uniform(count).sqrt()  # as dense at the outer end as at the inner one
    angle = 3 * math.pi * along + math.pi * classes
    radius = 0.1 + 0.9 * along
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), classes


def xor(draws: RandomDraws, count: int) -> Split:
    """Corners of the unit square; class 1 if the coordinates differ.

    No line separates the classes.
    """
    corner = alternating_classes(count, 4)
    first, second = corner % 2, corner // 2
    return torch.stack([first, second], dim=1).to(torch.float64), first ^ second


def logical_and(draws: RandomDraws, count: int) -> Split:
    """Corners of the unit square; class 1 if both coordinates are 1.

    A line separates the classes.
    """
    inputs, _ = xor(draws, count)
    return inputs, inputs.prod(dim=1).to(torch.int64)


def separable(draws: RandomDraws, count: int) -> Split:
    """Eleven inputs of 0 or 1.

    The class is a weighted majority vote, so a hyperplane separates the classes.
    """
    votes = torch.tensor(HIDDEN_WEIGHTS, dtype=torch.float64)
    inputs = (draws.uniform(count, len(votes)) < 0.5).to(torch.float64)
    return inputs, ((2 * inputs - 1) @ votes > 0).to(torch.int64)


def flowers(draws: RandomDraws, count: int) -> Split:
    """Four lengths in centimetres of three made-up species of flower.

    One species is separate, two overlap.
    """
    classes = alternating_classes(count, 3)
    means = torch.tensor([[5.0, 3.4, 1.5, 0.25], [5.9, 2.8, 4.3, 1.3], [6.6, 3.0, 5.5, 2.0]], dtype=torch.float64)
    deviations = torch.tensor([[0.35, 0.35, 0.2, 0.1], [0.5, 0.3, 0.45, 0.2], [0.6, 0.3, 0.55, 0.27]])
    size = draws.normal(count, 1)  # common to all lengths of a flower, which are thus correlated
    residual = draws.normal(count, 4)
    lengths = means[classes] + deviations[classes] * (0.7 * size + math.sqrt(0.51) * residual)
    return lengths.clamp(min=0.1), classes


TOYS: dict[str, tuple[SplitMaker, float]] = {
    "moons": (moons, 0.1),
    "spirals": (spirals, 0.03),
    "xor": (xor, 0.1),
    "and": (logical_and, 0.1),
    "separable": (separable, 0.0),
    "flowers": (flowers, 0.0),
}
"""Generating function and default noise of each data set, by name."""


@cache
def make_texts(length: int, rarity: float) -> Data:
    """Return texts of `length` words on four topics.

    Inputs are word numbers below VOCABULARY, int64 (N, length). The probability of the n-th common word, and of the
    n-th word of a topic, is proportional to n ** -rarity (Zipf).
    """

    def split(number: int, size: int) -> Split:
        draws = RandomDraws(number)
        topics = alternating_classes(size, TOPICS)
        common = draw_zipf_ranks(draws.uniform(size, length), COMMON_WORDS, rarity)
        ranks = draw_zipf_ranks(draws.uniform(size, length), TOPIC_WORDS, rarity)
        topic_words = COMMON_WORDS + TOPIC_WORDS * topics[:, None] + ranks
        return topic_words.where(draws.uniform(size, length) < TOPIC_SHARE, common), topics

    train, val, test = (split(number, size) for number, size in enumerate(SPLIT_SIZES))
    return Data(train, val, test)


def draw_zipf_ranks(chances: Tensor, count: int, rarity: float) -> Tensor:
    """Map uniform draws (...) to Zipf ranks below `count`, same shape, int64.

    P(n) is proportional to (n + 1) ** -rarity. The method is inversion of the cumulative distribution.
    """
    weights = torch.arange(1, count + 1, dtype=torch.float64) ** -rarity
    limits = (weights / weights.sum()).cumsum(0)
    return torch.searchsorted(limits, chances).clamp(max=count - 1)
