"""Names and values of logged metrics: flattening, conversion, limits."""

from __future__ import annotations

import operator
import re
import sys
from collections.abc import Mapping
from typing import Any, SupportsFloat, TypeAlias

from labbench.errors import InputError
from labbench.tracking.messages import quote_value

MAX_STEP = 2**62
"""The largest step that may be given: half of what SQLite stores, so that no count from it comes to an end."""


_MAX_DEPTH = 100
"""Levels of nested dicts; one that contains itself has more."""


class DeviceNumber:
    """A copy of a number on a GPU. `number()` waits for the GPU: the writer's thread calls it, not the training's."""

    __slots__ = ("_stream", "_tensor")

    def __init__(self, tensor: Any) -> None:
        self._tensor = tensor.detach().clone()  # queued on the GPU behind what computes it
        # torch is loaded where there are tensors: labbench itself imports it only to train
        self._stream = sys.modules["torch"].cuda.current_stream(tensor.device) if tensor.is_cuda else None

    def number(self) -> float:
        """The value. Raises RuntimeError where the GPU has failed."""
        if self._stream is None:
            return float(self._tensor.item())
        # read on the stream of the copy: another thread's stream would not wait for it
        with sys.modules["torch"].cuda.stream(self._stream):
            return float(self._tensor.item())


Value: TypeAlias = float | DeviceNumber


def flatten_metrics(metrics: Mapping[Any, Any], prefix: str = "", depth: int = 0) -> dict[str, Value]:
    """A copy with nested dicts joined by `/`. Raises InputError that names what is not a number."""
    if depth > _MAX_DEPTH:
        raise InputError(f"run.log: dicts are nested more than {_MAX_DEPTH} deep: `{prefix[:_MAX_DEPTH]}…`")
    flat: dict[str, Value] = {}
    for key, value in metrics.items():
        name = f"{prefix}{key}" if prefix else key
        if value.__class__ is float or value.__class__ is DeviceNumber:
            flat[name] = value
        elif isinstance(value, Mapping):
            flat |= flatten_metrics(value, f"{name}/", depth + 1)
        else:
            flat[name] = _to_number(name, value)
    return flat


def to_step(step: Any) -> int:
    """A step as an integer: 3.0 and numpy's integers are ones. Raises InputError for what is none."""
    try:
        number = operator.index(step)
    except TypeError:
        number = _integer_or_none(step)
    if not -MAX_STEP <= number <= MAX_STEP:
        raise InputError(f"run.log: the step {quote_value(number)} is too large: at most {MAX_STEP}")
    return number


def _integer_or_none(step: Any) -> int:
    try:
        number = int(step)
    except (TypeError, ValueError, OverflowError):  # no number, NaN, infinity
        number = None
    if number is None or isinstance(step, str) or number != step:
        raise InputError(f"run.log: the step must be a whole number, not {quote_value(step)}")
    return number


def _to_number(key: Any, value: Any) -> Value:
    device = getattr(value, "device", None)
    if hasattr(value, "detach") and getattr(device, "type", "cpu") != "cpu" and value.numel() == 1:
        return DeviceNumber(value)
    item = getattr(value, "item", None)
    number = value
    if callable(item):
        try:
            number = item()
        except (RuntimeError, TypeError, ValueError) as error:
            shape = getattr(value, "shape", None)
            what = f"an array of shape {tuple(shape)}" if shape else quote_value(value)
            raise InputError(f"run.log: `{key}` must be one number, not {what}") from error
    try:
        if isinstance(number, SupportsFloat):  # text is none, though float() would read it
            return float(number)
    except OverflowError:
        raise InputError(f"run.log: `{key}` is an integer too large for a float: {quote_value(number)}") from None
    raise InputError(f"run.log: `{key}` must be a number, not {quote_value(value)}")


MAX_NAME_CHARACTERS = 250
"""Characters. Longer names are cut, and told apart by eight digits of their hash."""


_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")


def storable_name(key: Any) -> str:
    """The name under which the values of a key are stored; the key itself where it is an ordinary one."""
    name = _CONTROL.sub(lambda match: f"\\x{ord(match[0]):02x}", str(key)) or "(no name)"
    if len(name) > MAX_NAME_CHARACTERS:
        import hashlib  # 3 ms, which start() need not pay

        digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()[:8]
        name = f"{name[: MAX_NAME_CHARACTERS - 9]}…{digest}"
    return name
