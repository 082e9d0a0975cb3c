"""Runs that begin from the final state of a shorter run: its checkpoint, points, summaries and output are copied."""

from __future__ import annotations

import os
import shutil
import sqlite3
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import StoreError
from labbench.files import checkpoint_file, run_folder
from labbench.store.series.points import rebuild_series

LOSS = "train/loss"


@dataclass(frozen=True, slots=True)
class Continuation:
    """Final state of a run that a longer run begins from."""

    run: str
    """Key of the ended run."""
    epoch: int
    """Number of epochs of the ended run."""
    step: int
    """Number of optimizer steps of the ended run."""
    pending_losses: int
    """Number of last training losses that the state holds, because the longer run decides which of them it records."""
    engine: str | None
    """Engine that trained the run."""


def begin_from_kept_state(connection: sqlite3.Connection, run_id: int, continuation: Continuation, files: Path) -> None:
    """Let a queued run begin from the final state of an ended run. The caller holds a transaction.

    The queued run gets the checkpoint, the points up to it and the output. Test metrics, which belong to the end of a
    run, are left out.

    Raises:
        StoreError: The checkpoint cannot be copied.
    """
    row = "SELECT theirs.id, ours.key FROM runs AS theirs, runs AS ours WHERE theirs.key = ? AND ours.id = ?"
    ids = connection.execute(row, (continuation.run, run_id)).fetchone()
    if ids is None:  # it was removed meanwhile
        return
    source_id, key = ids
    _copy_checkpoint(files, continuation, key)
    metrics = "metric_id NOT IN (SELECT id FROM metrics WHERE name GLOB 'test/*')"
    for table, columns in (
        ("points", "metric_id, step, time_ms, value"),
        (
            "summary",
            "metric_id, n, n_nonfinite, first_nonfinite_step, last, last_step, min, min_step, max, max_step",
        ),
        ("rollup", "metric_id, level, first_step, last_step, buckets"),
        ("overview", "metric_id, n, first_step, last_step, last_ms, width, buckets"),
    ):
        selected = f"SELECT ?, {columns} FROM {table} WHERE run_id = ? AND {metrics}"
        connection.execute(f"INSERT INTO {table} (run_id, {columns}) {selected}", (run_id, source_id))
    _delete_pending_losses(connection, run_id, first_step=continuation.step - continuation.pending_losses)
    connection.execute(
        "INSERT INTO logs (run_id, attempt, time, stream, text) "
        "SELECT ?, 1, time, stream, text FROM logs WHERE run_id = ? ORDER BY id",
        (run_id, source_id),
    )
    connection.execute(
        "UPDATE runs SET boundary = ?, way = ?, continued_from = ?, continued_step = ? WHERE id = ?",
        (continuation.step, continuation.engine, continuation.run, continuation.step, run_id),
    )


def _copy_checkpoint(files: Path, continuation: Continuation, key: str) -> None:
    """Link the checkpoint into the folder of another run, or copy it if the file system has no hard links."""
    source, copy = (checkpoint_file(files, run, continuation.step) for run in (continuation.run, key))
    try:
        run_folder(files, key).mkdir(exist_ok=True)
        try:
            os.link(source, copy)
        except OSError:
            shutil.copyfile(source, copy)
    except OSError as error:
        raise StoreError(
            f"cannot copy the state of {continuation.run}, {source}: {error.strerror}; to train its longer runs from "
            "the start, delete this file"
        ) from error


def _delete_pending_losses(connection: sqlite3.Connection, run_id: int, *, first_step: int) -> None:
    """Delete the training losses from a step on: the run will record those that it keeps."""
    row = connection.execute("SELECT id FROM metrics WHERE name = ?", (LOSS,)).fetchone()
    if row is None:
        return
    query = "DELETE FROM points WHERE run_id = ? AND metric_id = ? AND step >= ?"
    if connection.execute(query, (run_id, row[0], first_step)).rowcount:
        rebuild_series(connection, run_id, row[0], from_step=first_step)
