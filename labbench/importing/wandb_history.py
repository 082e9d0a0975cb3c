"""Log calls in a `.wandb` file, gathered metric by metric; the field `history` of W&B's records.

Most calls are like an earlier one but for their numbers: a regular expression made of that one reads them, without
decoding their messages. Source of the messages:
https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.configs import flatten
from labbench.importing.file_types.protobuf import read_message, to_bytes, to_double, to_signed, to_text
from labbench.importing.source_run import RunCollector

if TYPE_CHECKING:
    from numpy.typing import NDArray

_VALUE_JSON = b"\x82\x01"
"""Start of the value of an item, the field `value_json`, behind its key or keys."""
_STEP, _TIME = "_step", "_timestamp"

_NUMBER = rb"[-+.0-9eENaInfity]+"
"""A number, NaN or Infinity; no other value of JSON has these characters alone."""
_BYTE, _VARINT = rb"[\x00-\x7f]", rb"[\x80-\xff]*[\x00-\x7f]"
_NUMBER_VALUE = re.compile(_BYTE + _NUMBER)
"""A number with its size."""
_RECORD_START = rb"(?:\x08" + _VARINT + rb")?\x12" + _VARINT
"""Number of the record, and the size of `history`."""
_HISTORY_END = rb"(?:\x12" + _BYTE + rb"\x08" + _VARINT + rb")?"
"""The field `step`, whose value is also that of the key `_step`."""
_MAX_PATTERNS, _MAX_KEYS = 64, 1_000
"""Number of patterns and of their keys: to make one takes the time of reading several calls."""


class _Column:
    """Values of one key with the numbers of their log calls."""

    __slots__ = ("calls", "values")

    def __init__(self) -> None:
        self.calls = array("q")
        self.values = array("d")


class _CallPattern:
    """Log calls with numbers under the same keys in the same order."""

    def __init__(self, names: Sequence[str], expression: bytes) -> None:
        """`expression` matches a record, with a group for the number of each name."""
        self.names = names
        self.fullmatch = re.compile(expression).fullmatch
        self.calls = array("q")
        self.numbers = array("d")
        """Shape (calls, names), row by row."""

    def column(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the numbers of the calls and the values of a key, both of shape (N,)."""
        table = np.asarray(self.numbers).reshape(-1, len(self.names))
        return np.asarray(self.calls, np.int64), table[:, self.names.index(name)]


class LogCalls:
    """Log calls of a run."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {}
        """Values by key, of the calls that no pattern has read."""
        self._patterns: list[_CallPattern] = []
        """Patterns, the one of the last call first."""
        self._skipped: Counter[str] = Counter()
        self._n_calls = 0

    @property
    def last_step(self) -> int:
        """Step of the last call that has one; 0 without one."""
        _, steps = self._column(_STEP)
        known = steps[np.isfinite(steps)]
        return int(known[-1]) if len(known) else 0

    def add_known(self, record: bytes) -> bool:
        """Add the call in a record if it is like an earlier one but for its numbers; return False if it is not.

        Raises:
            ValueError: If one of them is no number.
        """
        for pattern in self._patterns:
            match = pattern.fullmatch(record)
            if match is not None:
                pattern.numbers.extend([*map(float, match.groups())])  # none if one of them is no number
                pattern.calls.append(self._n_calls)
                self._n_calls += 1
                if pattern is not self._patterns[0]:
                    self._patterns.remove(pattern)
                    self._patterns.insert(0, pattern)
                return True
        return False

    def add(self, history: bytes) -> None:
        """Add the message of a log call. Raises ProtobufError if it is not one."""
        message = read_message(history)
        items = list(map(to_bytes, message.get(1, [])))
        values = read_items(items)
        for step in message.get(2, []):
            [number] = read_message(to_bytes(step)).get(1, [0])[:1]
            values[_STEP] = to_signed(number) if isinstance(number, int) else math.nan
        numbers, media = split_media(values)
        self._skipped.update(media)
        for name, value in numbers.items():
            if isinstance(value, bool | int | float):
                self._append(name, value)
            elif value is not None:
                self._skipped["values that are not numbers"] += 1
        self._n_calls += 1
        if len(self._patterns) < _MAX_PATTERNS and (pattern := _make_pattern(items)) is not None:
            self._patterns.insert(0, pattern)

    def _append(self, name: str, value: float) -> None:
        try:
            number = float(value)
        except OverflowError:
            self._skipped["numbers out of range"] += 1
            return
        column = self._columns.setdefault(name, _Column())
        column.calls.append(self._n_calls)
        column.values.append(number)

    def add_to(self, points: RunCollector) -> None:
        """Add the points of all calls to a collector."""
        steps, times = self._by_call(_STEP), self._by_call(_TIME)
        points.skipped.update(self._skipped)
        if n_without_step := int(np.count_nonzero(~np.isfinite(steps))):
            points.skipped["log calls without a step"] += n_without_step
        for name in self._columns:
            calls, values = self._column(name)
            has_step = np.isfinite(steps[calls])
            if not name.startswith("_") and has_step.any():
                calls, values = calls[has_step], values[has_step]
                points.add_columns(name, np.trunc(steps[calls]), times[calls], values)

    def _by_call(self, name: str) -> NDArray[np.float64]:
        """Return the value of each log call, NaN without one, shape (n_calls,)."""
        calls, values = self._column(name)
        by_call = np.full(self._n_calls, math.nan)
        by_call[calls] = values
        return by_call

    def _column(self, name: str) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return the numbers of the calls that have a key, in order, and its values, both of shape (N,)."""
        column = self._columns.get(name) or _Column()
        parts = [(np.asarray(column.calls, np.int64), np.asarray(column.values))]
        parts += [pattern.column(name) for pattern in self._patterns if name in pattern.names]
        calls, values = map(np.concatenate, zip(*parts, strict=True))
        order = np.argsort(calls, kind="stable")
        return calls[order], values[order]


