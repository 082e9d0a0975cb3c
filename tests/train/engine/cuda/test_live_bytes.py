"""The memory of a stack, traced on `meta`, is that of the same step on real tensors."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from dataclasses import replace

from helpers.meta_training import META, STACKED_MODELS, images, stacked_stepper, workload_of
from helpers.training import CPU
from labbench.train.engine import dropout
from labbench.train.engine.cuda.live_bytes import LiveBytes, state_bytes, step_bytes
from labbench.train.engine.stepper import Workload
from labbench.train.rng import device_words


def traced_bytes(workload: Workload, layers: str, runs: int) -> tuple[int, int]:
    """Return the bytes of the state and of a step of a stack on the device of the data."""
    stack = stacked_stepper("stacked", workload, {"optimizer": "adam"}, runs)
    batch = torch.zeros(runs, workload.batch_size, dtype=torch.int64, device=workload.data.device)
    return state_bytes(stack), step_bytes(stack, batch, workload.data.sample_validation())


@pytest.mark.parametrize("runs", [1, 8, 64])
@pytest.mark.parametrize("layers", ["batch norm 1d", "dropout", "conv2d, batch norm 2d, dropout 2d", "max pool 2d"])
def test_a_trace_on_meta_has_the_bytes_of_real_tensors(layers: str, runs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # on a CPU, masks are made by numpy and in the layout of its kernels
    monkeypatch.setattr(dropout, "words", device_words)
    monkeypatch.setattr(dropout, "has_contiguous_samples", lambda inputs: False)
    monkeypatch.setattr(dropout, "MAX_BLOCK_ELEMENTS", dropout.MAX_GPU_BLOCK_ELEMENTS)
    on_meta = workload_of(STACKED_MODELS[layers])
    on_cpu = replace(on_meta, data=images({}).to(CPU, torch.float32), gpu_layers=True)
    meta_state, meta_step = traced_bytes(on_meta, layers, runs)
    cpu_state, cpu_step = traced_bytes(on_cpu, layers, runs)
    assert meta_state == cpu_state
    assert meta_state + meta_step == pytest.approx(cpu_state + cpu_step, rel=0.05)
    assert meta_step == pytest.approx(cpu_step, rel=0.05)


def test_released_tensors_do_not_count() -> None:
    with LiveBytes(META) as live:
        for _ in range(10):
            x = torch.zeros(1024, device=META) + 1  # at most three of 4,096 bytes live
        x.add_(1)
        x.view(2, 512)
    assert live.peak == 3 * 4096
    assert live.current == 4096
    del x
    assert live.current == 0
