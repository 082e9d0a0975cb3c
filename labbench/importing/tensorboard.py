"""Import of TensorBoard event files: scalars and images of both versions, hyperparameters of the HParams plugin.

The messages are `Event`, `Summary` and `HParamsPluginData`. Sources:
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/compat/proto/summary.proto and
https://github.com/tensorflow/tensorboard/blob/master/tensorboard/plugins/hparams/plugin_data.proto
"""

from __future__ import annotations

import math
import os
import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any, Literal

from labbench.errors import InputError
from labbench.importing.file_types.event_file import read_records
from labbench.importing.file_types.protobuf import (
    ProtobufError,
    read_fields,
    read_message,
    read_varint,
    to_bytes,
    to_double,
    to_float,
    to_signed,
    to_text,
)
from labbench.importing.file_types.yaml_file import read_yaml_mapping
from labbench.importing.source_run import (
    MAX_IMAGE_BYTES,
    FoundRun,
    RunCollector,
    RunFolder,
    SourceImage,
    SourceRun,
    no_runs_error,
)
from labbench.portraits.logged_images import MAX_IMAGES
from labbench.portraits.png_file import is_png

_TIME_FOLDER = re.compile(r"\d{9,11}\.\d+")
"""Name of the folder that torch's `SummaryWriter.add_hparams` creates beneath the folder of the run."""

_SESSION_START = 1
_FILE_VERSIONS = ("brain.Event:1", "brain.Event:2")
_FLOAT = struct.Struct("<f")

_TENSOR_FORMATS = {1: "<f", 2: "<d", 3: "<i", 9: "<q"}
"""Formats of scalar tensors by data type: float, double, int32, int64."""


def find_runs(path: Path) -> Iterator[FoundRun]:
    """Yield the runs beneath a folder: each folder with event files, or one event file.

    Folders that torch's `add_hparams` and `add_scalars` create beneath a run belong to that run.

    Raises:
        InputError: If there is no event file.
    """
    if path.is_file():
        yield FoundRun(path.name, partial(_read_run, RunFolder(path.parent, path), [path], {}), [path])
        return
    folders = dict(_folders_with_events(path))
    if not folders:
        raise no_runs_error(path, "event files (*tfevents*)")
    children: dict[Path, dict[Path, list[Path]]] = {run: {} for run in folders}
    for run, files in folders.items():
        if run.parent in folders and _belongs_to_parent(run, files):
            children[run.parent][run] = files
    parts = {child for of_folder in children.values() for child in of_folder}
    for run, files in folders.items():
        if run not in parts:
            folder = RunFolder(path, run)
            all_files = [*files, *(file for child in children[run].values() for file in child)]
            yield FoundRun(folder.label, partial(_read_run, folder, files, children[run]), all_files)


def _folders_with_events(path: Path) -> Iterator[tuple[Path, list[Path]]]:
    for folder, subfolders, names in os.walk(path):
        subfolders.sort()
        files = [Path(folder, name) for name in sorted(names) if "tfevents" in name]
        if files:
            yield Path(folder), files


def _belongs_to_parent(folder: Path, files: Sequence[Path]) -> bool:
    """Return True for a folder of `add_hparams` (a time) or of `add_scalars` (the tag and a name)."""
    if _TIME_FOLDER.fullmatch(folder.name):
        return True
    try:
        tag = next((tag for file in files for record in read_records(file) for tag in _tags(record)), None)
    except (InputError, ProtobufError):
        return False
    return tag is not None and folder.name.startswith(tag.replace("/", "_") + "_")


def _tags(record: bytes) -> Iterator[str]:
    for number, summary in read_fields(record):
        for _, value in read_fields(to_bytes(summary)) if number == 5 else ():
            yield from (to_text(tag) for key, tag in read_fields(to_bytes(value)) if key == 1)


@dataclass
class _Events:
    """Content of the event files of a run."""

    points: RunCollector = field(default_factory=RunCollector)
    first_wall: float = math.nan
    """Time of the first event, which a writer writes at once, in Unix seconds."""
    config: dict[str, Any] = field(default_factory=dict)
    status: Literal["finished", "failed", "stopped"] = "finished"
    images: dict[tuple[str, int], SourceImage] = field(default_factory=dict)
    """The last image of each tag and step."""
    plugins: dict[str, str] = field(default_factory=dict)
    """Name of the plugin by tag: only the first summary of a tag needs to name it."""