def _make_pattern(items: Sequence[bytes]) -> _CallPattern | None:
    """Return a pattern for calls that differ from one in their numbers; None if it has other values or no step."""
    if len(items) > _MAX_KEYS:
        return None
    names, expression = [], _RECORD_START
    for item in items:
        keys, _, value = item.partition(_VALUE_JSON)
        if not _NUMBER_VALUE.fullmatch(value):
            return None
        name, number = read_key(read_message(keys)), _NUMBER
        if name in (_STEP, _TIME) or not name.startswith("_"):
            names.append(name)
            number = b"(" + _NUMBER + b")"
        expression += rb"\n" + _VARINT + re.escape(keys + _VALUE_JSON) + _BYTE + number
    if _STEP not in names or len({*names}) < len(names):
        return None
    return _CallPattern(names, expression + _HISTORY_END)


def read_items(items: Sequence[int | bytes]) -> dict[str, Any]:
    """Return the values of items by key; nested keys are joined with a point, as W&B shows them.

    Raises:
        ProtobufError: If they are not messages.
    """
    values: dict[str, Any] = {}
    for content in items:
        item = read_message(to_bytes(content))
        key, value = read_key(item), _read_value(item)
        values |= dict(flatten({key: value})) if 2 in item else {key: value}
    return values


def split_media(values: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return values without those that describe media, such as the width of an image, and the kind of each medium."""
    media = {name.removesuffix("_type"): kind for name, kind in values.items() if name.endswith("._type")}
    others = {name: value for name, value in values.items() if not (media and name.startswith((*media,)))}
    return others, [f"{kind} objects" for kind in media.values()]


def read_key(item: Mapping[int, list[int | bytes]]) -> str:
    """Return the key of an item, or its nested keys joined with points."""
    return ".".join(map(to_text, item.get(2, []))) or (to_text(item[1][0]) if 1 in item else "")


def _read_value(item: Mapping[int, list[int | bytes]]) -> Any:
    """Return the value of an item: a JSON text, or one of the typed fields that newer versions write."""
    if 16 in item or 8 in item:
        try:
            return json.loads(to_bytes(item.get(16, item.get(8, [b""]))[0]))
        except ValueError:
            return None
    if 6 in item:
        return to_double(item[6][0])
    if 7 in item:
        return to_text(item[7][0])
    value = item.get(5, item.get(4, [None]))[0]
    if 4 in item:
        return bool(value)
    return to_signed(value) if isinstance(value, int) else None
