"""Export as TensorBoard event files: a folder for each run, with its scalars, config and status.

Values are stored as 32-bit numbers, as TensorBoard stores them. The messages are `Event`, `Summary` and
`HParamsPluginData`. Sources:
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/summary.proto and
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/plugin_data.proto
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import IO

from labbench.export.event_records import (
    bytes_field,
    double_field,
    frame_records,
    integer_field,
    struct_value,
    varint,
)
from labbench.files import write_atomically
from labbench.filters.parser import RunFilter
from labbench.records import RunRecord
from labbench.store.reader import Reader

_POINTS_PER_WRITE = 50_000
_SESSION_STATUS = {"finished": 1, "diverged": 2, "failed": 2}
"""Statuses of a session: 1 success, 2 failure; 0 unknown."""


def write_event_files(
    reader: Reader, filter: RunFilter, folder: Path, *, metrics: Collection[str] | None = None
) -> int:
    """Write the runs that match a filter to `FOLDER/EXPERIMENT/NAME-KEY/`, and return their number.

    Args:
        metrics: Names of the metrics to write; None writes all.

    Raises:
        InputError: If the filter or a metric is unknown.
        OSError: If a file cannot be written.
    """
    n_runs = 0
    for run in reader.each_run(filter, metrics):
        path = folder / _safe_name(run.experiment) / f"{_safe_name(run.name)}-{run.key}"
        path.mkdir(parents=True, exist_ok=True)
        with write_atomically(path / f"events.out.tfevents.{int(run.created)}.labbench") as file:
            _write_run(reader, run, file)
        n_runs += 1
    return n_runs


def _safe_name(name: str) -> str:
    """Return a name as one part of a path."""
    return re.sub(r"[^\w.=+,@ -]", "_", name)[:100].strip(". ") or "_"


def _write_run(reader: Reader, run: RunRecord, file: IO[bytes]) -> None:
    started = run.started or run.created
    version = double_field(1, started) + bytes_field(3, "brain.Event:2")
    pairs = b"".join(
        bytes_field(1, bytes_field(1, key) + bytes_field(2, struct_value(_parameter(value))))
        for key, value in run.config.items()
    )
    group = bytes_field(4, run.key) + double_field(5, started)
    file.write(frame_records([version, _hparams_event(started, "_hparams_/session_start_info", 3, pairs + group)]))
    for metric in run.summary:
        _write_series(reader, run.key, metric, started, file)
    ended = run.finished or run.heartbeat or started
    end = integer_field(1, _SESSION_STATUS.get(run.status, 0)) + double_field(2, ended)
    file.write(frame_records([_hparams_event(ended, "_hparams_/session_end_info", 4, end)]))


def _parameter(value: object) -> object:
    """Return a value that TensorBoard can show: a list or dict as JSON."""
    return json.dumps(value) if isinstance(value, list | dict) else value


def _hparams_event(wall: float, tag: str, number: int, message: bytes) -> bytes:
    """Return an event with a message of the HParams plugin, in the field `number` of its data."""
    data = integer_field(1, 0) + bytes_field(number, message)
    plugin = bytes_field(1, bytes_field(1, "hparams") + bytes_field(2, data))
    value = bytes_field(1, tag) + bytes_field(9, plugin)
    return double_field(1, wall) + bytes_field(5, bytes_field(1, value))


def _write_series(reader: Reader, key: str, metric: str, started: float, file: IO[bytes]) -> None:
    steps, values = reader.series(key, metric)
    walls = started + reader.times(key, metric) / 1000
    value = bytes_field(1, bytes_field(1, metric) + b"\x15" + bytes(4))  # the last four bytes are the number
    summary = bytes_field(5, value)[:-4]
    for start in range(0, len(steps), _POINTS_PER_WRITE):
        stop = start + _POINTS_PER_WRITE
        floats = values[start:stop].astype("<f4").tobytes()
        events = [
            b"\x09" + struct.pack("<d", wall) + b"\x10" + varint(step) + summary + floats[4 * index : 4 * index + 4]
            for index, (wall, step) in enumerate(
                zip(walls[start:stop].tolist(), steps[start:stop].tolist(), strict=True)
            )
        ]
        file.write(frame_records(events))
