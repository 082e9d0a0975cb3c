"""Rank of this process in a distributed job: rank 0 records, the other ranks record nothing."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

_VARIABLES = (
    "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK",
    "JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "LOCAL_RANK",
)  # fmt: skip
"""Variables in which launchers pass the rank, by precedence: torchrun, Slurm, Open MPI, PMIx, MPICH, MVAPICH, ..."""


DRIVER_RANKS = "LABBENCH_DRIVER_RANKS"
"""Variable with the ranks of the `labbench run` that started a script: `srun labbench run` starts several of them."""


@dataclass(frozen=True, slots=True)
class Rank:
    """Rank of a process, with the reason for it."""

    number: int
    source: str = ""
    """Variable that says so, as `RANK=1`; "" for the process group of torch, and outside a distributed job."""
    is_certain: bool = True
    """False for `RANK` without `WORLD_SIZE`: torchrun sets both, but scripts also use this name for other numbers."""


def read_rank() -> Rank:
    """Return the rank of this process, 0 outside a distributed job."""
    distributed = sys.modules.get("torch.distributed")  # loaded if the script has begun a process group
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return Rank(int(distributed.get_rank()))
    of_driver = os.environ.get(DRIVER_RANKS, "").split()
    size = os.environ.get("WORLD_SIZE", "")
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if not value.isdecimal() or f"{name}={value}" in of_driver:
            continue
        if name == "RANK" and size.isdecimal() and int(value) >= int(size):
            continue  # of another job, or no rank at all
        return Rank(int(value), f"{name}={value}", is_certain=name != "RANK" or bool(size))
    return Rank(0)


def driver_ranks() -> str:
    """Return the value of `DRIVER_RANKS` for the scripts of this process, which are no ranks of its job."""
    return " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)
