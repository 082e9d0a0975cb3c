"""Tasks of bench/stacks.py whose import starts the sampling of a worker process."""

from __future__ import annotations

from sampler import watch_worker
from stack_tasks import Images, Residual

from labbench.train.tasks.builtin import DigitsTask

__all__ = ["DigitsTask", "Images", "Residual"]

watch_worker()
