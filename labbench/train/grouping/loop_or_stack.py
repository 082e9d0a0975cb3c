"""The rule that decides whether runs step together or one after another: stacks share overhead, not arithmetic.

Starting an operation costs a CPU as much as some hundred thousand multiplications. A stack starts one for all of its
runs, but multiplies more slowly than a plain step does: it pays while operations are small. Both are counted in one
plain step, never timed, so that the same grid always trains in the same way and gives the same numbers.
"""

from __future__ import annotations

from dataclasses import replace

import torch

from labbench.train.engine.initial_weights import new_model
from labbench.train.engine.schedules import StepCounter
from labbench.train.engine.single import SingleStepper
from labbench.train.engine.stepper import Workload
from labbench.train.grouping.work_counter import WorkCounter
from labbench.train.run_state import TrainingRun

WIDE = 6
"""Runs from which on a stack counts as wide."""
PRODUCTS = {("stacked", False): 600e3, ("stacked", True): 2e6, ("vmap", False): 60e3, ("vmap", True): 400e3}
"""Floating-point operations of matrix products per operation up to which a stack pays, by its way and if it is wide.

Measured on one core of an AMD EPYC with networks of 16 to 1,024 units and 4 to 64 channels, in stacks of 3 and 12.
"""
CONVOLUTIONS = {
    ("stacked", False): torch.inf,  # written by hand, and nowhere slower than torch's
    ("stacked", True): torch.inf,
    ("vmap", False): 80e3,
    ("vmap", True): 300e3,
}
"""The same for convolutions."""

COUNTED = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, "clip": None}
"""Settings under which a step is counted: runs of one structure are counted alike."""


def reason_to_loop(way: str, members: list[TrainingRun], workload: Workload) -> str | None:
    """Return the reason why these members should train one after another, or None where a stack in that way pays."""
    if workload.data.device.type != "cpu" or workload.precision.compiles:
        return None
    work = work_of_a_step(members[0], workload)
    key = (way, len(members) >= WIDE)
    operations = max(1, work.operations)
    products, convolutions = (work.flops - work.convolution_flops) / operations, work.convolution_flops / operations
    if products / PRODUCTS[key] + convolutions / CONVOLUTIONS[key] <= 1:
        return None
    size = f"{work.flops / 1e6:.1f} million floating-point operations in {operations} operations a step"
    return f"the plain loop is quicker for models of this size ({size})"


def work_of_a_step(member: TrainingRun, workload: Workload) -> WorkCounter:
    """Return the counts of a plain training step of the member's model, on its first batch."""
    counted = replace(workload, fixed=COUNTED)
    alone = SingleStepper(new_model(workload.task, member.config), member.config, counted, StepCounter())
    alone.train(True)
    batch = first_batch([member.config["seed"]], workload)
    alone.step(batch)  # the first one makes what later ones find
    with WorkCounter() as work:
        alone.step(batch)
    return work


def first_batch(seeds: list[int], workload: Workload) -> torch.Tensor:
    """The numbers of the samples with which each run begins: (S, N)."""
    return workload.data.first_batch(seeds, workload.batch_size)
