"""The choice between a stack and the loop.

Stacks share overhead, not arithmetic. On a CPU, starting an operation takes as long as some hundred thousand
multiplications. A stack starts one operation for all of its runs, but multiplies more slowly than a plain step: it is
faster only if operations are small. Operations and floating-point operations of one plain step are counted, never
timed, so that the same grid always trains with the same engine and gives the same results.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch.nn.modules.conv import _ConvNd

from labbench.train.engine.cpu.vmap_convolution import is_stackable
from labbench.train.engine.initial_weights import make_untrained_model
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stepper import Workload
from labbench.train.grouping.work_counter import WorkCounter
from labbench.train.run_state import TrainingRun

WIDE_STACK_RUNS = 6
"""Minimum number of runs of a wide stack."""
MAX_PRODUCT_FLOPS = {("stacked", False): 600e3, ("stacked", True): 2e6, ("vmap", False): 60e3, ("vmap", True): 400e3}
"""Maximum matrix-product FLOPs per operation for a stack, by (engine, stack is wide); above, the loop is faster.

Measured on one core of an AMD EPYC with networks of 16 to 1,024 units and 4 to 64 channels, in stacks of 3 and 12.
"""
MAX_CONVOLUTION_FLOPS = {
    ("stacked", False): torch.inf,  # the hand-written kernels are never slower than torch's
    ("stacked", True): torch.inf,
    ("vmap", False): 80e3,
    ("vmap", True): 300e3,
}
"""Maximum convolution FLOPs per operation for a stack, by (engine, stack is wide)."""
MAX_IM2COL_FLOPS = {False: 1e6, True: 1.5e6}
"""Maximum in `vmap` if `cpu/vmap_convolution.py` computes all convolutions, by (stack is wide).

Measured on one core of an Intel Xeon with autoencoders of 4 to 32 channels, in stacks of 6 and 24.
"""

COUNTING_SETTINGS = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": None, "ema_decay": None}
"""Settings of the counted step, so that all runs of one structure have the same counts."""


def reason_to_loop(engine: str, runs: list[TrainingRun], workload: Workload) -> str | None:
    """Return the reason to train the runs one after another.

    Returns None if a stack with this engine is faster.
    """
    if workload.data.device.type != "cpu" or workload.precision.compiles:
        return None
    work = count_step_work(runs[0], workload)
    is_wide = len(runs) >= WIDE_STACK_RUNS
    key = (engine, is_wide)
    max_convolution = MAX_CONVOLUTION_FLOPS[key]
    if engine == "vmap" and workload.uses_vmap_kernels and has_only_stackable_convolutions(runs[0], workload):
        max_convolution = MAX_IM2COL_FLOPS[is_wide]
    operations = max(1, work.operations)
    products, convolutions = (work.flops - work.convolution_flops) / operations, work.convolution_flops / operations
    if products / MAX_PRODUCT_FLOPS[key] + convolutions / max_convolution <= 1:
        return None
    size = f"{work.flops / 1e6:.1f} million floating-point operations in {operations} operations per step"
    return f"the plain loop is faster for models of this size ({size})"


def has_only_stackable_convolutions(run: TrainingRun, workload: Workload) -> bool:
    """Return True if the hand-written kernels compute all convolutions of a run's model in a `vmap` stack."""
    model = make_untrained_model(workload.task, run.config)
    return all(is_stackable(module) for module in model.modules() if isinstance(module, _ConvNd))


def count_step_work(run: TrainingRun, workload: Workload) -> WorkCounter:
    """Count the work of one plain training step.

    The step uses the run's model and its first batch.
    """
    counted_workload = replace(workload, fixed=COUNTING_SETTINGS)
    model = make_untrained_model(workload.task, run.config)
    loop = SingleStepper(model, run.config, counted_workload, StepCounter())
    loop.train(True)
    batch = first_batch([run.config["seed"]], workload)  # (1, N)
    loop.step(batch)  # the first step also allocates, which later steps do not
    with WorkCounter() as work:
        loop.step(batch)
    return work


def first_batch(seeds: list[int], workload: Workload) -> torch.Tensor:
    """Return the sample indices of the first batch of S runs, shape (S, N), int64."""
    return workload.data.first_batch(seeds, workload.batch_size)
