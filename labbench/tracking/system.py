"""How busy the machine is: CPU and memory from the kernel, GPUs through nvidia-ml-py where it is installed."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_MIB = 2**20


class Sampler:
    """Takes one reading after another; CPU use is that since the reading before."""

    def __init__(self) -> None:
        self._gpus = list(_gpus())
        self._process = (time.monotonic(), time.process_time())
        self._machine = _machine_ticks()

    def sample(self) -> dict[str, float]:
        """The metrics, all named `system/...`; what this machine does not tell is left out."""
        return {
            "system/process_cpu_percent": self._process_cpu(),
            **self._machine_cpu(),
            **_memory(),
            **{name: value for index, gpu in self._gpus for name, value in _gpu_use(index, gpu)},
        }

    def _process_cpu(self) -> float:
        """Of one core: four busy threads make 400."""
        before, self._process = self._process, (time.monotonic(), time.process_time())
        return 100 * (self._process[1] - before[1]) / max(1e-9, self._process[0] - before[0])

    def _machine_cpu(self) -> dict[str, float]:
        before, self._machine = self._machine, _machine_ticks()
        if before is None or self._machine is None or self._machine[1] == before[1]:
            return {}
        busy, total = (now - then for now, then in zip(self._machine, before, strict=True))
        return {"system/cpu_percent": 100 * busy / total}


def _machine_ticks() -> tuple[int, int] | None:
    """(busy, all) clock ticks of all cores since the machine started; None where there is no /proc."""
    try:
        with Path("/proc/stat").open() as file:
            user, nice, system, idle, waiting, *rest = map(int, file.readline().split()[1:9])
    except (OSError, ValueError):
        return None
    busy = user + nice + system + sum(rest)
    return busy, busy + idle + waiting


def _memory() -> dict[str, float]:
    found = {}
    try:
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
        found["system/process_memory_mb"] = resident / _MIB
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        kib = {words[0]: int(words[1]) for words in lines}
        found["system/memory_percent"] = 100 * (1 - kib["MemAvailable:"] / kib["MemTotal:"])
    except (OSError, ValueError, KeyError, IndexError):
        pass  # not Linux, or a container that hides it
    return found


def _gpus() -> Iterator[tuple[int, Any]]:
    """(number, NVML handle) of the GPUs that this process may use."""
    try:
        import pynvml  # the module of nvidia-ml-py: not everybody has a GPU
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
        return  # no driver, or a device that is not there


def _gpu_use(index: int, gpu: Any) -> Iterator[tuple[str, float]]:
    pynvml = sys.modules["pynvml"]
    try:
        yield f"system/gpu{index}_percent", float(pynvml.nvmlDeviceGetUtilizationRates(gpu).gpu)
        yield f"system/gpu{index}_memory_mb", pynvml.nvmlDeviceGetMemoryInfo(gpu).used / _MIB
    except pynvml.NVMLError:
        return  # a GPU that has fallen off the bus, or one that does not tell
