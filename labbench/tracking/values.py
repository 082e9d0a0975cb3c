"""Conversion of logged metrics: nested dicts, values, steps and names."""

from __future__ import annotations

import hashlib
import operator
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsFloat, TypeAlias

from labbench.messages import ProblemReporter, quote_value
from labbench.tracking.images import Image

MAX_STEP = 2**62
"""Largest valid step: half of SQLite's largest integer, so that counting on from it never overflows."""

_MAX_DEPTH = 100
"""Maximum levels of nested dicts; the bound also ends the recursion for a dict that contains itself."""


class DeviceNumber:
    """Copy of a number on a GPU.

    `number()` waits for the GPU; the writer thread calls it, so that the training thread does not wait.
    """

    __slots__ = ("_stream", "_tensor")

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor.detach().clone()  # queued on the GPU after the kernel that computes the number
        # tracking must not import torch, which is loaded if there is a tensor
        self._stream = sys.modules["torch"].cuda.current_stream(tensor.device) if tensor.is_cuda else None

    def number(self) -> float:
        """Return the value. Raises RuntimeError if the GPU has failed."""
        if self._stream is None:
            return float(self._tensor.item())
        # read on the stream of the copy: the stream of this thread would not wait for the copy
        with sys.modules["torch"].cuda.stream(self._stream):
            return float(self._tensor.item())


Value: TypeAlias = float | DeviceNumber | Image


def flatten_metrics(
    metrics: Mapping[Any, Any], problems: ProblemReporter, prefix: str = "", depth: int = 0
) -> dict[str, Value]:
    """Return the numbers and images as a flat copy, with the keys of nested dicts joined by `/`.

    A list of images is as a dict with their indices as keys.

    Other values are left out and reported with their key.
    """
    if depth > _MAX_DEPTH:
        problem = f"run.log: dicts are nested more than {_MAX_DEPTH} deep: `{prefix[:_MAX_DEPTH]}…`"
        problems.report(prefix, problem)
        return {}
    flat: dict[str, Value] = {}
    n_values = len(metrics)
    for key, value in metrics.items():
        name = f"{prefix}{key}" if prefix else key
        if value.__class__ is float or value.__class__ is DeviceNumber or isinstance(value, Image):
            flat[name] = value
        elif isinstance(value, Mapping) or _is_list_of_images(value):
            items = value if isinstance(value, Mapping) else dict(enumerate(value))
            nested = flatten_metrics(items, problems, f"{name}/", depth + 1)
            n_values += len(nested) - 1
            flat |= nested
        else:
            try:
                flat[name] = _to_number(value)
            except Exception as error:  # the value's class may raise anything
                reason = (
                    error.args[0] if isinstance(error, _NotANumber) else f"must be a number, not {quote_value(value)}"
                )
                problems.report(str(name), f"run.log: `{name}` {reason}")
                n_values -= 1
    if len(flat) < n_values:
        name = _first_repeated(_names(metrics, prefix, depth))
        problems.report(name, f"run.log: two values are called `{name}`", "the later one is recorded")
    return flat


def _names(metrics: Mapping[Any, Any], prefix: str, depth: int) -> Iterator[str]:
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            if depth < _MAX_DEPTH:
                yield from _names(value, f"{prefix}{key}/", depth + 1)
        else:
            yield f"{prefix}{key}"


def _first_repeated(names: Iterable[str]) -> str:
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), "")  # type: ignore[func-returns-value]


def to_numbers(metrics: Any, problems: ProblemReporter) -> dict[str, Value]:
    """Return the numbers of a script's dict, see `flatten_metrics`; anything but a dict is reported."""
    try:
        values = {**metrics}
    except Exception:  # a mapping of another library may raise anything
        problem = f"run.log takes a dict of numbers by name, not {type(metrics).__name__}"
        problems.report("call of log", problem)
        return {}
    return flatten_metrics(values, problems)


def to_step(step: Any, problems: ProblemReporter) -> int | None:
    """Convert a step to an integer; 3.0 and numpy integers are valid, "3" is converted and reported.

    Returns None for any other value, which is reported.
    """
    number: int | None
    try:
        number = operator.index(step)
    except Exception:  # the step's class may raise anything
        number = _whole_number(step)
    if number is None:
        problem = f"run.log: the step must be a whole number, not {quote_value(step)}"
    elif not -MAX_STEP <= number <= MAX_STEP:
        problem = f"run.log: the step {quote_value(number)} is out of range: at most {MAX_STEP} in magnitude"
        number = None
    elif isinstance(step, str):
        problem = f"run.log: the step must be a whole number, not {quote_value(step)}"
    else:
        return number
    problems.report("step of log", problem, "the next step is used" if number is None else f"{number} is used")
    return number


def _whole_number(step: Any) -> int | None:
    try:
        number = int(step)
        return number if isinstance(step, str) or number == step else None
    except Exception:  # not a number, NaN, infinity
        return None


def _is_list_of_images(value: Any) -> bool:
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(each, Image) for each in value)


class _NotANumber(Exception):
    """A value cannot be recorded; the message follows its key."""


def _to_number(value: Any) -> float | DeviceNumber:
    """Convert a value. Raises _NotANumber, or any exception of the value's class."""
    device = getattr(value, "device", None)
    if hasattr(value, "detach") and getattr(device, "type", "cpu") != "cpu" and value.numel() == 1:
        return DeviceNumber(value)
    if _is_masked(value):
        raise _NotANumber("is masked, so it has no value")
    number = value
    if callable(getattr(value, "item", None)):
        try:
            number = value.item()
        except Exception as error:
            shape = getattr(value, "shape", None)
            description = f"an array of shape {tuple(shape)}" if shape else quote_value(value)
            raise _NotANumber(f"must be one number, not {description}") from error
    if not isinstance(number, SupportsFloat):  # excludes str, which float() would parse
        is_picture = callable(getattr(value, "savefig", None)) or callable(getattr(value, "getpixel", None))
        hint = "; log a figure or picture as labbench.Image(...)" if is_picture else ""
        raise _NotANumber(f"must be a number, not {quote_value(value)}{hint}")
    try:
        return float(number)
    except OverflowError:
        raise _NotANumber(f"is an integer too large for a float: {quote_value(number)}") from None


def _is_masked(value: Any) -> bool:
    """Return True for a masked number of numpy, which `item()` and `float()` would convert to some number."""
    all_masked = getattr(getattr(value, "mask", None), "all", None)  # pandas has a method `mask`, without `all`
    return all_masked is not None and getattr(value, "size", 0) == 1 and bool(all_masked())


MAX_NAME_CHARACTERS = 250
"""Longer names are truncated and end in eight digits of their hash, which keeps them distinct."""

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def storable_name(key: Any) -> str:
    """Return the name under which a key is stored.

    Control characters are escaped and long names truncated; other keys stay unchanged.
    """
    name = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(key)) or "(no name)"
    if len(name) > MAX_NAME_CHARACTERS:
        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{name[: MAX_NAME_CHARACTERS - 9]}…{digest}"
    return name
