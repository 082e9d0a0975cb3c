"""Executor that trains each stack as a task of Ray, whose events arrive through a streaming generator."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from labbench.executors import Executor
from labbench.executors.attempt import sub_stack
from labbench.executors.event_codec import decode_event, encode_stack
from labbench.executors.ray.cluster import (
    count_slots,
    disconnect,
    living_nodes,
    node_environment,
    node_resources,
    requested,
    sent_name,
)
from labbench.executors.ray.node_main import train_on_node
from labbench.executors.watched_stack import MAX_FRUITLESS_STARTS, WatchedStack, failure
from labbench.files import MODEL, checkpoint_file, run_folder, write_atomically
from labbench.params.paths import RUN_PREFIX
from labbench.records import Event, FailureKind, Finished, Resources, Stack, Submitted

POLL_SECONDS = 0.1
"""Seconds without an event after which `execute` yields None."""

CAPACITY_SECONDS = 5.0
"""Seconds between two looks at the nodes; one may join late or die."""

NO_NODE = (
    "no node of the cluster has what a stack requests ([resources]) any more; the stacks wait for one that joins, and "
    "Ctrl-C stops them"
)
"""Warning for what Ray itself does not report."""


@dataclass(frozen=True, slots=True)
class RaySettings:
    """Settings of all tasks of an executor."""

    address: str
    """Address of the head of the cluster that this process is connected to."""
    resources: Resources
    files: Path
    """Folder of the database's files, on this machine."""
    modules: Mapping[str, bytes] = field(default_factory=dict)
    """The task's file and the local modules that it imports (`read_modules`): nothing else travels to the nodes."""
    device: str = "auto"


@dataclass
class RayTask:
    """Task of one stack as its driver sees it."""

    generator: Any
    watched: WatchedStack
    fruitless: int = 0
    """Number of tasks of this stack that have ended before with their node, without a new boundary."""
    node: str | None = None
    """Id of the node that trains it; None while it waits."""
    is_ready: bool = False
    """True after it has loaded torch; the time of the runs counts from then on."""
    has_reported: bool = False
    """True after an event of its training."""
    ended: bool = False
    remainder: list[tuple[Stack, int]] = field(default_factory=list)
    """Stacks to train in other tasks, each with the number of fruitless tasks before it."""

    @property
    def id(self) -> str:
        return str(self.generator.completed().task_id().hex())


class RayExecutor(Executor):
    """Trains stacks on all nodes of a cluster; retries of a dead task are attempts of labbench, never of Ray."""

    def __init__(self, settings: RaySettings) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        self._ray, self._settings = ray, settings
        self._request = requested(settings.resources)
        self._tasks: list[RayTask] = []
        self._waiting: deque[tuple[Stack, int]] = deque()
        self._interrupted = False
        options = {"num_cpus": self._request.get("CPU", 1.0), "num_gpus": self._request.get("GPU", 0.0)}
        if "memory" in self._request:
            options["memory"] = self._request["memory"]
        # a retried generator would be spliced onto the items of the first attempt
        self._train = ray.remote(num_returns="streaming", max_retries=0, runtime_env=node_environment(), **options)(
            train_on_node
        )
        # on the driver's node, since the requests are lost with the node of the actor
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self._stops = ray.remote(num_cpus=0, max_restarts=-1, scheduling_strategy=here)(StopBoard).remote()
        self._slots, self._counted, self._looked = 1, 0.0, 0.0

    def capacity(self) -> int:
        if time.monotonic() - self._counted > CAPACITY_SECONDS:
            self._counted = time.monotonic()
            slots = count_slots(self._request, node_resources())
            if not slots and self._slots:
                print(f"\nlabbench: {NO_NODE}", file=sys.stderr, flush=True)
            self._slots = slots
        return max(1, self._slots)

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        pending = iter(stacks)
        while True:
            while len(self._tasks) < self.capacity() and (taken := self._take(pending)) is not None:
                yield from self._submit(*taken)
            if not self._tasks:
                return
            by_generator = {task.generator: task for task in self._tasks}
            ready, _ = self._ray.wait(
                list(by_generator), num_returns=len(by_generator), timeout=POLL_SECONDS, fetch_local=False
            )
            if not ready:
                yield None
            for generator in ready:
                yield from self._receive(by_generator[generator])
            yield from self._end_tasks()

    def stop(self, run: str) -> None:
        self._request_stop([run])

    def interrupt(self) -> None:
        self._interrupted = True
        for task in self._tasks:
            if task.has_reported:
                self._request_stop(task.watched.active.keys)
            else:
                self._cancel(task)

    def close(self) -> None:
        for task in self._tasks:
            self._cancel(task)
        self._ray.kill(self._stops)
        disconnect()

    def _take(self, pending: Iterator[Stack]) -> tuple[Stack, int] | None:
        """Return the next stack to submit, and the number of fruitless tasks before it."""
        if self._interrupted:
            return None
        if self._waiting:
            return self._waiting.popleft()
        stack = next(pending, None)
        return None if stack is None else (stack, 0)

    def _submit(self, stack: Stack, fruitless: int) -> Iterator[Event]:
        settings = self._settings
        generator = self._train.remote(
            encode_stack(replace(stack, task=sent_name(stack.task))),
            settings.modules,
            files_to_send(stack, settings.files),
            settings.device,
            StopReader(self._stops),
        )
        task = RayTask(generator, WatchedStack(stack, self._settings.resources.timeout), fruitless)
        self._tasks.append(task)
        for run in stack.runs:
            yield Submitted(run.key, run.attempt, "ray", self._settings.address, task.id)

    def _receive(self, task: RayTask) -> Iterator[Event]:
        """Yield the events of the next item of a task, after the files in it are on this machine."""
        try:
            encoded, files = self._ray.get(next(task.generator))
        except StopIteration:
            task.ended = True
            if task.watched.active.keys:
                yield from self._end_dead(task, "crash", "the task ended before its runs")
            return
        except self._ray.exceptions.RayError as error:
            task.ended = True
            yield from self._end_dead(task, *describe_error(error))
            return
        if task.node is None:
            task.node = encoded[0].decode()
            return
        if not task.is_ready:
            task.is_ready = True
            task.watched.restart_clock()
            return
        task.has_reported = True
        task.watched.report()
        store_files(self._settings.files, files)
        for data in encoded:
            event = decode_event(data)
            task.watched.update(event)
            yield event

    def _end_dead(self, task: RayTask, kind: FailureKind, message: str) -> Iterator[Event]:
        """Yield what the death of a task means for its runs, and keep the stacks to train in other tasks."""
        runs = list(task.watched.active)
        if self._interrupted:
            yield from (Finished(run.key, run.attempt, "queued", "interrupted") for run in runs)
        elif kind == "node":
            fruitless = 0 if task.watched.has_advanced else task.fruitless + 1
            if fruitless < MAX_FRUITLESS_STARTS:
                task.remainder = [(sub_stack(task.watched.stack, runs), fruitless)]
            else:
                message += f" ({MAX_FRUITLESS_STARTS} nodes in a row, before a new checkpoint)"
                yield from (failure(run, kind, message, []) for run in runs)
        else:
            failures, retries = task.watched.end_dead(message, [], kind)
            yield from failures
            task.remainder = [(stack, 0) for stack in retries]

    def _end_tasks(self) -> Iterator[Event]:
        """Remove ended tasks, and end those whose node has died or whose runs have exceeded their time limit."""
        yield from self._end_tasks_of_dead_nodes()
        for task in [*self._tasks]:
            overdue = task.watched.overdue_runs() if task.is_ready and not task.ended else {}
            if overdue:
                self._cancel(task)
                failures, retries = task.watched.end_overdue(overdue, [])
                yield from failures
                task.ended, task.remainder = True, [(stack, 0) for stack in retries]
            if task.ended:
                self._tasks.remove(task)
                self._waiting += task.remainder

    def _end_tasks_of_dead_nodes(self) -> Iterator[Event]:
        """End the tasks whose node the head has given up.

        Ray itself reports them only if their connections were closed, which a network that is cut does not do.
        """
        if time.monotonic() - self._looked < CAPACITY_SECONDS:
            return
        self._looked, living = time.monotonic(), living_nodes()
        for task in self._tasks:
            if not task.ended and task.node is not None and task.node not in living:
                self._cancel(task)
                task.ended = True
                yield from self._end_dead(task, "node", "the node of the task has died")

    def _request_stop(self, runs: Sequence[str]) -> None:
        self._stops.add.remote(list(runs))

    def _cancel(self, task: RayTask) -> None:
        self._ray.cancel(task.generator, force=True)


