"""The devices of this machine. torch is loaded only where a GPU may be present: a CPU grid starts a second sooner."""

from __future__ import annotations

import sys
from pathlib import Path

from labbench.errors import InputError

CUDA_DEVICE_FILES = ("/dev/nvidiactl", "/dev/dxg", "/dev/nvmap")
"""Device files of CUDA on Linux, under Windows' Linux and on Jetson."""


def resolve_devices(device: str) -> list[str]:
    """The torch devices that `--device` means: every visible GPU for `cuda`, the CPU for `auto` without one.

    Raises InputError where the device is not there, or is none that labbench knows.
    """
    name, _, number = device.partition(":")
    if device == "auto":
        return [f"cuda:{index}" for index in range(cuda_device_count())] or ["cpu"]
    if device == "cpu":
        return ["cpu"]
    if name == "cuda" and (not number or number.isdecimal()):
        count = cuda_device_count()
        if count == 0:
            raise InputError(f"--device {device}: no CUDA device is visible here; use --device cpu")
        if not number:
            return [f"cuda:{index}" for index in range(count)]
        if int(number) >= count:
            raise InputError(f"--device {device}: the last CUDA device here is cuda:{count - 1}")
        return [device]
    if device == "mps":
        import torch

        if not torch.backends.mps.is_available():
            raise InputError("--device mps: Metal is not available here; use --device cpu")
        return ["mps"]
    raise InputError(f"--device {device}: no such device; known are auto, cpu, cuda, cuda:N and mps")


def cuda_device_count() -> int:
    """How many CUDA devices this process may use (CUDA_VISIBLE_DEVICES is respected)."""
    if sys.platform == "linux" and not any(Path(path).exists() for path in CUDA_DEVICE_FILES):
        return 0
    import torch

    return torch.cuda.device_count()
