"""`labbench run` from start to end: read the grid, queue its runs, train the due ones, record every event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from labbench.errors import InputError
from labbench.executors import Executor
from labbench.executors.in_process import InProcessExecutor
from labbench.executors.leftovers import end_leftover_processes
from labbench.executors.scratch import remove_abandoned_folders
from labbench.executors.slurm.job import SlurmJob
from labbench.executors.worker_pool import WorkerExecutor
from labbench.files import files_folder
from labbench.grid import Grid
from labbench.records import Command, NewRun, RunRecord, Runtime, Stack, Status
from labbench.runner.clusters import (
    ExecutorName,
    cluster_device,
    open_ray_executor,
    open_slurm_executor,
    require_cluster,
    with_cluster_loaders,
)
from labbench.runner.code_changes import CodeChange, RecordedRuns, sort_by_code
from labbench.runner.continuation import ContinuationPlan
from labbench.runner.driver import Driver, ProgressListener, Stage
from labbench.runner.expanded_grid import ExpandedGrid, require_torch
from labbench.runner.held_runs import HeldJob, attach_to_jobs, settle_held_jobs
from labbench.runner.interruption import Interruption
from labbench.runner.planner import StackSettings, plan_stacks
from labbench.runner.search.grid_search import GridSearch, SearchResult
from labbench.runner.search.plan import SearchPlan, plan_search
from labbench.runner.submission import make_submission, queue_runs
from labbench.store.connection import is_new
from labbench.store.event_recorder import EventRecorder
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.system.cgroups import usable_cpu_count
from labbench.system.provenance import Provenance, read_provenance
from labbench.train.devices import cuda_device_count, resolve_devices, worker_devices
from labbench.trusted_tasks import trust_task

MAX_LOADERS = 8
"""Largest default number of loader processes per training; more are seldom needed."""


@dataclass(frozen=True, slots=True)
class TrainingOptions:
    """Options of `labbench run`: devices and workers, and which recorded runs to train again."""

    device: str = "auto"
    """auto, cpu, cuda, cuda:N or mps."""
    workers: int | None = None
    """Number of worker processes; 0: train in this process, None: one per usable core (on CUDA: per GPU)."""
    rerun: bool = False
    """Train every run of the grid again, as a new run."""
    retry_failed: bool = False
    """Train failed runs again."""
    keep_code: bool = False
    """Do not train runs of older code again."""
    full: bool = False
    """Train every run to its end, without the grid's `[search]`."""
    executor: ExecutorName = "local"
    """Executor of the stacks: processes of this machine, jobs of SLURM, or tasks of Ray."""
    address: str | None = None
    """Address of a running Ray cluster, HOST:PORT or auto; None: a local one is started."""

    @property
    def due_statuses(self) -> tuple[Status, ...]:
        """Statuses of the recorded runs that are trained."""
        return ("queued", "lost", "pruned", "failed") if self.retry_failed else ("queued", "lost", "pruned")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of `run_grid`."""

    runs: list[RunRecord]
    """All runs of the grid, in their state before training."""
    trained: int
    """Number of runs that this call trained, with any final status."""
    ended: Mapping[Status, int]
    """Number of runs that this call trained, by final status."""
    elsewhere: Collection[str]
    """Keys of the runs that another process was training at the start, or has claimed since."""
    interrupted: bool
    signal: int | None = None
    """Signal that has interrupted the training."""
    without_driver: int = 0
    """Number of runs that jobs of SLURM are training without a driver."""
    seconds: float = 0.0
    problem: str | None = None
    """Reason why the database does not hold everything, for the user."""
    search: SearchResult | None = None
    """Result of the grid's `[search]`."""


def code_change(expanded: ExpandedGrid, db: Path, *, keep: bool = False) -> CodeChange:
    """Return the effect of changed code on the runs in a database, which is only read.

    With `keep`, runs of older code stay valid.
    """
    if is_new(db):
        return CodeChange()
    name = expanded.grid.name
    with Reader(db) as reader:
        identities = frozenset(reader.identities(name))
        recorded = RecordedRuns(reader.other_code(name, expanded.code.version), identities, files_folder(db))
    return sort_by_code(expanded.grid, expanded.runs, recorded, code=expanded.code, params=expanded.params, keep=keep)


def find_former_name(expanded: ExpandedGrid, db: Path) -> str | None:
    """Return the experiment that has all runs of a grid whose own experiment has none, None if there is none."""
    if is_new(db) or not expanded.runs:
        return None
    with Reader(db) as reader:
        if reader.identities(expanded.grid.name):
            return None
        return reader.experiment_with([run.identity for run in expanded.runs])