class StopBoard:
    """Actor that holds the keys of the runs to stop."""

    def __init__(self) -> None:
        self._keys: set[str] = set()

    def add(self, keys: Sequence[str]) -> None:
        """Add runs to stop."""
        self._keys.update(keys)

    def read(self) -> list[str]:
        """Return the runs to stop."""
        return sorted(self._keys)


@dataclass(frozen=True)
class StopReader:
    """Function on a node that reads the board; a board that does not answer stops nothing."""

    board: Any

    def __call__(self) -> Sequence[str]:
        import ray

        try:
            keys: Sequence[str] = ray.get(self.board.read.remote(), timeout=1.0)
        except ray.exceptions.RayError:
            return ()
        return keys


def files_to_send(stack: Stack, files: Path) -> Mapping[str, bytes]:
    """Return the files that the runs begin from: their checkpoints, and the models that `init_from` names."""
    paths = [checkpoint_file(files, run.key, run.boundary) for run in stack.runs if run.boundary]
    for index in range(len(stack.runs)):
        word = stack.config(index).get("init_from")
        if isinstance(word, str) and word.startswith(RUN_PREFIX):
            paths.append(run_folder(files, word.removeprefix(RUN_PREFIX)) / MODEL)
    return {path.relative_to(files).as_posix(): path.read_bytes() for path in dict.fromkeys(paths) if path.is_file()}


def store_files(folder: Path, files: Mapping[str, bytes]) -> None:
    """Write files of runs from a node, each atomically; one that leaves its run's folder is not written.

    Raises:
        InputError: A file belongs to no run.
    """
    for name, content in files.items():
        key, _, rest = name.partition("/")
        path = run_folder(folder, key) / rest
        if not rest or Path(rest).is_absolute() or ".." in Path(rest).parts:
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        with write_atomically(path) as file:
            file.write(content)


def describe_error(error: Exception) -> tuple[FailureKind, str]:
    """Return kind and message of the failure that an error of Ray means."""
    name = type(error).__name__
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    last = lines[-1][:300] if lines else name
    if name in (
        "NodeDiedError",
        "ObjectLostError",
        "OwnerDiedError",
        "ObjectFetchTimedOutError",
        "LocalRayletDiedError",
    ):
        return "node", "the node of the task has died"
    if name == "OutOfMemoryError":
        return "oom", "Ray ended the task, whose node had too little memory"
    if name == "WorkerCrashedError":
        return "crash", "the worker process of the task has died"
    return "crash", f"the task of Ray failed: {last}"
