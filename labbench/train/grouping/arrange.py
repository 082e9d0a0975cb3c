"""Arrange runs in stacks, and choose the engine of each stack.

Runs are stacked if their models have the same structure. Two models have the same structure if they differ only in the
values of their tensors and in dropout probabilities. A stack is used only if a check finds the same results as the
plain loop.
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import FunctionType
from typing import Any

import torch
from torch import nn

from labbench.errors import is_out_of_memory
from labbench.train.data.placement import free_bytes
from labbench.train.engine.cuda_graph import CudaGraphStepper
from labbench.train.engine.dropout import SPATIAL_DIMENSIONS
from labbench.train.engine.initial_weights import load_initial_weights, make_untrained_model
from labbench.train.engine.layers import is_supported
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper, StackMember
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.grouping.equivalence import find_mismatch
from labbench.train.grouping.loop_or_stack import first_batch, reason_to_loop
from labbench.train.grouping.memory import (
    PROBE_RUNS,
    estimate_width,
    halve_width_on_oom,
    limit_width,
    measure_cuda_peak,
    structure_key,
    width_limit,
    width_upper_bound,
)
from labbench.train.grouping.separation import read_traits, restore_task_attributes, split_by_traits
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import attributes_of

MAX_STACK_WIDTH = 64
"""Maximum number of runs in a stack on a CPU; on a GPU the free memory is the only limit."""


@dataclass
class ReadyStack:
    """A stack of runs with its stepper, ready to train."""

    runs: list[TrainingRun]
    stepper: Stepper
    step_counter: StepCounter
    note: str | None = None
    """Reason for a slower engine, for the log of the runs."""
    structure: Hashable = None
    """Key under which `memory.py` stores the maximum width."""


def make_stacks(runs: Sequence[TrainingRun], workload: Workload) -> Iterator[ReadyStack]:
    """Arrange runs at the same step in stacks, and yield the stacks.

    Each stack is made when the iterator reaches it.

    Raises:
        InputError: The initial weights of a run cannot be loaded.
    """
    width = max_models(runs, workload, free_bytes(workload.data.device))
    for start in range(0, len(runs), width):
        chunk = runs[start : start + width]
        if uses_loop(chunk, workload):
            yield from (make_single(run, workload) for run in chunk)
            continue
        models, traits = [], []
        for run in chunk:
            models.append(make_initial_model(run, workload))
            traits.append(read_traits(workload.task, run.config, models[-1]))
        for group in (
            group for same_structure in group_by_structure(models) for group in split_by_traits(same_structure, traits)
        ):
            indices = group.indices
            structure = structure_key(models[indices[0]], workload)
            max_runs = choose_width(structure, [chunk[i] for i in indices], [models[i] for i in indices], workload)
            for part in (indices[first : first + max_runs] for first in range(0, len(indices), max_runs)):
                restore_task_attributes(workload.task, traits[part[0]])
                for ready in stack_or_singles([chunk[i] for i in part], [models[i] for i in part], workload, structure):
                    ready.note = "\n".join(filter(None, (group.note, ready.note))) or None
                    group.note = None  # one log line is enough
                    yield ready


def uses_loop(runs: Sequence[TrainingRun], workload: Workload) -> bool:
    """Return True if the runs train one by one, without trying a stack.

    A resumed run keeps its engine; otherwise `[runtime] engine` decides, and "auto" never stacks a single run.
    """
    engine = runs[0].engine or workload.engine
    return engine == "loop" or (engine == "auto" and len(runs) == 1)


def max_models(runs: Sequence[TrainingRun], workload: Workload, free: int | None) -> int:
    """Return the number of models to make at a time.

    If the number of `free` bytes on the device is known, the result is an upper bound of the number that fits there, so
    that the host does not make models that the device cannot hold. The exact width is measured later.
    """
    if free is None or len(runs) == 1:
        return MAX_STACK_WIDTH
    return width_upper_bound(free, make_initial_model(runs[0], workload), workload.data.dtype)


def make_initial_model(run: TrainingRun, workload: Workload) -> nn.Module:
    """Return the run's model with its initial weights.

    A resumed run loads its checkpoint later.

    Raises:
        InputError: The weights of `init_from` cannot be loaded.
    """
    model = make_untrained_model(workload.task, run.config)
    if run.resume_state is None:
        run.note = load_initial_weights(model, workload, run.config)
    return model


def make_single(run: TrainingRun, workload: Workload, note: str | None = None) -> ReadyStack:
    """Return a stack of one run with the engine `loop`."""
    step_counter = StepCounter(run.metric_buffer.step)
    stepper = SingleStepper(make_initial_model(run, workload), run.config, workload, step_counter)
    if run.resume_state is not None:
        stepper.load([run.resume_state])
    return ReadyStack([run], stepper, step_counter, note)


def choose_width(structure: Hashable, runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> int:
    """Return the maximum width of a stack of these runs.

    The models of the runs must have one structure.
    """
    limit, device = width_limit(structure), workload.data.device
    if limit is None and device.type == "cuda" and len(runs) > max(PROBE_RUNS):
        free: int = torch.cuda.mem_get_info(device)[0]
        try:
            limit = estimate_width(
                free, lambda width: measure_cuda_peak(device, partial(try_step, runs[:width], models, workload))
            )
            limit_width(structure, limit)
        except Exception:  # a stack may fail for any reason: the check that follows reports it
            return len(runs)
    return min(len(runs), limit or len(runs))


def try_step(runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> None:
    """Do one update and one evaluation with copies of the runs.

    The peak memory of a stack is measured during this call.
    """
    stack = make_trial_stepper(runs, models, workload)
    stack.train(True)
    stack.step(first_batch([run.config["seed"] for run in runs], workload))
    stack.train(False)
    stack.evaluate(workload.data.sample_validation(workload.evaluation_batch_size))


def make_trial_stepper(runs: list[TrainingRun], models: list[nn.Module], workload: Workload) -> StackedStepper:
    """Return a stepper of copies of the runs.

    `models` starts with the models of the runs; further ones are ignored.
    """
    return make_stacked_stepper(
        runs, copy.deepcopy(models[: len(runs)]), workload, StepCounter(runs[0].metric_buffer.step)
    )


def make_stacked_stepper(
    runs: list[TrainingRun], models: list[nn.Module], workload: Workload, step_counter: StepCounter
) -> StackedStepper:
    """Return a stepper of the runs at their current step.

    The stepper takes ownership of the first model.
    """
    stack_members = [
        StackMember.from_model(model, run.config, run.resume_state) for run, model in zip(runs, models, strict=True)
    ]
    engine = choose_engine(runs[0], models[0], workload)
    return StackedStepper(engine, models[0], stack_members, workload, step_counter)


def choose_engine(run: TrainingRun, model: nn.Module, workload: Workload) -> str:
    """Return the engine of a stack.

    A resumed run keeps its engine; otherwise `[runtime] engine` decides. "auto" is `stacked` for a Sequential of
    supported layers and `vmap` for any other model.
    """
    engine = run.engine or workload.engine
    return ("stacked" if is_supported(model) else "vmap") if engine == "auto" else engine


def stack_or_singles(
    runs: list[TrainingRun], models: list[nn.Module], workload: Workload, structure: Hashable = None
) -> Iterator[ReadyStack]:
    """Yield runs of one structure as one stack or one by one.

    Runs train one by one if they cannot be stacked or if the loop is faster; the first of them logs the reason.
    """
    if uses_loop(runs, workload):
        yield make_single(runs[0], workload)
        return
    engine = choose_engine(runs[0], models[0], workload)
    note: str | None = None
    if engine == "stacked" and not is_supported(models[0]):
        note = 'engine = "stacked" supports a Sequential of known layers only'
    else:
        with attributes_of(workload.task).restore_after():
            note = find_mismatch(engine, models, [run.config for run in runs], workload)
    if note is not None:
        yield from make_singles(runs, workload, note)
        return
    if (runs[0].engine or workload.engine) == "auto":
        with attributes_of(workload.task).restore_after():
            note = reason_to_loop(engine, runs, workload)
        if note is not None:
            yield from make_singles(runs, workload, note)
            return
    step_counter = StepCounter(runs[0].metric_buffer.step)
    try:
        stack = make_stacked_stepper(runs, models, workload, step_counter)
    except Exception as error:
        halve_width_on_oom(error, structure, len(runs))
        raise
    try:
        stepper, note = try_cuda_graph(stack, workload)
    except Exception as error:
        halve_width_on_oom(error, structure, len(runs))
        raise
    yield ReadyStack(runs, stepper, step_counter, note, structure)


def try_cuda_graph(stack: StackedStepper, workload: Workload) -> tuple[Stepper, str | None]:
    """Return the stack with a CUDA graph, if possible.

    Otherwise the stack itself, with the reason if a capture failed.
    """
    if not can_capture(workload):
        return stack, None
    try:
        stack.train(True)
        stepper = CudaGraphStepper(stack, workload.batch_size)
        stepper.capture()
        return stepper, None
    except Exception as error:  # a user's forward may synchronize with the device, which a capture forbids
        if is_out_of_memory(error):
            raise
        return stack, f"stepped without a CUDA graph, because {type(error).__name__}: {error}".splitlines()[0]


def can_capture(workload: Workload) -> bool:
    """Return True if a CUDA graph can do the steps of the workload.

    A graph needs CUDA, data on the device, no compilation and at least one full batch per epoch.
    """
    on_cuda = workload.data.device.type == "cuda" and workload.data.resident
    return on_cuda and not workload.precision.compiles and workload.batch_size <= workload.samples_per_epoch


def make_singles(runs: Sequence[TrainingRun], workload: Workload, note: str) -> Iterator[ReadyStack]:
    """Yield each run as a stack of one run.

    The first has the reason as its note.
    """
    for number, run in enumerate(runs):
        yield make_single(run, workload, None if number else f"trained alone, because {note}")


def group_by_structure(models: Sequence[nn.Module]) -> list[list[int]]:
    """Return the indices of the models in groups of one structure.

    Groups are ordered by their first model.
    """
    groups: list[list[int]] = []
    for index, model in enumerate(models):
        for group in groups:
            if is_same_structure(models[group[0]], model):
                group.append(index)
                break
        else:
            groups.append([index])
    return groups


def is_same_structure(first: nn.Module, second: nn.Module) -> bool:
    """Return True if two models have the same structure.

    Modules and settings are equal, and tensors have equal shapes and dtypes.
    """
    modules, others = dict(first.named_modules()), dict(second.named_modules())
    return (
        modules.keys() == others.keys()
        and all(_has_same_settings(modules[name], others[name]) for name in modules)
        and _tensor_specs(first) == _tensor_specs(second)
    )


def _tensor_specs(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype, bool]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors]


TENSORS_AND_CHILDREN = ("_parameters", "_buffers", "_modules")


def _has_same_settings(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not type(second):
        return False
    ignored = (*TENSORS_AND_CHILDREN, "p") if type(first) in SPATIAL_DIMENSIONS else TENSORS_AND_CHILDREN
    settings, others = ({k: v for k, v in vars(module).items() if k not in ignored} for module in (first, second))
    return settings.keys() == others.keys() and all(_is_equal(settings[name], others[name]) for name in settings)


def _is_equal(first: Any, second: Any) -> bool:
    """Return True if two plain values are equal.

    Other objects, such as unregistered tensors, are never equal.
    """
    if isinstance(first, FunctionType | type | torch.dtype | torch.device):
        return first is second or first == second
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple | set | frozenset):
        pairs = zip(_sort_set(first), _sort_set(second), strict=False)
        return len(first) == len(second) and all(_is_equal(item, other) for item, other in pairs)
    return isinstance(first, int | float | str | bytes | None | complex) and bool(first == second)


def _sort_set(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=repr) if isinstance(values, set | frozenset) else list(values)
