"""Hardware and operating system of this process: processor, cores, threads, memory, GPU and driver."""

from __future__ import annotations

import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

from labbench.system.cgroups import usable_cpu_count

_CPU_FILE, _RELEASE_FILE = Path("/proc/cpuinfo"), Path("/etc/os-release")
_DRIVER_FILE = Path("/proc/driver/nvidia/version")


def read_hardware(device: str | None = None) -> dict[str, str]:
    """Return the hardware of this process by name: os, cpu, cores, memory, and threads, gpu and driver with torch.

    Takes less than a millisecond, once per process: no command is started, and torch is asked only if this process has
    imported it, for its GPU only if it uses one.

    Args:
        device: Device that the run trains on, such as `cuda:0`; None: the current GPU, if there is one in use.
    """
    return {**_read_machine(), **_read_torch(device)}


@cache
def _read_machine() -> dict[str, str]:
    kernel = os.uname()
    cores, all_cores = usable_cpu_count(), os.cpu_count()
    facts = {
        "os": f"{_distribution()} ({kernel.sysname} {kernel.release} {kernel.machine})".removeprefix(" "),
        "cpu": _cpu_model(),
        "cores": str(cores) if cores == all_cores else f"{cores} of {all_cores}",
        "memory": _memory_size(),
    }
    return {name: text for name, text in facts.items() if text}


def _distribution() -> str:
    return _read_value(_RELEASE_FILE, "=", "PRETTY_NAME").strip("\"'")  # platform imports subprocess


def _cpu_model() -> str:
    """Return the model of the processor, or its architecture."""
    return _read_value(_CPU_FILE, ":", "model name", "Model") or os.uname().machine


def _read_value(file: Path, separator: str, *names: str) -> str:
    """Return the value of the first line of a system file with one of the names; "" without one."""
    try:
        with file.open(errors="replace") as lines:
            for line in lines:
                name, _, value = line.partition(separator)
                if name.strip() in names:
                    return " ".join(value.split())
    except OSError:  # macOS
        pass
    return ""


def _memory_size() -> str:
    try:
        return f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    except (OSError, ValueError):
        return ""


def _read_torch(device: str | None) -> dict[str, str]:
    """Return the number of threads of torch, and model and driver of its GPU."""
    torch: Any = sys.modules.get("torch")
    if not hasattr(torch, "get_num_threads"):  # not imported, or still being imported
        return {}
    facts = {"threads": str(torch.get_num_threads())}
    if device == "cpu" or (device is None and not torch.cuda.is_initialized()):
        return facts
    if device is None or device.startswith("cuda"):
        facts["gpu"] = torch.cuda.get_device_name(None if device is None else torch.device(device))
        if (version := _driver_version()) is not None:
            facts["driver"] = version
    return facts


@cache
def _driver_version() -> str | None:
    words = _read_value(_DRIVER_FILE, ":", "NVRM version").split()  # NVIDIA UNIX x86_64 Kernel Module  550.54.14  DATE
    return next((word for word in words if word[:1].isdigit() and "." in word), None)
