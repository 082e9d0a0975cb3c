"""Fixtures of several test files: a small grid, and the command line run in this process."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, settings

from labbench.cli import main

# several test processes share the cores; torch reads the variable when it is imported
os.environ.setdefault("OMP_NUM_THREADS", "1")

# under nohup or in the background, every process that the tests start would inherit ignored signals
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)

# a busy machine is no failure
settings.register_profile("labbench", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("labbench")

TINY = """
name = "tiny"
task = "digits"

[params]
epochs = 2
hidden = [16]

[grid]
optimizer = ["sgd", "adam"]
lr = [0.1, 0.01]

[metrics]
"val/accuracy" = "max"
"""


def pytest_collection_finish() -> None:
    """Exempt the imported modules from garbage collection, which otherwise takes a third of the time of some tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Use a temporary folder instead of the user's state folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        patch.setenv("LABBENCH_STRICT", "1")
        patch.setenv("LABBENCH_QUIET", "1")
        yield


@pytest.fixture(scope="session")
def container() -> list[str]:
    """Return the words that start a command in a namespace of process ids of its own, with the same host name."""
    words = ["unshare", "--pid", "--fork", "--mount-proc", "--kill-child"]
    if shutil.which("unshare") is None or subprocess.run([*words, "true"]).returncode:
        pytest.skip("a namespace of process ids takes root")
    return words


@pytest.fixture
def tiny_grid(tmp_path: Path) -> Path:
    """Return a grid file of four runs of two epochs, each a fraction of a second."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def labbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Return a function that runs the command line in an empty folder: `labbench("ls", "--json").stdout`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABBENCH_DB", raising=False)

    def invoke(*words: str | Path, **options: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], prog_name="labbench", **options)

    return invoke
