"""Log calls in a `.wandb` file, gathered metric by metric; the field `history` of W&B's records.

Calls of numbers under known keys are read by one regular expression, without decoding their messages; W&B writes the
keys of each call in another order. Source of the messages:
https://github.com/wandb/wandb/blob/main/wandb/proto/wandb_internal.proto
"""

from __future__ import annotations

import json
import math
import re
from array import array
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from labbench.configs import flatten
from labbench.importing.file_types.protobuf import read_message, to_bytes, to_double, to_signed, to_text
from labbench.importing.source_run import RunCollector

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEP, _TIME = "_step", "_timestamp"
_STEP_COLUMN = 0

_VALUE_JSON = b"\x82\x01"
"""Start of the value of an item, the field `value_json`, behind its key or keys."""
_BYTE, _VARINT = rb"[\x00-\x7f]", rb"[\x80-\xff]*[\x00-\x7f]"


def _item_finder(field: bytes, end: bytes) -> Callable[[bytes], list[tuple[bytes, bytes]]]:
    """Return a function for the keys and the number of each item in a field of a record, at whose end `end` may be.

    Both are empty, in the last place, for what is no such item.
    """
    return re.compile(
        rb"(?:\A(?:\x08" + _VARINT + rb")?" + field + _VARINT + rb")?"  # number of the record, size of the field
        rb"\n" + _VARINT + rb"([\n\x12][^\x82]*)" + re.escape(_VALUE_JSON) + _BYTE +  # an item: its keys, its value
        rb"([-+.0-9eENaInfity]+)"  # a number, NaN or Infinity; no other value of JSON has these characters alone
        + end + rb"|(?s:.+)"
    ).findall  # fmt: skip


_find_history_items = _item_finder(rb"\x12", rb"(?:\x12" + _BYTE + rb"\x08" + _VARINT + rb"\Z)?")
"""Behind the items is the field `step`, which the key `_step` has, too."""
_find_summary_items = _item_finder(rb"\x1a", b"")


class LogCalls:
    """Log calls of a run."""

    def __init__(self) -> None:
        self._names = [_STEP, _TIME]
        self._column_by_name = {name: column for column, name in enumerate(self._names)}
        self._column_by_key: dict[bytes, int] = {}
        """Columns by the encoded keys of an item."""
        self._columns = array("i")
        self._values = array("d")
        """Column and value of each number of all calls, both of shape (N,)."""
        self._sizes = array("q")
        """Number of numbers of each call."""
        self._skipped: Counter[str] = Counter()

    def add_known(self, record: bytes) -> bool:
        """Add the call in a record if it has only numbers under known keys and a step; return False for any other.

        Raises:
            ValueError: If a value is no number.
        """
        items, column_of = _find_history_items(record), self._column_by_key
        try:
            columns = [column_of[key] for key, _ in items]
        except KeyError:
            return False
        if _STEP_COLUMN not in columns:
            return False
        self._values.extend([float(number) for _, number in items])
        self._columns.extend(columns)
        self._sizes.append(len(columns))
        return True

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
        n_before = len(self._values)
        for name, value in numbers.items():
            if isinstance(value, bool | int | float):
                self._append(name, value)
            elif value is not None:
                self._skipped["values that are not numbers"] += 1
        self._sizes.append(len(self._values) - n_before)
        for item in items:
            keys, separator, _ = item.partition(_VALUE_JSON)
            if separator and (name := read_key(read_message(keys))) in numbers:
                self._column_by_key[keys] = self._column(name)

    def _append(self, name: str, value: float) -> None:
        try:
            self._values.append(float(value))
        except OverflowError:
            self._skipped["numbers out of range"] += 1
        else:
            self._columns.append(self._column(name))

    def _column(self, name: str) -> int:
        """Return the column of a name, a new one if it has none."""
        column = self._column_by_name.setdefault(name, len(self._names))
        if column == len(self._names):
            self._names.append(name)
        return column

    def add_to(self, points: RunCollector) -> int:
        """Add the points of all calls to a collector, and return the last step; 0 without one."""
        series = self._series()
        steps, times = (self._by_call(*series[name]) for name in (_STEP, _TIME))
        points.skipped.update(self._skipped)
        is_known = np.isfinite(steps)
        if n_without_step := int(np.count_nonzero(~is_known)):
            points.skipped["log calls without a step"] += n_without_step
        for name, (calls, values) in series.items():
            has_step = is_known[calls]
            if not name.startswith("_") and has_step.any():
                calls, values = calls[has_step], values[has_step]
                points.add_columns(name, np.trunc(steps[calls]), times[calls], values)
        return int(steps[is_known][-1]) if is_known.any() else 0

    def _series(self) -> dict[str, tuple[NDArray[np.int64], NDArray[np.float64]]]:
        """Return by name the numbers of the calls that have it, in order, and its values, both of shape (N,)."""
        columns = np.asarray(self._columns).astype(np.min_scalar_type(len(self._names)))  # few bits are sorted faster
        calls = np.repeat(np.arange(len(self._sizes)), np.asarray(self._sizes, np.int64))
        order = np.argsort(columns, kind="stable")
        bounds = np.searchsorted(columns[order], np.arange(len(self._names) + 1))
        values = np.asarray(self._values)
        parts = (order[start:stop] for start, stop in pairwise(bounds))
        return {name: (calls[part], values[part]) for name, part in zip(self._names, parts, strict=True)}

    def _by_call(self, calls: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the value of each log call, NaN without one, shape (calls,)."""
        by_call = np.full(len(self._sizes), math.nan)
        by_call[calls] = values
        return by_call


class Summary:
    """Summary of a run: the last value of each key. W&B writes a record of it with each log call."""

    def __init__(self) -> None:
        self._values: dict[str, Any] = {}
        self._numbers: dict[bytes, float] = {}
        """Newer values by the encoded keys of an item."""

    def add_known(self, record: bytes) -> bool:
        """Add a record if it has only numbers; return False for any other. Raises ValueError if one is no number."""
        items = _find_summary_items(record)
        keys, numbers = zip(*items, strict=True) if items else ((b"",), ())
        if not keys[-1]:
            return False
        self._numbers.update(zip(keys, map(float, numbers), strict=True))
        return True

    def add(self, summary: bytes) -> None:
        """Add the message of a record. Raises ProtobufError if it is not one."""
        self._values = self.values | read_items(read_message(summary).get(1, []))
        self._numbers.clear()

    @property
    def values(self) -> dict[str, Any]:
        """Values by key, without those that describe media."""
        numbers = {read_key(read_message(keys)): number for keys, number in self._numbers.items()}
        return split_media(self._values | numbers)[0]


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
