"""Executor with worker processes, which train one stack at a time.

They are forked from a server that has loaded torch: forking takes about 20 ms, starting a process that imports torch
more than a second. Workers that start scripts need no torch and no server. If a worker dies, the runs of its stack are
retried in halves by new workers until the run that kills its worker is alone; that run fails with the cause and its
last lines of output.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing import forkserver, resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkServerContext, ForkServerProcess, SpawnContext, SpawnProcess
from pathlib import Path
from typing import TypeAlias

from labbench.errors import LabbenchError
from labbench.executors import Executor
from labbench.executors.captured_output import CapturedFile
from labbench.executors.leftovers import DRIVER_VARIABLE, driver_mark, kill_processes
from labbench.executors.message_reader import MessageReader
from labbench.executors.scratch import ScratchFolder, keep_sockets_in_scratch_folder
from labbench.executors.script_process import signal_name
from labbench.executors.watched_stack import WatchedStack
from labbench.executors.worker_main import DEVICE_LOST_STATUS, DRIVER_SIGNALS, Ready, serve
from labbench.records import Event, Failed, Finished, Log, Stack
from labbench.terminal_output import OutputText
from labbench.train.active_runs import ActiveRuns

POLL_SECONDS = 0.1
"""Seconds without an event after which `execute` yields None."""

WORKER_ENVIRONMENT = {
    # keep large activations allocated: by default, glibc maps and unmaps them at every operation; CNNs train 1.7 times
    # as fast
    "MALLOC_MMAP_THRESHOLD_": str(32 * 2**20),
    "MALLOC_TRIM_THRESHOLD_": str(512 * 2**20),
    "MALLOC_TOP_PAD_": str(64 * 2**20),
    # one thread per process: two OpenMP threads become very slow if another process uses their cores
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    # the server is started as `python -c`, which would import a random.py or torch.py of the current folder
    "PYTHONSAFEPATH": "1",
}


WorkerContext: TypeAlias = ForkServerContext | SpawnContext
"""Way of starting worker processes: fork them from a server, or start each by itself."""


class WorkerExecutor(Executor):
    """Trains stacks in worker processes, one per entry of `devices`.

    A device may occur several times.
    """

    def __init__(self, devices: Sequence[str], *, timeout: float | None = None, load_torch: bool = True) -> None:
        """`timeout` is the time limit of one attempt of a run in seconds.

        Stacks of scripts need no workers that have loaded torch.
        """
        context = start_forkserver(devices[0]) if load_torch else multiprocessing.get_context("spawn")
        self._folder = ScratchFolder()
        outputs = [Path(self._folder.path, f"worker-{number}.txt") for number in range(len(devices))]
        self._workers = [
            Worker(context, device, output, timeout) for device, output in zip(devices, outputs, strict=True)
        ]
        self._interrupted = False
        self._stopped: set[str] = set()
        """Runs to stop, also if their stack waits to be trained again."""

    def capacity(self) -> int:
        return len(self._workers)

    def execute(self, stacks: Iterable[Stack]) -> Iterator[Event | None]:
        pending = iter(stacks)
        retries: deque[Stack] = deque()
        """Unfinished parts of stacks whose worker died or was killed."""
        while True:
            for worker in self._workers:
                if worker.busy or self._interrupted:
                    continue
                if (stack := retries.popleft() if retries else next(pending, None)) is not None:
                    worker.submit(stack)
                    worker.request_stop(sorted(self._stopped.intersection(worker.active.keys)))
            busy = [worker for worker in self._workers if worker.busy]
            if not busy:
                return
            ready = set(wait([waitable for worker in busy for waitable in worker.waitables()], timeout=POLL_SECONDS))
            if not ready:
                yield None
            for worker in busy:
                if not ready.isdisjoint(worker.waitables()):
                    yield from worker.receive()
                if worker.died:
                    retries.extend((yield from worker.handle_death()))
                elif overdue := worker.overdue_runs():
                    retries.extend((yield from worker.handle_timeout(overdue)))

    def stop(self, run: str) -> None:
        self._stopped.add(run)
        for worker in self._workers:
            if run in worker.active:
                worker.request_stop([run])

    def interrupt(self) -> None:
        self._interrupted = True
        for worker in self._workers:
            worker.request_stop(worker.active.keys)

    def close(self) -> None:
        for worker in self._workers:
            worker.kill()
        self._folder.close()


class Worker:
    """The driver's handle of a worker process, which is started for its first stack."""

    def __init__(self, context: WorkerContext, device: str, output: Path, timeout: float | None) -> None:
        self.device = device
        self.timeout = timeout
        self.busy = False
        self.died = False
        self._is_ready = False
        self._watched: WatchedStack | None = None
        """The current stack."""
        self.connection: Connection
        self._reader: MessageReader
        self._context = context
        self._process: ForkServerProcess | SpawnProcess | None = None
        self._output = output  # a file, since its output must not mix with the driver's results
        self._printed = CapturedFile(output)
        self._output_size = 0

    @property
    def active(self) -> ActiveRuns:
        """Runs of the current stack that have not ended."""
        return ActiveRuns() if self._watched is None else self._watched.active

    def submit(self, stack: Stack) -> None:
        """Send a stack to the process, starting it if needed."""
        if self._process is None:
            self._start()
        self.busy, self._watched = True, WatchedStack(stack, self.timeout)
        self._printed = CapturedFile(self._output, start=self._printed.end, n_runs=len(stack.runs))
        with suppress(OSError):  # the process has just died, which `receive` detects
            self.connection.send(stack)

    def waitables(self) -> tuple[Connection, int]:
        """Return the connection and the sentinel of the process, which are ready at a message and at its end."""
        assert self._process is not None  # it was started by `submit`
        return self.connection, self._process.sentinel

    def receive(self) -> Iterator[Event]:
        """Yield new output and the events that the worker has sent.

        Sets `died` if the process has died.
        """
        assert self._process is not None
        assert self._watched is not None
        messages: list[Event | Ready | None] = self._reader.take()
        if messages:
            self._watched.report()
        for event in messages:
            if isinstance(event, Ready):
                self._is_ready = True
                self._watched.restart_clock()  # the start of the process is not the runs' time
                continue
            has_ended = isinstance(event, Failed | Finished)
            if has_ended or event is messages[0]:  # what was printed before the other messages is in the file by now
                yield from self._logs(self._printed.take(everything=has_ended))
            if event is None:
                self._become_idle()
                return
            self._watched.update(event)
            yield event
        self.died = not messages and (self._reader.is_closed or self._process.exitcode is not None)

    def handle_death(self) -> Generator[Event, None, list[Stack]]:
        """Fail the run of a dead process if it was the only one.

        Returns the halves of a larger stack, to retry.
        """
        exit_status = self.kill(grace=1.0)
        yield from self._logs(self._printed.close())
        assert self._watched is not None
        failures, retries = self._watched.end_dead(cause_of_death(exit_status), self._printed.last_lines())
        yield from failures
        self._become_idle()
        return retries

    def overdue_runs(self) -> dict[str, str]:
        """Return the runs that have exceeded the time limit, each with its error message."""
        if self._watched is None or not self._is_ready:  # the stack has just ended, or its process is being started
            return {}
        if (size := self._output.stat().st_size) != self._output_size:  # printing is a sign of life
            self._output_size = size
            self._watched.report()
        return self._watched.overdue_runs()

    def handle_timeout(self, overdue: Mapping[str, str]) -> Generator[Event, None, list[Stack]]:
        """Kill the process, and fail the runs that exceeded its time limit, each with its message.

        Returns a stack of the other runs, to retry.
        """
        self.kill()
        yield from self._logs(self._printed.close())
        assert self._watched is not None
        failures, retries = self._watched.end_overdue(overdue, self._printed.last_lines())
        yield from failures
        self._become_idle()
        return retries

    def request_stop(self, runs: list[str]) -> None:
        """Ask the process to stop these runs at their next boundary."""
        if runs and self._process is not None:
            with suppress(OSError):
                self.connection.send(runs)

    def kill(self, grace: float = 0.0) -> int | None:
        """Wait `grace` seconds, then kill the process.

        Returns its exit status; -N if signal N ended it.
        """
        if self._process is None or (pid := self._process.pid) is None:
            return None
        self._process.join(grace)
        with suppress(ProcessLookupError, PermissionError):  # has ended, or is not a group leader yet
            os.killpg(pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        status = self._process.exitcode
        for run in self.active.keys if self._watched and self._watched.stack.command else ():
            kill_processes(run)
        self._reader.close()
        self.connection.close()
        self._process = None
        return status

    def _start(self) -> None:
        self._is_ready = False
        self._output.write_bytes(b"")
        self._printed = CapturedFile(self._output)
        self.connection, theirs = self._context.Pipe()
        self._reader = MessageReader(self.connection)
        process = self._context.Process(target=serve, args=(theirs, self.device, self._output), daemon=True)
        is_forked = isinstance(self._context, ForkServerContext)  # from a server that has the environment already
        try:
            with nullcontext() if is_forked else _environment_of_workers():
                process.start()
        except (EOFError, OSError) as error:
            raise LabbenchError(
                f"cannot start a worker process ({error or 'the fork server has ended'}); "
                "to train in this process, use --workers 0"
            ) from error
        self._process = process
        theirs.close()

    def _become_idle(self) -> None:
        self.busy, self.died, self._watched = False, False, None

    def _logs(self, texts: Iterable[OutputText]) -> Iterator[Event]:
        """Yield printed texts as events of each run of the stack that has not ended."""
        for text in texts:
            for run in self.active:
                yield Log(run.key, run.attempt, text.text, text.replaces_unfinished)


def start_forkserver(device: str = "cpu") -> ForkServerContext:
    """Start the fork server, which loads torch once, with `WORKER_ENVIRONMENT`; return its context."""
    context = multiprocessing.get_context("forkserver")
    # imported by the first backward pass, and by the check of the step on a GPU
    lazy = "torch.fx.experimental.symbolic_shapes" if device == "cpu" else "torch._dynamo"
    context.set_forkserver_preload(["labbench.train.loop", "labbench.executors.worker_main", lazy])
    keep_sockets_in_scratch_folder()
    with _environment_of_workers():
        forkserver.ensure_running()  # malloc reads the environment only at the start of a process
    return context


@contextmanager
def _environment_of_workers() -> Iterator[None]:
    """Set what processes started in the block inherit: `WORKER_ENVIRONMENT`, and no signal until they are ready."""
    before = {name: os.environ.get(name) for name in (*WORKER_ENVIRONMENT, DRIVER_VARIABLE)}
    resource_tracker.ensure_running()  # first, because starting it unblocks signals
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, DRIVER_SIGNALS)  # so no Ctrl-C while torch loads
    for name, value in WORKER_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ[DRIVER_VARIABLE] = driver_mark()
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        for name, old in before.items():
            if old is None:
                del os.environ[name]


def cause_of_death(exit_status: int | None) -> str:
    """Describe why a worker process ended, given its exit status (-N: signal N)."""
    if exit_status is not None and exit_status < 0:
        name = signal_name(-exit_status)
        hint = "; the system may have run out of memory" if name == "SIGKILL" else ""
        return f"the worker process was killed by {name}{hint}"
    if exit_status == DEVICE_LOST_STATUS:
        return "the GPU failed, or the task's code made it fail; the last output has the error"
    return f"the worker process ended with exit status {exit_status}"
