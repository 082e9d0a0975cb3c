"""What several test files need: small grids, and a run of the command line in this process."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from labbench.cli import main

# where tests run under nohup, an ignored SIGHUP would be inherited by every process that they start
signal.signal(signal.SIGHUP, signal.SIG_DFL)

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


@pytest.fixture(scope="session", autouse=True)
def state_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep what the tests leave in the user's state folder out of the real one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def tiny_grid(tmp_path: Path) -> Path:
    """A grid of four runs of two epochs, a fraction of a second each."""
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


@pytest.fixture
def labbench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Runs the command line in an empty folder: `labbench("ls", "--json").stdout`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LABBENCH_DB", raising=False)

    def invoke(*words: str | Path, **options: object) -> Result:
        return CliRunner().invoke(main, [str(word) for word in words], prog_name="labbench", **options)

    return invoke
