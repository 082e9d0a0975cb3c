"""Sample databases of the bench."""

from __future__ import annotations

import random
from pathlib import Path

from labbench.files import files_folder
from labbench.records import Finished, Log, NewRun, Points, Started, Submission
from labbench.store.writer import Writer


def write_sample(path: Path, *, runs: int = 20, points: int = 2500, experiment: str = "sample") -> Path:
    """Create a database of finished runs with four metrics each, a tag, output, and a file of some kilobytes."""
    with Writer(path) as writer:
        submission = Submission(experiment, "digits", {"val/loss": "min"}, sources={"grid": "lr = [0.1]"})
        new = [
            NewRun(
                f"{experiment} {n}", {"lr": 0.1 * (1 + n), "seed": n % 3}, f"{experiment}{n}".encode().hex().zfill(64)
            )
            for n in range(runs)
        ]
        for run in writer.claim([run.key for run in writer.queue(submission, new)]):
            rng = random.Random(run.name)
            writer.write([Started(run.key, 1, "host", 1, "cpu"), Log(run.key, 1, "epoch 1\nepoch 2\n")])
            for metric in ("train/loss", "val/loss", "val/accuracy", "epoch"):
                values = [rng.random() for _ in range(points)]
                writer.write([Points(run.key, 1, metric, range(points), range(0, 10 * points, 10), values)])
            writer.write([Finished(run.key, 1, "finished", "all epochs")])
            folder = files_folder(path) / run.key
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "model.safetensors").write_bytes(rng.randbytes(20_000))
        writer.tag([run.key], add=["good"])
    return path
