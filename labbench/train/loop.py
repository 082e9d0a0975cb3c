"""The training loop: a stack of runs in, events out. Read it from `train` down.

For now the runs of a stack train one after another, each alone; this way of stepping is called `loop`. `step` is the
number of optimizer updates done when something was measured, so the loss at step 0 is that of the first weights.
"""

from __future__ import annotations

import math
import os
import socket
from collections.abc import Generator, Iterator, Set
from typing import Literal

import torch

from labbench.errors import InputError
from labbench.params import TRAINING, with_defaults
from labbench.records import Config, Event, Finished, Points, RunRecord, Runtime, Stack, Started, Stop
from labbench.train.clock import Clock
from labbench.train.data import Split
from labbench.train.devices import resolve
from labbench.train.dropout import swap_dropout
from labbench.train.measures import Means, losses_of, metrics_of
from labbench.train.optim import make_optimizer
from labbench.train.random import Purpose, generator_seed, permutations, torch_generator
from labbench.train.recorder import Recorder
from labbench.train.stopping import Judge
from labbench.train.tasks import Task, make_data, make_model

PRECISIONS = {"float32": torch.float32, "float64": torch.float64}
EVALUATION_BATCH = 512
"""Samples in a forward pass that needs no gradients, unless `batch_size` is larger."""


def train(stack: Stack, task: Task, device: str, *, leaving: Set[str] = frozenset()) -> Iterator[Event]:
    """Train every run of the stack on `device` ("cpu", "cuda:0"): Started, Points, Finished of one after another.

    A run whose key is in `leaving`, which the caller may add to meanwhile, ends with its epoch and goes back to the
    queue. Points come about every quarter of a second. Raises InputError where the device is not there or the task
    gives what cannot be trained; other errors of the task's travel to the caller as they are.
    """
    device = prepare(device)
    for index, run in enumerate(stack.runs):
        if run.key in leaving:
            yield Finished(run.key, run.attempt, "queued", "interrupted")
            continue
        config = with_defaults(stack.config(index), {**TRAINING, **task.params})
        yield Started(run.key, run.attempt, socket.gethostname(), os.getpid(), device, "loop")
        yield from Training(run, config, task, torch.device(device), stack.runtime).events(stack.stop, leaving)


def prepare(device: str) -> str:
    """The name of a device that is there, with float32 meaning float32, and the same seed giving the same curve."""
    name = resolve(device)[0]
    if name.startswith("cuda"):
        torch.cuda.set_device(name)
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.deterministic = True
    elif name == "cpu":
        torch.set_num_threads(1)  # several add up in another order: a result must not depend on the executor
    return name


class Training:
    """One run alone: its data, model and optimizer, and what it has measured."""

    def __init__(self, run: RunRecord, config: Config, task: Task, device: torch.device, runtime: Runtime) -> None:
        if runtime.precision not in PRECISIONS:
            raise InputError(f"[runtime] precision = {runtime.precision!r}: use {' or '.join(PRECISIONS)}")
        self.run, self.task, self.device = run, task, device
        self.seed, self.epochs, self.batch_size = config["seed"], config["epochs"], config["batch_size"]
        dtype = PRECISIONS[runtime.precision]
        self.data = make_data(task, config).to(device, dtype)
        self.model = make_model(task, config)
        self.clock = Clock()
        swap_dropout(self.model, self.seed, self.clock)
        self.model.to(device, dtype)
        self.parameters = list(self.model.parameters())
        self.optimizer = make_optimizer(config, self.parameters, device)
        self.samples_per_epoch = usable_samples(len(self.data.train[0]), self.batch_size)
        steps = self.epochs * math.ceil(self.samples_per_epoch / self.batch_size)
        self.recorder = Recorder(run, self.clock, runtime.log_every, total_steps=steps)

    def events(self, stop: Stop | None, leaving: Set[str]) -> Iterator[Event]:
        """The epochs, until there is a reason to end; then the test."""
        judge = Judge(stop)
        self.recorder.measure({"epoch": 0, "samples": 0})
        for epoch in range(1, self.epochs + 1):
            measured = yield from self.epoch(epoch)
            if self.recorder.diverged_at is not None:
                yield from self.end("diverged", f"non-finite train/loss at step {self.recorder.diverged_at}")
                return
            reason = judge.verdict(measured) or ("all epochs" if epoch == self.epochs else None)
            if reason:
                if self.data.test is not None:
                    self.recorder.measure(self.evaluate(self.data.test, "test/"))
                yield from self.end("finished", reason)
                return
            if self.recorder.due():
                yield from self.recorder.flush()
            if self.run.key in leaving:
                yield from self.end("queued", "interrupted")
                return

    def epoch(self, epoch: int) -> Generator[Points, None, dict[str, float]]:
        """One pass over the training data, then the validation; returns what is measured at its end, by metric."""
        all_inputs, all_targets = self.data.train
        order = permutations([self.seed], epoch, len(all_inputs), self.device)[0, : self.samples_per_epoch]
        running = Means()
        with torch_generator(generator_seed(self.seed, Purpose.GENERATOR, epoch), self.device):
            self.model.train()
            for batch in order.split(self.batch_size):
                inputs, targets = all_inputs.index_select(0, batch), all_targets.index_select(0, batch)
                outputs = self.model(inputs)
                losses = losses_of(self.task, outputs, targets)  # (N,)
                for parameter in self.parameters:
                    parameter.grad = None
                losses.backward(torch.full_like(losses, 1 / len(losses)))  # the gradient of their mean
                self.optimizer.step()
                self.recorder.update(losses)
                self.clock.step += 1
                running.add(metrics_of(self.task, outputs, targets))
                if self.recorder.due():
                    yield from self.recorder.flush()
                    if self.recorder.diverged_at is not None:
                        return {}
            self.recorder.collect()
            if self.recorder.diverged_at is not None:
                return {}
            measured = running.read("train/") | self.evaluate(self.data.val, "val/")
        samples, seconds = epoch * self.samples_per_epoch, self.recorder.seconds()
        self.recorder.measure({**measured, "epoch": epoch, "samples": samples, "time/compute_s": seconds})
        return {**measured, "train/loss": self.recorder.epoch_loss()}

    @torch.no_grad()
    def evaluate(self, split: Split, prefix: str) -> dict[str, float]:
        """Loss and metrics over a split, in eval mode."""
        self.model.eval()
        size, means = max(EVALUATION_BATCH, self.batch_size), Means()
        for inputs, targets in zip(*(part.split(size) for part in split), strict=True):
            outputs = self.model(inputs)
            losses, metrics = losses_of(self.task, outputs, targets), metrics_of(self.task, outputs, targets)
            means.add({"loss": losses, **metrics})
        return means.read(prefix)

    def end(self, status: Literal["finished", "diverged", "queued"], reason: str) -> Iterator[Event]:
        """Hand over the last points, then say how it ended."""
        yield from self.recorder.flush(ended=True)
        yield Finished(self.run.key, self.run.attempt, status, reason)


def usable_samples(samples: int, batch_size: int) -> int:
    """How many samples an epoch takes: all, but a single one left over, which has no variance to normalise by."""
    left_over = samples % batch_size
    return samples - 1 if left_over == 1 < batch_size and samples > 1 else samples
