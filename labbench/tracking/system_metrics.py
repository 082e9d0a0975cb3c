"""Use of CPU, memory and GPUs, read with psutil, and with nvidia-ml-py if it is installed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from labbench.errors import is_lack_of_resources
from labbench.system import cgroups

_MIB = 2**20


class SystemSampler:
    """Sampler of system metrics, for use in one thread.

    CPU use is the mean since the previous sample.
    """

    def __init__(self, *, of_children: bool = False) -> None:
        """Initialize a sampler of this process, or of all processes that it has started in its place."""
        self._gpus = list(_gpus())
        self._process = psutil.Process()
        self._of_children = of_children
        self._cpu_time = (time.monotonic(), self._read_cpu_time())
        self._machine = {
            "system/cpu_percent": psutil.cpu_percent,
            "system/process_memory_mb": self._read_memory,
            "system/memory_percent": _memory_percent,
        }
        self._read_machine()  # the first sample's CPU use is measured from here

    def sample(self) -> dict[str, float]:
        """Return the metrics that this machine provides, by name (`system/...`).

        Raises:
            OSError: If the process lacks file descriptors or memory.
        """
        return {
            "system/process_cpu_percent": self._process_cpu(),
            **self._read_machine(),
            **{name: value for index, gpu in self._gpus for name, value in _gpu_use(index, gpu)},
        }

    def _read_machine(self) -> dict[str, float]:
        metrics = {}
        for name, read in self._machine.items():
            try:
                metrics[name] = float(read())
            except (psutil.Error, OSError) as error:  # a container may hide it
                if isinstance(error, OSError) and is_lack_of_resources(error):
                    raise
        return metrics

    def _process_cpu(self) -> float:
        """Return the CPU use in percent of one core (400 for four busy threads)."""
        previous, self._cpu_time = self._cpu_time, (time.monotonic(), self._read_cpu_time())
        seconds = max(0.0, self._cpu_time[1] - previous[1])  # less if a process has ended
        return 100 * seconds / max(1e-9, self._cpu_time[0] - previous[0])

    def _read_cpu_time(self) -> float:
        """Return the CPU time of the processes in seconds."""
        if not self._of_children:
            return time.process_time()
        times = self._read_children(psutil.Process.cpu_times)
        return float(sum(each.user + each.system for each in times))

    def _read_memory(self) -> float:
        """Return the resident memory of the processes in MiB."""
        if not self._of_children:
            return float(self._process.memory_info().rss / _MIB)
        return float(sum(memory.rss for memory in self._read_children(psutil.Process.memory_info)) / _MIB)

    def _read_children(self, read: Callable[[psutil.Process], Any]) -> Iterator[Any]:
        for process in self._process.children(recursive=True):
            with suppress(psutil.Error):  # it has ended
                yield read(process)


def _memory_percent() -> float:
    """Return the memory in use, in percent of the container's limit if there is one, else of the machine's memory."""
    machine, container = psutil.virtual_memory(), cgroup_memory()
    if container is None or container[1] >= machine.total:
        return float(machine.percent)
    used, limit = container
    return 100 * used / limit


def cgroup_memory(root: Path = cgroups.ROOT) -> tuple[int, int] | None:
    """Return the memory in use and its limit, in bytes, of the control group that is closest to its limit.

    Returns None if no group has a limit. As in `docker stats`, inactive cached files do not count as used, because they
    can be reclaimed at any time.
    """
    groups = [memory for folder in cgroups.control_groups("memory", root) if (memory := _memory_of(folder)) is not None]
    return max(groups, key=lambda memory: memory[0] / memory[1], default=None)


def _memory_of(folder: Path) -> tuple[int, int] | None:
    for limit_file, used_file, inactive in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            limit, used = (int((folder / name).read_text()) for name in (limit_file, used_file))
        except (OSError, ValueError):  # no such file, or `max`
            continue
        return max(0, used - _counter(folder / "memory.stat", inactive)), max(1, limit)
    return None


def _counter(file: Path, name: str) -> int:
    """Return a counter of a `memory.stat`; 0 if the file lacks it, as in some sandboxes."""
    try:
        return int(dict(line.split() for line in file.read_text().splitlines())[name])
    except (OSError, ValueError, KeyError):
        return 0


def _gpus() -> Iterator[tuple[int, Any]]:
    """Yield (number, NVML handle) of each GPU that this process may use."""
    try:
        import pynvml  # the module of nvidia-ml-py, an optional extra
    except ImportError:
        return
    try:
        pynvml.nvmlInit()
        allowed = os.environ.get("CUDA_VISIBLE_DEVICES")
        names = [str(index) for index in range(pynvml.nvmlDeviceGetCount())] if allowed is None else allowed.split(",")
        for index, name in enumerate(word.strip() for word in names):
            if name.isdigit():
                yield int(name), pynvml.nvmlDeviceGetHandleByIndex(int(name))
            elif name:
                yield index, pynvml.nvmlDeviceGetHandleByUUID(name)
    except pynvml.NVMLError:
        return  # no driver, or no such device


def _gpu_use(index: int, gpu: Any) -> Iterator[tuple[str, float]]:
    pynvml = sys.modules["pynvml"]
    try:
        yield f"system/gpu{index}_percent", float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        yield f"system/gpu{index}_memory_mb", pynvml.nvmlDeviceGetMemoryInfo(gpu).used / _MIB
    except pynvml.NVMLError:
        return  # the GPU has fallen off the bus or does not report its use
