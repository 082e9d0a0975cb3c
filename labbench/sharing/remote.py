"""Connection to a database on another machine: `labbench serve-changes` at the other end of the system's ssh."""

from __future__ import annotations

import os
import shlex
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labbench.errors import InputError, LabbenchError, StoreError
from labbench.sharing.frames import ConnectionCut, FrameConnection
from labbench.sharing.serve_changes import PROTOCOLS, serve_changes

TIMEOUT_SECONDS = 60.0
"""Longest wait for an answer; a question takes the other end a fraction of a second."""

_NOT_FOUND, _SSH_FAILED = 127, 255
"""Exit statuses of a shell without the command, and of ssh."""


@dataclass(frozen=True, slots=True)
class RemoteDatabase:
    """Database on another machine."""

    host: str
    path: str

    def __str__(self) -> str:
        return f"{self.host}:{self.path}"


class UnreachableError(StoreError):
    """The other machine or its labbench does not answer; trying again as it is will not help."""


def parse_remote(text: str) -> RemoteDatabase:
    """Return the database that HOST:PATH names.

    Raises:
        InputError: If the text has another form, or ssh would take the host for an option.
    """
    bracket = text.find("]") + 1 if text.rpartition("@")[2].startswith("[") else 0
    host, _, path = text[bracket:].partition(":")
    host = text[:bracket] + host
    if not host or not path or not text.isprintable():
        raise InputError(f"{text!r}: name the database as HOST:PATH, such as gpu-box:project/runs.db")
    if host.startswith("-"):
        raise InputError(f"{host}: the name of a host cannot begin with a dash")
    return RemoteDatabase(host, path)


def ssh_command(remote: RemoteDatabase, labbench: str) -> list[str]:
    """Return the words of the local command that runs `serve-changes` on the other machine.

    `labbench` is the command there, one or several words. LABBENCH_SSH names a command to use in place of ssh.
    """
    ssh = shlex.split(os.environ.get("LABBENCH_SSH") or "ssh")
    words = [*shlex.split(labbench), "serve-changes", "--", remote.path]
    return [*ssh, "--", remote.host, shlex.join(words)]


@contextmanager
def connect(remote: RemoteDatabase, labbench: str) -> Iterator[Conversation]:
    """Connect to a database.

    Raises:
        UnreachableError: If the machine cannot be reached, or has no labbench of a version that this one understands.
        StoreError: If the database cannot be read there.
    """
    command = ssh_command(remote, labbench)
    try:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
    except OSError as error:
        raise UnreachableError(f"{command[0]}: {error.strerror}: install ssh, or set LABBENCH_SSH") from error
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        frames = FrameConnection(process.stdout.fileno(), process.stdin.fileno(), timeout=TIMEOUT_SECONDS)
        try:
            frames.skip_to_marker()
        except ConnectionCut as error:
            _end(process)
            raise UnreachableError(_explain_silence(remote, labbench, process.returncode, error)) from error
        conversation = Conversation(frames, remote)
        _require_protocol(conversation.receive(), remote)
        yield conversation
    finally:
        _end(process)


@contextmanager
def connect_locally(path: Path) -> Iterator[Conversation]:
    """Connect to a database on this machine, also to the runs that it mirrors; a thread answers.

    Raises:
        StoreError: If the database cannot be read.
    """
    asked, ask = os.pipe()
    answered, answer = os.pipe()

    def serve() -> None:
        with suppress(LabbenchError):  # it was sent
            serve_changes(path, asked, answer, all_runs=True)
        os.close(answer)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        frames = FrameConnection(answered, ask)
        frames.skip_to_marker()
        frames.receive()  # the versions of this release
        yield Conversation(frames, RemoteDatabase("", str(path)))
    finally:
        os.close(ask)
        os.close(answered)
        thread.join()
        os.close(asked)


class Conversation:
    """Questions and answers on a connection."""

    def __init__(self, frames: FrameConnection, remote: RemoteDatabase) -> None:
        self._frames, self._remote = frames, remote

    def ask(self, question: str, **details: Any) -> None:
        """Send a question. Raises ConnectionCut."""
        self._frames.send({"ask": question, **details})

    def receive(self) -> Any:
        """Return the next answer.

        Raises:
            ConnectionCut: If there is none.
            StoreError: If the other end reports an error.
        """
        answer = self._frames.receive()
        if isinstance(answer, dict) and "error" in answer:
            raise UnreachableError(f"{self._remote.host}: {answer['error']}")
        return answer


def _require_protocol(hello: Any, remote: RemoteDatabase) -> None:
    """Raise UnreachableError unless the other end speaks a protocol of this version."""
    protocols: Sequence[Any] = hello.get("protocols", ()) if isinstance(hello, dict) else ()
    if not set(PROTOCOLS) & {number for number in protocols if isinstance(number, int)}:
        version = str(hello.get("labbench", "unknown"))[:40] if isinstance(hello, dict) else "unknown"
        raise UnreachableError(
            f"{remote.host}: its labbench {version} speaks another version of the protocol; install the same version "
            "of labbench on both machines"
        )


def _explain_silence(remote: RemoteDatabase, labbench: str, status: int | None, error: ConnectionCut) -> str:
    """Return the reason why there was no answer, by the exit status of ssh."""
    if status == _SSH_FAILED:
        return f"{remote.host}: cannot be reached by ssh, for the reason above; try `ssh {shlex.quote(remote.host)}`"
    if status == _NOT_FOUND:
        return (
            f"{remote.host}: has no command `{labbench}`; install labbench there, or name it with "
            "--remote-labbench /path/to/labbench"
        )
    if status == 2:
        return f"{remote.host}: its labbench cannot serve changes; upgrade it there with `pip install -U labbench-ml`"
    return f"{remote.host}: labbench does not answer there: {error} (exit status {status})"


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the connection, and wait for ssh to end."""
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            with suppress(OSError):
                pipe.close()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
