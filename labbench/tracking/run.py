"""A run as a script holds it."""

from __future__ import annotations

import os
import threading
import time
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic_ns
from types import TracebackType
from typing import Any, Protocol, get_args

from labbench.errors import InputError
from labbench.files import files_folder, run_folder
from labbench.records import Goal
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import PrintedText, ScriptRun, Stream
from labbench.tracking import process_hooks
from labbench.tracking.config import RunConfig
from labbench.tracking.log import make_log
from labbench.tracking.process_hooks import ExitInfo, exit_info_of_error, exit_info_of_status
from labbench.tracking.summary import RunSummary
from labbench.tracking.values import storable_name
from labbench.tracking.writer_thread import RunWriterThread


class Closable(Protocol):
    """What ends with a run."""

    def close(self) -> None: ...


class Run:
    """One training run that is being recorded; `labbench.start()` makes it.

    Use it in a `with`, or call `finish()`; a script that ends without ends its runs too, whatever ended it. Any thread
    may use it. A forked process may log to it and leaves its end to the process that started it; sent to a spawned
    process, it does the same there.
    """

    def __init__(self, recorder: RunWriterThread, path: Path, *, first_step: int = 0) -> None:
        run = recorder.run
        self.path = path
        """The database."""
        self.config = RunConfig(run.config, self._configure)
        self.summary = RunSummary(recorder)
        self._recorder = recorder
        self.log = make_log(recorder, first_step)
        """`run.log({"train/loss": 0.3}, step=10, epoch=1)` records numbers by name."""
        self._watches_output = False
        self._closing = ExitStack()
        self._ending = threading.RLock()
        process_hooks.register(self)

    @property
    def key(self) -> str:
        """Eight characters that name the run on the command line."""
        return self._recorder.run.key

    @property
    def name(self) -> str:
        return self._recorder.run.name

    @property
    def experiment(self) -> str:
        return self._recorder.run.experiment

    def __repr__(self) -> str:
        return f"<Run {self.key} {self.name!r} of {self.experiment!r} in {self.path}>"

    def tag(self, *tags: str) -> None:
        """Put tags on the run."""
        self._recorder.change(lambda run: replace(run, tags=(*run.tags, *map(str, tags))))

    def note(self, text: str) -> None:
        """Set the run's note."""
        self._recorder.change(lambda run: replace(run, note=str(text)))

    def define_metric(self, name: str, goal: Goal) -> None:
        """Say whether less (`min`) or more (`max`) of a metric is better."""
        if goal not in ("min", "max"):
            raise InputError(f"the goal of `{name}` must be min or max, not {goal!r}")
        self._recorder.change(lambda run: replace(run, goals={**run.goals, storable_name(name): goal}))

    def artifact(self, path: str | os.PathLike[str], *, copy: bool = False) -> None:
        """Record a file by path, size and SHA-256 as it is now; `copy` also keeps a copy beside the database.

        Reads the whole file. One that is recorded again under the same path replaces the record.
        """
        from labbench.tracking.artifacts import record_file  # who records none need not load it

        artifact = record_file(Path(path), run_folder(files_folder(self.path), self.key), copy=copy)
        self._recorder.change(lambda run: replace(run, artifacts=(*run.artifacts, artifact)))

    def watch_output(self) -> None:
        """Keep what is printed from now on with the run; `start(capture_output=True)` does so from the start."""
        from labbench.tracking.console import Tee  # as above

        if not self._watches_output:
            self._watches_output = True
            for name in get_args(Stream):
                self._closing.callback(Tee(name, self._print).close)

    def in_background(self, background: Closable) -> None:
        """Leave something to be closed when the run ends."""
        self._closing.callback(background.close)

    def flush(self) -> bool:
        """Wait until everything logged so far is in the database; False if it cannot be written at present."""
        return self._recorder.flush()

    def finish(self, exit_code: int = 0) -> None:
        """End the run, once all of it is in the database; an exit code other than 0 says that it failed."""
        self.end(exit_info_of_status(exit_code))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.end(exit_info_of_error(error))

    def end(self, ending: ExitInfo) -> None:
        """Record how the run ended, if that is for this process to say, and write all that is left."""
        recorder = self._recorder
        with self._ending:
            if not recorder.ended:
                self._closing.close()
                if recorder.stop_asked and ending.status == "finished":
                    ending = ExitInfo("stopped", "stopped by a person")
                if recorder.run.drives:
                    recorder.change(lambda run: replace(run, finished=time.time(), **asdict(ending)))
            recorder.close()
            process_hooks.unregister(self)

    # Another process.

    def before_fork(self) -> None:
        self._recorder.before_fork()

    def after_fork_in_parent(self) -> None:
        self._recorder.after_fork_in_parent()

    def after_fork_in_child(self) -> None:
        self._recorder.after_fork_in_child()
        self._ending = threading.RLock()
        self._closing.pop_all()

    def __reduce__(self) -> tuple[Any, ...]:

        return attach_from_pickle, (str(self.path), self.key)

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Run:
        return self

    def _configure(self, config: dict[str, Any]) -> None:
        self._recorder.change(lambda run: replace(run, config=config))

    def _print(self, printed: PrintedText) -> None:
        self._recorder.printed.append(printed)
        if self._recorder.calls.asleep:
            self._recorder.wake()


def attach_from_pickle(path: str, key: str) -> Run:
    """A live run in another process than the one that started it: what a `Run` is unpickled to."""
    writer = ScriptWriter(Path(path))
    try:
        known = writer.attach(key)
    except BaseException:
        writer.close()
        raise
    return Run(RunWriterThread(writer, known, began=_start_on_monotonic_clock(known)), writer.path)


def _start_on_monotonic_clock(run: ScriptRun) -> int:
    """When the run began, on the clock of `time.monotonic_ns()`, which no change of the time of day moves."""
    return monotonic_ns() - round((time.time() - run.started) * 1e9)
