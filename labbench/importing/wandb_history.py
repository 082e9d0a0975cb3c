"""Log calls in a `.wandb` file, gathered metric by metric; the field `history` of W&B's records.

The usual call, of numbers under keys that were logged before, is read without decoding its messages: its items are
compared with the encoded keys. Source of the messages:
https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto
"""

from __future__ import annotations

import json
import math
from array import array
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from labbench.configs import flatten
from labbench.importing.file_types.protobuf import read_message, to_bytes, to_double, to_signed, to_text
from labbench.importing.source_run import RunCollector

_VALUE_JSON = b"\x82\x01"
"""Start of the value of an item, the field `value_json`, behind its key or keys."""
_QUOTE = ord('"')
_STEP, _TIME = "_step", "_timestamp"


class _Column:
    """Values of one key with the numbers of their log calls."""

    __slots__ = ("calls", "values")

    def __init__(self) -> None:
        self.calls = array("q")
        self.values = array("d")

    def by_call(self, n_calls: int) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Return the value of each log call, NaN without one, shape (n_calls,)."""
        values = np.full(n_calls, math.nan)
        values[np.asarray(self.calls)] = np.asarray(self.values)
        return values


class LogCalls:
    """Log calls of a run."""

    def __init__(self) -> None:
        self._columns: dict[str, _Column] = {_STEP: _Column(), _TIME: _Column()}
        self._steps = self._columns[_STEP]
        self._by_encoded_key: dict[bytes, tuple[Callable[[int], None], Callable[[float], None]]] = {}
        """Functions that append a call and its value to a column."""
        self._skipped: Counter[str] = Counter()
        self._n_calls = 0

    @property
    def last_step(self) -> int:
        """Step of the last call; 0 without one."""
        steps = self._steps.values
        return int(steps[-1]) if steps and math.isfinite(steps[-1]) else 0

    def add(self, history: bytes) -> None:
        """Add the message of a log call. Raises ProtobufError if it is not one."""
        if not self._add_known(history):
            self._add_any(history)
        self._n_calls += 1

    def _add_known(self, history: bytes) -> bool:
        """Add a call of numbers and texts under known keys; return False, and add nothing, for any other."""
        call, n_texts = self._n_calls, 0
        appends_of = self._by_encoded_key.get
        rest, *pieces = history.split(_VALUE_JSON)
        for piece in pieces:  # an item is 0x0A, its size in one or two bytes, its keys, and its value with its size
            appends = appends_of(rest[2:]) or appends_of(rest[3:])
            end = piece[0] + 1 if piece else 0
            if appends is None or end > 128 or end > len(piece):
                break
            rest = piece[end:]
            try:
                number = float(piece[1:end])
            except ValueError:
                if piece[1] != _QUOTE:
                    break
                n_texts += 1
            else:
                append_call, append_value = appends
                append_call(call)
                append_value(number)
        else:
            if self._steps.calls and self._steps.calls[-1] == call:
                if n_texts:
                    self._skipped["values that are not numbers"] += n_texts
                return True
        self._drop(call)
        return False

    def _drop(self, call: int) -> None:
        for column in self._columns.values():
            while column.calls and column.calls[-1] == call:
                column.calls.pop()
                column.values.pop()

    def _add_any(self, history: bytes) -> None:
        message = read_message(history)
        items, steps = message.get(1, []), message.get(2, [])
        values = read_items(items)
        for step in steps:
            [number] = read_message(to_bytes(step)).get(1, [0])[:1]
            values[_STEP] = to_signed(number) if isinstance(number, int) else math.nan
        numbers, media = split_media(values)
        self._skipped.update(media)
        for name, value in numbers.items():
            if isinstance(value, bool | int | float):
                self._append(name, value)
            elif value is not None:
                self._skipped["values that are not numbers"] += 1
        for item in items:
            keys, separator, _ = to_bytes(item).partition(_VALUE_JSON)
            if separator and (name := read_key(read_message(keys))) in numbers:
                column = self._columns.setdefault(name, _Column())
                self._by_encoded_key[keys] = column.calls.append, column.values.append

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
        steps, times = (self._columns[name].by_call(self._n_calls) for name in (_STEP, _TIME))
        points.skipped.update(self._skipped)
        if n_without_step := int(np.count_nonzero(~np.isfinite(steps))):
            points.skipped["log calls without a step"] += n_without_step
        for name, column in self._columns.items():
            calls = np.asarray(column.calls, np.int64)
            has_step = np.isfinite(steps[calls])
            if not name.startswith("_") and has_step.any():
                calls, values = calls[has_step], np.asarray(column.values)[has_step]
                points.add_columns(name, np.trunc(steps[calls]), times[calls], values)


def read_items(items: list[int | bytes]) -> dict[str, Any]:
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
