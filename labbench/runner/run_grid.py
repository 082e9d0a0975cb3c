"""The whole journey of `labbench run`: read the grid, queue its runs, train what is due, record every event."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labbench.errors import InputError, did_you_mean
from labbench.executors import Executor
from labbench.executors.cpu_count import usable_cpu_count
from labbench.executors.in_process import InProcessExecutor
from labbench.executors.worker_pool import WorkerExecutor
from labbench.files import files_folder
from labbench.filters.parser import matches_config, parse, require_config_keys
from labbench.grid import Code, Grid, expand, grid_code, new_runs, read_grid
from labbench.params.builtin import BUILTIN, EPOCH_METRICS, takes_weights
from labbench.params.files import RUN_PREFIX
from labbench.params.param import TRAINING, Params, all_params, own_key_notes
from labbench.provenance import Provenance, read_provenance
from labbench.records import Command, NewRun, RunRecord, Runtime, Stack, Status, Submission
from labbench.runner.code_changes import CodeChange, RecordedRuns, sort_by_code
from labbench.runner.driver import Driver, Interruption, ProgressListener
from labbench.runner.planner import StackSettings, plan_stacks
from labbench.store.reader import Reader
from labbench.store.writer import Writer
from labbench.train.devices import cuda_device_count, resolve_devices
from labbench.trusted_tasks import trust_task

MAX_LOADERS = 8
"""Processes that read samples for a training, where nobody says how many: more are seldom needed to keep up with it."""


@dataclass(frozen=True, slots=True)
class ExpandedGrid:
    """What a grid file asks for, checked and expanded; no database was touched."""

    grid: Grid
    runs: list[NewRun]
    warnings: list[str]
    params: Params
    """What the task understands."""
    code: Code
    """What computes the runs."""

    @property
    def notes(self) -> list[str]:
        """Lines on what the grid's task does otherwise than its words suggest."""
        return [] if self.grid.command or self.grid.task in BUILTIN else own_key_notes(self.params)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a grid stands when `run_grid` returns."""

    runs: list[RunRecord]
    """Every run that the grid asks for, as it was when this began."""
    trained: int
    """Runs that this call trained, however they ended."""
    ended: Mapping[Status, int]
    """The runs that this call trained, by status."""
    elsewhere: int
    """Runs that another process is training."""
    interrupted: bool
    seconds: float


def load_grid(
    path: Path,
    *,
    overrides: Sequence[str] = (),
    only: str = "",
    limit: int | None = None,
    yes: bool = False,
    db: Path | None = None,
) -> ExpandedGrid:
    """Read, check and expand a grid file.

    `only` is a filter that keeps runs by their configs, `limit` keeps the first ones; `db` is where `init_from` finds
    other runs.
    """
    wanted = parse(only)
    grid = read_grid(path, overrides=overrides)
    params = task_params(grid)
    require_stop_metric(grid)
    expansion = expand(grid, params, yes=yes)
    configs = resolve_init_from(expansion.configs, params, db)
    code = grid_code(grid)
    runs = new_runs(grid, configs, params, files=None if db is None else files_folder(db), code=code)
    if wanted is not None:
        require_config_keys(wanted, only, expansion.configs[0].keys())
        runs = [run for run in runs if matches_config(wanted, run.config)]
        if not runs:
            raise InputError(f"--only matches none of the {len(expansion.configs)} runs of {path}")
    return ExpandedGrid(grid, runs[:limit], expansion.warnings, params, code)


def resolve_init_from(configs: list[dict[str, Any]], params: Params, db: Path | None) -> list[dict[str, Any]]:
    """The configs, `init_from = "run:WORD"` with the key of the run that the word means.

    Raises RunNotFound where there is none.
    """
    named = {config["init_from"] for config in configs if takes_weights(params) and config["init_from"] is not None}
    words = {word for word in named if word.startswith(RUN_PREFIX)}
    if not words:
        return configs
    if db is None or not db.exists():
        raise InputError(f"init_from = {min(words)!r}: there is no database {db or ''} with runs to begin from")
    with Reader(db) as reader:
        keys = {word: RUN_PREFIX + reader.find(word.removeprefix(RUN_PREFIX)).key for word in words}
    return [{**config, "init_from": keys.get(config["init_from"], config["init_from"])} for config in configs]


def task_params(grid: Grid) -> Params:
    """The parameters that the grid's task understands; those of a command are whatever the grid says."""
    if grid.command:
        return {}
    if grid.task in BUILTIN:
        return {**TRAINING, **BUILTIN[grid.task]}
    require_torch()
    from labbench.train.tasks.task import load_task  # a file of the user's own, which imports torch

    return all_params(load_task(grid.task).params)


