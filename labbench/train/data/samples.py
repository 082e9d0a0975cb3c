"""Samples in tensors, or in tuples, lists and dicts of tensors, such as tokens with their mask."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from inspect import signature
from typing import Any, TypeAlias

import torch
from torch import Tensor

from labbench.errors import InputError

Samples: TypeAlias = Any
"""A tensor of shape (N, ...), or a tuple, list or dict of `Samples` with the same N."""

MISSING_RETURN = "is `return` missing?"


def map_tensors(function: Callable[[Tensor], Any], samples: Samples) -> Any:
    """Return the samples with each tensor (N, ...) replaced by `function` of it; lists become tuples.

    Named tuples keep their type. None, which a model may return beside tensors, stays None.
    """
    if isinstance(samples, Tensor):
        return function(samples)
    if samples is None:
        return None
    if isinstance(samples, Mapping):
        return {key: map_tensors(function, part) for key, part in samples.items()}
    return _as_tuple(samples, (map_tensors(function, part) for part in samples))


def list_tensors(samples: Samples) -> Iterator[Any]:
    """Yield the tensors of the samples, and any other leaf that is no tuple, list or dict."""
    if isinstance(samples, Mapping | tuple | list):
        for part in samples.values() if isinstance(samples, Mapping) else samples:
            yield from list_tensors(part)
    else:
        yield samples


def count_samples(samples: Samples) -> int:
    """Return the number of samples, N."""
    return len(next(list_tensors(samples)))


def sample_problem(sample: Any, dataset: Any) -> str | None:
    """Return the reason why a sample of a dataset is not a pair (inputs, target), None if it is one."""
    if isinstance(sample, tuple | list) and len(sample) == 2:
        return None
    if sample is None:
        return f"__getitem__ of {type(dataset).__name__} returned None: {MISSING_RETURN}"
    if isinstance(sample, Mapping):
        return f"they are dicts with {', '.join(map(str, sample))}: return (inputs, target)"
    if isinstance(sample, tuple | list):
        return f"they have {len(sample)} values: several inputs are a tuple, ((a, b), target)"
    return f"they are {type(sample).__name__} objects: return (inputs, target)"


def concatenate(parts: Sequence[Samples], dim: int = 0) -> Any:
    """Concatenate samples of equal nesting along a dimension."""
    first = parts[0]
    if len(parts) == 1 or first is None:
        return first
    if isinstance(first, Tensor):
        return torch.cat(list(parts), dim)
    if isinstance(first, Mapping):
        return {key: concatenate([part[key] for part in parts], dim) for key in first}
    return _as_tuple(first, (concatenate(part, dim) for part in zip(*parts, strict=True)))


def _as_tuple(like: Any, parts: Iterator[Any]) -> Any:
    """Return the parts as a tuple, of the type of `like` if that is a named tuple."""
    return type(like)(*parts) if hasattr(like, "_fields") else tuple(parts)


def split_samples(samples: Samples, size: int) -> Iterator[Any]:
    """Yield the samples in parts of up to `size` samples."""
    for start in range(0, count_samples(samples), size):
        yield map_tensors(lambda tensor, start=start: tensor[start : start + size], samples)  # type: ignore[misc]


def arguments_of(inputs: Samples) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return the positional and the keyword arguments with which a model is called.

    A tensor is one argument; a tuple or list are several; the entries of a dict are keyword arguments.
    """
    if isinstance(inputs, Tensor):
        return (inputs,), {}
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    return tuple(inputs), {}


def call_model(model: Callable[..., Any], inputs: Samples) -> Any:
    """Return the outputs of a model; see `arguments_of`.

    Raises:
        InputError: The model's `forward` does not take these arguments.
    """
    if isinstance(inputs, Tensor):
        return model(inputs)
    arguments, keywords = arguments_of(inputs)
    try:
        return model(*arguments, **keywords)
    except TypeError as error:
        try:
            signature(getattr(model, "forward", model)).bind(*arguments, **keywords)
        except TypeError as mismatch:
            names = ", ".join(f"{key}=..." for key in keywords) or f"{len(arguments)} tensors"
            raise InputError(
                f"the model's forward does not take the inputs of a sample, {names} ({mismatch}): a tuple of inputs "
                "is passed as positional arguments, a dict as keyword arguments"
            ) from error
        raise
