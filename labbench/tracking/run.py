"""`Run`: a training run, recorded by a script; its summary."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic_ns
from types import TracebackType
from typing import Any, Protocol, get_args

from labbench.errors import InputError
from labbench.files import expand_home
from labbench.messages import ProblemReporter, warn_of_internal_error, warn_once
from labbench.metrics import Goal
from labbench.records import Artifact, Config
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import ScriptRun, Stream, new_script_run
from labbench.system.clock import now
from labbench.tracking import process_hooks
from labbench.tracking.artifacts import record_files
from labbench.tracking.config import RunConfig
from labbench.tracking.console import Tee
from labbench.tracking.log import make_log
from labbench.tracking.process_hooks import ExitInfo, exit_info_of_error, exit_info_of_status
from labbench.tracking.storage import DiscardingStorage, Storage
from labbench.tracking.values import storable_name, to_numbers
from labbench.tracking.writer_thread import RunWriterThread


class Closable(Protocol):
    """Resource that is closed when the run ends."""

    def close(self) -> None: ...


class RunSummary(Mapping[str, float]):
    """Last value of each metric that this process logged: `run.summary["val/loss"]`.

    An assignment, `run.summary["best/accuracy"] = 0.97`, logs the value as a metric at the run's last step.
    """

    def __init__(self, writer_thread: RunWriterThread) -> None:
        self._writer_thread = writer_thread

    def __setitem__(self, metric: str, value: Any) -> None:
        self.update({metric: value})

    def update(self, values: Mapping[str, Any]) -> None:
        """Set several values; nested dicts are joined with `/`.

        Raises:
            InputError: In a strict run, if a value is not a number or the run has ended.
        """
        numbers = to_numbers(values, self._writer_thread.problems)
        self._writer_thread.flush()  # so that the last step is known
        self._writer_thread.calls.append((max(0, self._writer_thread.step), monotonic_ns(), numbers))
        if not self._writer_thread.wake():
            self._writer_thread.report_end()

    def __getitem__(self, metric: str) -> float:
        return self._writer_thread.last_values()[storable_name(metric)]

    def __iter__(self) -> Iterator[str]:
        return iter(self._writer_thread.last_values())

    def __len__(self) -> int:
        return len(self._writer_thread.last_values())

    def __repr__(self) -> str:
        return f"RunSummary({self._writer_thread.last_values()!r})"


class Run:
    """Training run that is being recorded, created by `labbench.start()`.

    Use it in a `with` block or call `finish()`; otherwise the run ends with the script, however that ends. Any thread
    may use it. A forked or spawned process may log to it too; only the process that started the run ends it.
    """

    def __init__(
        self, writer_thread: RunWriterThread, path: Path, *, first_step: int = 0, resumed: bool = False
    ) -> None:
        run = writer_thread.run
        self.path = path
        """Path of the database."""
        self.resumed = resumed
        """True if the run continues an earlier attempt, whose points are kept."""
        self.config = RunConfig(run.config, self._configure)
        self.summary = RunSummary(writer_thread)
        self._writer_thread = writer_thread
        self._first_step = first_step
        self.log = make_log(writer_thread, first_step)
        """`run.log({"train/loss": 0.3}, step=10, epoch=1)` records numbers by name."""
        self._is_shared = False
        """True for the run of a callback around the script: `start` returns it, and the callback ends it."""
        self._watches_output = False
        self._resources = ExitStack()
        self._end_lock = threading.RLock()
        self._step_of_last_cell = writer_thread.last_step
        self._failed_cell: ExitInfo | None = None
        """End of the run if the notebook ends without using it again."""
        process_hooks.register(self)

    @property
    def key(self) -> str:
        """Eight random characters that identify the run on the command line."""
        return self._writer_thread.run.key

    @property
    def name(self) -> str:
        """Name of the run."""
        return self._writer_thread.run.name

    @property
    def experiment(self) -> str:
        """Name of the run's experiment."""
        return self._writer_thread.run.experiment

    def __repr__(self) -> str:
        return f"<Run {self.key} {self.name!r} of {self.experiment!r} in {self.path}>"

    def tag(self, *tags: str) -> None:
        """Add tags to the run.

        Raises:
            InputError: In a strict run, if it has ended.
        """
        self._change(lambda run: replace(run, tags=(*run.tags, *map(str, tags))))

    def note(self, text: str) -> None:
        """Set the run's note.

        Raises:
            InputError: In a strict run, if it has ended.
        """
        self._change(lambda run: replace(run, note=str(text)))

    def rename(self, name: str) -> None:
        """Change the run's name.

        Raises:
            InputError: In a strict run, if it has ended.
        """
        self._change(lambda run: replace(run, name=str(name)))

    def define_metric(self, name: str, goal: Goal) -> None:
        """Declare the goal of a metric: "min", "max" or "none"; without a goal, no run is its best.

        Raises:
            InputError: If `goal` is another text, or in a strict run that has ended.
        """
        if goal not in ("min", "max", "none"):
            raise InputError(f"the goal of `{name}` must be min, max or none, not {goal!r}")
        self._change(lambda run: replace(run, goals={**run.goals, storable_name(name): goal}))

    def artifact(self, path: str | os.PathLike[str], *, copy: bool = False, name: str | None = None) -> None:
        """Record the path, size and SHA-256 of a file, or of each file in a folder and its subfolders.

        With `copy`, also store copies beside the database. Reads the whole files. Recording a name again replaces its
        earlier record.

        Args:
            name: Name of the artifact, or of the folder; default: the path relative to the current folder.

        Raises:
            InputError: If the file cannot be read, the name has no valid part, or in a strict run that has ended.
        """
        if self._writer_thread.discards:
            return
        self._add_artifacts(record_files(expand_home(path), self.path, self.key, copy=copy, name=name))

    def watch_output(self) -> None:
        """Record output that is printed from now on; `start(capture_output=True)` does so from the start.

        A no-op in a process that `labbench run` started, because `labbench run` records its output.
        """
        if self._watches_output or self._writer_thread.discards or os.environ.get("LABBENCH_RUN") == self.key:
            return
        try:
            self._writer_thread.printed.open()
        except OSError as error:
            self._writer_thread.problems.report("output", f"run.watch_output: {error}", "the output is not recorded")
            return
        self._watches_output = True
        self._resources.callback(self._writer_thread.printed.close)
        for name in get_args(Stream):
            self._resources.callback(Tee(name, self._print).close)

    def _close_with_run(self, resource: Closable) -> None:
        """Close a resource when the run ends."""
        self._resources.callback(resource.close)

    def flush(self) -> bool:
        """Wait until everything logged so far is in the database.

        Returns False if the database cannot currently be written.
        """
        return self._writer_thread.flush()

    def finish(self, exit_code: int = 0) -> None:
        """End the run after writing everything that was logged.

        An exit code other than 0 records a failure. A no-op with a warning if the run has ended.
        """
        if self._is_shared:
            self.flush()
            return
        if self._writer_thread.is_closing:
            warn_once(f"run {self.key} has ended before: finish() changes nothing")
            return
        self._end(exit_info_of_status(exit_code))

    def __enter__(self) -> Run:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if self._is_shared:  # the error reaches the callback, too
            self.flush()
        else:
            self._end(exit_info_of_error(error))

    def _join(self, settings: Config, tags: Iterable[str], note: str | None, *, watches_output: bool) -> Run:
        """Return the run, with what a script gives it in `start`."""
        self.config.update(settings)
        self.tag(*tags)
        if note is not None:
            self.note(note)
        if watches_output:
            self.watch_output()
        return self

    def _end(self, exit_info: ExitInfo) -> None:
        """Write everything that was logged.

        If this process drives the run, also record its final status.
        """
        writer_thread = self._writer_thread
        with self._end_lock:
            if not writer_thread.is_closing:
                writer_thread.adopt_if_daemon()
                try:
                    self._resources.close()
                except Exception as error:  # the end is recorded whatever happens before it
                    warn_of_internal_error(error)
                if writer_thread.stop_requested and exit_info.status == "finished":
                    exit_info = ExitInfo("stopped", "stopped by the user")
                if writer_thread.run.drives:
                    writer_thread.change(lambda run: replace(run, finished=now(), **asdict(exit_info)))
            writer_thread.close()
            process_hooks.unregister(self)

    def _end_with_process(self, exit_info: ExitInfo) -> None:
        """End the run with its process, or as the last notebook cell or statement that used it ended."""
        is_unused_since = self._writer_thread.last_step == self._step_of_last_cell
        if exit_info.status == "finished" and self._failed_cell is not None and is_unused_since:
            exit_info = self._failed_cell
        self._end(exit_info)

    def _after_cell(self, error: BaseException | None) -> None:
        """Note the end of a notebook cell, if it logged to the run or failed before anything was logged.

        The run stays open, because the next cell may continue it.
        """
        self._writer_thread.flush(1.0)  # takes milliseconds; `last_step` is behind while a call is being written
        step = self._writer_thread.last_step
        is_used = step != self._step_of_last_cell
        if is_used or (error is not None and step == self._first_step - 1):
            self._failed_cell = None if error is None else exit_info_of_error(error)
        self._step_of_last_cell = step

    # Forks and pickles.

    def _before_fork(self) -> None:
        self._writer_thread.before_fork()

    def _after_fork_in_parent(self) -> None:
        self._writer_thread.after_fork_in_parent()

    def _after_fork_in_child(self) -> None:
        self._writer_thread.after_fork_in_child()
        self._end_lock = threading.RLock()
        self._resources.pop_all()

    def __reduce__(self) -> tuple[Any, ...]:
        if self._writer_thread.discards:
            config = dict(self.config)
            return unrecorded_run, (
                self.name,
                self.experiment,
                config,
                str(self.path),
                self._writer_thread.problems.strict,
            )
        return _attach_from_pickle, (str(self.path), self.key, self._writer_thread.problems.strict)

    def __copy__(self) -> Run:
        return self

    def __deepcopy__(self, _: dict[int, Any]) -> Run:
        return self

    def _change(self, update: Callable[[ScriptRun], ScriptRun]) -> None:
        if not self._writer_thread.change(update):
            self._writer_thread.report_end()

    def _add_artifacts(self, artifacts: Iterable[Artifact]) -> None:
        new = tuple(artifacts)
        self._change(lambda run: replace(run, artifacts=(*run.artifacts, *new)))

    def _configure(self, config: dict[str, Any]) -> None:
        self._change(lambda run: replace(run, config=config))

    def _print(self, stream: Stream, text: str) -> None:
        self._writer_thread.printed.append(stream, text)
        if self._writer_thread.calls.asleep:
            self._writer_thread.wake()


def shared_run() -> Run | None:
    """Return the open run of a callback around the script; None without one."""
    run = process_hooks.newest_run()
    return run if isinstance(run, Run) and run._is_shared and not run._writer_thread.is_closing else None


def _attach_from_pickle(path: str, key: str, strict: bool) -> Run:
    """Unpickle a run in a process that did not start it.

    Raises InputError if the database cannot be opened, or if a strict run has ended.
    """
    problems = ProblemReporter(strict=strict)
    writer = ScriptWriter(Path(path))
    try:
        run, _ = writer.attach(key)
    except BaseException as error:
        writer.close()
        if not isinstance(error, InputError):
            raise
        problems.report("unpickled run", str(error), "this process records nothing")
        return unrecorded_run(key, "", {}, path, strict)
    return Run(RunWriterThread(Storage(writer, run), run, problems), writer.path)


def unrecorded_run(name: str, experiment: str, config: Config, path: str, strict: bool) -> Run:
    """Return a run that records nothing and opens no database."""
    run = replace(new_script_run(name or experiment, experiment, config), key="disabled", drives=False)
    return Run(RunWriterThread(DiscardingStorage(), run, ProblemReporter(strict=strict)), Path(path))
