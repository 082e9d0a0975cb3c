"""Spill files: data that could not be written to a database, merged when the database is next opened for writing.

A spill file lies beside the database and holds JSON lines. Its first line is the whole run, so that the file can be
merged into a database that lacks the run. While its process appends to it, it is locked, and other processes skip it.
"""

from __future__ import annotations

import fcntl
import json
import os
import sqlite3
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from labbench.files import open_without_links
from labbench.records import Artifact, Points, require_key
from labbench.store.guarded_connection import identity_of_descriptor
from labbench.store.liveness import ProcessIdentity
from labbench.store.recording.events import ensure_metric, record_event
from labbench.store.revisions import raise_revisions
from labbench.store.scripts.script_run import (
    PrintedText,
    ScriptRun,
    insert_script_run,
    new_script_run,
    write_changes,
    write_printed,
)
from labbench.store.series.points import add_points, delete_points

if TYPE_CHECKING:
    from labbench.records import Event

_INFIX = ".spilled-"

_SUPERSEDED_INFIX = ".superseded-"
"""Part of the names of spill files that are never merged: another process has resumed or ended their run."""


class Spill:
    """Spill file of one run and process."""

    def __init__(self, database: Path, run: ScriptRun, *, superseded: bool = False) -> None:
        """Open or create the file; one of a superseded attempt is never merged. Raises OSError if that fails."""
        infix = _SUPERSEDED_INFIX if superseded else _INFIX
        self.path = database.with_name(f"{database.name}{infix}{run.key}-{run.attempt}-{os.getpid()}.jsonl")
        self._open()

    def _open(self) -> None:
        with open_without_links(self.path, "ab", buffering=0) as file:
            descriptor = os.dup(file.fileno())
        # closed by `close` alone: its number may become that of another file
        self._file = open(descriptor, "ab", buffering=0, closefd=False)  # noqa: SIM115
        self._identity = identity_of_descriptor(descriptor)
        with suppress(OSError):  # a file system without locks
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self._run: ScriptRun | None = None

    def _ensure_open(self) -> None:
        """Open the file again if the script has closed its descriptor."""
        if not self._has_descriptor():
            self._open()

    def _has_descriptor(self) -> bool:
        return identity_of_descriptor(self._file.fileno()) == self._identity

    def append(
        self,
        run: ScriptRun,
        points: Iterable[Points] = (),
        printed: Iterable[PrintedText] = (),
        truncate_from: int | None = None,
    ) -> None:
        """Append new data, all or none of it.

        Raises:
            OSError: If the file cannot be written; it is then unchanged.
        """
        self._ensure_open()
        lines: list[dict[str, Any]] = [] if run is self._run else [{"run": asdict(run)}]
        if truncate_from is not None:
            lines.append({"forget_from": truncate_from})
        lines += [{"points": _encode_points(event)} for event in points]
        lines += [{"printed": asdict(text)} for text in printed]
        self._append_lines(lines)
        self._run = run

    def append_event(self, run: ScriptRun, event: Event) -> None:
        """Append an event of a run that `labbench run` trains.

        Raises:
            OSError: If the file cannot be written; it is then unchanged.
        """
        self._ensure_open()
        lines: list[dict[str, Any]] = [] if self._run is not None else [{"run": asdict(run)}]
        if isinstance(event, Points):
            lines.append({"points": _encode_points(event)})
        else:
            lines.append({"event": {"type": type(event).__name__, **asdict(event)}})
        self._append_lines(lines)
        self._run = run

    def _append_lines(self, lines: Iterable[Mapping[str, Any]]) -> None:
        data = "".join(json.dumps(line) + "\n" for line in lines).encode()
        end = self._file.seek(0, os.SEEK_END)
        try:
            if self._file.write(data) != len(data):
                raise OSError(f"{self.path}: the disk is full")
        except OSError:
            self._file.truncate(end)
            raise

    def close(self) -> None:
        """Unlock the file, so that the next process that opens the database for writing merges it."""
        if self._has_descriptor():
            with suppress(OSError):
                fcntl.flock(self._file, fcntl.LOCK_UN)
            os.close(self._file.fileno())


def merge_spill_files(connection: sqlite3.Connection, database: Path) -> None:
    """Merge the spill files of a database into it and delete them.

    Skips files that a process still has open. Warns of files that are damaged or cannot be read, and leaves them in
    place.
    """
    for path in spill_files(database):
        try:
            with path.open("rb") as file:
                if _is_free(file):
                    _merge_file(connection, path, file)
        except FileNotFoundError:
            continue  # another process has merged it
        except OSError as error:
            warnings.warn(f"{path}: spill file not merged into the database: {error.strerror}", stacklevel=2)


def _is_free(file: BinaryIO) -> bool:
    """Lock a spill file; return False if its process still has it open."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        pass  # a file system without locks
    return True


def spill_files(database: Path) -> list[Path]:
    """Return the spill files beside a database, also those that a process still writes."""
    with os.scandir(database.parent) as entries:
        return sorted(Path(entry.path) for entry in entries if _is_spill(entry, database))


def _is_spill(entry: os.DirEntry[str], database: Path) -> bool:
    """Return True for a regular file with the name of a spill file; a link or a pipe is not labbench's."""
    return entry.name.startswith(database.name + _INFIX) and entry.is_file(follow_symlinks=False)


