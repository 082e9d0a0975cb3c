"""Training of a stack on a node of a Ray cluster: a generator whose items travel to the driver.

An item is a list of events as JSON, and the contents of the files that these events refer to: a checkpoint arrives with
its boundary, so that a boundary that the driver has received never depends on the node.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeAlias

from labbench.executors.attempt import run_stack
from labbench.executors.captured_output import CapturedFile
from labbench.executors.event_codec import decode_stack, encode_event
from labbench.executors.worker_main import redirect_output
from labbench.files import UNFINISHED, run_folder
from labbench.records import Boundary, Event, Failed, Finished, Log, Stack
from labbench.system.provenance import library_versions
from labbench.train.active_runs import ActiveRuns, StopRequests
from labbench.train.devices import resolve_devices

ITEM_SECONDS = 0.1
"""Minimum time between two items, unless a run ends or reaches a boundary."""

POLL_SECONDS = 0.5
"""Seconds between two looks at the requests to stop runs."""

Files: TypeAlias = Mapping[str, bytes]
"""Contents by path relative to the folder of the database's files."""

Item: TypeAlias = tuple[list[bytes], Files]
"""Events and files; the first item of a task names its node instead of events, the second one has none."""


def place_task(task: str, modules: Files, folder: Path) -> str:
    """Write the task's file and its modules to a folder; return the name of the task there.

    `task` is the name of a built-in task, or FILE.py:CLASS with a file among the modules.
    """
    write_files(folder, modules)
    return str(folder.resolve() / task) if ":" in task else task


def describe_node(paths: Sequence[str], task: str, modules: Files) -> dict[str, Any]:
    """Return the versions on this node, the `paths` that it lacks, and the error of importing the task.

    `task` and `modules` are as for `place_task`; the error is "" if the task can be imported.
    """
    from labbench.train.tasks.task import load_task

    with tempfile.TemporaryDirectory(prefix="labbench-probe-") as folder:
        try:
            load_task(place_task(task, modules, Path(folder)))
            problem = ""
        except (Exception, SystemExit) as error:  # a user's code may raise anything
            problem = str(error).partition("\n")[0].replace(f"{Path(folder).resolve()}/", "")
    return {
        "versions": {name: library_versions().get(name, "none") for name in ("python", "torch", "labbench")},
        "missing": [path for path in paths if not Path(path).exists()],
        "problem": problem,
    }


def train_on_node(
    document: str, modules: Files, files: Files, device: str, read_stops: Callable[[], Sequence[str]] | None
) -> Iterator[Item]:
    """Train a stack, and yield its events with the files that its runs have written.

    The first item is the id of this node, the second one comes when it has loaded torch.

    Args:
        document: Stack as JSON; its task file is relative to the folder of the modules.
        modules: The task's file and the modules that it imports, see `place_task`.
        files: Files that the runs begin from.
        device: auto, cpu or cuda.
        read_stops: Function that returns the keys of the runs to stop.
    """
    import ray

    yield [ray.get_runtime_context().get_node_id().encode()], {}
    import labbench.train.loop  # noqa: F401 (seconds, which do not count for the time limit of the runs)

    yield [], {}
    with tempfile.TemporaryDirectory(prefix="labbench-node-") as temporary, captured_output(Path(temporary)) as output:
        folder, stack = Path(temporary, "runs.db.files"), decode_stack(document)
        write_files(folder, files)
        task = place_task(stack.task, modules, Path(temporary, "code"))
        stack = replace(stack, task=task, files=str(folder))
        training = NodeTraining(stack, folder, CapturedFile(output, n_runs=len(stack.runs)), read_stops)
        yield from training.items(resolve_devices(device)[0])


@dataclass
class NodeTraining:
    """Training of one stack, collected in items."""

    stack: Stack
    folder: Path
    printed: CapturedFile
    read_stops: Callable[[], Sequence[str]] | None
    _sent: dict[Path, int] = field(default_factory=dict)
    """Time of modification of the files that have been sent, in nanoseconds."""

    def items(self, device: str) -> Iterator[Item]:
        """Train and yield items."""
        stop_requests, active = StopRequests(), ActiveRuns(self.stack.runs)
        self._sent = {path: path.stat().st_mtime_ns for path in self.folder.rglob("*") if path.is_file()}
        events: list[bytes] = []
        files: dict[str, bytes] = {}
        yielded = looked = time.monotonic()
        for event in run_stack(self.stack, device, stop_requests):
            if self.read_stops is not None and time.monotonic() - looked > POLL_SECONDS:
                looked = time.monotonic()
                stop_requests.request(self.read_stops())
            is_end = isinstance(event, Failed | Finished)
            events += map(encode_event, self._logs(active, everything=is_end))
            if event is not None:
                events.append(encode_event(event))
                active.update(event)
            if is_end or isinstance(event, Boundary):
                assert event is not None
                files |= self._new_files(event)
            if events and (files or is_end or time.monotonic() - yielded > ITEM_SECONDS):
                yield events, files
                events, files, yielded = [], {}, time.monotonic()
        if events:
            yield events, files

    def _logs(self, active: ActiveRuns, *, everything: bool) -> Iterator[Event]:
        for text in self.printed.take(everything=everything):
            yield from (Log(run.key, run.attempt, text.text, text.replaces_unfinished) for run in active)

    def _new_files(self, event: Event) -> Files:
        """Return the files of a run that are new or have changed since they were sent."""
        files = {}
        for path in list(run_folder(self.folder, event.run).rglob("*")):
            if path.is_file() and not path.name.startswith(UNFINISHED):
                modified = path.stat().st_mtime_ns
                if self._sent.get(path) != modified:
                    self._sent[path] = modified
                    files[path.relative_to(self.folder).as_posix()] = path.read_bytes()
                    is_older_checkpoint = isinstance(event, Boundary) and path.suffix == ".safetensors"
                    if is_older_checkpoint:
                        self._remove_older(path)
        return files

    def _remove_older(self, checkpoint: Path) -> None:
        """Delete the checkpoints before the last one but one; the driver has them."""
        others = sorted(checkpoint.parent.glob("snapshot-*"), key=lambda path: path.stat().st_mtime_ns)
        for path in others[:-2]:
            path.unlink(missing_ok=True)


def write_files(folder: Path, files: Files) -> None:
    """Write files to a folder, whose parents are created.

    Raises:
        ValueError: A path leaves the folder.
    """
    for name, content in files.items():
        path = Path(folder, name)
        if not path.resolve().is_relative_to(folder.resolve()):
            raise ValueError(f"{name} leaves the folder {folder}")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


@contextmanager
def captured_output(folder: Path) -> Iterator[Path]:
    """Send the output of this process to a new file for the block; Ray uses the process again afterwards."""
    output = folder / "output.txt"
    output.touch()
    saved = [os.dup(1), os.dup(2)]
    try:
        redirect_output(output)
        yield output
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), saved, strict=True):
            os.dup2(copy, number)
            os.close(copy)