def _read_run(folder: RunFolder, files: Sequence[Path], children: Mapping[Path, Sequence[Path]]) -> SourceRun:
    """Read the event files of a run, in the order of their names, which contain their times."""
    events = _Events()
    for file in files:
        _FileReader(events, "").read(file)
    for child, child_files in children.items():
        name = "" if _TIME_FOLDER.fullmatch(child.name) else child.name
        for file in child_files:
            _FileReader(events, name).read(file)
    started = events.points.started
    parameters = read_yaml_mapping(files[0].parent / "hparams.yaml")  # Lightning writes it beside the event file
    return SourceRun(
        id=folder.id(events.first_wall),
        name=folder.label,
        experiment=folder.experiment or "tensorboard",
        series=events.points.series(started),
        config=parameters | events.config,
        status=events.status,
        started=started,
        finished=events.points.finished,
        images=list(events.images.values()),
        skipped=events.points.skipped,
        earlier_id=folder.earlier_id(started),
        other_ids=RunFolder(folder.root, files[0].parent).other_ids(events.first_wall, math.nan, started, None),
    )


class _FileReader:
    """Reader of the event files of one folder."""

    def __init__(self, events: _Events, folder: str) -> None:
        self._events = events
        self._folder = folder
        """Name of the folder that `add_scalars` created; empty for the folder of the run."""
        self._metrics: dict[bytes, str] = {}
        """Metric by summary without its last four bytes, the value, in which the summaries of a scalar differ."""

    def read(self, file: Path) -> None:
        """Add the content of an event file. Raises InputError if it is damaged."""
        points = self._events.points
        try:
            records = read_records(file)
            first = [*islice(records, 1)]
            if first and math.isnan(self._events.first_wall):
                self._events.first_wall, *_ = _read_event(first[0])
            for record in chain(first, records):
                wall, step, summary, session = _read_event(record)
                if session == _SESSION_START:
                    for collector in points.metrics.values():
                        collector.drop_from(step)
                if (metric := self._metrics.get(summary[:-4])) is not None:
                    points.add(metric, step, _FLOAT.unpack(summary[-4:])[0], wall)
                else:
                    self._read_summary(summary, step, wall)
        except ProtobufError as error:
            raise InputError(f"{file}: not a TensorBoard event file: {error}") from error

    def _read_summary(self, summary: bytes, step: int, wall: float) -> None:
        for number, value in read_fields(summary):
            if number == 1:
                message = to_bytes(value)
                metric = self._read_value(message, step, wall)
                is_alone = len(summary) == len(message) + (2 if len(message) < 128 else 3)
                if metric is not None and message[-5:-4] == b"\x15" and is_alone:
                    self._metrics[summary[:-4]] = metric

    def _read_value(self, message: bytes, step: int, wall: float) -> str | None:
        """Add a value of a summary, and return the metric if it is a plain scalar.

        Hyperparameters and images are added too; anything else is counted.
        """
        events, value = self._events, read_message(message)
        tag = to_text(value[1][0]) if 1 in value else ""
        plugin, content = _read_metadata(to_bytes(value[9][0])) if 9 in value else (events.plugins.get(tag, ""), b"")
        events.plugins[tag] = plugin
        metric = f"{tag}/{self._folder.removeprefix(tag.replace('/', '_') + '_')}" if self._folder else tag
        if plugin == "hparams":
            _read_hparams(content, events)
        elif 2 in value:
            events.points.add(metric, step, to_float(value[2][0]), wall)
            return metric
        elif 8 in value and plugin in ("", "scalars"):
            number = _read_scalar_tensor(to_bytes(value[8][0]))
            if number is None:
                events.points.skipped["tensors"] += 1
            else:
                events.points.add(metric, step, number, wall)
        elif 4 in value or plugin == "images":
            _read_images(tag, step, value, events)
        else:
            kinds = {5: "histograms", 6: "sounds"}
            kind = next((kind for key, kind in kinds.items() if key in value), plugin or "other summaries")
            events.points.skipped[kind] += 1
        return None