def require_stop_metric(grid: Grid) -> None:
    """Refuse a `[stop]` that watches what a built-in task never measures; a task of one's own is asked as it trains."""
    if grid.stop is None or grid.task not in BUILTIN or grid.task == "own":
        return
    if grid.stop.metric not in EPOCH_METRICS:
        hint = did_you_mean(grid.stop.metric, EPOCH_METRICS) or f": there are {', '.join(EPOCH_METRICS)}"
        message = f"`{grid.stop.metric}` is not measured at an epoch's end{hint}"
        raise grid.source.error(message, ("stop", "metric"))


def require_torch() -> None:
    if find_spec("torch") is None:
        raise InputError(
            'training needs PyTorch, which is not installed: pip install -e ".[train]" in labbench\'s checkout'
        )


def code_change(asked: ExpandedGrid, db: Path, *, keep: bool = False) -> CodeChange:
    """Return what the grid's present code means to the runs in a database, which is only read.

    `keep` takes runs of older code as they are.
    """
    if not db.exists() or db.stat().st_size == 0:
        return CodeChange()
    name = asked.grid.name
    with Reader(db) as reader:
        identities = frozenset(reader.identities(name))
        recorded = RecordedRuns(reader.other_code(name, asked.code.version), identities, files_folder(db))
    return sort_by_code(asked.grid, asked.runs, recorded, code=asked.code, params=asked.params, keep=keep)


def run_grid(
    asked: ExpandedGrid,
    db: Path,
    listener: ProgressListener,
    *,
    device: str = "auto",
    workers: int | None = None,
    rerun: bool = False,
    retry_failed: bool = False,
    change: CodeChange | None = None,
) -> Outcome:
    """Train what is due of the grid, recording every event in `db`; done runs are not touched.

    `workers` None means one per usable core (per GPU on CUDA), 0 this process. `change` is what `code_change` has
    returned, by default for keeping no run of older code.
    """
    began = time.monotonic()
    grid = asked.grid
    devices = choose_devices(asked, device, workers)
    source = read_provenance(grid.path.parent)
    change = change or code_change(asked, db)
    trust_task(grid.task)
    with Writer(db) as writer:
        writer.sort_by_code(grid.name, replace(change.sorting, code_version=asked.code.version))
        submission = Submission(
            grid.name,
            grid.task,
            metrics=grid.metrics,
            stop=grid.stop,
            sources=source_texts(grid, source, asked.code),
            code_version=asked.code.version,
        )
        queued = writer.queue(submission, asked.runs, rerun=rerun)
        # what is trained is what the grid says, whatever the database says of a run that was there
        runs = [replace(run, config=new.config) for run, new in zip(queued, asked.runs, strict=True)]
        trainable: tuple[Status, ...] = ("queued", "lost", "failed") if retry_failed else ("queued", "lost")
        due = [run for run in runs if run.status in trainable]
        elsewhere = sum(run.status == "running" for run in runs)
        if not due:
            return Outcome(runs, 0, {}, elsewhere, False, time.monotonic() - began)
        with (
            closing(open_executor(devices, workers, len(due), timeout=grid.resources.timeout)) as executor,
            Interruption() as interruption,
            redirect_stdout(sys.stderr),  # what a task prints in this process must not mix with the results
        ):
            listener.begin(grid, runs, due)
            files = files_folder(db)
            plan = make_planner(asked, db, devices, executor.capacity(), files)
            driver = Driver(writer, executor, plan, listener, interruption, source, files, grid.resources.retries)
            try:
                driver.train(due, trainable)
            finally:
                listener.end()
        ended, seconds = driver.ended, time.monotonic() - began
        return Outcome(runs, sum(ended.values()), ended, elsewhere, interruption.asked, seconds)


