"""Rank of this process in a distributed job: rank 0 records, the other ranks record nothing."""

from __future__ import annotations

import os
import sys

_VARIABLES = (
    "RANK", "SLURM_PROCID", "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK",
    "JSM_NAMESPACE_RANK", "FLUX_TASK_RANK", "LOCAL_RANK",
)  # fmt: skip
"""Variables in which launchers pass the rank, by precedence: torchrun, Slurm, Open MPI, PMIx, MPICH, MVAPICH, ..."""


def read_rank() -> int:
    """Return the rank of this process, 0 outside a distributed job."""
    distributed = sys.modules.get("torch.distributed")  # loaded if the script has begun a process group
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return int(distributed.get_rank())
    for name in _VARIABLES:
        value = os.environ.get(name, "")
        if value.isdecimal():
            return int(value)
    return 0
