"""The training loop: trains a stack of runs and yields events. Read it from `train` down.

Runs whose models have the same structure step together, see `stack_trainer`. A stack that fails is trained again in
halves or run by run.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import torch

from labbench.errors import LabbenchError, SampleError
from labbench.params.param import all_params, with_defaults
from labbench.records import Event, Failed, Log, RunRecord, Stack
from labbench.train.active_runs import ActiveRuns, StopRequests
from labbench.train.engine.stepper import Workload
from labbench.train.failures import Failure
from labbench.train.grouping import memory
from labbench.train.grouping.arrange import ReadyStack, make_singles, make_stacks
from labbench.train.grouping.by_data import DataGroup, group_by_data
from labbench.train.precision import prepare_device, resolve_precision
from labbench.train.run_state import TrainingRun
from labbench.train.stack_trainer import StackTrainer
from labbench.train.tasks.task import Task


def train(stack: Stack, task: Task, device: str, stop_requests: StopRequests | None = None) -> Iterator[Event]:
    """Train every run of the stack on `device` ("cpu", "cuda:0") and yield their events.

    Each run yields `Started`, `Points` about every quarter of a second, and `Finished` or `Failed`. An error of the
    task's code fails the runs that cannot train because of it. A run in `stop_requests` stops at the end of its epoch
    and returns to the queue, as do all runs at the stack's `pause_after`.

    Raises:
        InputError: If the device is not available.
    """
    stop_requests = stop_requests or StopRequests()
    device = prepare_device(device, tf32=stack.runtime.tf32)
    params = all_params(task.params)
    runs = [
        TrainingRun(record, with_defaults(stack.config(index), params), stack.stop, stack.runtime, stack.pause_after)
        for index, record in enumerate(stack.runs)
    ]
    torch_device = torch.device(device)
    resolve_precision(stack.runtime, device)  # raise before any run starts
    runs = yield from resume_runs(runs, stack.files, torch_device)
    # before the task's own code, which may take long
    if runs and not stop_requests.is_requested(runs[0].record.key):
        yield runs[0].started_event(device, runs[0].engine or "loop")
    for group in group_by_data(runs, task, stack, torch_device):
        if isinstance(group, Failure):
            yield from group.events()
            continue
        active = ActiveRuns(run.record for run in group.runs)
        try:
            for event in train_group(group, stack, device, stop_requests):
                active.update(event)
                yield event
        except SampleError as error:  # every run with this data would read the sample
            yield from Failure.from_error(list(active), error).events()


def train_group(group: DataGroup, stack: Stack, device: str, stop_requests: StopRequests) -> Iterator[Event]:
    """Train the runs of the group, stack by stack.

    If a stack runs out of memory, its halves are trained instead; if it fails otherwise, its runs one by one, from
    their last boundaries. The later value counts for a step that is measured twice.
    """
    workload = group.workload
    failures = yield from train_stacks(make_stacks(group), workload, stack, device, stop_requests)
    for failure in failures:
        runs = [restart(record, stack, workload) for record in failure.runs]
        if failure.kind == "oom":
            record, middle = failure.runs[0], len(runs) // 2
            message = f"out of memory with {len(runs)} runs in the stack; retrying in halves\n"
            yield Log(record.key, record.attempt, message)
            for half in (runs[:middle], runs[middle:]):
                yield from train_group(replace(group, runs=half), stack, device, stop_requests)
        else:
            singles = make_singles(runs, workload, f"its stack failed: {failure.message}")
            yield from train_stacks(singles, workload, stack, device, stop_requests)


def train_stacks(
    stacks: Iterable[ReadyStack | Failure], workload: Workload, stack: Stack, device: str, stop_requests: StopRequests
) -> Generator[Event, None, list[Failure]]:
    """Train these stacks, and return the failures of stacks of several runs.

    A run that fails alone is `Failed`.
    """
    failures = []
    for ready in stacks:
        failure = ready if isinstance(ready, Failure) else None
        if isinstance(ready, ReadyStack):
            failure = yield from train_stack(ready, workload, stack, device, stop_requests)
        if failure is not None and len(failure.runs) == 1:
            yield from failure.events()
        elif failure is not None:
            failures.append(failure)
    return failures


def train_stack(
    ready: ReadyStack, workload: Workload, stack: Stack, device: str, stop_requests: StopRequests
) -> Generator[Event, None, Failure | None]:
    """Train the runs of a stack; return the failure of the runs that have not ended, if any.

    Raises:
        SampleError: A sample of the data cannot be read.
    """
    active = ActiveRuns(run.record for run in ready.runs)
    training = StackTrainer(ready, workload, stack, device, stop_requests)
    try:
        for event in training.events():
            active.update(event)
            yield event
    except SampleError:
        raise
    except (Exception, SystemExit) as error:  # a user's code may raise anything
        memory.halve_width_on_oom(error, ready.structure, len(training.runs))
        return Failure.from_error(list(active), error)
    return None


def restart(record: RunRecord, stack: Stack, workload: Workload) -> TrainingRun:
    """Return the training state of a run at its last boundary.

    Raises:
        LabbenchError: Its checkpoint is missing or damaged.
    """
    index = next(index for index, other in enumerate(stack.runs) if other.key == record.key)
    config = with_defaults(stack.config(index), all_params(workload.task.params))
    run = TrainingRun(record, config, stack.stop, stack.runtime, stack.pause_after)
    if record.boundary and stack.files is not None:
        run.resume(Path(stack.files), workload.data.device)
    run.metric_buffer.set_total_steps(run.epochs * workload.steps_per_epoch)
    return run


def resume_runs(
    runs: list[TrainingRun], files: str | None, device: torch.device
) -> Generator[Event, None, list[TrainingRun]]:
    """Return the runs, restored to their boundaries.

    A run with an unreadable checkpoint, or without the folder of its checkpoint, yields `Failed`: this function raises
    no error.
    """
    ready = []
    for run in runs:
        record = run.record
        try:
            if record.boundary:
                if files is None:
                    raise LabbenchError(
                        f"{record.name} ({record.key}) cannot resume: the stack has no folder of checkpoints"
                    )
                run.resume(Path(files), device)
            ready.append(run)
        except LabbenchError as error:
            yield Failed(record.key, record.attempt, "user", str(error))
    return ready