def choose_devices(asked: ExpandedGrid, device: str, workers: int | None) -> list[str]:
    """The devices to train on. Raises InputError, before anything is queued, where the grid cannot be trained here."""
    if not asked.grid.command:
        require_torch()
    if workers == 0 and asked.grid.resources.timeout is not None:
        raise InputError("[resources] timeout needs a worker process that can be ended: --workers 1 or more")
    return resolve_devices(device)


def require_gpus(asked: ExpandedGrid) -> None:
    """Raise InputError if `[resources] gpus` is more than the visible CUDA devices."""
    gpus, count = asked.grid.resources.gpus, cuda_device_count() if asked.grid.resources.gpus else 0
    if gpus > count:
        raise InputError(
            f"{asked.grid.path}: [resources] gpus = {gpus}, but {count or 'no'} CUDA device{'s' * (count != 1)} "
            f"{'is' if count == 1 else 'are'} visible on this machine; lower it, or see CUDA_VISIBLE_DEVICES"
        )


def make_planner(
    asked: ExpandedGrid, db: Path, devices: Sequence[str], workers: int, files: Path | None = None
) -> Callable[[Sequence[RunRecord]], list[Stack]]:
    """How the grid's runs are put into stacks, so many of which train at a time."""
    grid = asked.grid
    settings = StackSettings(
        grid.task,
        grid.stop,
        set_loader_count(grid.runtime, devices, workers),
        None if files is None else str(files),
        Command(grid.command, str(grid.path.parent.resolve()), str(db.resolve())) if grid.command else None,
    )
    return lambda runs: plan_stacks(runs, settings, params=asked.params, workers=workers, device=devices[0])


def set_loader_count(runtime: Runtime, devices: Sequence[str], workers: int) -> Runtime:
    """The settings with how many processes read samples for each training: those that cores are left for.

    A training on a CPU keeps a core busy, and one on a GPU waits where nobody else reads for it.
    """
    if runtime.loaders is not None:
        return runtime
    least = 0 if devices[0] == "cpu" else 1
    return replace(runtime, loaders=min(MAX_LOADERS, max(least, usable_cpu_count() // workers - 1)))


def preview_stacks(
    asked: ExpandedGrid, runs: Sequence[NewRun], db: Path, devices: Sequence[str], *, workers: int
) -> list[Stack]:
    """The stacks that these of the grid's runs would be trained in; no database is touched."""
    records = [
        RunRecord(index, f"preview-{index}", run.name, asked.grid.name, "queued", run.config)
        for index, run in enumerate(runs)
    ]
    return make_planner(asked, db, devices, workers)(records)


def source_texts(grid: Grid, source: Provenance, code: Code) -> dict[str, str]:
    """The texts from which the grid's results could be made again."""
    texts = {"grid": grid.source.text, "diff": source.git_diff, "code": code.text}
    file, _, _ = grid.task.rpartition(":")
    if file:
        texts["task"] = Path(file).read_text(errors="replace")
    return {name: text for name, text in texts.items() if text}


def open_executor(devices: Sequence[str], workers: int | None, stacks: int, *, timeout: float | None) -> Executor:
    """The executor that `--workers` means on these devices, no wider than there are stacks."""
    if workers == 0:
        return InProcessExecutor(devices[0])
    if workers is None:
        workers = usable_cpu_count() if devices == ["cpu"] else len(devices)
    return WorkerExecutor([devices[i % len(devices)] for i in range(min(workers, stacks))], timeout=timeout)