def run_grid(
    expanded: ExpandedGrid,
    db: Path,
    listener: ProgressListener,
    options: TrainingOptions,
    change: CodeChange | None = None,
    continuations: ContinuationPlan | None = None,
) -> Outcome:
    """Train the due runs of a grid and record every event in `db`.

    Ended runs are not changed.

    Args:
        expanded: Grid from `load_grid`.
        db: Path of the database; created if missing.
        listener: Receiver of the progress.
        options: Options of `labbench run`.
        change: Result of `code_change` with `options.keep_code`; computed if it is not given.
        continuations: Result of `plan_continuations`; by default every new run begins from the start.

    Raises:
        InputError: If the grid cannot be trained on this machine, or its search is invalid or finds nothing.
    """
    start = time.monotonic()
    search = make_search_plan(expanded, options)
    devices = choose_devices(expanded, options)
    source = read_provenance(expanded.grid.path.parent)
    change = change or code_change(expanded, db, keep=options.keep_code)
    trust_task(expanded.grid.task)
    with Writer(db) as writer:
        queued = expanded if search is None else replace(expanded, runs=search.runs)
        plan = continuations or ContinuationPlan()
        runs = queue_runs(writer, queued, change, source, plan, rerun=options.rerun)
        cluster = expanded.grid.resources.slurm.cluster if options.executor == "slurm" else None
        runs, attachable = settle_held_jobs(writer, runs, cluster)
        if options.executor != "local":
            expanded = with_cluster_loaders(expanded, options.executor)
        training = GridTraining(expanded, db, devices, options, source, listener)
        outcome = training.train(writer, runs, attachable, search)
        return replace(outcome, seconds=time.monotonic() - start)


def make_search_plan(expanded: ExpandedGrid, options: TrainingOptions) -> SearchPlan | None:
    """Return the plan of the grid's search, None if every run is trained to its end.

    Raises:
        GridError: The search does not fit the grid.
    """
    search = expanded.grid.search
    return None if search is None or options.full else plan_search(expanded, search)


@dataclass(frozen=True, slots=True)
class GridTraining:
    """Training of the due runs of a grid on devices of this machine."""

    expanded: ExpandedGrid
    db: Path
    devices: Sequence[str]
    options: TrainingOptions
    source: Provenance
    listener: ProgressListener

    def train(
        self, writer: Writer, runs: list[RunRecord], attachable: Sequence[HeldJob], plan: SearchPlan | None
    ) -> Outcome:
        """Train the due runs among the grid's runs, or search among all of them, and record every event.

        The runs of the `attachable` jobs of earlier drivers are driven by this process from now on.
        """
        due = [run for run in runs if run.status in self.options.due_statuses]
        remove_leftovers(self.db, [run.key for run in due if run.status == "lost"])
        jobs, held = self._attach(writer, runs, attachable)
        without_driver = sum(run.without_driver and run.key not in {other.key for other in held} for run in runs)
        elsewhere = {run.key for run in runs if run.status == "running" and not run.without_driver}
        if not due and not held and plan is None:
            return Outcome(runs, 0, {}, elsewhere, interrupted=False, without_driver=without_driver)
        with (
            closing(self._open_executor(plan.widest_stage if plan else len(due), jobs)) as executor,
            Interruption() as interruption,
            redirect_stdout(sys.stderr),  # output of a task in this process must not mix with the results
        ):
            self.listener.begin(self.expanded.grid, runs, [*due, *held])
            recorder = EventRecorder(writer, [*due, *held], is_interrupted=lambda: interruption.is_requested)
            driver = self._make_driver(recorder, executor, interruption)
            search = None if plan is None else self._make_search(plan, recorder, runs)
            try:
                stage = Stage([] if search else due, self.options.due_statuses, held=held)
                driver.train([stage] if search is None else chain([stage], search.stages()))
            finally:
                self.listener.end()
        ended, result = driver.ended, None
        if search is not None:
            runs, result = search.result.runs, search.result
            ended = ended | ({"pruned": result.pruned} if result.pruned else {})
        elsewhere |= driver.taken
        outcome = Outcome(runs, sum(ended.values()), ended, elsewhere, interruption.is_requested, search=result)
        return replace(outcome, problem=recorder.problem, signal=interruption.signal, without_driver=without_driver)

    def _make_search(self, plan: SearchPlan, recorder: EventRecorder, runs: Sequence[RunRecord]) -> GridSearch:
        submission, rerun = make_submission(self.expanded, self.source), self.options.rerun

        def queue(new: Sequence[NewRun]) -> list[RunRecord]:
            queued = recorder.perform(lambda writer: writer.queue(submission, new, rerun=rerun)) or []
            return [replace(run, config=grid_run.config) for run, grid_run in zip(queued, new, strict=False)]

        search = GridSearch(plan, self.expanded, recorder, queue, self.options.due_statuses)
        search.add_records([candidate for population in plan.populations for candidate in population], runs)
        return search

    def _attach(
        self, writer: Writer, runs: Sequence[RunRecord], jobs: Sequence[HeldJob]
    ) -> tuple[list[SlurmJob], list[RunRecord]]:
        """Return the jobs and their runs, also runs of other grids, which this process drives from now on."""
        attached, adopted = attach_to_jobs(writer, jobs, self.expanded.grid.resources.timeout)
        configs = {run.key: run.config for run in runs}
        return attached, [replace(run, config=configs.get(run.key, run.config)) for run in adopted]

    def _open_executor(self, stacks: int, jobs: Sequence[SlurmJob]) -> Executor:
        if self.options.executor == "slurm":
            device = self.devices[0] if self.options.device == "auto" else self.options.device
            return open_slurm_executor(self.expanded, self.db, device, jobs)
        if self.options.executor == "ray":
            return open_ray_executor(self.expanded, self.db, self.options.device, self.options.address)
        return open_executor(self.devices, self.options.workers, stacks, self.expanded.grid)

    def _make_driver(self, recorder: EventRecorder, executor: Executor, interruption: Interruption) -> Driver:
        files = files_folder(self.db)
        plan = make_planner(self.expanded, self.db, self.devices, executor.capacity(), files)
        retries = self.expanded.grid.resources.retries
        return Driver(
            recorder,
            executor,
            plan,
            self.listener,
            interruption,
            self.source,
            files,
            retries,
            params=self.expanded.params,
        )


