"""The check before runs step together: one plain gradient step of some of them, in float64, against each alone.

It finds what a stack cannot do: a forward that draws random numbers or keeps state outside its tensors, a buffer that
the module binds anew, a loss that mixes samples, bfloat16 that does not reach the operations inside vmap. What depends
on data in later steps only is not found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from labbench.records import Config
from labbench.train.data.dataset import Data
from labbench.train.engine.dropout import dropout_probabilities
from labbench.train.engine.module_state import Attributes
from labbench.train.engine.schedules import Clock
from labbench.train.engine.single import Alone
from labbench.train.engine.stacked import Together
from labbench.train.engine.stepper import Lesson, Stepper, state_of
from labbench.train.grouping.work_counter import WorkCounter
from labbench.train.precision import Arithmetic
from labbench.train.rng import Purpose, all_generators, generator_seed, generator_states

RUNS = 3
SAMPLES = 16
TOLERANCE = 1e-9
"""Relative to the largest number of a tensor."""

BF16_SHARE = 0.02
"""Share of the work that a stack may leave to float32 where a run alone does it in bfloat16."""

PLAIN = {
    "optimizer": "sgd",
    "lr": 1.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "clip": None,
    "schedule": "constant",
    "warmup": 0,
}
"""With this optimizer the change of the parameters is the gradient."""


def disagreement(way: str, models: Sequence[nn.Module], configs: Sequence[Config], lesson: Lesson) -> str | None:
    """Why these models cannot step together in that way, or None where they can."""
    for name, parameter in models[0].named_parameters():
        if parameter.is_complex():
            return f"its {name} is complex"
    chosen = sorted({0, len(models) // 2, len(models) - 1})[:RUNS]
    some = [configs[index] for index in chosen]
    data, batch = some_samples(lesson, [config["seed"] for config in some])
    sample = Lesson(lesson.task, data, batch.shape[1], fixed=PLAIN)
    expected: list[dict[str, Tensor]] = []
    for row, (index, config) in enumerate(zip(chosen, some, strict=True)):
        alone = Alone(copy.deepcopy(models[index]), config, sample, Clock())
        with all_generators(generator_seed(config["seed"], Purpose.GENERATOR, 1)):
            before = generator_states()
            expected += all_numbers(alone, batch[row : row + 1])
            if alone.sparse:
                return f"the gradient of its {alone.sparse[0]} is sparse"
            if before != generator_states():
                return "its forward draws random numbers"
        if names := carried_attributes(alone, partial(copy.deepcopy, models[index]), batch[row : row + 1]):
            return f"{', '.join(f'self.{name}' for name in names)} carries state from one step to the next"

    def stack(lesson: Lesson) -> Together:
        model, probabilities = copy.deepcopy(models[chosen[0]]), [dropout_probabilities(models[i]) for i in chosen]
        return Together(way, model, probabilities, [state_of(models[i]) for i in chosen], some, lesson, Clock())

    try:
        results = all_numbers(stack(sample), batch)
        if lesson.arithmetic.bf16:  # its numbers are nobody's, but something may refuse it
            rounded = replace(sample, data=data.to(batch.device, torch.float32), arithmetic=Arithmetic(bf16=True))
            if reason := unreached(
                stack(rounded), Alone(copy.deepcopy(models[chosen[0]]), some[0], rounded, Clock()), batch
            ):
                return reason
    except Exception as error:  # torch.func may refuse a user's forward or loss in any way
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for alone_numbers, together_numbers in zip(expected, results, strict=True):
        for name, value in alone_numbers.items():
            if name not in together_numbers or not close(value, together_numbers[name]):
                return f"its {name} comes out differently"
    return None


def some_samples(lesson: Lesson, seeds: Sequence[int]) -> tuple[Data, Tensor]:
    """The samples of the first batch of each seed, in float64 on the CPU, and where each finds its own: (S, N)."""
    count = min(SAMPLES, lesson.batch_size, lesson.samples_per_epoch)
    first = lesson.data.first(seeds, count)
    (inputs, targets), validation = lesson.data.gather(first.flatten()), lesson.data.glimpse(count)
    data = Data((inputs, targets), validation).to(torch.device("cpu"), torch.float64)
    return data, torch.arange(len(inputs)).view(first.shape)


def all_numbers(stepper: Stepper, batch: Tensor) -> list[dict[str, Tensor]]:
    """Of each run what one step measures, the tensors after it, and what is measured of them afterwards."""
    stepper.train(True)
    before = [stepper.state(index) for index in range(len(batch))]
    trained = stepper.step(batch)
    stepper.train(False)
    evaluated = stepper.evaluate(stepper.data.glimpse())
    numbers = []
    for index, start in enumerate(before):
        after = stepper.state(index).tensors
        found = {f"tensor {name}": tensor - start.tensors.get(name, 0) for name, tensor in after.items()}
        for when, (losses, metrics) in (("training", trained), ("evaluation", evaluated)):
            found[f"{when} loss"] = losses[index]
            found |= {f"{when} {name}": values[index] for name, values in metrics.items()}
        numbers.append(found)
    return numbers


def carried_attributes(alone: Alone, new: Callable[[], nn.Module], batch: Tensor) -> list[str]:
    """Return the attributes of modules that carry state from the step that `alone` has done to the next one.

    A tensor that is only kept to be looked at carries none: the next step is the same without it.
    """
    state = alone.state(0)
    trees = state.attributes.trees
    if state.attributes.lost or any(not isinstance(tree, dict) or tree["is"] != "tensor" for tree in trees.values()):
        return state.attributes.changed
    if not trees:
        return []
    numbers = []
    for attributes in (state.attributes, Attributes()):
        again = Alone(new(), alone.config, alone.lesson, Clock(alone.clock.step))
        again.load([replace(state, attributes=attributes)])
        try:
            numbers += all_numbers(again, batch)
        except Exception:  # without its attribute the forward fails
            return state.attributes.changed
    with_them, without = numbers
    same = all(close(value, without[name]) for name, value in with_them.items())
    return [] if same else state.attributes.changed


def unreached(stack: Together, alone: Alone, batch: Tensor) -> str | None:
    """Return the reason if less of a stack's work is done in bfloat16 than of a run that is trained alone."""
    shares = []
    for stepper, samples in ((stack, batch), (alone, batch[:1])):
        with WorkCounter() as work:
            all_numbers(stepper, samples)
        shares.append(work.bf16_flops / max(1, work.flops))
    if shares[0] > shares[1] - BF16_SHARE:
        return None
    return f"bfloat16 reaches {shares[0]:.0%} of its work in a stack, {shares[1]:.0%} alone"


def close(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree to rounding, NaN with NaN."""
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    largest = first.abs().nan_to_num(0, 0, 0).max().item() if first.numel() else 0.0
    return torch.allclose(first, second, rtol=TOLERANCE, atol=TOLERANCE * max(1.0, largest), equal_nan=True)
