"""Folder of a job on the shared disk: its stack, its events, and the driver's requests.

A job that is requeued starts again in the same folder. Each start writes an event file of its own, whose first record
is the end of the previous file as this start has read it: a process of an earlier start that still runs, on a node that
has lost its network, writes nothing that is read.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from labbench.errors import LabbenchError
from labbench.executors.attempt import sub_stack
from labbench.executors.event_codec import decode_event, decode_stack, encode_stack
from labbench.executors.slurm.event_log import EventFileWriter, read_records
from labbench.files import write_atomically
from labbench.records import Event, Stack
from labbench.train.active_runs import ActiveRuns

_STACK, _JOB, _RECORDED, _STOP, _OUTPUT = "stack.json", "job.json", "recorded", "stop.json", "output.txt"
_PREEMPTED = "preempted"


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """Position in the event files of a job."""

    start: int = 0
    """Number of the job's start."""
    offset: int = 0
    """Bytes of the start's event file."""

    def __str__(self) -> str:
        return f"{self.start}:{self.offset}"

    @classmethod
    def parse(cls, text: str | None) -> Position:
        """Return the position that `str` formatted; the beginning for None or any other text."""
        start, _, offset = (text or "").partition(":")
        return cls(int(start), int(offset)) if start.isdecimal() and offset.isdecimal() else cls()


@dataclass(frozen=True, slots=True)
class SubmittedJob:
    """Job of a cluster."""

    job_id: str
    cluster: str
    """Name of the cluster."""
    scheduler: str
    """Value of `[resources.slurm] cluster`."""


class JobFolder:
    """Folder of one job, readable by its owner alone."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, stack: Stack, device: str) -> JobFolder:
        """Create a folder for a stack to train on `device`. Raises OSError if it exists or cannot be written."""
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        path.mkdir(mode=0o700)
        folder = cls(path)
        folder.require_private()
        folder._write(_STACK, json.dumps({"device": device, "stack": encode_stack(stack)}))
        return folder

    def require_private(self) -> None:
        """Check that only this user can write to the folder.

        Raises:
            LabbenchError: Another user owns the folder or may access it.
        """
        for folder in (self.path.parent, self.path):
            status = folder.lstat()
            if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.geteuid() or status.st_mode & 0o077:
                raise LabbenchError(
                    f"{folder} must be a folder of this user with the permissions 0700, since jobs execute what is in "
                    "it; move it away, or correct its owner and permissions"
                )

    def read_stack(self) -> tuple[Stack, str]:
        """Return the stack and the device to train it on.

        Raises:
            LabbenchError: The file is missing or damaged.
        """
        try:
            document = json.loads((self.path / _STACK).read_text())
            return decode_stack(document["stack"]), str(document["device"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LabbenchError(f"{self.path / _STACK} cannot be read: {error}") from error

    # The driver's side.

    def write_job(self, job: SubmittedJob) -> None:
        """Write which job trains the stack."""
        self._write(_JOB, json.dumps(asdict(job)))

    def read_job(self) -> SubmittedJob | None:
        """Return the job that trains the stack; None if it was not submitted."""
        try:
            return SubmittedJob(**json.loads((self.path / _JOB).read_text()))
        except (OSError, ValueError, TypeError):
            return None

    def mark_recorded(self) -> None:
        """Let the job train: the database holds its id now."""
        self._write(_RECORDED, "")

    def request_stop(self, runs: Iterable[str]) -> None:
        """Ask the job to stop these runs at their next boundary; no-op if the folder has been deleted."""
        with suppress(FileNotFoundError):
            self._write(_STOP, json.dumps(sorted({*self.stop_requests(), *runs})))

    def read_events(self, position: Position) -> Iterator[tuple[Event, Position]]:
        """Yield the events after a position that have arrived, each with the position after it.

        Raises:
            LabbenchError: A record is no event.
        """
        while True:
            end = self._end_of_start(position.start)
            records = read_records(self._event_file(position.start), position.offset, end)
            for payload, offset in records:
                is_heading = position.offset == 0
                position = Position(position.start, offset)
                if not is_heading:
                    yield self._decode(payload), position
            if records:
                continue
            if end is None:
                return
            position = Position(position.start + 1)

    def has_started(self) -> bool:
        """Return True if the job has begun to train."""
        return self._event_file(0).exists()

    def is_preempted(self) -> bool:
        """Return True if the last start of the job has saved its runs after a signal, for another start to continue."""
        return (self.path / _PREEMPTED).exists()

    @property
    def output(self) -> Path:
        """File with everything that the job prints."""
        return self.path / _OUTPUT

    # The job's side.

    def is_recorded(self) -> bool:
        """Return True if the database holds the job's id, so that no other driver can train its runs."""
        return (self.path / _RECORDED).exists()

    def mark_preempted(self) -> None:
        """Note that this start has saved its runs after a signal."""
        self._write(_PREEMPTED, "")

    def stop_requests(self) -> list[str]:
        """Return the keys of the runs that the driver wants to stop."""
        try:
            keys = json.loads((self.path / _STOP).read_text())
        except (OSError, ValueError):
            return []
        return [key for key in keys if isinstance(key, str)] if isinstance(keys, list) else []

    def begin(self) -> tuple[Stack | None, str, EventFileWriter]:
        """Begin a start of the job.

        Returns the stack of the runs that have not ended, at their boundaries (None if all have ended), the device, and
        the writer of this start's events.
        """
        stack, device = self.read_stack()
        active, position = ActiveRuns(stack.runs), Position()
        for event, after in self.read_events(position):
            active.update(event)
            position = after
        while self._event_file(position.start + 1).exists():  # later starts reported nothing
            position = Position(position.start + 1)
        has_earlier = self._event_file(position.start).exists()
        end = read_end(self._event_file(position.start)) if has_earlier else 0
        number = position.start + has_earlier
        writer = EventFileWriter(self._event_file(number), json.dumps({"previous_end": end}).encode())
        (self.path / _PREEMPTED).unlink(missing_ok=True)
        return (sub_stack(stack, list(active)) if len(active) else None), device, writer

    def _event_file(self, start: int) -> Path:
        return self.path / f"events-{start}"

    def _end_of_start(self, start: int) -> int | None:
        """Return the position after the last valid event of a start; None while no later start has begun."""
        heading = read_records(self._event_file(start + 1), 0)[:1]
        return int(json.loads(heading[0][0])["previous_end"]) if heading else None

    def _decode(self, payload: bytes) -> Event:
        try:
            return decode_event(payload)
        except ValueError as error:
            raise LabbenchError(f"{self.path}: {error}") from error

    def _write(self, name: str, text: str) -> None:
        with write_atomically(self.path / name, mode=0o600) as file:
            file.write(text.encode())


def read_end(path: Path) -> int:
    """Return the position after the last complete record of an event file."""
    position = 0
    while records := read_records(path, position):
        position = records[-1][1]
    return position
