"""Random histories of two databases, checked against a model: log, crash, resume, import, edit, export, vacuum.

A run's history is the sequence of sessions that logged to it. An import keeps the longer of two histories of a run if
one continues the other, and both otherwise. Every acknowledged point is in the database exactly once.
"""

from __future__ import annotations

import csv
import io
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, Phase, settings
from hypothesis import seed as with_seed
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import labbench
from bench.trust.checks import database_fault
from bench.trust.results import Outcome
from labbench.export.table_files import write_csv
from labbench.importing.csv_file import find_runs
from labbench.importing.import_runs import import_runs
from labbench.importing.labbench_db import import_labbench
from labbench.records import RunRecord
from labbench.store.maintenance.keeper import MaintenanceWriter
from labbench.store.maintenance.merge import back_up
from labbench.store.reader import Reader
from labbench.store.writer import Writer

STEPS_PER_HISTORY = 25
EXAMPLES_PER_TRIAL = 4

Points = Mapping[tuple[str, int], float]
"""Values by metric and step."""


@dataclass(frozen=True, slots=True)
class State:
    """State of a run in one database, as the model has it."""

    family: str
    """Key of the run when it began; copies of a run that went on in both databases have another key."""
    sessions: tuple[int, ...]
    """Numbers of the sessions that logged to it."""
    points: Points = field(compare=False)
    status: str = field(compare=False)
    tags: frozenset[str] = field(default=frozenset(), compare=False)

    def is_continued_by(self, other: State) -> bool:
        """Return True if `other` is the same run, with the same or further sessions."""
        return self.family == other.family and other.sessions[: len(self.sessions)] == self.sessions


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: a few histories."""

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        class Histories(TwoDatabases):
            parent = folder

        options = settings(
            max_examples=EXAMPLES_PER_TRIAL,
            stateful_step_count=STEPS_PER_HISTORY,
            deadline=None,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        fault = None
        try:
            run_state_machine_as_test(with_seed(seed * 1_000_003 + number)(Histories), settings=options)
        except Exception as error:
            fault = f"{type(error).__name__}: {error}"[:300].replace("\n", " | ")
            traceback.print_exc()
        yield Outcome(f"{EXAMPLES_PER_TRIAL} histories of {STEPS_PER_HISTORY} operations", fault)

    return run_trial


class TwoDatabases(RuleBasedStateMachine):
    """Two databases and what they must hold."""

    parent = Path(tempfile.gettempdir())

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=self.parent))
        self.paths = [self.folder / "a.db", self.folder / "b.db"]
        self.model: list[dict[str, State]] = [{}, {}]
        """State by key, of each database."""
        self.n_sessions = 0

    def teardown(self) -> None:
        try:
            self.check_both_orders()
        finally:
            shutil.rmtree(self.folder)

    @initialize(steps=st.integers(1, 40))
    def begin_first_run(self, steps: int) -> None:
        self.log(0, steps, crashes=False, resumed=None)

    @rule(side=st.integers(0, 1), steps=st.integers(1, 40), crashes=st.booleans())
    def begin_run(self, side: int, steps: int, crashes: bool) -> None:
        self.log(side, steps, crashes=crashes, resumed=None)

    @rule(side=st.integers(0, 1), steps=st.integers(1, 30), crashes=st.booleans(), number=st.integers(0, 99))
    def resume_run(self, side: int, steps: int, crashes: bool, number: int) -> None:
        if self.model[side]:
            self.log(side, steps, crashes=crashes, resumed=self.pick(side, number))

    @rule(target_side=st.integers(0, 1))
    def import_other(self, target_side: int) -> None:
        target, source = self.paths[target_side], self.paths[1 - target_side]
        if not source.exists():
            return
        import_labbench(target, source)
        expected = merged(self.model[target_side].values(), self.model[1 - target_side].values())
        self.model[target_side] = assign(expected, self.model[target_side], read_runs(target))
        before = read_runs(target)
        again = import_labbench(target, source)
        assert not {**again.new, **again.newer}, "importing again changed something"
        assert {key: points for key, (_, points) in read_runs(target).items()} == {
            key: points for key, (_, points) in before.items()
        }

    @rule(side=st.integers(0, 1), number=st.integers(0, 99), tag=st.sampled_from(["good", "bad"]))
    def edit(self, side: int, number: int, tag: str) -> None:
        if self.model[side]:
            key = self.pick(side, number)
            with Writer(self.paths[side]) as writer:
                writer.tag([key], add=[tag])
                writer.note(key, f"note {number}")
                writer.archive([key], number % 2 == 0)
            state = self.model[side][key]
            self.model[side][key] = replace(state, tags=state.tags | {tag})

    @rule(side=st.integers(0, 1))
    def vacuum(self, side: int) -> None:
        if self.paths[side].exists():
            with MaintenanceWriter(self.paths[side]) as writer:
                writer.vacuum()

    @rule(side=st.integers(0, 1))
    def backup(self, side: int) -> None:
        if self.paths[side].exists():
            copy = self.folder / "copy.db"
            back_up(self.paths[side], copy)
            assert read_runs(copy) == read_runs(self.paths[side])
            copy.unlink()

    @rule(side=st.integers(0, 1))
    def export(self, side: int) -> None:
        """Export all points, and import them into an empty database."""
        if not self.paths[side].exists():
            return
        file, copy = self.folder / "points.csv", self.folder / "from_csv.db"
        with Reader(self.paths[side]) as reader, file.open("w", newline="", encoding="utf-8") as output:
            write_csv(reader, "archived=true or archived=false", file=output)
        rows = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
        exported: dict[str, dict[tuple[str, int], float]] = {}
        for row in rows:
            exported.setdefault(row["run"], {})[row["metric"], int(row["step"])] = float(row["value"])
        assert exported == {key: state.points for key, state in self.model[side].items() if state.points}
        import_runs(copy, find_runs(file), "csv")
        assert sorted(sorted(points.items()) for _, points in read_runs(copy).values()) == sorted(
            sorted(points.items()) for points in exported.values()
        )
        copy.unlink()

    @invariant()
    def holds_what_was_acknowledged(self) -> None:
        for path, model in zip(self.paths, self.model, strict=True):
            if not path.exists():
                assert not model
                continue
            runs = read_runs(path)
            assert {key: points for key, (_, points) in runs.items()} == {
                key: state.points for key, state in model.items()
            }
            for key, (record, points) in runs.items():
                assert record.status == model[key].status, f"{key}: {record.status}, not {model[key].status}"
                assert set(record.tags) >= model[key].tags, f"{key}: tags {record.tags}, not {set(model[key].tags)}"
                check_summary(record, points)
            assert (fault := database_fault(path)) is None, fault

    def check_both_orders(self) -> None:
        """Check that A with B imported holds the same points as B with A imported."""
        if not all(path.exists() for path in self.paths):
            return
        contents = []
        for first, second in (self.paths, self.paths[::-1]):
            copy = self.folder / f"both {first.name}"
            back_up(first, copy)
            import_labbench(copy, second)
            contents.append(sorted(sorted(points.items()) for _, points in read_runs(copy).values()))
        assert contents[0] == contents[1], "A+B holds other points than B+A"

    def pick(self, side: int, number: int) -> str:
        """Return the key of a run."""
        keys = sorted(self.model[side], key=lambda key: self.model[side][key].sessions)
        return keys[number % len(keys)]

    def log(self, side: int, steps: int, *, crashes: bool, resumed: str | None) -> None:
        """Log in a process of its own, which ends its run or is killed."""
        number = self.n_sessions = self.n_sessions + 1
        before = self.model[side][resumed] if resumed is not None else None
        last = max((step for _, step in before.points), default=-1) if before is not None else -1
        first = max(0, last + 1 - number % 4)  # sometimes the last steps are logged again
        key, n_acknowledged = log_in_child(self.paths[side], number, range(first, first + steps), resumed, crashes)
        actual = read_runs(self.paths[side])[key][1]
        points = {place: value for place, value in before.points.items() if place[1] < first} if before else {}
        certain = points | expected_points(number, range(first, first + n_acknowledged))
        possible = points | expected_points(number, range(first, first + steps))
        assert certain.items() <= actual.items() <= possible.items(), "acknowledged points are missing"
        assert n_acknowledged == steps or crashes
        status = "lost" if crashes else "finished"
        if before is None:
            self.model[side][key] = State(key, (number,), actual, status)
        else:
            assert key == resumed
            self.model[side][key] = replace(before, sessions=(*before.sessions, number), points=actual, status=status)


def merged(ours: Any, theirs: Any) -> list[State]:
    """Return the states that a database must have after an import."""
    states = {**{state: state for state in ours}}
    for state in theirs:
        mine = states.get(state)
        states[state] = state if mine is None else replace(mine, tags=mine.tags | state.tags)
    return [state for state in states if not any(state != other and state.is_continued_by(other) for other in states)]


def assign(
    expected: list[State], before: dict[str, State], runs: dict[str, tuple[RunRecord, Points]]
) -> dict[str, State]:
    """Return the expected states by key; a run keeps its key."""
    states: dict[str, State] = {}
    rest = list(expected)
    for key, (_, points) in sorted(runs.items(), key=lambda item: item[0] not in before):
        matching = [state for state in rest if state.points == points]
        if not matching:
            raise AssertionError(f"run {key} has points of no expected run")
        states[key] = matching[0]
        rest.remove(matching[0])
    assert not rest, f"lost by the import: {[(state.family, state.sessions) for state in rest]}"
    return states


def expected_points(session: int, steps: range) -> dict[tuple[str, int], float]:
    """Return what a session logs at each step."""
    return {
        (metric, step): value
        for step in steps
        for metric, value in (("loss", session + step / 1000), ("wave", float((step * 7919) % 11)))
    }


def log_in_child(path: Path, session: int, steps: range, resumed: str | None, crashes: bool) -> tuple[str, int]:
    """Log in a forked process; return the key of the run and the number of steps that were flushed."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            log_session(path, session, steps, resumed, crashes, writer)
            os._exit(0)
        except BaseException:
            traceback.print_exc(file=sys.stderr)
            os._exit(1)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        text = pipe.read()
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert status == (-signal.SIGKILL if crashes else 0), path.with_name("messages").read_text()[-300:]
    key, n_flushed_text = text.split()
    return key, int(n_flushed_text)


