"""Union of several databases: a temporary mirror of all of them, read by the terminal interface.

Each database has a process that mirrors it:

    python -m labbench.sharing.union UNION DATABASE
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO

from labbench.errors import LabbenchError
from labbench.executors.scratch import ScratchFolder
from labbench.sharing.pull import Mirror
from labbench.sharing.remote import connect_locally
from labbench.store.reader import Reader
from labbench.store.sharing.mirror import MirrorWriter

_LOOK_SECONDS = 0.5
_RETRY_SECONDS = 2.0
_MAX_NAME = 60


@contextmanager
def open_union(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the path of a temporary database with the runs of several databases, which follows their changes.

    Raises:
        InputError: If one of them cannot be read.
    """
    for path in paths:
        Reader(path).close()
    with ScratchFolder() as folder, ExitStack() as stack:
        union = folder / f"{' + '.join(path.stem for path in paths)[:_MAX_NAME]}.db"
        MirrorWriter(union).close()
        processes = [stack.enter_context(_mirror_process(union, path)) for path in paths]
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()  # the runs that it has so far are there
        yield union


@contextmanager
def copy_union(paths: Sequence[Path]) -> Iterator[Path]:
    """Yield the path of a temporary database with the runs of several databases, as they are now.

    Raises:
        InputError: If one of them cannot be read.
        StoreError: If reading fails later on.
    """
    for path in paths:
        Reader(path).close()
    with ScratchFolder() as folder:
        union = folder / "union.db"
        with MirrorWriter(union) as writer:
            for path in paths:
                with connect_locally(path) as conversation:
                    Mirror(writer, conversation, str(path)).compare_all()
        yield union


@contextmanager
def _mirror_process(union: Path, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Start a process that mirrors a database, and end it with the block."""
    command = [sys.executable, "-m", __name__, str(union), str(path)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.terminate()
        process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _mirror(union: Path, path: Path, ready: IO[str]) -> None:
    """Mirror a database until the parent process has ended. Writes a line to `ready` after the first look."""
    parent = os.getppid()
    while os.getppid() == parent:
        with suppress(LabbenchError), MirrorWriter(union) as writer, connect_locally(path) as conversation:
            mirror = Mirror(writer, conversation, str(path))
            mirror.compare_all()
            print(file=ready, flush=True)
            while os.getppid() == parent:
                time.sleep(_LOOK_SECONDS)
                mirror.look()
        print(file=ready, flush=True)
        time.sleep(_RETRY_SECONDS)  # the database could not be read for a moment


if __name__ == "__main__":
    _mirror(Path(sys.argv[1]), Path(sys.argv[2]), sys.stdout)
