"""Devices of this machine.

torch is imported only if a GPU may be present, which saves one second at the start of a grid on a CPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

from labbench.errors import InputError

CUDA_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap")
"""Device files of CUDA on Linux, on WSL and on Jetson."""


def resolve_devices(device: str) -> list[str]:
    """Return the torch devices that `--device` selects.

    `cuda` selects every visible GPU, `auto` every visible GPU or else the CPU.

    Raises:
        InputError: If the device is unknown or not available.
    """
    name, _, number = device.partition(":")
    if device == "auto":
        return [f"cuda:{index}" for index in range(cuda_device_count())] or ["cpu"]
    if device == "cpu":
        return ["cpu"]
    if name == "cuda" and (not number or number.isdecimal()):
        count = cuda_device_count()
        if count == 0:
            raise InputError(f"--device {device}: no CUDA device is visible on this machine; use --device cpu")
        if not number:
            return [f"cuda:{index}" for index in range(count)]
        if int(number) >= count:
            raise InputError(f"--device {device}: the last CUDA device of this machine is cuda:{count - 1}; use that")
        return [device]
    if device == "mps":
        import torch

        if not torch.backends.mps.is_available():
            raise InputError("--device mps: Metal is not available on this machine; use --device cpu")
        return ["mps"]
    raise InputError(f"--device {device}: no such device; use auto, cpu, cuda, cuda:N or mps")


def cuda_device_count() -> int:
    """Return the number of CUDA devices visible to this process (see CUDA_VISIBLE_DEVICES)."""
    if sys.platform == "linux" and not any(Path(path).exists() for path in CUDA_DEVICE_FILES):
        return 0
    import torch

    return torch.cuda.device_count()
