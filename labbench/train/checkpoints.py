"""What a run leaves on disk: snapshots from which it goes on after an interruption, and the model it is asked to keep.

Each is one safetensors file with JSON in its header, written beside its place and moved there, so that a file is
whole or not there. A snapshot counts only once the database's boundary names its step: until then the one before does.
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
from labbench.files import MODEL, SNAPSHOTS, discard_snapshots, run_folder, snapshot_file, write_atomically
from labbench.records import RunRecord

WIDE = "complex128"
"""Header key that lists tensors of this type, which safetensors lacks: they are stored as pairs of float64."""

Tensors = Mapping[str, Tensor]
Metadata = Mapping[str, Any]
"""Values that JSON can say; non-finite numbers too."""


def save_snapshot(files: Path, run: RunRecord, step: int, tensors: Tensors, state: Metadata) -> None:
    """Write the run's snapshot at `step`. The one before stays, since the database may not know of this one yet."""
    write_safetensors(snapshot_file(files, run.key, step), tensors, state)
    steps = sorted(int(file.stem.rpartition("-")[2]) for file in run_folder(files, run.key).glob(SNAPSHOTS))
    discard_snapshots(files, run.key, keep=frozenset(steps[-2:]))


def load_snapshot(files: Path, run: RunRecord, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and state of the run at its boundary. Raises LabbenchError where the snapshot is not there or torn."""
    path = snapshot_file(files, run.key, run.boundary)
    try:
        return read_safetensors(path, device)
    except (OSError, SafetensorError, ValueError) as error:
        raise LabbenchError(
            f"{run.name} ({run.key}) cannot go on from step {run.boundary}, its snapshot {path} cannot be read "
            f"({error}): labbench retry {run.key} --from-start"
        ) from error


def save_model(files: Path, run: RunRecord, weights: Tensors, info: Metadata) -> None:
    """Keep a model's weights; `info` says at which step they were taken, and why."""
    write_safetensors(run_folder(files, run.key) / MODEL, weights, info)


def write_safetensors(path: Path, tensors: Tensors, state: Metadata) -> None:
    """Tensors and state in one file that is whole or not there."""
    wide = [name for name, tensor in tensors.items() if tensor.dtype == torch.complex128]
    stored = {
        name: torch.view_as_real(t).contiguous() if name in wide else t.contiguous() for name, t in tensors.items()
    }
    header = {"state": json.dumps(state)} | ({WIDE: json.dumps(wide)} if wide else {})
    path.parent.mkdir(parents=True, exist_ok=True)
    with write_atomically(path) as file:
        save_file(stored, file.name, header)


def read_safetensors(path: Path, device: torch.device) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What `write` wrote."""
    with safe_open(path, framework="pt", device=str(device)) as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
        metadata = file.metadata() or {}
    for name in json.loads(metadata.get(WIDE, "[]")):
        tensors[name] = torch.view_as_complex(tensors[name])
    state: dict[str, Any] = json.loads(metadata.get("state", "{}"))
    return tensors, state
