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
from labbench.train.data.dataset import Data, Split, stratified_order
from labbench.train.rng import Purpose, keys, normal, uniform, words

CHUNK_SAMPLES = 4096
"""Samples whose inputs are drawn at once."""

InputChange: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def corrupt(data: Data, config: Config) -> Data:
    """The data as a config wants it, by the parameters of `labbench.params.builtin.ALTERATIONS` that its task has.

    Which classes there are and what the inputs look like holds for all splits; fewer samples and wrong labels are for
    those trained on alone. Inputs that are bytes become numbers from 0 to 1.
    """
    if data.train[1].is_floating_point():
        reject_numeric_targets(config)
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    classes = config.get("classes")
    if classes is not None:
        class_count(config, data.classes)  # refuses what is not there
        splits = [select_classes(split, classes) for split in splits]
    numbers = [torch.arange(len(inputs)) for inputs, _ in splits]
    splits[0], numbers[0] = corrupt_training(splits[0], config)
    train, val, *test = (corrupt_inputs(split, i, numbers[i], config) for i, split in enumerate(splits))
    return Data(train, val, test[0] if test else None)


def reject_numeric_targets(config: Config) -> None:
    for key in ("classes", "label_noise"):
        if config.get(key):
            raise InputError(f"{key} is for classes, and the targets of these data are numbers")


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


def select_classes(split: Split, classes: list[int]) -> Split:
    """The samples of these classes, which are numbered anew in the order given."""
    inputs, targets = split
    number = torch.full((max(int(targets.max()), *classes) + 1,), -1)
    number[classes] = torch.arange(len(classes))
    kept = number[targets] >= 0
    return inputs[kept], number[targets[kept]]


def corrupt_training(split: Split, config: Config) -> tuple[Split, Tensor]:
    """Labels replaced or shuffled among all samples, then a subset, classes in proportion; and its indices."""
    inputs, targets = split
    labels = targets
    noise, size = config.get("label_noise"), config.get("train_size")
    if noise:
        labels = corrupt_labels(labels, noise, int(labels.max()) + 1)
    if config.get("random_labels"):
        labels = labels[draw_words(Purpose.LABEL_ORDER, len(labels)).argsort(stable=True)]
    if size is None:
        return (inputs, labels), torch.arange(len(labels))
    if size > len(inputs):
        raise InputError(f"train_size = {size}: there are {len(inputs)} training samples")
    classes = torch.zeros_like(targets, dtype=torch.int64) if targets.is_floating_point() else targets
    kept = stratified_order(classes, seed=0, purpose=Purpose.SUBSET)[:size].sort().values
    return (inputs[kept], labels[kept]), kept


def corrupt_inputs(split: Split, which: int, numbers: Tensor, config: Config) -> Split:
    """Noise first, then zeros, so that sparse inputs stay sparse. `numbers` are the samples' own."""
    inputs, targets = split
    deviation: float = config.get("input_noise") or 0.0
    sparsity: float = config.get("input_sparsity") or 0.0
    if inputs.dtype == torch.uint8:
        inputs = inputs.to(torch.float32) / 255
    if deviation:

        def noisy(values: Tensor, words: Tensor) -> Tensor:
            return values + deviation * normal(words).to(values.dtype)

        inputs = apply_randomly(inputs, numbers, Purpose.INPUT_NOISE, which, 2, noisy)
    if sparsity:

        def sparse(values: Tensor, words: Tensor) -> Tensor:
            return values.where(uniform(words) >= sparsity, 0)

        inputs = apply_randomly(inputs, numbers, Purpose.INPUT_SPARSITY, which, 1, sparse)
    return inputs, targets


def apply_randomly(
    inputs: Tensor, numbers: Tensor, purpose: Purpose, which: int, words_a_value: int, change: InputChange
) -> Tensor:
    """Inputs changed chunk by chunk, with the words of each sample's own stream: change((n, values), (n, words))."""
    flat = inputs.flatten(1)
    parts = []
    for part, steps in zip(flat.split(CHUNK_SAMPLES), numbers.split(CHUNK_SAMPLES), strict=True):
        streams = keys([0], purpose, layer=which, steps=steps.tolist(), device=inputs.device)[0]  # (n, 2)
        parts.append(change(part, words(streams, words_a_value * flat.shape[1])))
    return torch.cat(parts).view_as(inputs)


def corrupt_labels(labels: Tensor, share: float, classes: int) -> Tensor:
    """Each label with probability `share` replaced by one of the other classes."""
    chance, which = uniform(draw_words(Purpose.LABEL_NOISE, 2 * len(labels))).chunk(2)
    other = (labels + 1 + (which * (classes - 1)).to(labels.dtype)) % classes
    return other.where(chance < share, labels)


def draw_words(purpose: Purpose, count: int) -> Tensor:
    return words(keys([0], purpose, steps=[0], device=torch.device("cpu"))[0, 0], count)
