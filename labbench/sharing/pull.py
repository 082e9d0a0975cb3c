"""`labbench pull`: mirror the runs of a database on another machine, once or again and again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labbench.errors import StoreError
from labbench.metrics import GOALS
from labbench.records import require_key
from labbench.sharing.frames import ConnectionCut
from labbench.sharing.remote import Conversation, RemoteDatabase, connect
from labbench.store.sharing.changes import RUN_COLUMNS, MirroredPoints, MirroredText, RunState, SeriesState
from labbench.store.sharing.mirror import HeldRun, MirrorWriter, SeriesPart

RUNS_PER_QUESTION = 50
POINTS_PER_TRANSACTION = 50_000
RECONNECT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class PullReport:
    """Result of one look at the changes."""

    n_runs: int = 0
    """Number of new and changed runs."""
    n_points: int = 0
    n_removed: int = 0
    """Number of runs that were removed there, and therefore here."""
    problem: str | None = None
    """Reason why the connection was cut; it is made again."""


def pull(database: Path, remote: RemoteDatabase, labbench: str) -> PullReport:
    """Mirror the runs of a database once.

    `labbench` is the command on the other machine.

    Raises:
        StoreError: If the other machine cannot be reached or answers wrongly, or the connection is cut: the next pull
            completes what this one has begun.
    """
    with MirrorWriter(database) as writer, connect(remote, labbench) as conversation:
        return Mirror(writer, conversation, str(remote)).compare_all()


def follow(database: Path, remote: RemoteDatabase, labbench: str, *, every: float) -> Iterator[PullReport]:
    """Mirror the runs of a database until the caller stops, and yield what each look has brought.

    A cut connection is made again.

    Args:
        every: Seconds between two looks.

    Raises:
        StoreError: As `pull`, if the first connection fails.
    """
    was_connected = False
    with MirrorWriter(database) as writer:
        while True:
            try:
                with connect(remote, labbench) as conversation:
                    mirror = Mirror(writer, conversation, str(remote))
                    yield mirror.compare_all()
                    was_connected = True
                    while True:
                        time.sleep(every)
                        yield mirror.look()
            except (ConnectionCut, ConnectionError) as error:
                yield PullReport(problem=str(error))
            except StoreError as error:
                if not was_connected:
                    raise
                yield PullReport(problem=str(error))
            time.sleep(RECONNECT_SECONDS)


class Mirror:
    """Mirror that is brought up to date over one connection.

    Every method raises StoreError if the other end answers wrongly or the connection is cut.
    """

    def __init__(self, writer: MirrorWriter, conversation: Conversation, source: str) -> None:
        """Use an open connection; `source` is recorded with the runs."""
        self._writer, self._conversation, self._source = writer, conversation, source
        self._revision = 0
        """Revision of the mirror: all changes up to it are included."""
        self._n_points = 0

    def compare_all(self) -> PullReport:
        """Compare the revisions of all runs, and mirror those that differ."""
        self._conversation.ask("revisions")
        revisions = _revisions(self._conversation.receive())
        held = self._writer.held_revisions(self._source)
        n_removed = self._writer.remove_mirrored(self._source, held.keys() - revisions.keys())
        changed = [key for key, revision in revisions.items() if held.get(key) != revision]
        report = self._update(changed, n_removed)
        self._revision = max(revisions.values(), default=0)
        return report

    def look(self) -> PullReport:
        """Mirror the runs that were changed since the last look."""
        self._conversation.ask("since", revision=self._revision)
        answer = self._conversation.receive()
        if answer is None:
            return self.compare_all()
        revisions = _revisions(answer)
        removed = [require_key(key) for key in answer.get("removed", ())]
        n_removed = self._writer.remove_mirrored(self._source, removed)
        report = self._update(list(revisions), n_removed)
        self._revision = max(revisions.values(), default=self._revision)
        return report

    def _update(self, keys: Sequence[str], n_removed: int) -> PullReport:
        """Mirror runs."""
        self._n_points = n_runs = 0
        for start in range(0, len(keys), RUNS_PER_QUESTION):
            n_runs += self._update_some(keys[start : start + RUNS_PER_QUESTION])
        return PullReport(n_runs, self._n_points, n_removed)

    def _update_some(self, keys: Sequence[str]) -> int:
        """Mirror some runs, and return the number of those that still exist."""
        self._conversation.ask("runs", keys=keys)
        answers = [self._conversation.receive() for _ in keys]
        states = {key: _run_state(answer, key) for key, answer in zip(keys, answers, strict=True) if answer}
        held = self._writer.update_runs(self._source, states.values())
        self._update_points(states, held)
        self._update_texts(states, held)
        self._writer.complete({held[key].id: state.revision for key, state in states.items()})
        return len(states)

    def _update_points(self, states: Mapping[str, RunState], held: Mapping[str, HeldRun]) -> None:
        missing = [
            (key, metric, series.revision, held[key].series.get(metric))
            for key, state in states.items()
            for metric, series in state.series.items()
            if held[key].series.get(metric) != series
        ]
        if not missing:
            return
        wanted = [
            (key, metric, revision, None if have is None else (have.n, have.last_step, have.revision))
            for key, metric, revision, have in missing
        ]
        self._conversation.ask("points", series=wanted)
        parts: list[SeriesPart] = []
        n_points = 0
        for key, metric, revision, _ in missing:
            for points, is_first in self._receive_series():
                parts.append(SeriesPart(held[key].id, metric, revision, points, is_first))
                n_points += len(points.steps)
                if n_points >= POINTS_PER_TRANSACTION:
                    self._writer.add(parts)
                    parts, n_points = [], 0
        self._writer.add(parts)

    def _receive_series(self) -> Iterator[tuple[MirroredPoints, bool]]:
        """Yield the points of a series, and True with the first ones if they take the place of all that is held."""
        is_first = self._conversation.receive() is not True
        while (points := self._conversation.receive()) is not None:
            if not isinstance(points, MirroredPoints):
                raise StoreError("the other end sent something else than points")
            self._n_points += len(points.steps)
            yield points, is_first
            is_first = False

    def _update_texts(self, states: Mapping[str, RunState], held: Mapping[str, HeldRun]) -> None:
        changed = {
            key: held[key] for key, state in states.items() if state.texts != (held[key].text_count, held[key].text_id)
        }
        if not changed:
            return
        wanted = [(key, run.text_id, run.text_count, run.text_time) for key, run in changed.items()]
        self._conversation.ask("texts", runs=wanted)
        for key, run in changed.items():
            append = self._conversation.receive() is True
            texts: list[MirroredText] = []
            while (answer := self._conversation.receive()) is not None:
                texts += [_printed_text(row) for row in answer]
            self._writer.set_texts(run, texts, int(states[key].columns["attempt"]), append=append)


def _revisions(answer: Any) -> dict[str, int]:
    """Return the revisions of runs in an answer. Raises StoreError if it has none, InputError for an invalid key."""
    with _checking_answers():
        return {require_key(key): _integer(revision) for key, revision in answer["revisions"].items()}


def _run_state(answer: Any, key: str) -> RunState:
    """Return the run in an answer; its columns are checked when they are written. Raises StoreError if it has none."""
    with _checking_answers():
        return RunState(
            key,
            _integer(answer["revision"]),
            {name: answer["columns"][name] for name in RUN_COLUMNS},
            [_text(tag) for tag in answer["tags"]],
            {
                _text(metric): SeriesState(*(_integer(state[field]) for field in ("n", "last_step", "revision")))
                for metric, state in answer["series"].items()
            },
            {metric: goal for metric, goal in answer["goals"].items() if goal in GOALS},
            (_integer(answer["texts"][0]), _integer(answer["texts"][1])),
        )


def _printed_text(row: Any) -> MirroredText:
    """Return a printed text in an answer. Raises StoreError if it has another form."""
    with _checking_answers():
        text_id, attempt, seconds, stream, text = row
        return MirroredText(
            _integer(text_id), _integer(attempt), float(seconds), None if stream is None else _text(stream), _text(text)
        )


@contextmanager
def _checking_answers() -> Iterator[None]:
    """Translate the errors of an answer that has another form. Raises StoreError."""
    try:
        yield
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError) as error:
        raise StoreError(f"the other end sent what labbench does not send: {error!r:.200}") from error


def _integer(value: Any) -> int:
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise ValueError(f"{value!r:.80} is not an integer")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a text")
    return value
