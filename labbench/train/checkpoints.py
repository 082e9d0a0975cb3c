"""Files of a run: checkpoints to resume from, and the model kept at its end.

Each is one safetensors file with JSON in its header. Writes are atomic: a file is complete or absent. A checkpoint
becomes valid when the run's boundary in the database is set to its step; until then, the previous one is valid.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from labbench.errors import LabbenchError
from labbench.files import (
    MODEL,
    checkpoint_file,
    database_command,
    database_of_files,
    run_folder,
    write_atomically,
)
from labbench.records import RunRecord
from labbench.train.host_copies import SyncPoint, sync_point

WIDE = "complex128"
"""Header key that lists complex128 tensors: safetensors lacks the type, so they are stored as pairs of float64."""

Tensors = Mapping[str, Tensor]
Metadata = Mapping[str, Any]
"""JSON values; non-finite numbers are allowed."""


def save_checkpoint(files: Path, run: RunRecord, step: int, tensors: Tensors, state: Metadata) -> None:
    """Write the run's checkpoint at `step`: tensors of any shape and JSON state.

    Earlier checkpoints are kept: the boundary in the database may be the step of any of them until the driver has
    recorded this one.
    """
    write_safetensors(checkpoint_file(files, run.key, step), tensors, state)


def load_checkpoint(files: Path, run: RunRecord, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors (any shape) and state of the run at its boundary.

    Raises:
        LabbenchError: If the checkpoint is missing or damaged.
    """
    path = checkpoint_file(files, run.key, run.boundary)
    try:
        return read_safetensors(path, device)
    except (OSError, SafetensorError, ValueError) as error:
        command = f"{database_command(database_of_files(files))} retry {run.key} --from-start"
        raise LabbenchError(
            f"{run.name} ({run.key}) cannot resume from step {run.boundary}: cannot read its checkpoint {path} "
            f"({error}); to train it from the start: {command}"
        ) from error


def save_model(files: Path, run: RunRecord, weights: Tensors, info: Metadata) -> None:
    """Write a model's weights, tensors of any shape.

    `info` has their step and, for the best weights, the criterion and its value.
    """
    write_safetensors(run_folder(files, run.key) / MODEL, weights, info)


def write_safetensors(path: Path, tensors: Tensors, state: Metadata) -> None:
    """Write tensors of any shape and JSON state to one file, atomically."""
    wide = [name for name, tensor in tensors.items() if tensor.dtype == torch.complex128]
    with sync_point(SyncPoint.FILE):
        stored = {
            name: (torch.view_as_real(t) if name in wide else t).contiguous().cpu() for name, t in tensors.items()
        }
    header = {"state": json.dumps(state)} | ({WIDE: json.dumps(wide)} if wide else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        save_file(stored, file.name, header)


def read_safetensors(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors, any shape, and the state written by `write_safetensors`."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata() or {}
    for name in json.loads(metadata.get(WIDE, "[]")):
        tensors[name] = torch.view_as_complex(tensors[name])
    state: dict[str, Any] = json.loads(metadata.get("state", "{}"))
    return tensors, state
