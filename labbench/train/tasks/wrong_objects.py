"""Errors about objects of a wrong type that a task returns, with what to write instead."""

from __future__ import annotations

from collections.abc import Mapping
from inspect import isclass
from typing import Any

from torch import Tensor, nn
from torch.utils.data import DataLoader

from labbench.errors import InputError
from labbench.train.data.samples import MISSING_RETURN

BATCHES = "labbench forms the batches itself, as the parameter batch_size says"


def data_error(data: Any) -> InputError:
    """Return the error for an object that `data(config)` returned."""
    return InputError(
        "the task's data(config) must return a labbench.Data or labbench.Datasets, not "
        f"{_describe(data)}{_suggest(_data_remedy(data))}"
    )


def model_error(model: Any) -> InputError:
    """Return the error for an object that `model(config)` returned."""
    remedy = ""
    if model is None:
        remedy = MISSING_RETURN
    elif isclass(model):
        remedy = f"write {model.__name__}(...) to make one"
    elif isinstance(model, tuple | list) and any(isinstance(part, nn.Module) for part in model):
        remedy = "return the module alone, a list of layers as nn.Sequential(*layers)"
    return InputError(
        f"the task's model(config) must return a torch.nn.Module, not {_describe(model)}{_suggest(remedy)}"
    )


def outputs_error(outputs: Any) -> InputError:
    """Return the error of the default loss for outputs of a model that are not one tensor."""
    remedy = "return the scores of the classes alone, or define loss(outputs, targets) in the task"
    if isinstance(outputs, Mapping):
        parts = f"a dict with {', '.join(map(str, outputs))}"
    elif isinstance(outputs, tuple | list):
        parts = f"{len(outputs)} values ({', '.join(_describe_part(part) for part in outputs)})"
    else:
        parts = f"an object of type {type(outputs).__name__}"
    return InputError(
        f"the default loss, cross-entropy, needs one tensor of outputs, and forward returned {parts}: {remedy}"
    )


def _data_remedy(data: Any) -> str:
    parts = list(data.values()) if isinstance(data, Mapping) else data if isinstance(data, tuple | list) else [data]
    if data is None:
        return MISSING_RETURN
    if isclass(data):
        return f"write {data.__name__}(...) to make one"
    if any(isinstance(part, DataLoader) for part in parts):
        return f"write labbench.Datasets(train, val) with the datasets of the loaders; {BATCHES}"
    if parts and all(isinstance(part, Tensor) for part in parts):
        return "write labbench.Data(train=(inputs, targets), val=(inputs, targets))"
    if parts and all(isinstance(part, tuple | list) for part in parts):
        return "write labbench.Data(train, val), each a pair of tensors (inputs, targets)"
    if parts and all(hasattr(part, "__getitem__") and hasattr(part, "__len__") for part in parts):
        return "write labbench.Datasets(train, val)"
    return ""


def _describe(value: Any) -> str:
    return f"the class {value.__name__}" if isclass(value) else "None" if value is None else type(value).__name__


def _describe_part(part: Any) -> str:
    return f"shape {tuple(part.shape)}" if isinstance(part, Tensor) else _describe(part)


def _suggest(remedy: str) -> str:
    return f": {remedy}" if remedy else ""
