"""Devices of this machine.

A CUDA device is a whole GPU, `cuda:N`, or a part of one that MIG (Multi-Instance GPU) separates, `cuda:MIG-...`; whole
GPUs beside such parts are `cuda:GPU-...`. MIG devices are listed and used, never configured. torch is imported only if
a GPU may be present, which saves one second at the start of a grid on a CPU.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from labbench.errors import InputError

CUDA_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap")
"""Device files of CUDA on Linux, on WSL and on Jetson."""
VISIBLE_DEVICES = "CUDA_VISIBLE_DEVICES"
"""Environment variable with the devices that CUDA shows to a process: indices or UUIDs, separated by commas."""
MIG, UUIDS = "MIG-", ("MIG-", "GPU-")
"""Start of the UUID of a MIG device, and of any UUID."""


def resolve_devices(device: str) -> list[str]:
    """Return the devices that `--device` selects.

    `cuda` selects every visible CUDA device, `auto` every visible CUDA device or else the CPU.

    Raises:
        InputError: If the device is unknown or not available.
    """
    name, _, number = device.partition(":")
    if device == "auto":
        return cuda_devices() or ["cpu"]
    if device == "cpu":
        return ["cpu"]
    if name == "cuda" and (not number or number.isdecimal() or number.startswith(UUIDS)):
        devices = cuda_devices()
        if not devices:
            raise InputError(f"--device {device}: no CUDA device is visible on this machine; use --device cpu")
        if not number:
            return devices
        is_selected = number.startswith(UUIDS) and number == os.environ.get(VISIBLE_DEVICES)  # by `select_part`
        if device in devices or is_selected:
            return [device]
        if number.isdecimal() and int(number) < len(devices):
            return [devices[int(number)]]
        last = f"cuda:{len(devices) - 1}" if number.isdecimal() else devices[-1]
        raise InputError(f"--device {device}: the last CUDA device of this machine is {last}; use that")
    if device == "mps":
        import torch

        if not torch.backends.mps.is_available():
            raise InputError("--device mps: Metal is not available on this machine; use --device cpu")
        return ["mps"]
    raise InputError(f"--device {device}: no such device; use auto, cpu, cuda, cuda:N or mps")


def cuda_device_count() -> int:
    """Return the number of CUDA devices visible to this process (see CUDA_VISIBLE_DEVICES)."""
    return len(cuda_devices())


def cuda_devices() -> list[str]:
    """Return the CUDA devices visible to this process (see CUDA_VISIBLE_DEVICES).

    A process can use only one MIG device, and CUDA shows it only the first one; different processes can use all.
    """
    if sys.platform == "linux" and not any(Path(path).exists() for path in CUDA_DEVICE_FILES):
        return []
    visible = os.environ.get(VISIBLE_DEVICES)
    names = list_gpus() if visible is None else visible.split(",")
    names = [name.strip() for name in names]
    if any(name.startswith(MIG) for name in names):
        return [f"cuda:{name}" for name in without_divided_gpus(names) if name.startswith(UUIDS)]
    import torch

    return [f"cuda:{index}" for index in range(torch.cuda.device_count())]


def list_gpus() -> list[str]:
    """Return the UUIDs of all GPUs and MIG devices of this machine, as `nvidia-smi -L` lists them; [] without it."""
    try:
        listing = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.SubprocessError):
        return []
    return re.findall(r"\(UUID: ([^)\s]+)\)", listing.stdout)


def without_divided_gpus(names: Sequence[str]) -> list[str]:
    """Return UUIDs of GPUs and MIG devices without the GPUs that MIG divides, whose MIG devices follow them."""
    following = [*names[1:], ""]
    pairs = zip(names, following, strict=True)
    return [name for name, next_name in pairs if name.startswith(MIG) or not next_name.startswith(MIG)]


def worker_devices(devices: Sequence[str], gpus: float) -> list[str]:
    """Return a device for each worker process: every device once, or several times if a stack needs only a part.

    `gpus` is the number of GPUs per stack; from 0.5 on down, several stacks share a GPU.
    """
    stacks_per_gpu = int(1 / gpus) if 0 < gpus < 1 else 1
    return list(devices) * stacks_per_gpu


def visible_name(device: str) -> str:
    """Return the value of CUDA_VISIBLE_DEVICES that shows a single CUDA device to another process."""
    _, _, number = device.partition(":")
    visible = os.environ.get(VISIBLE_DEVICES)
    if visible is None or not number.isdecimal():
        return number
    return visible.split(",")[int(number)].strip()


def select_part(device: str) -> str:
    """Return the torch name of a device; one named by UUID becomes the only one that CUDA shows to this process.

    Must come before the first use of CUDA in the process.
    """
    _, _, number = device.partition(":")
    if not number.startswith(UUIDS):
        return device
    os.environ[VISIBLE_DEVICES] = number
    return "cuda:0"
