"""The network with which a run begins: as it is drawn, or with weights that were learnt before (`init_from`)."""

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
from labbench.params.files import resolve_checkpoint
from labbench.records import Config
from labbench.train import checkpoints
from labbench.train.engine.freezing import find_head, freeze
from labbench.train.engine.stepper import Workload
from labbench.train.tasks.task import Task, make_model

Checkpoint = tuple[Mapping[str, Tensor], Mapping[str, Any]]
"""Tensors by name, and what labbench wrote beside them."""

STATE_DICT_KEYS = ("state_dict", "model_state_dict", "model")
"""Where people's training scripts put the state_dict in a larger dict."""


def new_model(task: Task, config: Config) -> nn.Module:
    """A model of the task as it is drawn, frozen where the config says so."""
    model = make_model(task, config)
    if is_frozen(task, config):
        freeze(model)
    return model


def is_frozen(task: Task, config: Config) -> bool:
    """Whether the head alone is to learn, in a network that is not frozen by the task itself."""
    if not takes_weights(task.params):
        return False
    return bool(config.get("freeze") or (config["init_from"] is not None and config.get("start") == "frozen"))


def load_initial_weights(model: nn.Module, workload: Workload, config: Config) -> str | None:
    """Give the model the weights that the config names; what of it stays as it was drawn, in words, if anything does.

    What is there under the same name in the same shape is taken over. The head is not where it tells other classes.
    Raises InputError where nothing before the head fits, or not all of it and it is to stay as it is.
    """
    if not takes_weights(workload.task.params) or config["init_from"] is None:
        return None
    path = resolve_checkpoint(config["init_from"], workload.files)
    tensors, metadata = read_checkpoint(path, path.stat().st_mtime_ns)
    own, head = model.state_dict(), find_head(model)[0]
    same_head = all(metadata.get(key, value) == value for key, value in head_metadata(workload, config).items())
    fits = {name: name in tensors and tensors[name].shape == tensor.shape for name, tensor in own.items()}
    body = [name for name in own if name.rpartition(".")[0] != head]
    lacking = [name for name in body if not fits[name]]
    if body and (len(lacking) == len(body) or (lacking and is_frozen(workload.task, config))):
        raise InputError(format_mismatch(config["init_from"], lacking[0], own[lacking[0]], tensors))
    with torch.no_grad():
        for name, tensor in own.items():
            if fits[name] and (name in body or same_head):
                tensor.copy_(tensors[name])
    return f"not taken over from {config['init_from']}: {', '.join(lacking)}" if lacking else None


def head_metadata(workload: Workload, config: Config) -> dict[str, Any]:
    """What decides which classes a head tells apart, as it is written beside a kept model."""
    return {"task": workload.name, **{key: config[key] for key in ("classes", "path") if key in workload.task.params}}


def format_mismatch(word: str, name: str, tensor: Tensor, tensors: Mapping[str, Tensor]) -> str:
    here = f"{name} is {format_shape(tensor)} in this network"
    there = (
        f"and {format_shape(tensors[name])} there"
        if name in tensors
        else f"and there are {', '.join(tensors) or 'none'}"
    )
    return (
        f'init_from = "{word}" does not fit: {here}, {there}. Give this run the network that learnt those weights: '
        "the same model, hidden or channels, kernel, pooling, batchnorm or layers, on inputs of the same shape"
    )


def format_shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "one number"


@cache
def read_checkpoint(path: Path, changed: int) -> Checkpoint:
    """A file of weights as it was `changed` last, on the CPU. Nothing in it is run. Raises InputError."""
    try:
        if path.suffix == ".safetensors":
            return checkpoints.read_safetensors(path, torch.device("cpu"))
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, ValueError, EOFError, RuntimeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(
            f"{path} cannot be read as weights ({reason}): save those alone, torch.save(model.state_dict(), FILE), "
            "or as .safetensors"
        ) from None
    for key in STATE_DICT_KEYS:
        if isinstance(found, Mapping) and isinstance(found.get(key), Mapping):
            found = found[key]
    tensors = {k: v for k, v in found.items() if isinstance(v, Tensor)} if isinstance(found, Mapping) else {}
    if not tensors:
        raise InputError(f"{path} holds no weights by name: save them with torch.save(model.state_dict(), FILE)")
    return tensors, {}
