"""The training loop: takes a stack of runs and yields events. Read it from `train` down.

Runs whose models have the same structure step together, with a stepper of `train.engine`. `step` is the number of
optimizer updates before a measurement, so that the loss at step 0 belongs to the initial weights.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any, Literal

import torch

from labbench.errors import LabbenchError, SampleError
from labbench.files import discard_portrait
from labbench.params.param import all_params, with_defaults
from labbench.records import Event, Failed, Finished, Log, Points, Stack
from labbench.train import checkpoints
from labbench.train.active_runs import ActiveRuns, StopRequests
from labbench.train.data.dataset import HeldOutSplit
from labbench.train.diagnostics.portrait import PortraitWriter
from labbench.train.diagnostics.probe import NetworkProbe
from labbench.train.engine.initial_weights import head_metadata
from labbench.train.engine.stepper import Workload
from labbench.train.grouping import memory
from labbench.train.grouping.arrange import ReadyStack, make_stacks
from labbench.train.grouping.by_data import group_by_data
from labbench.train.metric_buffer import LossBuffer, Stopwatch
from labbench.train.precision import prepare_device, resolve_precision
from labbench.train.rng import Purpose, generator_seed, generator_seeds, seeded_generators
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.sample_metrics import MetricMeans, add_generalization_gap
from labbench.train.tasks.task import Task


def train(stack: Stack, task: Task, device: str, stop_requests: StopRequests | None = None) -> Iterator[Event]:
    """Train every run of the stack on `device` ("cpu", "cuda:0") and yield their events.

    Each run yields `Started`, `Points` about every quarter of a second, and `Finished` or `Failed`. A run in
    `stop_requests` stops at the end of its epoch and returns to the queue.

    Raises:
        InputError: If the device is not available, or the task returns data, models or losses that cannot be trained.
        Exception: Any other error of the task's code, unchanged.
    """
    stop_requests = stop_requests or StopRequests()
    device = prepare_device(device, tf32=stack.runtime.tf32)
    params = all_params(task.params)
    members = [
        TrainingRun(run, with_defaults(stack.config(index), params), stack.stop, stack.runtime)
        for index, run in enumerate(stack.runs)
    ]
    torch_device = torch.device(device)
    resolve_precision(stack.runtime, device)  # raise before any run starts
    members = yield from resume_runs(members, stack.files, torch_device)
    # before the task's own code, which may take long
    if members and not stop_requests.is_requested(members[0].run.key):
        yield members[0].started_event(device, members[0].engine or "loop")
    for workload, members_of_workload in group_by_data(members, task, stack, torch_device):
        active = ActiveRuns(member.run for member in members_of_workload)
        try:
            for event in train_workload(members_of_workload, workload, stack, device, stop_requests):
                active.update(event)
                yield event
        except SampleError as error:  # every run with this data would read the sample
            details = traceback.format_exc()
            yield from (Failed(run.key, run.attempt, "user", str(error), details) for run in active)


def train_workload(
    members: list[TrainingRun], workload: Workload, stack: Stack, device: str, stop_requests: StopRequests
) -> Iterator[Event]:
    """Train the members, which share this workload, stack by stack."""
    for ready in make_stacks(members, workload):
        training = StackTrainer(ready, workload, stack, device, stop_requests)
        try:
            yield from training.events()
        except Exception as error:
            memory.halve_width_on_oom(error, ready.structure, len(training.members))
            raise


def resume_runs(
    members: list[TrainingRun], files: str | None, device: torch.device
) -> Generator[Event, None, list[TrainingRun]]:
    """Return the members, restored to their boundaries.

    A run with an unreadable checkpoint yields `Failed`.

    No error reaches the caller: what `load_checkpoint` raises becomes the event.
    """
    ready = []
    for member in members:
        run = member.run
        try:
            if run.boundary:
                if files is None:
                    raise LabbenchError(f"{run.name} ({run.key}) cannot resume: the stack has no folder of checkpoints")
                member.resume(Path(files), device)
            ready.append(member)
        except LabbenchError as error:
            yield Failed(run.key, run.attempt, "user", str(error))
    return ready


class StackTrainer:
    """Trains runs that step together, epoch by epoch.

    Runs leave at the end of an epoch.
    """

    def __init__(
        self, ready: ReadyStack, workload: Workload, stack: Stack, device: str, stop_requests: StopRequests
    ) -> None:
        self.members, self.stepper, self.step_counter = list(ready.members), ready.stepper, ready.step_counter
        self.note, self.workload, self.device, self.stop_requests = ready.note, workload, device, stop_requests
        self.files = Path(stack.files) if stack.files is not None else None
        self.runtime = stack.runtime
        self.losses, self.stopwatch = LossBuffer(), Stopwatch()
        self.probe = NetworkProbe(self.members[0].config, workload) if stack.runtime.watch else None
        self.portraits = PortraitWriter(self.probe, workload.data, self.files) if self.probe and self.files else None
        self.last_checkpoint_seconds = 0.0
        """Time of the last checkpoints, in compute seconds of the stopwatch."""

    def events(self) -> Iterator[Event]:
        """Train all runs to their ends and yield their events."""
        yield from self.begin_runs()
        while self.members:
            measured = yield from self.train_epoch()
            yield from self.end_epoch(measured)

    def begin_runs(self) -> Iterator[Event]:
        """Start the runs, except those already asked to stop."""
        staying = []
        for index, member in enumerate(self.members):
            run = member.run
            if self.stop_requests.is_requested(run.key):
                yield Finished(run.key, run.attempt, "queued", "interrupted")
                continue
            staying.append(index)
            if member.reported_engine != self.stepper.engine:
                yield member.started_event(self.device, self.stepper.engine)
            if self.note is not None:
                yield Log(run.key, run.attempt, f"{self.note}\n")
                self.note = None  # one run logs it for all
            if member.note is not None:
                yield Log(run.key, run.attempt, f"{member.note}\n")
            if member.epoch == 0:
                member.metric_buffer.add_metrics({"epoch": 0, "samples": 0}, 0)
                if self.files is not None:
                    discard_portrait(self.files, run.key)
        self.keep_runs(staying)

    def train_epoch(self) -> Generator[Points, None, list[dict[str, float]]]:
        """Train for one epoch and evaluate on `val`.

        Return the values of each run by metric.

        A diverged run has no values. The epoch ends early if all runs have diverged.
        """
        began, number = self.stopwatch.compute_seconds(), self.members[0].epoch + 1
        seeds = [member.config["seed"] for member in self.members]
        data, running = self.workload.data, MetricMeans(len(seeds))
        with seeded_generators(generator_seed(seeds[0], Purpose.GENERATOR, number), data.device):
            self.stepper.train(True)
            for batch in data.batches(seeds, number, self.workload.batch_size):  # (S, N)
                losses, metrics = self.stepper.step(batch)
                self.losses.add(losses, self.stopwatch.elapsed_milliseconds())
                running.add(metrics)
                if self.stopwatch.is_flush_due():
                    yield from self.flush()
                    if self.all_diverged():
                        return [{} for _ in self.members]
            self.collect()
            if self.all_diverged():
                return [{} for _ in self.members]
            train_means, val_means = running.read("train/"), self.evaluate("val")
        share = (self.stopwatch.compute_seconds() - began) / len(self.members)
        return [
            {}
            if member.metric_buffer.diverged_at is not None
            else self.record_epoch(index, add_generalization_gap(train_means[index] | val_means[index]), share)
            for index, member in enumerate(self.members)
        ]

    def record_epoch(self, index: int, values: dict[str, float], seconds: float) -> dict[str, float]:
        """Record an epoch of a run with its share of compute seconds.

        Return the values for `[stop]` and `keep`.
        """
        member = self.members[index]
        member.epoch += 1
        member.compute_seconds += seconds
        progress = {
            "epoch": member.epoch,
            "samples": member.epoch * self.workload.samples_per_epoch,
            "time/compute_s": member.compute_seconds,
        }
        diagnostics = {} if self.probe is None else self.probe.measure(self.stepper.weights(index), member.config)
        if self.portraits is not None:
            self.portraits.record_histograms(member.run.key, member.epoch, self.stepper.weights(index), member.config)
        member.metric_buffer.add_metrics(
            values | progress | diagnostics, member.previous_milliseconds + self.stopwatch.elapsed_milliseconds()
        )
        criteria = values | {"train/loss": member.metric_buffer.pop_epoch_loss()}
        if member.best is not None and member.best.is_new_best(criteria):
            member.best.update(criteria, member.metric_buffer.step, self.stepper.weights(index))
        return criteria

    def end_epoch(self, measured: list[dict[str, float]]) -> Iterator[Event]:
        """End runs that have finished, diverged or were asked to stop.

        Write checkpoints if they are due.
        """
        reasons = [member.reason_to_stop(values) for member, values in zip(self.members, measured, strict=True)]
        if any(reasons) and self.workload.data.has_test:
            (generator,) = generator_seeds(
                self.members[0].config["seed"], Purpose.GENERATOR, [self.members[0].epoch], layer=1
            )
            with seeded_generators(generator, self.workload.data.device):
                test_means = self.evaluate("test")
            for member, reason, values in zip(self.members, reasons, test_means, strict=True):
                if reason:
                    member.metric_buffer.add_metrics(
                        values, member.previous_milliseconds + self.stopwatch.elapsed_milliseconds()
                    )
        staying = []
        is_checkpoint_due = (
            self.files is not None
            and self.stopwatch.compute_seconds() - self.last_checkpoint_seconds > self.runtime.snapshot_every
        )
        for index, (member, reason) in enumerate(zip(self.members, reasons, strict=True)):
            diverged, leaves = member.metric_buffer.diverged_at, self.stop_requests.is_requested(member.run.key)
            if diverged is not None or reason:
                self.keep_model(index)
                if self.portraits is not None:
                    self.portraits.write(member.run.key, member.epoch, self.stepper.weights(index), member.config)
                divergence = f"non-finite train/loss at step {diverged}"
                yield from self.end_run(member, "finished" if reason else "diverged", reason or divergence)
                continue
            if self.files is not None and (is_checkpoint_due or leaves):
                yield from self.stopwatch.exclude_consumer_time(member.metric_buffer.drain_points())
                state = self.stepper.state(index)
                yield member.save(self.files, state, self.stopwatch.elapsed_milliseconds())
                if (warning := member.unsaved_state_warning(state.attributes)) is not None:
                    yield Log(member.run.key, member.run.attempt, f"{warning}\n")
            if leaves:
                yield from self.end_run(member, "queued", "interrupted")
            else:
                staying.append(index)
        if is_checkpoint_due:
            self.last_checkpoint_seconds = self.stopwatch.compute_seconds()
        if self.stopwatch.is_flush_due():
            yield from self.flush()
        self.keep_runs(staying)

    def evaluate(self, name: HeldOutSplit) -> list[dict[str, float]]:
        """Return each run's mean loss and metrics over a held-out split."""
        self.stepper.train(False)
        means = MetricMeans(len(self.members))
        for batch in self.workload.data.held_out_batches(name, self.workload.evaluation_batch_size):
            losses, metrics = self.stepper.evaluate(batch)
            means.add({"loss": losses, **metrics})
        return means.read(f"{name}/")

    def end_run(
        self, member: TrainingRun, status: Literal["finished", "diverged", "queued"], reason: str
    ) -> Iterator[Event]:
        """Yield the run's last points and its end.

        A run that will resume keeps its incomplete window of losses.
        """
        will_resume = status == "queued" and self.files is not None
        yield from self.stopwatch.exclude_consumer_time(member.metric_buffer.drain_points(ended=not will_resume))
        yield Finished(member.run.key, member.run.attempt, status, reason)

    def keep_model(self, index: int) -> None:
        """Save the weights of an ended run if `[runtime] keep` says so."""
        member = self.members[index]
        if self.files is None:
            return
        metadata = head_metadata(self.workload, member.config)
        if member.best is not None and member.best.weights:
            info: dict[str, Any] = {
                "step": member.best.step,
                "best": member.best.criterion.metric,
                "value": member.best.value,
            }
            checkpoints.save_model(self.files, member.run, member.best.weights, info | metadata)
        elif self.runtime.keep == "last" and member.metric_buffer.diverged_at is None:
            info = {"step": member.metric_buffer.step}
            checkpoints.save_model(self.files, member.run, self.stepper.weights(index), info | metadata)

    def keep_runs(self, indices: list[int]) -> None:
        """Continue with these runs alone."""
        if len(indices) < len(self.members):
            self.members = [self.members[index] for index in indices]
            if indices:
                self.stepper.keep(indices)

    def flush(self) -> Iterator[Points]:
        """Yield the points of all runs since the last flush."""
        self.collect()
        for member in self.members:
            yield from self.stopwatch.exclude_consumer_time(member.metric_buffer.drain_points())

    def collect(self) -> None:
        """Copy the buffered losses from the device to the buffers of their runs."""
        losses, times = self.losses.drain()  # (T, S)
        for index, member in enumerate(self.members):
            if times:
                member.metric_buffer.update(losses[:, index], [member.previous_milliseconds + time for time in times])

    def all_diverged(self) -> bool:
        """Return True if no run has a finite training loss any more."""
        return all(member.metric_buffer.diverged_at is not None for member in self.members)
