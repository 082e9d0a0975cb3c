"""Mark of the tests that need a CUDA device; bench/gpu.sh runs all of them where there is one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch


def needs_cuda(test: Callable[..., Any]) -> Callable[..., Any]:
    """Mark a test with `cuda`, and skip it without a CUDA device."""
    marked = pytest.mark.cuda(test)
    return pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")(marked)
