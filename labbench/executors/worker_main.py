"""What runs inside a worker process: take a stack, train it, send its events; until the driver hangs up."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path

from labbench.executors.attempt import run_stack
from labbench.records import Event, Stack
from labbench.train.active_runs import StopRequests

DRIVER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What a terminal or a scheduler sends to a whole group of processes: the driver decides what it means."""


def serve(connection: Connection, device: str, output: Path) -> None:
    """Serve the driver at the other end of `connection`: stacks and lists of runs to stop come in, events go out.

    A None says that the stack is done. Everything printed goes to the file `output`.
    """
    os.environ.pop("PYTHONSAFEPATH", None)  # it was for the server's own start, not for a script that is started here
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DRIVER_SIGNALS)
    multiprocessing.current_process().daemon = False  # which might start no processes that read its data
    os.setpgid(0, 0)  # Ctrl-C reaches the terminal's group: only the driver answers it; what is started here joins us
    redirect_output(output)
    try:
        while isinstance(stack := connection.recv(), Stack):
            for event in train_and_listen(stack, device, connection):
                connection.send(event)
            sys.stdout.flush()
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the driver is gone: nobody is left to tell


def train_and_listen(stack: Stack, device: str, connection: Connection) -> Iterator[Event]:
    """The events of the stack, while runs that the driver names are let go."""
    stop_requests = StopRequests()
    for event in run_stack(stack, device, stop_requests):
        if event is not None:
            yield event
        while connection.poll():
            stop_requests.request(connection.recv())


def redirect_output(output: Path) -> None:
    """Send stdout and stderr of this process, those of native code included, to a file."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