def _read_event(record: bytes) -> tuple[float, int, bytes, int | bytes | None]:
    """Return wall time, step, summary and status of the session of an event."""
    wall, step, summary = math.nan, 0, b""
    session: int | bytes | None = None
    if record[:1] == b"\x09" and record[9:10] == b"\x10":  # the usual order, read without the general decoder
        step, position = read_varint(record, 10)
        if record[position : position + 1] == b"\x2a":
            size, position = read_varint(record, position + 1)
            if position + size == len(record):
                return to_double(record[1:9]), to_signed(step), record[position:], None
    for number, value in read_fields(record):
        if number == 1:
            wall = to_double(value)
        elif number == 2 and isinstance(value, int):
            step = to_signed(value)
        elif number == 5:
            summary = to_bytes(value)
        elif number == 3 and to_text(value) not in _FILE_VERSIONS:
            raise ProtobufError(f"it has the version {to_text(value)[:40]!r}; {_FILE_VERSIONS[-1]!r} can be read")
        elif number == 7:
            session = next((each for key, each in read_fields(to_bytes(value)) if key == 1), None)
    return wall, step, summary, session


def _read_images(tag: str, step: int, value: Mapping[int, Sequence[int | bytes]], events: _Events) -> None:
    """Add the PNG files of an image (`Summary.Image`) or of a batch of images (a tensor of strings)."""
    if 4 in value:
        contents = read_message(to_bytes(value[4][0])).get(4, [])
    else:  # width, height and the files
        contents = read_message(to_bytes(value[8][0])).get(8, [])[2:] if 8 in value else []
    for index, content in enumerate(map(to_bytes, contents)):
        name = f"{tag}/{index}" if len(contents) > 1 else tag
        is_stored = (name, step) in events.images or len(events.images) < MAX_IMAGES
        if is_png(content) and len(content) <= MAX_IMAGE_BYTES and is_stored:
            events.images[name, step] = SourceImage(name, step, content)
        else:
            events.points.skipped["images (no PNG, too large or too many)"] += 1


def _read_metadata(message: bytes) -> tuple[str, bytes]:
    """Return name and content of the plugin."""
    for number, value in read_fields(message):
        if number == 1:
            data = read_message(to_bytes(value))
            return to_text(data[1][0]) if 1 in data else "", to_bytes(data[2][0]) if 2 in data else b""
    return "", b""


def _read_scalar_tensor(message: bytes) -> float | None:
    """Return the value of a tensor of one number; None for any other tensor."""
    tensor = read_message(message)
    dtype = tensor.get(1, [0])[0]
    if dtype not in _TENSOR_FORMATS or not isinstance(dtype, int):
        return None
    content = to_bytes(tensor[4][0]) if 4 in tensor else b""
    layout = struct.Struct(_TENSOR_FORMATS[dtype])
    if content:
        return float(layout.unpack(content)[0]) if len(content) == layout.size else None
    values = tensor.get({1: 5, 2: 6, 3: 7, 9: 10}[dtype], [])
    if len(values) != 1:
        return None
    [value] = values
    if isinstance(value, int):
        return float(to_signed(value))
    if len(value) == layout.size:
        return float(layout.unpack(value)[0])
    if dtype in (3, 9):  # a packed list of varints
        number, end = read_varint(value, 0)
        return float(to_signed(number)) if end == len(value) else None
    return None


def _read_hparams(content: bytes, events: _Events) -> None:
    """Add hyperparameters from the start of a session, and the status from its end."""
    data = read_message(content)
    for start in data.get(3, []):
        for number, entry in read_fields(to_bytes(start)):
            if number == 1:
                pair = read_message(to_bytes(entry))
                name = to_text(pair[1][0]) if 1 in pair else ""
                events.config[name] = _read_struct_value(to_bytes(pair[2][0])) if 2 in pair else None
    for end in data.get(4, []):
        if read_message(to_bytes(end)).get(1) == [2]:
            events.status = "failed"


def _read_struct_value(message: bytes) -> Any:
    """Return a `google.protobuf.Value` of a number, text or truth value; None for any other."""
    for number, value in read_fields(message):
        if number == 2:
            double = to_double(value)
            return int(double) if double.is_integer() and abs(double) < 2**53 else double
        if number == 3:
            return to_text(value)
        if number == 4:
            return bool(value)
    return None
