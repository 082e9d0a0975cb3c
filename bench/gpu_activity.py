"""Use of the first visible GPU while a block runs: share of the time with a kernel, and share of active SMs."""

from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labbench.train.devices import visible_name

SAMPLE_SECONDS = 0.3


class Activity:
    """Use of a GPU, in percent."""

    def __init__(self) -> None:
        self.busy: list[float] = []
        """Share of the time in which a kernel ran, in samples of nvidia-smi."""
        self.active_sms: float | None = None
        """Mean share of the SMs with a warp (NVML's GPM metrics, on Hopper and later), None where unavailable."""
        self.reason = ""
        """Reason why the share of the SMs is unavailable."""


@contextmanager
def record_activity() -> Iterator[Activity]:
    """Record the use of the GPU inside the block.

    Raises:
        RuntimeError: nvidia-smi is not installed.
    """
    if shutil.which("nvidia-smi") is None:
        raise RuntimeError("nvidia-smi is not installed")
    activity, ended = Activity(), threading.Event()
    words = ["nvidia-smi", "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
    words.append(f"--id={visible_name('cuda:0')}")

    def sample() -> None:
        while not ended.wait(SAMPLE_SECONDS):
            result = subprocess.run(words, capture_output=True, text=True, check=False)
            activity.busy.extend(float(word) for word in result.stdout.split() if word.replace(".", "").isdigit())

    thread = threading.Thread(target=sample)
    thread.start()
    try:
        with record_active_sms(activity):
            yield activity
    finally:
        ended.set()
        thread.join()


@contextmanager
def record_active_sms(activity: Activity) -> Iterator[None]:
    """Record the mean share of active SMs inside the block, where the package nvidia-ml-py and the GPU have it."""
    try:
        import pynvml

        pynvml.nvmlInit()
        name = visible_name("cuda:0")
        by_name = pynvml.nvmlDeviceGetHandleByIndex if name.isdecimal() else pynvml.nvmlDeviceGetHandleByUUID
        device = by_name(int(name) if name.isdecimal() else name)
        first = pynvml.nvmlGpmSampleGet(device, pynvml.nvmlGpmSampleAlloc())
    except Exception as error:  # the package, the library or the metrics may be missing
        activity.reason = f"{type(error).__name__}: {error}"
        yield
        return
    yield
    try:
        last = pynvml.nvmlGpmSampleGet(device, pynvml.nvmlGpmSampleAlloc())
        activity.active_sms = read_active_sms(pynvml, first, last)
    except Exception as error:
        activity.reason = f"{type(error).__name__}: {error}"


def read_active_sms(pynvml: Any, first: Any, last: Any) -> float:
    """Return the share of active SMs between two samples, in percent."""
    request = pynvml.c_nvmlGpmMetricsGet_t()
    request.version, request.numMetrics = pynvml.NVML_GPM_METRICS_GET_VERSION, 1
    request.sample1, request.sample2 = first, last
    request.metrics[0].metricId = pynvml.NVML_GPM_METRIC_SM_UTIL
    return float(pynvml.nvmlGpmMetricsGet(request).metrics[0].value)
