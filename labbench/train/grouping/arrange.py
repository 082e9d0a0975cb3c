"""Which runs step together, and how: by the structure of their models, after a check against the plain loop.

Models have one structure when they differ in nothing but the values of their tensors and the probabilities of dropout.
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
from labbench.train.engine.dropout import SPATIAL_DIMENSIONS, dropout_probabilities
from labbench.train.engine.initial_weights import load_initial_weights, new_model
from labbench.train.engine.layers import is_supported
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stacked import StackedStepper
from labbench.train.engine.stepper import Stepper, Workload, initial_state
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
from labbench.train.grouping.separation import enter, separated, traits_of
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import attributes_of

MAX_STACK_WIDTH = 64
"""Runs that step together at the most, but on a GPU: there the memory alone decides."""


@dataclass
class ReadyStack:
    """Runs that are ready to train together."""

    members: list[TrainingRun]
    stepper: Stepper
    step_counter: StepCounter
    note: str | None = None
    """Why they are stepped in another engine than they might be, for their logs."""
    structure: Hashable = None
    """By which it is remembered how many fit in memory."""


def make_stacks(members: Sequence[TrainingRun], workload: Workload) -> Iterator[ReadyStack]:
    """All members, in order, as stacks; each is made when it is asked for. They are all after equally many updates."""
    width = max_models(members, workload, free_bytes(workload.data.device))
    for start in range(0, len(members), width):
        several = members[start : start + width]
        if train_alone(several, workload):
            yield from (make_single(member, workload) for member in several)
            continue
        models, traits = [], []
        for member in several:
            models.append(make_first_model(member, workload))
            traits.append(traits_of(workload.task, member.config, models[-1]))
        for group in (
            group for same_structure in group_by_structure(models) for group in separated(same_structure, traits)
        ):
            indices = group.indices
            structure = structure_key(models[indices[0]], workload)
            fit = choose_width(structure, [several[i] for i in indices], [models[i] for i in indices], workload)
            for part in (indices[first : first + fit] for first in range(0, len(indices), fit)):
                enter(workload.task, traits[part[0]])
                for arranged in stack_or_singles(
                    [several[i] for i in part], [models[i] for i in part], workload, structure
                ):
                    arranged.note = "\n".join(filter(None, (group.note, arranged.note))) or None
                    group.note = None  # once is enough
                    yield arranged


def train_alone(members: Sequence[TrainingRun], workload: Workload) -> bool:
    """Return True where no stack is to be tried: a run that resumes keeps its engine, else `engine` decides."""
    engine = members[0].engine or workload.engine
    return engine == "loop" or (engine == "auto" and len(members) == 1)


def max_models(members: Sequence[TrainingRun], workload: Workload, free: int | None) -> int:
    """Of how many members models are made at a time: on a device with so many bytes `free`, as many as may fit there.

    How many do fit is measured once they are there; models that cannot are not to fill the host's memory.
    """
    if free is None or len(members) == 1:
        return MAX_STACK_WIDTH
    return width_upper_bound(free, make_first_model(members[0], workload), workload.data.dtype)


def make_first_model(member: TrainingRun, workload: Workload) -> nn.Module:
    """The model with which a member begins; one that goes on brings its own weights."""
    model = new_model(workload.task, member.config)
    if member.resume_state is None:
        member.note = load_initial_weights(model, workload, member.config)
    return model


def make_single(member: TrainingRun, workload: Workload, note: str | None = None) -> ReadyStack:
    """The member by itself, in the plain loop."""
    step_counter = StepCounter(member.metric_buffer.step)
    stepper = SingleStepper(make_first_model(member, workload), member.config, workload, step_counter)
    if member.resume_state is not None:
        stepper.load([member.resume_state])
    return ReadyStack([member], stepper, step_counter, note)


def choose_width(structure: Hashable, members: list[TrainingRun], models: list[nn.Module], workload: Workload) -> int:
    """How many of these members, alike in structure, are to step at a time."""
    limit, device = width_limit(structure), workload.data.device
    if limit is None and device.type == "cuda" and len(members) > max(PROBE_RUNS):
        free: int = torch.cuda.mem_get_info(device)[0]
        try:
            limit = estimate_width(
                free, lambda runs: measure_cuda_peak(device, partial(try_step, members[:runs], models, workload))
            )
            limit_width(structure, limit)
        except Exception:  # what cannot be stacked is found, and told, by the check that follows
            return len(members)
    return min(len(members), limit or len(members))


def try_step(members: list[TrainingRun], models: list[nn.Module], workload: Workload) -> None:
    """An update and an evaluation of these members, which leave them as they were."""
    stack = copy_stack(members, models, workload)
    stack.train(True)
    stack.step(first_batch([member.config["seed"] for member in members], workload))
    stack.train(False)
    stack.evaluate(workload.data.sample_validation(workload.evaluation_batch_size))


def copy_stack(members: list[TrainingRun], models: list[nn.Module], workload: Workload) -> StackedStepper:
    """Copies of these members, who come first among the models, as one: to try something with."""
    return make_stack(
        members, copy.deepcopy(models[: len(members)]), workload, StepCounter(members[0].metric_buffer.step)
    )


def make_stack(
    members: list[TrainingRun], models: list[nn.Module], workload: Workload, step_counter: StepCounter
) -> StackedStepper:
    """The members as one, after the updates that they have done; the first model is taken over."""
    dropouts = [dropout_probabilities(model) for model in models]
    states = [member.resume_state or initial_state(model) for member, model in zip(members, models, strict=True)]
    engine = choose_engine(members[0], models[0], workload)
    return StackedStepper(
        engine, models[0], dropouts, states, [each.config for each in members], workload, step_counter
    )


def choose_engine(member: TrainingRun, model: nn.Module, workload: Workload) -> str:
    """Return the way in which a stack is stepped: as the member was before, as `engine` says, or by its layers."""
    engine = member.engine or workload.engine
    return ("stacked" if is_supported(model) else "vmap") if engine == "auto" else engine


def stack_or_singles(
    members: list[TrainingRun], models: list[nn.Module], workload: Workload, structure: Hashable = None
) -> Iterator[ReadyStack]:
    """Members whose models have one structure: as one stack, or each alone where the check finds a difference."""
    if train_alone(members, workload):
        yield make_single(members[0], workload)
        return
    engine = choose_engine(members[0], models[0], workload)
    note = (
        None if engine == "vmap" or is_supported(models[0]) else 'engine = "stacked" takes models of known layers alone'
    )
    if note is None:
        with attributes_of(workload.task).restore_after():
            note = find_mismatch(engine, models, [member.config for member in members], workload)
    if note is not None:
        yield from make_singles(members, workload, note)
        return
    if (members[0].engine or workload.engine) == "auto":
        with attributes_of(workload.task).restore_after():
            note = reason_to_loop(engine, members, workload)
        if note is not None:
            yield from make_singles(members, workload, note)
            return
    step_counter = StepCounter(members[0].metric_buffer.step)
    try:
        stack = make_stack(members, models, workload, step_counter)
    except Exception as error:
        halve_width_on_oom(error, structure, len(members))
        raise
    try:
        stepper, note = try_cuda_graph(stack, workload)
    except Exception as error:
        halve_width_on_oom(error, structure, len(members))
        raise
    yield ReadyStack(members, stepper, step_counter, note, structure)


def try_cuda_graph(stack: StackedStepper, workload: Workload) -> tuple[Stepper, str | None]:
    """The stack by a CUDA graph where there is CUDA; by itself, and why, where its step cannot be captured."""
    if not can_capture(workload):
        return stack, None
    try:
        stack.train(True)
        captured = CudaGraphStepper(stack, workload.batch_size)
        captured.capture()
        return captured, None
    except Exception as error:  # a user's forward may wait for the device, and torch's libraries may refuse
        if is_out_of_memory(error):
            raise
        return stack, f"stepped without a CUDA graph, because {type(error).__name__}: {error}".splitlines()[0]


def can_capture(workload: Workload) -> bool:
    """Whether there are CUDA graphs, and a step that is the same each time: one that waits for no data."""
    on_cuda = workload.data.device.type == "cuda" and workload.data.resident
    return on_cuda and not workload.precision.compiles and workload.batch_size <= workload.samples_per_epoch


def make_singles(members: Sequence[TrainingRun], workload: Workload, note: str) -> Iterator[ReadyStack]:
    """Each alone; the first says why."""
    for number, member in enumerate(members):
        yield make_single(member, workload, None if number else f"trained alone, because {note}")


def group_by_structure(models: Sequence[nn.Module]) -> list[list[int]]:
    """The indices of models that have one structure, in the order of the first of each."""
    kinds: list[list[int]] = []
    for index, model in enumerate(models):
        for kind in kinds:
            if is_same_structure(models[kind[0]], model):
                kind.append(index)
                break
        else:
            kinds.append([index])
    return kinds


def is_same_structure(first: nn.Module, second: nn.Module) -> bool:
    """Whether two models have the same modules with the same settings, and tensors of the same shapes."""
    ours, theirs = dict(first.named_modules()), dict(second.named_modules())
    return (
        ours.keys() == theirs.keys()
        and all(_has_same_settings(ours[name], theirs[name]) for name in ours)
        and _tensor_specs(first) == _tensor_specs(second)
    )


def _tensor_specs(model: nn.Module) -> list[tuple[str, torch.Size, torch.dtype, bool]]:
    tensors = [*model.named_parameters(), *model.named_buffers()]
    return [(name, tensor.shape, tensor.dtype, tensor.requires_grad) for name, tensor in tensors]


TENSORS_AND_CHILDREN = ("_parameters", "_buffers", "_modules")


def _has_same_settings(first: nn.Module, second: nn.Module) -> bool:
    if type(first) is not type(second):
        return False
    apart = (*TENSORS_AND_CHILDREN, "p") if type(first) in SPATIAL_DIMENSIONS else TENSORS_AND_CHILDREN
    ours, theirs = ({k: v for k, v in vars(module).items() if k not in apart} for module in (first, second))
    return ours.keys() == theirs.keys() and all(_is_equal(ours[name], theirs[name]) for name in ours)


def _is_equal(first: Any, second: Any) -> bool:
    """Whether two plain values are equal. Others, such as tensors that are no buffers, are never the same."""
    if isinstance(first, FunctionType | type | torch.dtype | torch.device):
        return first is second or first == second
    if type(first) is not type(second):
        return False
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(_is_equal(first[key], second[key]) for key in first)
    if isinstance(first, list | tuple | set | frozenset):
        pairs = zip(_sort_set(first), _sort_set(second), strict=False)
        return len(first) == len(second) and all(_is_equal(ours, theirs) for ours, theirs in pairs)
    return isinstance(first, int | float | str | bytes | None | complex) and bool(first == second)


def _sort_set(values: Iterable[Any]) -> list[Any]:
    return sorted(values, key=repr) if isinstance(values, set | frozenset) else list(values)
