"""Executors of clusters for `labbench run --executor slurm|ray`, and the checks before anything is submitted."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

from labbench.errors import InputError
from labbench.executors import Executor
from labbench.files import JOBS_FOLDER, files_folder
from labbench.grid import named_files
from labbench.records import Resources, SlurmOptions
from labbench.runner.expanded_grid import ExpandedGrid, require_torch
from labbench.system.cgroups import usable_cpu_count

if TYPE_CHECKING:
    from labbench.executors.slurm.job import SlurmJob

ExecutorName: TypeAlias = Literal["local", "slurm", "ray"]


def require_cluster(
    expanded: ExpandedGrid, executor: ExecutorName, device: str, workers: int | None, *, is_preview: bool
) -> None:
    """Check that a grid can be trained on a cluster with these options, and that the packages for it are installed.

    is_preview: False to check also the packages and commands of the cluster, which a dry run does not need.

    Raises:
        InputError: It cannot.
    """
    if expanded.grid.command:
        raise InputError(
            f"--executor {executor} trains tasks, and {expanded.grid.path} has a `command`: its scripts would write to "
            "the database from several machines; train it without --executor, in a job of your own"
        )
    if workers is not None:
        settings = "[resources.slurm] array" if executor == "slurm" else "cpus, gpus and memory of [resources]"
        raise InputError(
            f"--workers is the number of processes on this machine; with --executor {executor}, set {settings}"
        )
    if device not in ("auto", "cpu", "cuda"):
        raise InputError(f"--device {device}: the cluster chooses the GPU of a node; use auto, cpu or cuda")
    require_torch()
    if is_preview:
        return
    if executor == "slurm":
        from labbench.executors.slurm.job_array import require_slurm

        require_slurm(expanded.grid.resources.slurm)
    else:
        from labbench.executors.ray.cluster import require_ray

        require_ray()


def cluster_device(resources: Resources, executor: ExecutorName) -> str:
    """Return the kind of device that the stacks are planned for: cuda if the jobs request GPUs, else cpu."""
    gpus = slurm_options(resources).gpu_count if executor == "slurm" else resources.gpus
    return "cuda" if gpus else "cpu"


def cluster_cpu_count(resources: Resources, executor: ExecutorName) -> int:
    """Return the number of cores of each stack."""
    return slurm_options(resources).cpus or 1 if executor == "slurm" else ceil(resources.cpus or 1)


def cluster_capacity(resources: Resources, executor: ExecutorName) -> int:
    """Return the number of stacks that are planned to train at the same time."""
    if executor == "slurm":
        return resources.slurm.array
    return max(1, int(usable_cpu_count() / (resources.cpus or 1)))


def shipped_files(expanded: ExpandedGrid) -> list[Path]:
    """Return the local files that the nodes need: the task's file and the modules that its code version has."""
    file, _, _ = expanded.grid.task.rpartition(":")
    return [Path(file).parent / name for name in expanded.code.files] if file else []


def with_cluster_loaders(expanded: ExpandedGrid, executor: ExecutorName) -> ExpandedGrid:
    """Return the grid with one loader process for each core that a stack does not use itself."""
    grid = expanded.grid
    if grid.runtime.loaders is not None:
        return expanded
    loaders = max(0, cluster_cpu_count(grid.resources, executor) - 1)
    return replace(expanded, grid=replace(grid, runtime=replace(grid.runtime, loaders=loaders)))


def slurm_options(resources: Resources) -> SlurmOptions:
    """Return the options of jobs, with the general values of `[resources]` where `[resources.slurm]` has none."""
    options = resources.slurm
    return replace(
        options,
        gpus=ceil(resources.gpus) if options.gpus is None else options.gpus,
        cpus=options.cpus or (ceil(resources.cpus) if resources.cpus else None),
        memory=options.memory or resources.memory,
    )


def slurm_script_header(resources: Resources, db: Path, n_jobs: int) -> list[str] | None:
    """Return the lines of the batch script that request the jobs and set them up; None if submitit is not installed."""
    from labbench.executors.slurm.parameters import batch_script_header

    try:
        return batch_script_header(slurm_options(resources), files_folder(db) / JOBS_FOLDER, n_jobs)
    except ImportError:
        return None


def open_slurm_executor(expanded: ExpandedGrid, db: Path, device: str, attached: Sequence[SlurmJob]) -> Executor:
    """Return the executor of SLURM, attached to jobs of an earlier driver.

    Raises:
        InputError: The nodes do not see the folder of the database, the data, Python, labbench or the code of the task.
    """
    from labbench.executors.slurm.executor import JobSettings, SlurmExecutor
    from labbench.executors.slurm.job_array import probe_shared_folder

    resources = expanded.grid.resources
    folder = files_folder(db) / JOBS_FOLDER
    options = slurm_options(resources)
    programs = [sys.executable, str(Path(__file__).parents[1])]
    probe_shared_folder(options, folder, [*programs, *map(str, shipped_files(expanded)), *data_paths(expanded)])
    return SlurmExecutor(JobSettings(options, folder, device, resources.timeout), attached=attached)


def open_ray_executor(expanded: ExpandedGrid, db: Path, device: str, address: str | None) -> Executor:
    """Return the executor of a Ray cluster, after its nodes were checked.

    Raises:
        InputError: There is no cluster at the address, no node can serve a stack, or a node has other versions, does
            not see the data or cannot import the task.
    """
    from labbench.executors.ray.cluster import connect, disconnect, read_modules, require_equal_nodes, require_slots
    from labbench.executors.ray.executor import RayExecutor, RaySettings

    resources = expanded.grid.resources
    head = connect(address)
    try:
        require_slots(resources)
        modules = read_modules(shipped_files(expanded))
        require_equal_nodes(data_paths(expanded), expanded.grid.task, modules)
        node_device = (
            "cpu" if device == "auto" and not resources.gpus else device
        )  # GPUs are for tasks that request one
        return RayExecutor(RaySettings(head, resources, files_folder(db), modules, node_device))
    except BaseException:
        disconnect()
        raise


def data_paths(expanded: ExpandedGrid) -> list[str]:
    """Return the absolute paths of data and weights, which every node must see."""
    return named_files(expanded.grid, [run.config for run in expanded.runs], expanded.params)
