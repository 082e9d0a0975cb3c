"""Rank of this process in a distributed job: rank 0 records, the other ranks record nothing."""

from __future__ import annotations

import os
import sys

_VARIABLES = (
    "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK",
    "JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "LOCAL_RANK",
)  # fmt: skip
"""Variables in which launchers pass the rank, by precedence: torchrun, Slurm, Open MPI, PMIx, MPICH, MVAPICH, ..."""


DRIVER_RANKS = "LABBENCH_DRIVER_RANKS"
"""Variable with the ranks of the `labbench run` that started a script: `srun labbench run` starts several of them."""


def read_rank() -> int:
    """Return the rank of this process, 0 outside a distributed job."""
    distributed = sys.modules.get("torch.distributed")  # loaded if the script has begun a process group
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    of_driver = os.environ.get(DRIVER_RANKS, "").split()
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if value.isdecimal() and f"{name}={value}" not in of_driver:
            return int(value)
    return 0


def driver_ranks() -> str:
    """Return the value of `DRIVER_RANKS` for the scripts of this process, which are no ranks of its job."""
    return " ".join(f"{name}={os.environ[name]}" for name in _VARIABLES if name in os.environ)
