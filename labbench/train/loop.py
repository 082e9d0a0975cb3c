"""The training loop: a stack of runs in, events out. Read it from `train` down.

Runs whose models have one structure step together; how is the stepper's affair (`ways`). `step` is the number of
optimizer updates done when something was measured, so the loss at step 0 is that of the first weights.
"""

from __future__ import annotations

import traceback
from collections.abc import Generator, Iterator, Set
from pathlib import Path
from typing import Any, Literal

import torch

from labbench.errors import LabbenchError, SampleError
from labbench.files import discard_portrait
from labbench.params.param import all_params, with_defaults
from labbench.records import Event, Failed, Finished, Log, Points, Stack
from labbench.train import checkpoints
from labbench.train.data.dataset import Held
from labbench.train.diagnostics.portrait import Portraits
from labbench.train.diagnostics.probe import Looking
from labbench.train.engine.initial_weights import classes_told
from labbench.train.engine.stepper import Lesson
from labbench.train.grouping import memory
from labbench.train.grouping.arrange import Arranged, arrange
from labbench.train.grouping.by_data import in_lessons
from labbench.train.metric_buffer import Losses, Watch
from labbench.train.precision import arithmetic_of, prepare
from labbench.train.rng import Purpose, all_generators, generator_seed, generator_seeds
from labbench.train.run_state import Member
from labbench.train.tasks.metrics import Means, generalization_gap
from labbench.train.tasks.task import Task


def train(stack: Stack, task: Task, device: str, *, leaving: Set[str] = frozenset()) -> Iterator[Event]:
    """Train every run of the stack on `device` ("cpu", "cuda:0"): Started, Points, Finished of each.

    A run whose key is in `leaving`, which the caller may add to meanwhile, ends with its epoch and goes back to the
    queue. Points come about every quarter of a second. Raises InputError where the device is not there or the task
    gives what cannot be trained; other errors of the task's travel to the caller as they are.
    """
    device = prepare(device, tf32=stack.runtime.tf32)
    params = all_params(task.params)
    members = [
        Member(run, with_defaults(stack.config(index), params), stack.stop, stack.runtime)
        for index, run in enumerate(stack.runs)
    ]
    place = torch.device(device)
    arithmetic_of(stack.runtime, device)  # before anything starts
    members = yield from resumed(members, stack.files, place)
    if members and members[0].run.key not in leaving:  # before the task's own code, which may take its time
        yield members[0].started(device, members[0].way or "loop")
    for lesson, learners in in_lessons(members, task, stack, place):
        unfinished = {member.run.key: member.run for member in learners}
        try:
            for event in taught(learners, lesson, stack, device, leaving):
                if isinstance(event, Finished):
                    del unfinished[event.run]
                yield event
        except SampleError as error:  # all of them would read it
            story = traceback.format_exc()
            yield from (Failed(run.key, run.attempt, "user", str(error), story) for run in unfinished.values())


def taught(members: list[Member], lesson: Lesson, stack: Stack, device: str, leaving: Set[str]) -> Iterator[Event]:
    """Train the members that have this lesson."""
    for arranged in arrange(members, lesson):
        training = Training(arranged, lesson, stack, device, leaving)
        try:
            yield from training.events()
        except Exception as error:
            memory.learn_from(error, arranged.structure, len(training.members))
            raise


def resumed(members: list[Member], files: str | None, device: torch.device) -> Generator[Event, None, list[Member]]:
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


