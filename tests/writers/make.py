"""Write the files in this folder with the programs whose formats labbench imports, and the values that they hold.

    python tests/writers/make.py FORMAT

runs in an environment with that program. Each format has a folder with the program's files, `files/`, and
`expected.json`: its version and the runs with config and points. Host, user and folder names are replaced by neutral
ones, because the files are public. `tests/importing/test_writers.py` compares an import with `expected.json`.
"""

from __future__ import annotations

import getpass
import importlib.metadata
import json
import math
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOST, USER, HOME = "host", "user", "/tmp/work"

Runs = dict[str, dict[str, Any]]
"""By name of the run: `config`, `status` and `series`, a list of [step, value] by metric."""


def hide_identity() -> None:
    """Replace host and user names in everything that this process writes, and work in a neutral folder."""
    socket.gethostname = lambda: HOST
    getpass.getuser = lambda: USER
    os.environ.update(USER=USER, LOGNAME=USER, HOME=HOME, HOSTNAME=HOST)
    os.uname = lambda: os.uname_result(("Linux", HOST, "6", "1", "x86_64"))
    shutil.rmtree(HOME, ignore_errors=True)
    Path(HOME).mkdir(parents=True)
    os.chdir(HOME)


def curve(n: int, scale: float = 1.0) -> list[list[float]]:
    """Return [step, value] pairs that are exact in 32 bits, as TensorBoard stores them."""
    return [[step, round(scale * 1024 * math.exp(-step / 5)) / 1024] for step in range(n)]


def tensorboard(folder: Path) -> tuple[str, Runs]:
    import numpy
    from torch.utils.tensorboard import SummaryWriter

    loss, accuracy = curve(20), curve(5, 0.5)
    with SummaryWriter(str(folder / "adam")) as writer:
        for step, value in loss:
            writer.add_scalar("train/loss", value, step)
        for step, value in accuracy:
            writer.add_scalar("val/accuracy", value, step, new_style=True)
        writer.add_histogram("weights", numpy.array([0.0, 1.0, 2.0]), 0)
        writer.add_text("about", "a note")
        writer.add_hparams({"lr": 0.125, "optimizer": "adam", "batchnorm": True}, {"hparam/accuracy": 0.5})
        writer.add_scalars("both", {"first": 1.0, "second": 2.0}, 3)
    with SummaryWriter(str(folder / "deep" / "restarted")) as writer:
        for step, _ in loss:
            writer.add_scalar("loss", 9.0, step)
    with SummaryWriter(str(folder / "deep" / "restarted"), purge_step=10, filename_suffix=".2") as writer:
        for step, value in loss[10:15]:
            writer.add_scalar("loss", value, step)
    return importlib.metadata.version("tensorboard"), {
        "adam": {
            "config": {"lr": 0.125, "optimizer": "adam", "batchnorm": True},
            "series": {
                "train/loss": loss,
                "val/accuracy": accuracy,
                "hparam/accuracy": [[0, 0.5]],
                "both/first": [[3, 1.0]],
                "both/second": [[3, 2.0]],
            },
        },
        "deep/restarted": {"config": {}, "series": {"loss": [[step, 9.0] for step in range(10)] + loss[10:15]}},
    }


FORMATS: dict[str, Callable[[Path], tuple[str, Runs]]] = {"tensorboard": tensorboard}


def main(name: str) -> None:
    hide_identity()
    with tempfile.TemporaryDirectory(dir=HOME) as work:
        files = Path(work, "files")
        files.mkdir()
        version, runs = FORMATS[name](files)
        target = HERE / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        shutil.copytree(files, target / "files")
        expected = {"program": f"{name} {version}", "runs": runs}
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1])
