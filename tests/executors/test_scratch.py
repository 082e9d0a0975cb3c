"""Temporary folders of killed processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from labbench.executors.scratch import PREFIX, ScratchFolder, remove_abandoned_folders


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return a folder for temporary files, with a path short enough for a socket in it."""
    with tempfile.TemporaryDirectory(prefix="lb") as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def test_folders_of_ended_processes_are_deleted_and_others_stay(temporary: Path) -> None:
    with ScratchFolder() as used:
        abandoned, young, foreign = (temporary / name for name in (f"{PREFIX}a", f"{PREFIX}b", "another-tool"))
        for folder in (abandoned, young, foreign):
            folder.mkdir()
            (folder / "output.txt").write_text("...")
        link = temporary / f"{PREFIX}link"
        link.symlink_to(foreign)
        for folder in (used, abandoned, foreign):
            os.utime(folder, (0, 0))
        ScratchFolder().close()
        assert sorted(temporary.iterdir()) == sorted([used, young, foreign, link])
        assert (foreign / "output.txt").exists()
    assert not used.exists()


def test_a_killed_process_with_workers_leaves_only_scratch_folders(temporary: Path) -> None:
    program = """
import os, signal
from multiprocessing import forkserver
from labbench.executors.scratch import keep_sockets_in_scratch_folder
keep_sockets_in_scratch_folder()
forkserver.ensure_running()
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", program], env={**os.environ, "TMPDIR": str(temporary)}, check=False)
    [folder] = temporary.iterdir()
    os.utime(folder, (0, 0))
    remove_abandoned_folders()
    assert not list(temporary.iterdir())
