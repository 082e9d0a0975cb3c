"""Folder of a SLURM job: incomplete records, starts of a requeued job, and who may write there."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from labbench.errors import LabbenchError
from labbench.executors.event_codec import decode_event, encode_event
from labbench.executors.slurm import event_log
from labbench.executors.slurm.event_log import EventFileWriter, read_records
from labbench.executors.slurm.job_folder import JobFolder, Position
from labbench.executors.slurm.job_main import TrainingJob
from labbench.records import Boundary, Event, Finished, Log, Points, Stack


def write_start(folder: JobFolder, events: Sequence[Event], number: int = 0, previous_end: int = 0) -> Path:
    path = folder.path / f"events-{number}"
    writer = EventFileWriter(path, json.dumps({"previous_end": previous_end}).encode())
    for event in events:
        writer.append(encode_event(event))
    writer.close()
    return path


def received(folder: JobFolder, offset: int = 0) -> list[Event]:
    return [event for event, _ in folder.read_events(Position(0, offset))]


def test_an_incomplete_last_record_waits_wherever_it_is_torn(folder: JobFolder) -> None:
    events: list[Event] = [Boundary("run0", 1, 5), Log("run1", 1, "naïve\n"), Boundary("run1", 1, 6)]
    path = write_start(folder, events)
    ends = [position.offset for _, position in folder.read_events(Position())]
    content = path.read_bytes()
    for length in range(ends[1], len(content)):
        path.write_bytes(content[:length])
        assert received(folder) == events[:2]
    path.write_bytes(content[:-3] + b"\0\0\0")  # the network has not delivered all of it
    assert received(folder) == events[:2]
    path.write_bytes(content)
    assert received(folder, ends[1]) == events[2:]


def test_a_record_may_be_longer_than_what_is_read_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(event_log, "CHUNK_BYTES", 64)
    writer = EventFileWriter(tmp_path / "events-0", b"heading")
    for size in (10, 1000, 10):
        writer.append(b"x" * size)
    writer.close()
    position, sizes = 0, []
    while records := read_records(tmp_path / "events-0", position):
        sizes += [len(payload) for payload, _ in records]
        position = records[-1][1]
    assert sizes == [len(b"heading"), 10, 1000, 10]


def test_what_an_earlier_start_writes_after_the_next_one_has_begun_does_not_count(
    folder: JobFolder, stack: Stack
) -> None:
    first = write_start(folder, [Boundary("run0", 1, 5), Finished("run1", 1, "finished", "all epochs")])
    remaining, _, writer = folder.begin()
    assert remaining is not None
    assert [(run.key, run.boundary) for run in remaining.runs] == [("run0", 5)]
    writer.append(encode_event(Boundary("run0", 1, 7)))
    late = EventFileWriter(folder.path / "late", b"")
    late.append(encode_event(Boundary("run0", 1, 6)))  # a process on a node that has lost its network
    late.close()
    with first.open("ab") as file:
        file.write((folder.path / "late").read_bytes()[event_log.HEADER.size :])
    writer.close()
    assert [event.step for event in received(folder) if isinstance(event, Boundary)] == [5, 7]


def test_a_folder_that_others_may_enter_is_refused_by_the_driver_and_by_the_job(
    folder: JobFolder, stack: Stack
) -> None:
    for path in (folder.path, folder.path.parent):
        path.chmod(0o750)
        with pytest.raises(LabbenchError, match="permissions 0700"):
            TrainingJob(str(folder.path))()
        path.chmod(0o700)
    folder.path.parent.chmod(0o755)
    with pytest.raises(LabbenchError, match="move it away"):
        JobFolder.create(folder.path.parent / "another", stack, "cpu")
    folder.path.parent.chmod(0o700)
    link = folder.path.parent / "link"
    link.symlink_to(folder.path)
    with pytest.raises(LabbenchError, match="must be a folder of this user"):
        JobFolder(link).require_private()
    assert {path.stat().st_mode & 0o777 for path in folder.path.iterdir()} == {0o600}


def test_numbers_of_events_arrive_with_all_bits() -> None:
    values = [0.1 + 0.2, 5e-324, -0.0, math.inf, -math.inf, math.nan, 1e308]
    event = decode_event(encode_event(Points("run0", 1, "train/loss", [*range(7)], [*range(7)], values)))
    assert isinstance(event, Points)
    assert list(map(float.hex, event.values)) == list(map(float.hex, values))
    for text in (b"", b"{}", b'{"type": "Points"}', b'{"type": "os"}', b"[1]"):
        with pytest.raises(ValueError, match="not an event"):
            decode_event(text)
