"""The remote end of `labbench pull`: answers questions about the changes of a database on stdin and stdout."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from labbench._version import __version__
from labbench.errors import InputError, LabbenchError
from labbench.sharing.frames import ConnectionCut, FrameConnection
from labbench.store.sharing.changes import POINTS_PER_READ, Changes, SeriesState

PROTOCOLS = (1,)
"""Versions of the protocol that this release speaks."""


def serve_changes(path: Path, input_: int, output: int, *, all_runs: bool = False) -> None:
    """Answer the questions of a mirror until it closes the connection. An error is sent, and ends the connection.

    The questions come from the file descriptor `input_`. With `all_runs`, runs that are mirrored here are served too.

    Raises:
        LabbenchError: If the database cannot be read, after it was sent.
    """
    connection = FrameConnection(input_, output)
    try:
        connection.send_marker()
        connection.send({"labbench": __version__, "protocols": PROTOCOLS})
        _serve(Changes(path, all_runs=all_runs), connection)
    except ConnectionCut:
        pass  # the mirror has all that it wants
    except LabbenchError as error:
        connection.send({"error": str(error)})
        raise


def _serve(changes: Changes, connection: FrameConnection) -> None:
    try:
        while True:
            question = connection.receive()
            match question:
                case {"ask": "revisions"}:
                    connection.send({"revisions": changes.revisions()})
                case {"ask": "since", "revision": int(revision)}:
                    answer = changes.since(revision)
                    connection.send(answer and {"revisions": answer[0], "removed": answer[1]})
                case {"ask": "runs", "keys": list(keys)}:
                    for key in keys:
                        state = changes.run(key)
                        connection.send(state and asdict(state))
                case {"ask": "points", "series": list(series)}:
                    _send_points(changes, series, connection)
                case {"ask": "texts", "runs": list(runs)}:
                    _send_texts(changes, runs, connection)
                case _:
                    raise InputError("the mirror asks what this version of labbench does not know")
    finally:
        changes.close()


def _send_points(changes: Changes, series: Sequence[Any], connection: FrameConnection) -> None:
    """Send the points that a mirror lacks.

    `series` has for each: key, metric, revision in the source, and what the mirror holds: [n, last step, revision] or
    null. The answer to each is True if they follow those that the mirror holds, frames of points, and null.
    """
    for key, metric, revision, held in series:
        state = None if held is None else SeriesState(*held)
        is_extension = changes.extends(key, metric, state)
        connection.send(is_extension)
        after = state.last_step if state is not None and is_extension else None
        while points := changes.points(key, metric, after, revision):
            if points.steps:
                connection.send_points(points)
                after = points.steps[-1]
            if len(points.steps) < POINTS_PER_READ:
                break
        connection.send(None)


def _send_texts(changes: Changes, runs: Sequence[Any], connection: FrameConnection) -> None:
    """Send the printed texts that a mirror lacks.

    `runs` has for each: key, and id, number and time of the texts that the mirror holds. The answer to each is True if
    they follow those, lists of texts, and null.
    """
    for key, last_id, count, time in runs:
        is_extension = count > 0 and changes.has_texts(key, last_id, count, time)
        connection.send(is_extension)
        after = last_id if is_extension else 0
        while texts := changes.texts(key, after):
            connection.send(texts)
            after = texts[-1][0]
        connection.send(None)