def _merge_file(connection: sqlite3.Connection, path: Path, file: BinaryIO) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        is_merged = _write_rows(connection, _whole_lines(file))
        raise_revisions(connection)
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if not isinstance(error, Exception) or isinstance(error, sqlite3.OperationalError | OSError):
            raise  # interrupted, or the database cannot be written or the file not be read
        # anything else is a fault of the file's content, which must not keep the database from being written
        warnings.warn(f"{path}: damaged spill file, not merged into the database: {error!r:.200}", stacklevel=2)
        return
    if is_merged:
        path.unlink(missing_ok=True)
    else:
        superseded = path.with_name(path.name.replace(_INFIX, _SUPERSEDED_INFIX))
        path.rename(superseded)
        warnings.warn(
            f"{superseded}: the run was resumed before this data of an earlier attempt was merged; it is kept here",
            stacklevel=2,
        )


def _whole_lines(file: BinaryIO) -> Iterator[dict[str, Any]]:
    """Yield the complete lines.

    The last line is incomplete if the process was killed during the write.
    """
    for line in file:
        if line.endswith(b"\n"):
            yield json.loads(line)


def _write_rows(connection: sqlite3.Connection, lines: Iterable[Mapping[str, Any]]) -> bool:
    """Write the lines as rows.

    Return False, with nothing written, if the run is in a later attempt.
    """
    run: ScriptRun | None = None
    run_id = 0
    for line in lines:
        if "run" in line:
            run = _decode_run(line["run"])
            row = connection.execute("SELECT id, attempt FROM runs WHERE key = ?", (run.key,)).fetchone()
            if row is None:
                insert_script_run(connection, run)
                row = connection.execute("SELECT id, attempt FROM runs WHERE key = ?", (run.key,)).fetchone()
            run_id, attempt = row
            if attempt > run.attempt:
                return False
            write_changes(connection, run_id, run, new_script_run(run.name, run.experiment, {}))
        elif run is None:
            raise ValueError("the first line is not a run")
        elif "forget_from" in line:
            delete_points(connection, run_id, after=line["forget_from"] - 1)
        elif "points" in line:
            points = line["points"]
            values = [float(value) for value in points["values"]]
            metric_id = ensure_metric(connection, points["metric"])
            add_points(connection, run_id, metric_id, points["steps"], points["times"], values)
        elif "event" in line:
            record_event(connection, run_id, _decode_event(line["event"]))
        else:
            write_printed(connection, run_id, run.attempt, [PrintedText(**line["printed"])])
    _require_valid_rows(connection, run_id)
    return True


def _require_valid_rows(connection: sqlite3.Connection, run_id: int) -> None:
    """Raise ValueError if the rows of a run have a value that labbench does not write: it came from a damaged file."""
    from labbench.store.row_checks import COLUMNS, invalid_condition  # only needed to merge

    for table, id_column in (("runs", "id"), ("points", "run_id"), ("logs", "run_id"), ("artifacts", "run_id")):
        columns = [column for column in COLUMNS[table] if column != "experiment"]  # of a joined table
        invalid = " OR ".join(f"({invalid_condition(table, column)})" for column in columns)
        query = f"SELECT count(*) FROM {table} WHERE {id_column} = ? AND ({invalid})"
        if connection.execute(query, (run_id,)).fetchone()[0]:
            raise ValueError(f"it has a value that labbench does not write, for the table {table}")


def _encode_points(points: Points) -> dict[str, Any]:
    """Return points as a JSON object, with NaN and infinities as text; other numbers stay exact."""
    values = [value if -float("inf") < value < float("inf") else repr(value) for value in points.values]
    return {"metric": points.metric, "steps": list(points.steps), "times": list(points.times), "values": values}


def _decode_event(fields: Mapping[str, Any]) -> Event:
    # imported here: scripts have none
    from labbench.records import Boundary, EngineNote, Failed, Finished, Log, Received, Started, Submitted

    kinds: dict[str, type[Event]] = {
        kind.__name__: kind for kind in (Started, Boundary, Log, EngineNote, Finished, Failed, Submitted, Received)
    }
    return kinds[fields["type"]](**{name: value for name, value in fields.items() if name != "type"})


def _decode_run(fields: Mapping[str, Any]) -> ScriptRun:
    artifacts = tuple(Artifact(**artifact) for artifact in fields["artifacts"])
    process = fields.get("process") or {"host": fields["host"], "pid": fields["pid"]}  # the latter by labbench 0.1
    values = {name: value for name, value in fields.items() if name not in ("host", "pid")}
    run = ScriptRun(
        **{**values, "process": ProcessIdentity(**process), "tags": tuple(fields["tags"]), "artifacts": artifacts}
    )
    if run.key:  # an empty key is replaced when the run is inserted
        require_key(run.key)
    return run