def log_session(path: Path, session: int, steps: range, resumed: str | None, crashes: bool, pipe: int) -> None:
    """Log all steps; write the key of the run and the number of flushed steps to a pipe."""
    os.dup2(os.open(path.with_name("messages"), os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    name = None if resumed else f"run {session}"
    run = labbench.start(name, experiment="e", db=path, resume=resumed, system_metrics=False)
    n_flushed = max(1, len(steps) // 2) if crashes else len(steps)
    for number, step in enumerate(steps):
        values = expected_points(session, range(step, step + 1))
        run.log({metric: value for (metric, _), value in values.items()}, step=step)
        if number + 1 == n_flushed:
            assert run.flush()
            os.write(pipe, f"{run.key} {n_flushed}".encode())
    if crashes:
        os.kill(os.getpid(), signal.SIGKILL)
    run.finish()


def read_runs(path: Path) -> dict[str, tuple[RunRecord, Points]]:
    """Return all runs with their points, by key."""
    with Reader(path) as reader:
        records = reader.runs("archived=true or archived=false")
    query = """
        SELECT runs.key, metrics.name, step, value FROM points
        JOIN runs ON runs.id = run_id JOIN metrics ON metrics.id = metric_id
    """
    points: dict[str, dict[tuple[str, int], float]] = {record.key: {} for record in records}
    with closing(sqlite3.connect(path)) as connection:
        for key, metric, step, value in connection.execute(query):
            points[key][metric, step] = value
    return {record.key: (record, points[record.key]) for record in records}


def check_summary(record: RunRecord, points: Points) -> None:
    """Compare the summary of each metric with its points, without labbench's arithmetic."""
    series: dict[str, dict[int, float]] = {}
    for (metric, step), value in points.items():
        series.setdefault(metric, {})[step] = value
    assert series.keys() == record.summary.keys()
    for metric, values in series.items():
        summary = record.summary[metric]
        last = max(values)
        assert (summary.n, summary.last_step, summary.last) == (len(values), last, values[last])
        assert (summary.min, summary.max) == (min(values.values()), max(values.values()))
