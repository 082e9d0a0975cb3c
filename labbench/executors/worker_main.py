"""Main function of a worker process: train the stacks it receives until the driver disconnects."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from labbench.errors import DeviceLost
from labbench.executors.attempt import run_stack
from labbench.executors.leftovers import end_with_driver
from labbench.executors.preempt_signals import PREEMPT_SIGNALS, leave_to_driver
from labbench.records import Event, Stack
from labbench.train.active_runs import StopRequests

DRIVER_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, *PREEMPT_SIGNALS)
"""Signals that a terminal or a scheduler sends to a whole process group; only the driver handles them."""

DEVICE_LOST_STATUS = 70
"""Exit status of a worker process whose GPU has failed (EX_SOFTWARE of sysexits.h)."""


@dataclass(frozen=True, slots=True)
class Ready:
    """First message of a worker process: it waits for stacks."""


def serve(connection: Connection, device: str, output: Path) -> None:
    """Serve the driver at the other end of `connection`.

    Receives stacks, and keys of runs to stop; sends `Ready`, then events, and None after each stack. Everything printed
    goes to the file `output`.
    """
    os.environ.pop("PYTHONSAFEPATH", None)  # set for the start of the fork server, not for scripts started here
    leave_to_driver()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, DRIVER_SIGNALS)
    multiprocessing.current_process().daemon = False  # a daemonic process must not start loader processes
    os.setpgid(0, 0)  # own group: Ctrl-C goes to the terminal's group, where only the driver handles it
    try:
        redirect_output(output)
    except FileNotFoundError:
        return  # the driver has ended already
    end_with_driver(connection)
    try:
        connection.send(Ready())
        while isinstance(stack := connection.recv(), Stack):
            for event in train_and_listen(stack, device, connection):
                connection.send(event)
            sys.stdout.flush()
            connection.send(None)
    except (EOFError, BrokenPipeError, ConnectionResetError):
        return  # the driver has disconnected
    except DeviceLost as error:
        print(error, file=sys.stderr, flush=True)
        os._exit(DEVICE_LOST_STATUS)  # at once: the usual end of a process waits for the GPU


def train_and_listen(stack: Stack, device: str, connection: Connection) -> Iterator[Event]:
    """Yield the events of the stack.

    Requests to stop runs are received between events.
    """
    stop_requests = StopRequests()
    for event in run_stack(stack, device, stop_requests):
        if event is not None:
            yield event
        while connection.poll():
            stop_requests.request(connection.recv())


def redirect_output(output: Path) -> None:
    """Redirect stdout and stderr to a file, including the output of native code."""
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.close(file)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
