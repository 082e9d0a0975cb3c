"""Initial weights of a run: random, or from a file or another run (`init_from`)."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from labbench.errors import InputError
from labbench.params.builtin import takes_weights
from labbench.params.paths import resolve_checkpoint
from labbench.records import Config
from labbench.train import checkpoints
from labbench.train.engine.freezing import find_head, freeze
from labbench.train.engine.stepper import Workload
from labbench.train.tasks.task import Task, make_model

Checkpoint = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Tensors by name, and the metadata that labbench stored with them."""

HEAD_KEYS = ("classes", "path", "standardize_target")
"""Parameters of a task that determine what a head predicts."""

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Keys under which training scripts commonly store the state_dict in a larger dict."""


def make_untrained_model(task: Task, config: Config) -> nn.Module:
    """Return the task's model with random weights, frozen if the config says so.

    Raises:
        InputError: The model has nothing to train.
    """
    model = make_model(task, config)
    if is_frozen(task, config):
        freeze(model)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        first = next((name for name, _ in model.named_parameters()), None)
        raise InputError(
            "the model has nothing to train: it has no parameters"
            if first is None
            else f"the model has nothing to train: all of its parameters, from {first} on, are frozen "
            "(requires_grad=False); leave at least one unfrozen in model(config)"
        )
    return model


def is_frozen(task: Task, config: Config) -> bool:
    """Return True if only the head is trained.

    The config requests it with `freeze`, or with `start = "frozen"` and `init_from`.
    """
    if not takes_weights(task.params):
        return False
    return bool(config.get("freeze") or (config["init_from"] is not None and config.get("start") == "frozen"))


def load_initial_weights(model: nn.Module, workload: Workload, config: Config) -> str | None:
    """Load the weights of the config's `init_from` into the model.

    Returns a message if some of the backbone's tensors were not loaded. A tensor is loaded if name and shape match. The
    head is not loaded if the file's metadata names another task, other classes or other data than the run's.

    Raises:
        InputError: The file cannot be read, no tensor of the backbone matches, or the backbone is frozen and not all of
            its tensors match.
    """
    if not takes_weights(workload.task.params) or config["init_from"] is None:
        return None
    path = resolve_checkpoint(config["init_from"], workload.files)
    tensors, metadata = read_checkpoint(path, path.stat().st_mtime_ns)
    state_dict, head = model.state_dict(), find_head(model)[0]
    same_head = all(metadata.get(key, value) == value for key, value in head_metadata(workload, config).items())
    matches = {name: name in tensors and tensors[name].shape == tensor.shape for name, tensor in state_dict.items()}
    backbone = [name for name in state_dict if name.rpartition(".")[0] != head]
    unmatched = [name for name in backbone if not matches[name]]
    if backbone and (len(unmatched) == len(backbone) or (unmatched and is_frozen(workload.task, config))):
        raise InputError(format_mismatch(config["init_from"], unmatched[0], state_dict[unmatched[0]], tensors))
    with torch.no_grad():
        for name, tensor in state_dict.items():
            if matches[name] and (name in backbone or same_head):
                tensor.copy_(tensors[name])
    if not unmatched:
        return None
    return f"not loaded from {config['init_from']} (missing there or of another shape): {', '.join(unmatched)}"


def head_metadata(workload: Workload, config: Config) -> dict[str, Any]:
    """Return the metadata that identifies the classes, or the unit, of a head.

    The metadata is stored with a saved model.
    """
    return {"task": workload.name, **{key: config[key] for key in HEAD_KEYS if key in workload.task.params}}


def format_mismatch(init_from: str, name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> str:
    """Return the error message for a tensor that does not match.

    `tensor`, of any shape, is in the network; `tensors` are from the file.
    """
    if name in tensors:
        there = f"{format_shape(tensors[name])} there"
    else:
        there = f"missing there (the file has {', '.join(tensors) or 'no tensors'})"
    return (
        f'init_from = "{init_from}" does not match the network of this run: {name} is {format_shape(tensor)} here and '
        f"{there}. Use the network that was trained with those weights: the same model, hidden or channels, kernel, "
        "pooling, batchnorm or layers, on inputs of the same shape"
    )


def format_shape(tensor: Tensor) -> str:
    """Return the shape of a tensor as text, such as "16x64"."""
    return "x".join(map(str, tensor.shape)) or "one number"


@cache
def read_checkpoint(path: Path, changed: int) -> Checkpoint:
    """Load a checkpoint onto the CPU, without executing code from the file.

    Results are cached by path and by `changed`, the file's modification time in nanoseconds.

    Raises:
        InputError: The file cannot be read or has no named tensors.
    """
    try:
        if path.suffix == ".safetensors":
            return checkpoints.read_safetensors(path, torch.device("cpu"))
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"cannot read weights from {path} ({reason}): save the state_dict only, with "
            "torch.save(model.state_dict(), FILE) or as .safetensors"
        ) from None
    for key in STATE_DICT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = {k: v for k, v in content.items() if isinstance(v, Tensor)} if isinstance(content, Mapping) else {}
    if not tensors:
        raise InputError(f"{path} has no named tensors: save them with torch.save(model.state_dict(), FILE)")
    return tensors, {}
