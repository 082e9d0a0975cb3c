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
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper
from labbench.train.engine.stepper import Stepper, Workload, initial_state
from labbench.train.grouping.work_counter import WorkCounter
from labbench.train.precision import Precision
from labbench.train.rng import Purpose, generator_seed, generator_states, seeded_generators

CHECKED_RUNS = 3
CHECKED_SAMPLES = 16
RELATIVE_TOLERANCE = 1e-9
"""Relative to the largest number of a tensor."""

BF16_SHARE = 0.02
"""Share of the work that a stack may leave to float32 where a run alone does it in bfloat16."""

PLAIN_SGD = {
    "optimizer": "sgd",
    "lr": 1.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "clip": None,
    "schedule": "constant",
    "warmup": 0,
}
"""With this optimizer the change of the parameters is the gradient."""


def find_mismatch(
    engine: str, models: Sequence[nn.Module], configs: Sequence[Config], workload: Workload
) -> str | None:
    """Why these models cannot step together in that engine, or None where they can."""
    for name, parameter in models[0].named_parameters():
        if parameter.is_complex():
            return f"its {name} is complex"
    chosen = sorted({0, len(models) // 2, len(models) - 1})[:CHECKED_RUNS]
    some = [configs[index] for index in chosen]
    data, batch = sample_batch(workload, [config["seed"] for config in some])
    sample = Workload(workload.task, data, batch.shape[1], fixed=PLAIN_SGD)
    expected: list[dict[str, Tensor]] = []
    for row, (index, config) in enumerate(zip(chosen, some, strict=True)):
        alone = SingleStepper(copy.deepcopy(models[index]), config, sample, StepCounter())
        with seeded_generators(generator_seed(config["seed"], Purpose.GENERATOR, 1)):
            before = generator_states()
            expected += collect_results(alone, batch[row : row + 1])
            if alone.sparse:
                return f"the gradient of its {alone.sparse[0]} is sparse"
            if before != generator_states():
                return "its forward draws random numbers"
        if names := carried_attributes(alone, partial(copy.deepcopy, models[index]), batch[row : row + 1]):
            return f"{', '.join(f'self.{name}' for name in names)} carries state from one step to the next"

    def stack(workload: Workload) -> StackedStepper:
        model, probabilities = copy.deepcopy(models[chosen[0]]), [dropout_probabilities(models[i]) for i in chosen]
        return StackedStepper(
            engine, model, probabilities, [initial_state(models[i]) for i in chosen], some, workload, StepCounter()
        )

    try:
        results = collect_results(stack(sample), batch)
        if workload.precision.bf16:  # its numbers are nobody's, but something may refuse it
            rounded = replace(sample, data=data.to(batch.device, torch.float32), precision=Precision(bf16=True))
            if reason := unreached(
                stack(rounded), SingleStepper(copy.deepcopy(models[chosen[0]]), some[0], rounded, StepCounter()), batch
            ):
                return reason
    except Exception as error:  # torch.func may refuse a user's forward or loss in any way
        return f"{type(error).__name__}: {error}".splitlines()[0]
    for alone_numbers, together_numbers in zip(expected, results, strict=True):
        for name, value in alone_numbers.items():
            if name not in together_numbers or not is_equal_to_rounding(value, together_numbers[name]):
                return f"its {name} comes out differently"
    return None


def sample_batch(workload: Workload, seeds: Sequence[int]) -> tuple[Data, Tensor]:
    """The samples of the first batch of each seed, in float64 on the CPU, and where each finds its own: (S, N)."""
    count = min(CHECKED_SAMPLES, workload.batch_size, workload.samples_per_epoch)
    first = workload.data.first_batch(seeds, count)
    (inputs, targets), validation = workload.data.gather(first.flatten()), workload.data.sample_validation(count)
    data = Data((inputs, targets), validation).to(torch.device("cpu"), torch.float64)
    return data, torch.arange(len(inputs)).view(first.shape)


def collect_results(stepper: Stepper, batch: Tensor) -> list[dict[str, Tensor]]:
    """Of each run what one step measures, the tensors after it, and what is measured of them afterwards."""
    stepper.train(True)
    before = [stepper.state(index) for index in range(len(batch))]
    trained = stepper.step(batch)
    stepper.train(False)
    evaluated = stepper.evaluate(stepper.data.sample_validation())
    numbers = []
    for index, start in enumerate(before):
        after = stepper.state(index).tensors
        found = {f"tensor {name}": tensor - start.tensors.get(name, 0) for name, tensor in after.items()}
        for when, (losses, metrics) in (("training", trained), ("evaluation", evaluated)):
            found[f"{when} loss"] = losses[index]
            found |= {f"{when} {name}": values[index] for name, values in metrics.items()}
        numbers.append(found)
    return numbers


def carried_attributes(alone: SingleStepper, new: Callable[[], nn.Module], batch: Tensor) -> list[str]:
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
        again = SingleStepper(new(), alone.config, alone.workload, StepCounter(alone.step_counter.step))
        again.load([replace(state, attributes=attributes)])
        try:
            numbers += collect_results(again, batch)
        except Exception:  # without its attribute the forward fails
            return state.attributes.changed
    with_them, without = numbers
    same = all(is_equal_to_rounding(value, without[name]) for name, value in with_them.items())
    return [] if same else state.attributes.changed


def unreached(stack: StackedStepper, alone: SingleStepper, batch: Tensor) -> str | None:
    """Return the reason if less of a stack's work is done in bfloat16 than of a run that is trained alone."""
    shares = []
    for stepper, samples in ((stack, batch), (alone, batch[:1])):
        with WorkCounter() as work:
            collect_results(stepper, samples)
        shares.append(work.bf16_flops / max(1, work.flops))
    if shares[0] > shares[1] - BF16_SHARE:
        return None
    return f"bfloat16 reaches {shares[0]:.0%} of its work in a stack, {shares[1]:.0%} alone"


def is_equal_to_rounding(first: Tensor, second: Tensor) -> bool:
    """Whether two tensors agree to rounding, NaN with NaN."""
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    largest = first.abs().nan_to_num(0, 0, 0).max().item() if first.numel() else 0.0
    return torch.allclose(
        first, second, rtol=RELATIVE_TOLERANCE, atol=RELATIVE_TOLERANCE * max(1.0, largest), equal_nan=True
    )
