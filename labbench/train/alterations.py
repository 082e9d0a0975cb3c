"""What a config may do to a task's data: fewer samples or classes, wrong labels, noisy or sparse inputs.

A draw is a function of the sample's number, so that all runs see the same data, a smaller subset lies within each
larger one, and more noise makes wrong what less noise did, and more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
from torch import Tensor

from labbench.errors import InputError
from labbench.records import Config
from labbench.train.data import Data, Split, in_proportion
from labbench.train.random import Purpose, keys, normal, uniform, words

CHUNK = 4096
"""Samples whose inputs are drawn at once."""

Change: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def altered(data: Data, config: Config) -> Data:
    """The data as a config wants it, by the parameters of `labbench.catalogue.ALTERATIONS` that its task has.

    Which classes there are and what the inputs look like holds for all splits; fewer samples and wrong labels are for
    those trained on alone.
    """
    splits = [data.train, data.val, data.test]
    classes = config.get("classes")
    if classes is not None:
        class_count(config, int(data.train[1].max()) + 1)  # refuses what is not there
        splits = [split and only_classes(split, classes) for split in splits]
    splits = [split and altered_inputs(split, number, config) for number, split in enumerate(splits)]
    train, val, test = splits
    assert train is not None
    assert val is not None
    return Data(altered_training(train, config), val, test)


def class_count(config: Config, classes: int) -> int:
    """How many classes a config leaves of so many. Raises InputError where it names one that is not there."""
    wanted = config.get("classes")
    if wanted is None:
        return classes
    for label in wanted:
        if label >= classes:
            raise InputError(f"classes: there is no class {label}; they are 0 to {classes - 1}")
    if len(set(wanted)) < max(2, len(wanted)):
        raise InputError(f"classes = {wanted}: name at least two, each once")
    return len(wanted)


def only_classes(split: Split, classes: list[int]) -> Split:
    """The samples of these classes, which are numbered anew in the order given."""
    inputs, targets = split
    number = torch.full((max(int(targets.max()), *classes) + 1,), -1)
    number[classes] = torch.arange(len(classes))
    kept = number[targets] >= 0
    return inputs[kept], number[targets[kept]]


def altered_inputs(split: Split, number: int, config: Config) -> Split:
    """Noise first, then zeros, so that sparse inputs stay sparse."""
    inputs, targets = split
    deviation, sparsity = config.get("input_noise"), config.get("input_sparsity")
    if deviation:
        inputs = drawn(inputs, Purpose.INPUT_NOISE, number, 2, lambda x, w: x + deviation * normal(w).to(x.dtype))
    if sparsity:
        inputs = drawn(inputs, Purpose.INPUT_SPARSITY, number, 1, lambda x, w: x * (uniform(w) >= sparsity))
    return inputs, targets


def drawn(inputs: Tensor, purpose: Purpose, split: int, words_a_value: int, change: Change) -> Tensor:
    """Inputs changed chunk by chunk, with the words of each sample's own stream: change((n, values), (n, words))."""
    flat = inputs.flatten(1)
    parts = []
    for start in range(0, len(flat), CHUNK):
        part = flat[start : start + CHUNK]
        steps = range(start, start + len(part))
        streams = keys([0], purpose, layer=split, steps=steps, device=inputs.device)[0]  # (n, 2)
        parts.append(change(part, words(streams, words_a_value * flat.shape[1])))
    return torch.cat(parts).view_as(inputs)


def altered_training(split: Split, config: Config) -> Split:
    """Labels replaced or shuffled among all samples, then a subset in proportion to the true classes."""
    inputs, targets = split
    labels = targets
    noise = config.get("label_noise")
    if noise:
        labels = with_wrong_labels(labels, noise)
    if config.get("random_labels"):
        labels = labels[stream(Purpose.LABEL_ORDER, len(labels)).argsort(stable=True)]
    size = config.get("train_size")
    if size is None:
        return inputs, labels
    if size > len(inputs):
        raise InputError(f"train_size = {size}: there are {len(inputs)} training samples")
    kept = in_proportion(targets, seed=0, purpose=Purpose.SUBSET)[:size].sort().values
    return inputs[kept], labels[kept]


def with_wrong_labels(labels: Tensor, share: float) -> Tensor:
    """Each label with probability `share` replaced by one of the other classes."""
    classes = int(labels.max()) + 1
    chance, which = uniform(stream(Purpose.LABEL_NOISE, 2 * len(labels))).chunk(2)
    other = (labels + 1 + (which * (classes - 1)).to(labels.dtype)) % classes
    return other.where(chance < share, labels)


def stream(purpose: Purpose, count: int) -> Tensor:
    return words(keys([0], purpose, steps=[0], device=torch.device("cpu"))[0, 0], count)
