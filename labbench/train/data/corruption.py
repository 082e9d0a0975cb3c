"""Corruption of a task's data by its config: fewer samples or classes, wrong labels, noisy or sparse inputs.

Random draws are functions of the sample's index: all runs see the same data, a smaller subset is contained in every
larger one, and a higher noise level also changes all labels or inputs that a lower level changes.
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
"""Number of samples whose random numbers are drawn at once."""

InputChange: TypeAlias = Callable[[Tensor, Tensor], Tensor]


def corrupt(data: Data, config: Config) -> Data:
    """Return the data corrupted by the parameters `labbench.params.builtin.CORRUPTION` that the config has.

    The choice of classes and the changes of inputs apply to all splits, fewer samples and wrong labels to the training
    split only. Inputs of bytes become float32 in [0, 1].

    Raises:
        InputError: If the config does not fit the data: it names a missing class or more samples than there are.
    """
    if data.train[1].is_floating_point():
        reject_numeric_targets(config)
    splits = [split for split in (data.train, data.val, data.test) if split is not None]
    classes = config.get("classes")
    if classes is not None:
        class_count(config, data.classes)  # raises for unknown classes
        splits = [select_classes(split, classes) for split in splits]
    numbers = [torch.arange(len(inputs)) for inputs, _ in splits]
    splits[0], numbers[0] = corrupt_training(splits[0], config)
    train, val, *test = (corrupt_inputs(split, i, numbers[i], config) for i, split in enumerate(splits))
    return Data(train, val, test[0] if test else None)


def reject_numeric_targets(config: Config) -> None:
    """Raise InputError if the config sets a parameter that needs class targets."""
    for key in ("classes", "label_noise"):
        if config.get(key):
            raise InputError(f"{key} needs classes as targets, but the targets of this data are numbers: remove {key}")


def class_count(config: Config, classes: int) -> int:
    """Return the number of classes that a config selects from `classes`.

    Raises:
        InputError: If the config names an unknown class, a class twice, or fewer than two classes.
    """
    labels = config.get("classes")
    if labels is None:
        return classes
    for label in labels:
        if label >= classes:
            raise InputError(f"classes: there is no class {label}; use 0 to {classes - 1}")
    if len(set(labels)) < max(2, len(labels)):
        raise InputError(f"classes = {labels}: name at least two classes, each once")
    return len(labels)


def select_classes(split: Split, classes: list[int]) -> Split:
    """Return the samples of these classes, relabeled 0, 1, ... in the order of `classes`."""
    inputs, targets = split
    number = torch.full((max(int(targets.max()), *classes) + 1,), -1)
    number[classes] = torch.arange(len(classes))
    mask = number[targets] >= 0
    return inputs[mask], number[targets[mask]]


def corrupt_training(split: Split, config: Config) -> tuple[Split, Tensor]:
    """Replace or shuffle labels (N,), then choose `train_size` samples, stratified by class.

    Returns:
        The split, and the indices of its samples in the original split, shape (train_size,).

    Raises:
        InputError: If `train_size` exceeds the number of training samples.
    """
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
        raise InputError(f"train_size = {size}: there are only {len(inputs)} training samples; use at most that many")
    classes = torch.zeros_like(targets, dtype=torch.int64) if targets.is_floating_point() else targets
    subset = stratified_order(classes, seed=0, purpose=Purpose.SUBSET)[:size].sort().values
    return (inputs[subset], labels[subset]), subset


def corrupt_inputs(split: Split, split_index: int, numbers: Tensor, config: Config) -> Split:
    """Add noise to the inputs (N, ...), then set values to zero.

    Noise comes first, so that the zeros stay zero. `numbers`, shape (N,), are the samples' indices before a subset was
    chosen; `split_index` is 0 for train, 1 for val and 2 for test.
    """
    inputs, targets = split
    deviation: float = config.get("input_noise") or 0.0
    sparsity: float = config.get("input_sparsity") or 0.0
    if inputs.dtype == torch.uint8:
        inputs = inputs.to(torch.float32) / 255
    if deviation:

        def add_noise(values: Tensor, words: Tensor) -> Tensor:
            return values + deviation * normal(words).to(values.dtype)

        inputs = apply_randomly(inputs, numbers, Purpose.INPUT_NOISE, split_index, 2, add_noise)
    if sparsity:

        def set_to_zero(values: Tensor, words: Tensor) -> Tensor:
            return values.where(uniform(words) >= sparsity, 0)

        inputs = apply_randomly(inputs, numbers, Purpose.INPUT_SPARSITY, split_index, 1, set_to_zero)
    return inputs, targets


def apply_randomly(
    inputs: Tensor, numbers: Tensor, purpose: Purpose, split_index: int, words_per_value: int, change: InputChange
) -> Tensor:
    """Apply `change` to inputs (N, ...), with random words from each sample's own stream.

    `numbers`, shape (N,), select the streams. `change` receives values (n, V) and words (n, words_per_value * V), and
    returns values (n, V).
    """
    flat = inputs.flatten(1)
    parts = []
    for part, steps in zip(flat.split(CHUNK_SAMPLES), numbers.split(CHUNK_SAMPLES), strict=True):
        streams = keys([0], purpose, layer=split_index, steps=steps.tolist(), device=inputs.device)[0]  # (n, 2)
        parts.append(change(part, words(streams, words_per_value * flat.shape[1])))
    return torch.cat(parts).view_as(inputs)


def corrupt_labels(labels: Tensor, share: float, classes: int) -> Tensor:
    """Replace each label (N,) by another class with probability `share`."""
    chance, choice = uniform(draw_words(Purpose.LABEL_NOISE, 2 * len(labels))).chunk(2)
    other = (labels + 1 + (choice * (classes - 1)).to(labels.dtype)) % classes
    return other.where(chance < share, labels)


def draw_words(purpose: Purpose, count: int) -> Tensor:
    """Return random words of the stream of `purpose`: int32, shape (count,)."""
    return words(keys([0], purpose, steps=[0], device=torch.device("cpu"))[0, 0], count)
