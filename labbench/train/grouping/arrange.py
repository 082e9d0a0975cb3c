"""Arrange runs in stacks, and choose the engine of each stack.

Runs are stacked if their models have the same structure and a check finds the same results as the plain loop.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from labbench.errors import is_out_of_memory
from labbench.train.data.placement import free_bytes
from labbench.train.engine.cuda.cuda_graph import CudaGraphStepper, can_capture
from labbench.train.engine.layers import is_supported
from labbench.train.engine.schedules import StepCounter, TaskSchedules
from labbench.train.engine.stacked import StackedStepper
from labbench.train.engine.stepper import Stepper, Workload
from labbench.train.failures import Failure, error_summary
from labbench.train.grouping.by_data import DataGroup
from labbench.train.grouping.equivalence import find_mismatch
from labbench.train.grouping.evaluation import check_evaluation
from labbench.train.grouping.loop_or_stack import reason_to_loop
from labbench.train.grouping.memory import choose_width, halve_width_on_oom, structure_key, width_upper_bound
from labbench.train.grouping.separation import read_traits, restore_task_attributes, split_by_traits
from labbench.train.grouping.steppers import (
    choose_engine,
    make_initial_model,
    make_single_stepper,
    make_stacked_stepper,
)
from labbench.train.grouping.structure import group_by_structure
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.task import attributes_of, optional_parts

MAX_STACK_WIDTH = 64
"""Maximum number of runs in a stack on a CPU; on a GPU the free memory is the only limit."""


@dataclass
class ReadyStack:
    """A stack of runs with its stepper, ready to train."""

    runs: list[TrainingRun]
    stepper: Stepper
    step_counter: StepCounter
    note: str | None = None
    """Reason for the engine, for the log of the runs."""
    structure: Hashable = None
    """Key under which `memory.py` stores the maximum width."""


def make_stacks(group: DataGroup) -> Iterator[ReadyStack | Failure]:
    """Arrange runs at the same step in stacks, and yield the stacks.

    Each stack is made when the iterator reaches it. A stack that cannot be made is yielded as the failure of its runs.
    """
    runs, workload = group.runs, group.workload
    reason = optional_parts(workload.task).reason_to_loop if len(runs) > 1 else None
    if reason is not None or uses_loop(runs, workload):
        yield from make_singles(runs, workload, reason or group.reason)
        return
    try:
        width = max_models(runs, workload, free_bytes(workload.data.device))
    except (Exception, SystemExit):  # a user's model may raise anything, and does so again below
        width = MAX_STACK_WIDTH
    for start in range(0, len(runs), width):
        yield from stack_chunk(runs[start : start + width], workload)


def stack_chunk(runs: Sequence[TrainingRun], workload: Workload) -> Iterator[ReadyStack | Failure]:
    """Arrange runs in stacks whose models are all made first."""
    chunk, models, traits = [], [], []
    for run in runs:
        try:
            model = make_initial_model(run, workload)
            traits.append(read_traits(workload.task, run.config, model))
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            yield Failure.from_error([run.record], error)
        else:
            chunk.append(run)
            models.append(model)
    for group in group_by_structure(models):
        for trait_group in split_by_traits(group.indices, traits):
            indices = trait_group.indices
            alone = len(indices) == 1 < len(chunk)
            difference = trait_group.difference or (group.difference if alone else None)
            restore_traits = partial(restore_task_attributes, workload.task, traits[indices[0]])
            alike, their_models = [chunk[i] for i in indices], [models[i] for i in indices]
            yield from stack_alike(alike, their_models, workload, restore_traits, difference)


def stack_alike(
    runs: list[TrainingRun],
    models: list[nn.Module],
    workload: Workload,
    restore_traits: Callable[[], None],
    difference: str | None,
) -> Iterator[ReadyStack | Failure]:
    """Stack runs whose models have one structure, in as many stacks as memory needs.

    `restore_traits` sets the task's attributes for these runs. `difference` separates them from other runs.
    """
    structure = structure_key(models[0], workload)
    width = choose_width(structure, runs, models, workload)
    for start in range(0, len(runs), width):
        part = runs[start : start + width]
        try:
            restore_traits()
            if uses_loop(part, workload):
                alone = None if difference is None else f"no other run has the same structure: {difference}"
                yield from make_singles(part, workload, alone)
                continue
            ready = make_stack(part, models[start : start + width], workload, structure)
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            halve_width_on_oom(error, structure, len(part))
            yield Failure.from_error([run.record for run in part], error)
            continue
        if isinstance(ready, str):
            yield from make_singles(part, workload, ready)
            continue
        if difference is not None:
            apart = f"trained apart from other runs, because {difference}"
            ready.note = _join_notes(apart, ready.note)
        yield ready


def uses_loop(runs: Sequence[TrainingRun], workload: Workload) -> bool:
    """Return True if the runs train one by one, without trying a stack.

    A resumed run keeps its engine; otherwise `[runtime] engine` decides, and "auto" never stacks a single run.
    """
    engine = runs[0].engine or workload.engine
    return engine == "loop" or (engine == "auto" and len(runs) == 1)


def is_engine_set(run: TrainingRun, workload: Workload) -> bool:
    """Return True if the engine of a run is not to be chosen."""
    return (run.engine or workload.engine) != "auto"


def max_models(runs: Sequence[TrainingRun], workload: Workload, free: int | None) -> int:
    """Return the number of models to make at a time.

    If the number of `free` bytes on the device is known, the result is an upper bound of the number that fits there, so
    that the host does not make models that the device cannot hold. The exact width is measured later.
    """
    if free is None or len(runs) == 1:
        return MAX_STACK_WIDTH
    return width_upper_bound(free, make_initial_model(runs[0], workload), workload.data.dtype)


def make_singles(
    runs: Sequence[TrainingRun], workload: Workload, reason: str | None = None
) -> Iterator[ReadyStack | Failure]:
    """Yield each run as a stack of one run with the engine `loop`.

    Each has the reason in its note, if there is one.
    """
    note = None if reason is None else f"trained alone, because {reason}"
    for run in runs:
        try:
            yield make_single(run, workload, note)
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            yield Failure.from_error([run.record], error)


def make_single(run: TrainingRun, workload: Workload, note: str | None = None) -> ReadyStack:
    """Return a stack of one run with the engine `loop`."""
    model = make_initial_model(run, workload)
    outputs_note = check_evaluation(model, run, workload)
    stepper = make_single_stepper(run, model, workload)
    return ReadyStack([run], stepper, stepper.step_counter, _join_notes(note, outputs_note))


def make_stack(
    runs: list[TrainingRun], models: list[nn.Module], workload: Workload, structure: Hashable = None
) -> ReadyStack | str:
    """Return a stack of runs of one structure.

    Returns the reason instead if they cannot be stacked, or if the loop is faster.
    """
    engine = choose_engine(runs[0], models[0], workload)
    if engine == "stacked" and not is_supported(models[0]):
        return 'engine = "stacked" supports a Sequential of known layers only'
    with attributes_of(workload.task).restore_after():
        reason = find_mismatch(engine, models, [run.config for run in runs], workload)
    if reason is None and not is_engine_set(runs[0], workload):
        with attributes_of(workload.task).restore_after():
            reason = reason_to_loop(engine, runs, workload)
    if reason is not None:
        return reason
    outputs_note = check_evaluation(models[0], runs[0], workload)
    step_counter = StepCounter(runs[0].metric_buffer.step)
    stack = make_stacked_stepper(runs, models, workload, step_counter)
    stepper, note = try_cuda_graph(stack, workload)
    return ReadyStack(runs, stepper, step_counter, _join_notes(note, outputs_note), structure)


def _join_notes(*notes: str | None) -> str | None:
    return "\n".join(filter(None, notes)) or None


def try_cuda_graph(stack: StackedStepper, workload: Workload) -> tuple[Stepper, str | None]:
    """Return the stack with a CUDA graph, if possible.

    Otherwise the stack itself, with the reason if a capture failed.
    """
    if not can_capture(workload):
        return stack, None
    if isinstance(stack.updates.schedule, TaskSchedules) and stack.updates.schedule.changes_within_epochs:
        return stack, "stepped without a CUDA graph, because the task's scheduler is stepped after each optimizer step"
    try:
        stack.train(True)
        stepper = CudaGraphStepper(stack, workload.batch_size)
        stepper.capture()
        return stepper, None
    except Exception as error:  # a user's forward may synchronize with the device, which a capture forbids
        if is_out_of_memory(error):
            raise
        return stack, f"stepped without a CUDA graph, because {error_summary(error)}"
