"""The training loop: a stack of runs in, events out. Read it from `train` down.

Runs whose models have one structure step together; how is the stepper's affair (`ways`). `step` is the number of
optimizer updates done when something was measured, so the loss at step 0 is that of the first weights.
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
from labbench.train.tasks.metrics import MetricMeans, add_generalization_gap
from labbench.train.tasks.task import Task


def train(stack: Stack, task: Task, device: str, stop_requests: StopRequests | None = None) -> Iterator[Event]:
    """Train every run of the stack on `device` ("cpu", "cuda:0"): Started, Points, Finished of each.

    A run in `stop_requests` ends with its epoch and goes back to the queue. Points come about every quarter of a
    second. Raises InputError where the device is not there or the task gives what cannot be trained; other errors of
    the task's travel to the caller as they are.
    """
    stop_requests = stop_requests or StopRequests()
    device = prepare_device(device, tf32=stack.runtime.tf32)
    params = all_params(task.params)
    members = [
        TrainingRun(run, with_defaults(stack.config(index), params), stack.stop, stack.runtime)
        for index, run in enumerate(stack.runs)
    ]
    place = torch.device(device)
    resolve_precision(stack.runtime, device)  # before anything starts
    members = yield from resume_runs(members, stack.files, place)
    # before the task's own code, which may take its time
    if members and not stop_requests.is_requested(members[0].run.key):
        yield members[0].started_event(device, members[0].engine or "loop")
    for workload, members_of_workload in group_by_data(members, task, stack, place):
        active = ActiveRuns(member.run for member in members_of_workload)
        try:
            for event in train_workload(members_of_workload, workload, stack, device, stop_requests):
                active.update(event)
                yield event
        except SampleError as error:  # all of them would read it
            story = traceback.format_exc()
            yield from (Failed(run.key, run.attempt, "user", str(error), story) for run in active)


def train_workload(
    members: list[TrainingRun], workload: Workload, stack: Stack, device: str, stop_requests: StopRequests
) -> Iterator[Event]:
    """Train the members that have this workload."""
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
    """The members, those that have a boundary gone back to it; a run whose snapshot cannot be read fails."""
    ready = []
    for member in members:
        run = member.run
        try:
            if run.boundary:
                if files is None:
                    raise LabbenchError(f"{run.name} ({run.key}) cannot go on: there is no folder of snapshots")
                member.resume(Path(files), device)
            ready.append(member)
        except LabbenchError as error:
            yield Failed(run.key, run.attempt, "user", str(error))
    return ready


class StackTrainer:
    """Runs that step together: the epochs, at whose ends they may leave."""

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
        self.last_snapshot_seconds = 0.0
        """When the last snapshots were written, in seconds of the watch."""

    def events(self) -> Iterator[Event]:
        """Everything there is to say of these runs."""
        yield from self.begin_runs()
        while self.members:
            measured = yield from self.train_epoch()
            yield from self.end_epoch(measured)

    def begin_runs(self) -> Iterator[Event]:
        """The runs start, but for those that are to leave already."""
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
                self.note = None  # once is enough
            if member.note is not None:
                yield Log(run.key, run.attempt, f"{member.note}\n")
            if member.epoch == 0:
                member.metric_buffer.add_metrics({"epoch": 0, "samples": 0}, 0)
                if self.files is not None:
                    discard_portrait(self.files, run.key)
        self.keep(staying)

    def train_epoch(self) -> Generator[Points, None, list[dict[str, float]]]:
        """One pass over the training data, then the validation; returns what was measured, by run and metric.

        Of runs that have diverged nothing is measured. Where all have, the epoch ends early.
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
            trained, validated = running.read("train/"), self.evaluate("val")
        share = (self.stopwatch.compute_seconds() - began) / len(self.members)
        return [
            {}
            if member.metric_buffer.diverged_at is not None
            else self.record_epoch(index, add_generalization_gap(trained[index] | validated[index]), share)
            for index, member in enumerate(self.members)
        ]

    def record_epoch(self, index: int, values: dict[str, float], seconds: float) -> dict[str, float]:
        """Record an epoch of a run, which took it so many seconds; returns what it may be judged by."""
        member = self.members[index]
        member.epoch += 1
        member.compute_seconds += seconds
        now = {
            "epoch": member.epoch,
            "samples": member.epoch * self.workload.samples_per_epoch,
            "time/compute_s": member.compute_seconds,
        }
        seen = {} if self.probe is None else self.probe.measure(self.stepper.weights(index), member.config)
        if self.portraits is not None:
            self.portraits.record_histograms(member.run.key, member.epoch, self.stepper.weights(index), member.config)
        member.metric_buffer.add_metrics(
            values | now | seen, member.previous_milliseconds + self.stopwatch.elapsed_milliseconds()
        )
        judged = values | {"train/loss": member.metric_buffer.pop_epoch_loss()}
        if member.best is not None and member.best.is_new_best(judged):
            member.best.update(judged, member.metric_buffer.step, self.stepper.weights(index))
        return judged

    def end_epoch(self, measured: list[dict[str, float]]) -> Iterator[Event]:
        """At an epoch's end: let those go who have finished, diverged or shall leave."""
        reasons = [member.reason_to_stop(values) for member, values in zip(self.members, measured, strict=True)]
        if any(reasons) and self.workload.data.has_test:
            (generator,) = generator_seeds(
                self.members[0].config["seed"], Purpose.GENERATOR, [self.members[0].epoch], layer=1
            )
            with seeded_generators(generator, self.workload.data.device):
                tested = self.evaluate("test")
            for member, reason, values in zip(self.members, reasons, tested, strict=True):
                if reason:
                    member.metric_buffer.add_metrics(
                        values, member.previous_milliseconds + self.stopwatch.elapsed_milliseconds()
                    )
        staying = []
        snapshot = (
            self.files is not None
            and self.stopwatch.compute_seconds() - self.last_snapshot_seconds > self.runtime.snapshot_every
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
            if self.files is not None and (snapshot or leaves):
                yield from self.stopwatch.exclude_consumer_time(member.metric_buffer.drain_points())
                state = self.stepper.state(index)
                yield member.save(self.files, state, self.stopwatch.elapsed_milliseconds())
                if (sentence := member.loss_of(state.attributes)) is not None:
                    yield Log(member.run.key, member.run.attempt, f"{sentence}\n")
            if leaves:
                yield from self.end_run(member, "queued", "interrupted")
            else:
                staying.append(index)
        if snapshot:
            self.last_snapshot_seconds = self.stopwatch.compute_seconds()
        if self.stopwatch.is_flush_due():
            yield from self.flush()
        self.keep(staying)

    def evaluate(self, name: HeldOutSplit) -> list[dict[str, float]]:
        """Of each run the mean loss and metrics over a split, as the model is used."""
        self.stepper.train(False)
        means = MetricMeans(len(self.members))
        for part in self.workload.data.held_out_batches(name, self.workload.evaluation_batch_size):
            losses, metrics = self.stepper.evaluate(part)
            means.add({"loss": losses, **metrics})
        return means.read(f"{name}/")

    def end_run(
        self, member: TrainingRun, status: Literal["finished", "diverged", "queued"], reason: str
    ) -> Iterator[Event]:
        """Hand over the run's last points, then say how it ended. One that will go on has an open window of losses."""
        goes_on = status == "queued" and self.files is not None
        yield from self.stopwatch.exclude_consumer_time(member.metric_buffer.drain_points(ended=not goes_on))
        yield Finished(member.run.key, member.run.attempt, status, reason)

    def keep_model(self, index: int) -> None:
        """Keep the weights of a run that has ended, if it shall keep any."""
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

    def keep(self, indices: list[int]) -> None:
        """Go on with these runs alone."""
        if len(indices) < len(self.members):
            self.members = [self.members[index] for index in indices]
            if indices:
                self.stepper.keep(indices)

    def flush(self) -> Iterator[Points]:
        """Hand over what all runs measured since the last time."""
        self.collect()
        for member in self.members:
            yield from self.stopwatch.exclude_consumer_time(member.metric_buffer.drain_points())

    def collect(self) -> None:
        """Copy the losses since the last time from the device, to each run its own."""
        losses, times = self.losses.drain()  # (T, S)
        for index, member in enumerate(self.members):
            if times:
                member.metric_buffer.update(losses[:, index], [member.previous_milliseconds + time for time in times])

    def all_diverged(self) -> bool:
        return all(member.metric_buffer.diverged_at is not None for member in self.members)
