"""Check that a stack is equivalent to the loop.

One plain gradient step of some runs, in float64, is compared run by run. The check finds what a stack cannot do: a
forward that draws random numbers or keeps state outside its tensors, a buffer that the module assigns instead of
changing it in place, a loss that mixes samples, bfloat16 that does not reach the operations inside vmap. Differences
that depend on the data of later steps are not found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor, nn

from labbench.errors import is_out_of_memory
from labbench.records import Config
from labbench.train.checkpoint_header import describe_variable
from labbench.train.data.dataset import Data
from labbench.train.data.samples import count_samples
from labbench.train.engine.module_state import Attributes
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.failures import error_summary
from labbench.train.grouping.float64_mode import Float64Mode
from labbench.train.grouping.work_counter import WorkCounter
from labbench.train.host_copies import SyncPoint, sync_point
from labbench.train.precision import Precision
from labbench.train.rng import Purpose, generator_seed, generator_states, seeded_generators
from labbench.train.tasks.task import FileTask, make_model

CHECKED_RUNS = 3
"""Maximum number of runs in the check."""
CHECKED_SAMPLES = 16
"""Maximum number of samples per run in the check."""
SHARED_VARIABLE = (
    "its model(config) sets a variable outside of self and of the model, such as a global one, on which the results "
    "depend: loss(self, outputs, targets, config) can read the config instead"
)
RELATIVE_TOLERANCE = 1e-9
"""Tolerance relative to the largest absolute value of a tensor."""

MAX_BF16_SHORTFALL = 0.02
"""Fraction of the work that a stack may do in float32 although the loop does it in bfloat16."""

PLAIN_SGD = {
    "optimizer": "sgd",
    "lr": 1.0,
    "momentum": 0.0,
    "weight_decay": 0.0,
    "clip": None,
    "schedule": "constant",
    "warmup": 0,
    "ema_decay": None,
}
"""Settings with which the change of the parameters is the negative gradient."""


def find_mismatch(
    engine: str, models: Sequence[nn.Module], configs: Sequence[Config], workload: Workload
) -> str | None:
    """Return the reason why these models cannot be stacked, or None."""
    for name, parameter in models[0].named_parameters():
        if parameter.is_complex():
            return f"its {name} is complex"
    indices = sorted({0, len(models) // 2, len(models) - 1})[:CHECKED_RUNS]
    chosen = [models[i] for i in indices], [configs[i] for i in indices]
    try:
        with Float64Mode():
            reason = compare_with_loop(engine, *chosen, workload)
            if reason is not None and not compare_with_loop(engine, *chosen, workload, makes_models=False):
                reason = SHARED_VARIABLE
        return reason or check_bf16(engine, models[0], configs[0], workload)
    except Exception as error:  # a user's forward or loss may raise anything, and torch.func may reject it
        if is_out_of_memory(error):
            raise
        return error_summary(error)


def compare_with_loop(
    engine: str,
    models: Sequence[nn.Module],
    configs: Sequence[Config],
    workload: Workload,
    *,
    makes_models: bool = True,
) -> str | None:
    """Return the first difference between a step of a stack and single steps, or None.

    With `makes_models`, the task makes each run's model again before its single step, as before its training in the
    loop: `model(config)` may set variables that its loss or a forward read.
    """
    data, batch = sample_batch(workload, [config["seed"] for config in configs])
    sample = Workload(workload.task, data, batch.shape[1], fixed=PLAIN_SGD, gpu_layers=workload.uses_gpu_layers)
    expected: list[dict[str, Tensor]] = []
    for row, (model, config) in enumerate(zip(models, configs, strict=True)):
        if makes_models and isinstance(workload.task, FileTask):
            make_model(workload.task, config)
        loop = SingleStepper(copy.deepcopy(model), config, sample, StepCounter())
        with seeded_generators(generator_seed(config["seed"], Purpose.GENERATOR, 1)):
            states_before = generator_states()
            expected += collect_results(loop, batch[row : row + 1])
            if loop.sparse:
                return f"the gradient of its {loop.sparse[0]} is sparse"
            if states_before != generator_states():
                return "its forward draws random numbers"
        if names := find_stateful_attributes(loop, partial(copy.deepcopy, model), batch[row : row + 1]):
            return f"{', '.join(map(describe_variable, names))} carries state from one step to the next"
    members = list(map(StackMember.from_model, models, configs))
    results = collect_results(StackedStepper(engine, copy.deepcopy(models[0]), members, sample, StepCounter()), batch)
    for loop_values, stack_values in zip(expected, results, strict=True):
        for name, value in loop_values.items():
            if name not in stack_values or not is_equal_to_rounding(value, stack_values[name]):
                return f"its {name} is different in a stack"
    return None


def check_bf16(engine: str, model: nn.Module, config: Config, workload: Workload) -> str | None:
    """Return the reason if a stack in bfloat16 does less work in bfloat16 than the loop.

    Results are not compared, but an operation may fail or stay in float32.
    """
    if not workload.precision.bf16:
        return None
    data, batch = sample_batch(workload, [config["seed"]] * 2)
    sample = Workload(
        workload.task, data.to(batch.device, torch.float32), batch.shape[1], Precision(bf16=True), fixed=PLAIN_SGD
    )
    members = [StackMember.from_model(model, config)] * 2
    stack = StackedStepper(engine, copy.deepcopy(model), members, sample, StepCounter())
    return find_bf16_shortfall(stack, SingleStepper(copy.deepcopy(model), config, sample, StepCounter()), batch)


def sample_batch(workload: Workload, seeds: Sequence[int]) -> tuple[Data, Tensor]:
    """Return the first samples of each seed, in float64 on the CPU.

    Also returns the indices of each run's samples, shape (S, N), int64.
    """
    count = min(CHECKED_SAMPLES, workload.batch_size, workload.samples_per_epoch)
    first = workload.data.first_batch(seeds, count)
    (inputs, targets), validation = workload.data.gather(first.flatten()), workload.data.sample_validation(count)
    with sync_point(SyncPoint.SETUP):
        data = Data((inputs, targets), validation).to(torch.device("cpu"), torch.float64)
    return data, torch.arange(count_samples(inputs)).view(first.shape)


def collect_results(stepper: Stepper, batch: Tensor) -> list[dict[str, Tensor]]:
    """Do a step with `batch` (S, N) and return its results for each run.

    Results are losses and metrics (N,) of the step and of an evaluation afterwards, and the changes of all tensors (of
    any shape).
    """
    stepper.train(True)
    before = [stepper.state(index) for index in range(len(batch))]
    trained = stepper.step(batch)
    stepper.train(False)
    evaluated = stepper.evaluate(stepper.data.sample_validation())
    results = []
    for index, start in enumerate(before):
        after = stepper.state(index).tensors
        run_results = {f"tensor {name}": tensor - start.tensors.get(name, 0) for name, tensor in after.items()}
        for phase, (losses, metrics) in (("training", trained), ("evaluation", evaluated)):
            run_results[f"{phase} loss"] = losses[index]
            run_results |= {f"{phase} {name}": values[index] for name, values in metrics.items()}
        results.append(run_results)
    return results


def find_stateful_attributes(loop: SingleStepper, make_model: Callable[[], nn.Module], batch: Tensor) -> list[str]:
    """Return the module attributes that carry state between steps.

    `loop` has done one step; the next one is done with and without the attributes. A tensor that is only stored for
    inspection carries no state: the next step, with `batch` of shape (1, N), is the same without it.
    """
    state = loop.state(0)
    trees = state.attributes.trees
    if state.attributes.lost or any(not isinstance(tree, dict) or tree["is"] != "tensor" for tree in trees.values()):
        return state.attributes.changed
    if not trees:
        return []
    results = []
    for attributes in (state.attributes, Attributes()):
        resumed = SingleStepper(make_model(), loop.config, loop.workload, StepCounter(loop.step_counter.step))
        resumed.load([replace(state, attributes=attributes)])
        try:
            results += collect_results(resumed, batch)
        except Exception:  # the forward fails without its attribute
            return state.attributes.changed
    with_attributes, without = results
    is_unchanged = all(is_equal_to_rounding(value, without[name]) for name, value in with_attributes.items())
    return [] if is_unchanged else state.attributes.changed


def find_bf16_shortfall(stack: StackedStepper, loop: SingleStepper, batch: Tensor) -> str | None:
    """Return the reason if a stack does less work in bfloat16 than the loop.

    `batch` has shape (S, N).
    """
    fractions = []
    for stepper, samples in ((stack, batch), (loop, batch[:1])):
        with WorkCounter() as work:
            collect_results(stepper, samples)
        fractions.append(work.bf16_flops / max(1, work.flops))
    if fractions[0] > fractions[1] - MAX_BF16_SHORTFALL:
        return None
    return f"bfloat16 reaches {fractions[0]:.0%} of its work in a stack, {fractions[1]:.0%} alone"


def is_equal_to_rounding(first: Tensor, second: Tensor) -> bool:
    """Return True if two tensors agree up to rounding.

    Tensors of different shapes do not agree. The tolerance is `RELATIVE_TOLERANCE`, and NaN equals NaN.
    """
    if first.shape != second.shape:
        return False
    first, second = first.double(), second.double()
    largest = first.abs().nan_to_num(0, 0, 0).max().item() if first.numel() else 0.0
    return torch.allclose(
        first, second, rtol=RELATIVE_TOLERANCE, atol=RELATIVE_TOLERANCE * max(1.0, largest), equal_nan=True
    )