def remove_leftovers(db: Path, lost_runs: Sequence[str]) -> None:
    """End the processes and delete the temporary folders that killed drivers have left behind."""
    end_leftover_processes(str(db.resolve()), lost_runs)
    remove_abandoned_folders()


def choose_devices(expanded: ExpandedGrid, options: TrainingOptions, *, is_preview: bool = False) -> list[str]:
    """Return the devices to train on; on a cluster, the kind of device of its nodes.

    is_preview: True if nothing will be trained, so that the commands of a cluster may be missing here.

    Raises:
        InputError: If the grid cannot be trained with these options on this machine, or on the cluster.
    """
    device, workers = options.device, options.workers
    if options.executor != "local":
        require_cluster(expanded, options.executor, device, workers, is_preview=is_preview)
        return [cluster_device(expanded.grid.resources, options.executor)]
    if not expanded.grid.command:
        require_torch()
    if workers == 0 and expanded.grid.resources.timeout is not None:
        raise InputError("[resources] timeout needs a worker process, which can be killed: use --workers 1 or more")
    return resolve_devices(device)


def require_gpus(expanded: ExpandedGrid) -> None:
    """Raise GridError if `[resources] gpus` exceeds the number of visible CUDA devices."""
    gpus, count = expanded.grid.resources.gpus, cuda_device_count() if expanded.grid.resources.gpus else 0
    if gpus > count:
        message = (
            f"gpus = {gpus:g}, but {count or 'no'} CUDA device{'s' * (count != 1)} "
            f"{'is' if count == 1 else 'are'} visible on this machine; lower it, or let CUDA_VISIBLE_DEVICES show more"
        )
        raise expanded.grid.source.error(message, ("resources", "gpus"))


def make_planner(
    expanded: ExpandedGrid, db: Path, devices: Sequence[str], workers: int, files: Path | None = None
) -> Callable[[Sequence[RunRecord]], list[Stack]]:
    """Return a function that plans stacks of the grid's runs for this number of workers."""
    grid = expanded.grid
    settings = StackSettings(
        grid.task,
        grid.stop,
        set_loader_count(grid.runtime, devices, workers),
        None if files is None else str(files),
        Command(grid.command, str(grid.path.parent.resolve()), str(db.resolve()), grid.cwd, grid.env)
        if grid.command
        else None,
    )
    return lambda runs: plan_stacks(runs, settings, params=expanded.params, workers=workers, device=devices[0])


def set_loader_count(runtime: Runtime, devices: Sequence[str], workers: int) -> Runtime:
    """Set the number of loaders to the cores not used by training.

    Training on a CPU keeps one core per worker busy; on a GPU there is at least one loader, so that training does not
    wait for data.
    """
    if runtime.loaders is not None:
        return runtime
    least = 0 if devices[0] == "cpu" else 1
    return replace(runtime, loaders=min(MAX_LOADERS, max(least, usable_cpu_count() // workers - 1)))


def open_executor(devices: Sequence[str], workers: int | None, stacks: int, grid: Grid) -> Executor:
    """Return the executor for `--workers`, with at most one worker per stack."""
    if workers == 0:
        return InProcessExecutor(devices[0])
    if workers is None:
        workers = usable_cpu_count() if devices == ["cpu"] else len(worker_devices(devices, grid.resources.gpus))
    assigned = [devices[i % len(devices)] for i in range(min(workers, stacks))]
    return WorkerExecutor(assigned, timeout=grid.resources.timeout, load_torch=not grid.command)