class Training:
    """Runs that step together: the epochs, at whose ends they may leave."""

    def __init__(self, arranged: Arranged, lesson: Lesson, stack: Stack, device: str, leaving: Set[str]) -> None:
        self.members, self.stepper, self.clock = list(arranged.members), arranged.stepper, arranged.clock
        self.note, self.lesson, self.device, self.leaving = arranged.note, lesson, device, leaving
        self.files = Path(stack.files) if stack.files is not None else None
        self.runtime = stack.runtime
        self.losses, self.watch = Losses(), Watch()
        self.looking = Looking(self.members[0].config, lesson) if stack.runtime.watch else None
        self.portraits = Portraits(self.looking, lesson.data, self.files) if self.looking and self.files else None
        self.saved = 0.0
        """When the last snapshots were written, in seconds of the watch."""

    def events(self) -> Iterator[Event]:
        """Everything there is to say of these runs."""
        yield from self.begin()
        while self.members:
            measured = yield from self.epoch()
            yield from self.part(measured)

    def begin(self) -> Iterator[Event]:
        """The runs start, but for those that are to leave already."""
        staying = []
        for index, member in enumerate(self.members):
            run = member.run
            if run.key in self.leaving:
                yield Finished(run.key, run.attempt, "queued", "interrupted")
                continue
            staying.append(index)
            if member.way_told != self.stepper.way:
                yield member.started(self.device, self.stepper.way)
            if self.note is not None:
                yield Log(run.key, run.attempt, f"{self.note}\n")
                self.note = None  # once is enough
            if member.note is not None:
                yield Log(run.key, run.attempt, f"{member.note}\n")
            if member.epoch == 0:
                member.recorder.measure({"epoch": 0, "samples": 0}, 0)
                if self.files is not None:
                    discard_portrait(self.files, run.key)
        self.keep(staying)

    def epoch(self) -> Generator[Points, None, list[dict[str, float]]]:
        """One pass over the training data, then the validation; returns what was measured, by run and metric.

        Of runs that have diverged nothing is measured. Where all have, the epoch ends early.
        """
        began, number = self.watch.seconds(), self.members[0].epoch + 1
        seeds = [member.config["seed"] for member in self.members]
        data, running = self.lesson.data, Means(len(seeds))
        with all_generators(generator_seed(seeds[0], Purpose.GENERATOR, number), data.device):
            self.stepper.train(True)
            for batch in data.batches(seeds, number, self.lesson.batch_size):  # (S, N)
                losses, metrics = self.stepper.step(batch)
                self.losses.add(losses, self.watch.milliseconds())
                running.add(metrics)
                if self.watch.due():
                    yield from self.flush()
                    if self.all_diverged():
                        return [{} for _ in self.members]
            self.collect()
            if self.all_diverged():
                return [{} for _ in self.members]
            trained, validated = running.read("train/"), self.evaluate("val")
        share = (self.watch.seconds() - began) / len(self.members)
        return [
            {}
            if member.recorder.diverged_at is not None
            else self.measured(index, generalization_gap(trained[index] | validated[index]), share)
            for index, member in enumerate(self.members)
        ]

    def measured(self, index: int, values: dict[str, float], seconds: float) -> dict[str, float]:
        """Record an epoch of a run, which took it so many seconds; returns what it may be judged by."""
        member = self.members[index]
        member.epoch += 1
        member.compute += seconds
        now = {
            "epoch": member.epoch,
            "samples": member.epoch * self.lesson.samples_per_epoch,
            "time/compute_s": member.compute,
        }
        seen = {} if self.looking is None else self.looking.see(self.stepper.weights(index), member.config)
        if self.portraits is not None:
            self.portraits.sketch(member.run.key, member.epoch, self.stepper.weights(index), member.config)
        member.recorder.measure(values | now | seen, member.milliseconds + self.watch.milliseconds())
        judged = values | {"train/loss": member.recorder.epoch_loss()}
        if member.best is not None and member.best.is_beaten(judged):
            member.best.take(judged, member.recorder.step, self.stepper.weights(index))
        return judged

    def part(self, measured: list[dict[str, float]]) -> Iterator[Event]:
        """At an epoch's end: let those go who have finished, diverged or shall leave."""
        reasons = [member.verdict(values) for member, values in zip(self.members, measured, strict=True)]
        if any(reasons) and self.lesson.data.is_tested:
            (generator,) = generator_seeds(
                self.members[0].config["seed"], Purpose.GENERATOR, [self.members[0].epoch], layer=1
            )
            with all_generators(generator, self.lesson.data.device):
                tested = self.evaluate("test")
            for member, reason, values in zip(self.members, reasons, tested, strict=True):
                if reason:
                    member.recorder.measure(values, member.milliseconds + self.watch.milliseconds())
        staying = []
        snapshot = self.files is not None and self.watch.seconds() - self.saved > self.runtime.snapshot_every
        for index, (member, reason) in enumerate(zip(self.members, reasons, strict=True)):
            diverged, leaves = member.recorder.diverged_at, member.run.key in self.leaving
            if diverged is not None or reason:
                self.keep_model(index)
                if self.portraits is not None:
                    self.portraits.paint(member.run.key, member.epoch, self.stepper.weights(index), member.config)
                told = f"non-finite train/loss at step {diverged}"
                yield from self.end(member, "finished" if reason else "diverged", reason or told)
                continue
            if self.files is not None and (snapshot or leaves):
                yield from self.watch.handing(member.recorder.points())
                state = self.stepper.state(index)
                yield member.save(self.files, state, self.watch.milliseconds())
                if (sentence := member.loss_of(state.attributes)) is not None:
                    yield Log(member.run.key, member.run.attempt, f"{sentence}\n")
            if leaves:
                yield from self.end(member, "queued", "interrupted")
            else:
                staying.append(index)
        if snapshot:
            self.saved = self.watch.seconds()
        if self.watch.due():
            yield from self.flush()
        self.keep(staying)

    def evaluate(self, name: Held) -> list[dict[str, float]]:
        """Of each run the mean loss and metrics over a split, as the model is used."""
        self.stepper.train(False)
        means = Means(len(self.members))
        for part in self.lesson.data.parts(name, self.lesson.evaluation_batch):
            losses, metrics = self.stepper.evaluate(part)
            means.add({"loss": losses, **metrics})
        return means.read(f"{name}/")

    def end(self, member: Member, status: Literal["finished", "diverged", "queued"], reason: str) -> Iterator[Event]:
        """Hand over the run's last points, then say how it ended. One that will go on has an open window of losses."""
        goes_on = status == "queued" and self.files is not None
        yield from self.watch.handing(member.recorder.points(ended=not goes_on))
        yield Finished(member.run.key, member.run.attempt, status, reason)

    def keep_model(self, index: int) -> None:
        """Keep the weights of a run that has ended, if it shall keep any."""
        member = self.members[index]
        if self.files is None:
            return
        told = classes_told(self.lesson, member.config)
        if member.best is not None and member.best.weights:
            info: dict[str, Any] = {"step": member.best.step, "best": member.best.by.metric, "value": member.best.value}
            checkpoints.save_model(self.files, member.run, member.best.weights, info | told)
        elif self.runtime.keep == "last" and member.recorder.diverged_at is None:
            info = {"step": member.recorder.step}
            checkpoints.save_model(self.files, member.run, self.stepper.weights(index), info | told)

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
            yield from self.watch.handing(member.recorder.points())

    def collect(self) -> None:
        """Copy the losses since the last time from the device, to each run its own."""
        losses, times = self.losses.take()  # (T, S)
        for index, member in enumerate(self.members):
            if times:
                member.recorder.update(losses[:, index], [member.milliseconds + time for time in times])

    def all_diverged(self) -> bool:
        return all(member.recorder.diverged_at is not None for member in self.members)
