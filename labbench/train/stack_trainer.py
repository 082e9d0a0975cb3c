"""Training of runs that step together, with a stepper of `train.engine`, epoch by epoch.

`step` is the number of optimizer updates before a measurement, so that the loss at step 0 belongs to the initial
weights.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

from labbench.files import discard_portrait
from labbench.records import ALL_EPOCHS, Boundary, EngineNote, Event, Finished, Log, Points, Stack
from labbench.train import checkpoints
from labbench.train.active_runs import StopRequests
from labbench.train.data.dataset import SplitName
from labbench.train.diagnostics.portrait import PortraitWriter
from labbench.train.diagnostics.probe import NetworkProbe
from labbench.train.engine.initial_weights import head_metadata
from labbench.train.engine.stepper import TrainingState, Workload
from labbench.train.grouping.arrange import ReadyStack
from labbench.train.grouping.evaluation import measure_split
from labbench.train.metric_buffer import LossBuffer, Stopwatch
from labbench.train.rng import Purpose, generator_seed, generator_seeds, seeded_generators
from labbench.train.run_state import TrainingRun
from labbench.train.tasks.sample_metrics import MetricMeans, add_generalization_gap, read_means
from labbench.train.tasks.task import optional_parts

Measured: TypeAlias = list[dict[str, float]]
"""Values of each run by metric."""


class StackTrainer:
    """Trains runs that step together, epoch by epoch; runs leave at the end of an epoch."""

    def __init__(
        self, ready: ReadyStack, workload: Workload, stack: Stack, device: str, stop_requests: StopRequests
    ) -> None:
        self.runs, self.stepper, self.step_counter = list(ready.runs), ready.stepper, ready.step_counter
        self.note, self.workload, self.device, self.stop_requests = ready.note, workload, device, stop_requests
        self.files = Path(stack.files) if stack.files is not None else None
        self.runtime = stack.runtime
        self.losses, self.stopwatch = LossBuffer(), Stopwatch()
        self.evaluates_training_data = optional_parts(workload.task).train_metrics == "eval"
        self.probe = NetworkProbe(self.runs[0].config, workload) if stack.runtime.watch else None
        self.portraits = PortraitWriter(self.probe, workload.data, self.files) if self.probe and self.files else None
        self.last_checkpoint_seconds = 0.0
        """Time of the last checkpoints, in compute seconds of the stopwatch."""

    def events(self) -> Iterator[Event]:
        """Train all runs until they end, and yield their events."""
        yield from self.begin_runs()
        while self.runs:
            measured = yield from self.train_epoch()
            yield from self.end_epoch(measured)

    def begin_runs(self) -> Iterator[Event]:
        """Start the runs, except those that were already asked to stop."""
        staying = []
        for index, run in enumerate(self.runs):
            record = run.record
            if (leave_reason := run.reason_to_leave(self.stop_requests)) is not None:
                yield Finished(record.key, record.attempt, "queued", leave_reason)
                continue
            staying.append(index)
            if run.reported_engine != self.stepper.engine:
                yield run.started_event(self.device, self.stepper.engine)
            if self.note is not None:
                yield EngineNote(record.key, record.attempt, f"{self.note}\n")
            if run.note is not None:
                yield Log(record.key, record.attempt, f"{run.note}\n")
            if run.epoch == 0:
                run.metric_buffer.add_metrics({"epoch": 0, "samples": 0}, 0)
                if self.files is not None:
                    discard_portrait(self.files, record.key)
        self.keep_runs(staying)

    def train_epoch(self) -> Generator[Points, None, Measured]:
        """Train for one epoch and evaluate on `val`; return the values of each run by metric.

        A diverged run has no values. The epoch ends early if all runs have diverged.
        """
        began, number = self.stopwatch.compute_seconds(), self.runs[0].epoch + 1
        seeds = [run.config["seed"] for run in self.runs]
        data, running = self.workload.data, MetricMeans()
        with seeded_generators(generator_seed(seeds[0], Purpose.GENERATOR, number), data.device):
            self.stepper.train(True)
            for batch in data.batches(seeds, number, self.workload.batch_size):  # (S, N)
                losses, metrics = self.stepper.step(batch)
                self.losses.add(losses, self.stopwatch.elapsed_milliseconds())
                running.add(metrics)
                if self.stopwatch.is_flush_due():
                    yield from self.flush()
                    if self.all_diverged():
                        return [{} for _ in self.runs]
            self.collect()
            if self.all_diverged():
                return [{} for _ in self.runs]
            train_means = {} if self.evaluates_training_data else {"train/": running}
            means = self.evaluate("val", train_means) if data.has_validation else read_means(train_means, len(seeds))
            if self.evaluates_training_data:
                means = [values | more for values, more in zip(means, self.evaluate_training_data(), strict=True)]
        share = (self.stopwatch.compute_seconds() - began) / len(self.runs)
        return [
            {}
            if run.metric_buffer.diverged_at is not None
            else self.record_epoch(index, add_generalization_gap(means[index]), share)
            for index, run in enumerate(self.runs)
        ]

    def record_epoch(self, index: int, values: dict[str, float], seconds: float) -> dict[str, float]:
        """Record an epoch of a run with its share of compute seconds.

        Returns the values that `[stop]` and `keep` judge the run by.
        """
        run = self.runs[index]
        run.epoch += 1
        run.compute_seconds += seconds
        progress = {
            "epoch": run.epoch,
            "samples": run.epoch * self.workload.samples_per_epoch,
            "time/compute_s": run.compute_seconds,
        }
        diagnostics = {} if self.probe is None else self.probe.measure(self.stepper.weights(index), run.config)
        if self.portraits is not None:
            self.portraits.record_histograms(run.record.key, run.epoch, self.stepper.weights(index), run.config)
        criteria = values | {"train/loss": run.metric_buffer.pop_epoch_loss()}
        progress |= self.stepper.end_epoch(index, criteria)
        run.metric_buffer.add_metrics(
            values | progress | diagnostics, run.previous_milliseconds + self.stopwatch.elapsed_milliseconds()
        )
        if run.best is not None and run.best.is_new_best(criteria):
            run.best.update(criteria, run.metric_buffer.step, self.stepper.weights(index))
        return criteria

    def end_epoch(self, measured: list[dict[str, float]]) -> Iterator[Event]:
        """End runs that have finished, have diverged or were asked to stop; write checkpoints if they are due."""
        reasons = [run.reason_to_stop(values) for run, values in zip(self.runs, measured, strict=True)]
        yield from self.keep_states(reasons)
        if any(reasons) and self.workload.data.has_test:
            self.record_test(reasons)
        staying = []
        is_checkpoint_due = (
            self.files is not None
            and self.stopwatch.compute_seconds() - self.last_checkpoint_seconds > self.runtime.snapshot_every
        )
        for index, (run, reason) in enumerate(zip(self.runs, reasons, strict=True)):
            diverged, leave_reason = run.metric_buffer.diverged_at, run.reason_to_leave(self.stop_requests)
            end_reason = reason if diverged is None else f"non-finite train/loss at step {diverged}"
            if end_reason:
                self.keep_model(index)
                if self.portraits is not None:
                    self.portraits.write(run.record.key, run.epoch, self.stepper.weights(index), run.config)
                yield from self.end_run(run, "finished" if diverged is None else "diverged", end_reason)
                continue
            if self.files is not None and (is_checkpoint_due or leave_reason):
                state = self.stepper.state(index)
                yield (yield from self.save_state(run, state, self.files))
                if (warning := run.unsaved_state_warning(state.attributes)) is not None:
                    yield Log(run.record.key, run.record.attempt, f"{warning}\n")
            if leave_reason is not None:
                yield from self.end_run(run, "queued", leave_reason)
            else:
                staying.append(index)
        if is_checkpoint_due:
            self.last_checkpoint_seconds = self.stopwatch.compute_seconds()
        if self.stopwatch.is_flush_due():
            yield from self.flush()
        self.keep_runs(staying)

    def record_test(self, reasons: Sequence[str | None]) -> None:
        """Evaluate all runs on `test`, and record the values of the runs that have a reason to stop."""
        (generator,) = generator_seeds(self.runs[0].config["seed"], Purpose.GENERATOR, [self.runs[0].epoch], layer=1)
        with seeded_generators(generator, self.workload.data.device):
            test_means = self.evaluate("test")
        for run, reason, values in zip(self.runs, reasons, test_means, strict=True):
            if reason:
                run.metric_buffer.add_metrics(values, run.previous_milliseconds + self.stopwatch.elapsed_milliseconds())

    def save_state(self, run: TrainingRun, state: TrainingState, files: Path) -> Generator[Points, None, Boundary]:
        """Yield the run's points and write a checkpoint, whose boundary is returned."""
        yield from self.stopwatch.exclude_consumer_time(run.metric_buffer.drain_points())
        return run.save(files, state, self.stopwatch.elapsed_milliseconds())

    def keep_states(self, reasons: list[str | None]) -> Iterator[Event]:
        """Keep the states of runs that have trained all epochs, before they are tested: longer runs continue there."""
        if self.files is None or self.runtime.keep != "resume":
            return
        for index, (run, reason) in enumerate(zip(self.runs, reasons, strict=True)):
            if reason == ALL_EPOCHS:
                boundary = yield from self.save_state(run, self.stepper.state(index), self.files)
                run.kept_step = boundary.step

    def evaluate_training_data(self) -> Measured:
        """Return each run's loss, as `train/eval_loss`, and metrics over the training data in eval mode."""
        return [
            {"train/eval_loss" if name == "train/loss" else name: value for name, value in values.items()}
            for values in self.evaluate("train")
        ]

    def evaluate(self, name: SplitName, others: Mapping[str, MetricMeans] = MappingProxyType({})) -> Measured:
        """Return each run's mean loss and metrics over a split.

        The means of `others`, by prefix, come first; all are copied to the host at once.
        """
        batches = self.workload.data.evaluation_batches(name, self.workload.evaluation_batch_size)
        configs = [run.config for run in self.runs]
        return measure_split(self.stepper, self.workload, name, batches, configs, others)

    def end_run(
        self, run: TrainingRun, status: Literal["finished", "diverged", "queued"], reason: str
    ) -> Iterator[Event]:
        """Yield the run's last points and its end.

        A run that will resume keeps its incomplete window of losses.
        """
        will_resume = status == "queued" and self.files is not None
        yield from self.stopwatch.exclude_consumer_time(run.metric_buffer.drain_points(ended=not will_resume))
        yield Finished(run.record.key, run.record.attempt, status, reason, run.kept_step)

    def keep_model(self, index: int) -> None:
        """Save the weights of an ended run as `[runtime] keep` requests."""
        run = self.runs[index]
        if self.files is None:
            return
        metadata = head_metadata(self.workload, run.config)
        if run.best is not None and run.best.weights:
            info: dict[str, Any] = {
                "step": run.best.step,
                "best": run.best.criterion.metric,
                "value": run.best.value,
            }
            checkpoints.save_model(self.files, run.record, run.best.weights, info | metadata)
        elif self.runtime.keep in ("last", "resume") and run.metric_buffer.diverged_at is None:
            info = {"step": run.metric_buffer.step}
            checkpoints.save_model(self.files, run.record, self.stepper.weights(index), info | metadata)

    def keep_runs(self, indices: list[int]) -> None:
        """Continue with these runs only."""
        if len(indices) < len(self.runs):
            self.runs = [self.runs[index] for index in indices]
            if indices:
                self.stepper.keep(indices)

    def flush(self) -> Iterator[Points]:
        """Yield the points of all runs since the last flush."""
        self.collect()
        for run in self.runs:
            yield from self.stopwatch.exclude_consumer_time(run.metric_buffer.drain_points())

    def collect(self) -> None:
        """Copy the buffered losses from the device to the buffers of their runs."""
        losses, times = self.losses.drain()  # (T, S)
        for index, run in enumerate(self.runs):
            if times:
                run.metric_buffer.update(losses[:, index], [run.previous_milliseconds + time for time in times])

    def all_diverged(self) -> bool:
        """Return True if no run has a finite training loss any more."""
        return all(run.metric_buffer.diverged_at is not None for run in self.runs)
