"""State in the header of a checkpoint, read without torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

MAX_HEADER_BYTES = 100_000_000
"""Largest header that safetensors accepts."""


def read_checkpoint_state(path: Path) -> dict[str, Any]:
    """Return the JSON state that `checkpoints.save_checkpoint` wrote.

    The file begins with the size of its header, 8 bytes little-endian, followed by the header, a JSON object.

    Raises:
        OSError: The file cannot be read.
        ValueError: The file is damaged.
    """
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > MAX_HEADER_BYTES:
            raise ValueError(f"{path} is not a checkpoint")
        header = json.loads(file.read(size))
        end = max((tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"), default=0)
        if path.stat().st_size != 8 + size + end:
            raise ValueError(f"{path} is incomplete")
    state: dict[str, Any] = json.loads(header["__metadata__"]["state"])
    return state


def describe_variable(path: str) -> str:
    """Return a variable as text: `self.n` of a model, `self.n of the task`, `CALLS of task.py`."""
    owner, colon, name = path.partition(": ")
    return f"{name} of {owner}" if colon else f"self.{path}"
