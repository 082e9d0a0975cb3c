"""Deterministic databases for the tests of the TUI: a small grid with runs of every status."""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from labbench.portraits.file import HISTOGRAM_BINS, Histogram, Mistakes, Plane, Portrait, portrait_path, write_portrait
from labbench.records import Event, Failed, Finished, NewRun, Points, RunRecord, Started, Submission
from labbench.store.writer import Writer

EPOCHS = 20
STEPS_AN_EPOCH = 10


def grid_of_runs(path: Path) -> list[RunRecord]:
    """Write twelve runs (optimizer x lr x seed): one diverged, one failed, one stopped, two queued."""
    new_runs = [
        NewRun(
            f"{optimizer} lr={lr:g} s{seed}",
            {"optimizer": optimizer, "lr": lr, "seed": seed, "epochs": EPOCHS, "batch_size": 64, "hidden": [128, 64]},
            f"{optimizer} {lr} {seed}",
        )
        for optimizer in ("adam", "sgd")
        for lr in (0.001, 0.01, 1.0)
        for seed in (0, 1)
    ]
    with Writer(path) as writer:
        goals = {"val/loss": "min", "val/accuracy": "max"}
        runs = writer.queue(Submission("optimizers", "digits", goals), new_runs)
        for run in writer.claim([run.key for run in runs[:10]]):
            writer.write(_run_events(run))
    _fix_times(path)
    return runs


def _run_events(run: RunRecord) -> list[Event]:
    events: list[Event] = [Started(run.key, run.attempt, "box", 1, "cpu")]
    rate = 0.3 + 3 * run.config["lr"] ** 0.3 + (0.4 if run.config["optimizer"] == "adam" else 0.0)
    diverges = run.name == "adam lr=1 s0"
    epochs = 3 if diverges else EPOCHS
    steps = range(epochs * STEPS_AN_EPOCH)
    losses = [2.3 * math.exp(-rate * step / 40) + 0.05 + 0.04 * math.sin(7.0 * step) ** 2 for step in steps]
    if diverges:
        losses = [2.3 * 2.0**step for step in steps]
        losses[-1] = math.nan
    events.append(_points(run, "train/loss", steps, losses))
    ends = [STEPS_AN_EPOCH * (epoch + 1) for epoch in range(epochs)]
    events.append(_points(run, "epoch", ends, [epoch + 1.0 for epoch in range(epochs)]))
    if not diverges:
        validation = [1.05 * losses[end - 1] + 0.002 * run.config["seed"] for end in ends]
        events.append(_points(run, "val/loss", ends, validation))
        events.append(_points(run, "val/accuracy", ends, [1 - 0.3 * loss for loss in validation]))
    if diverges:
        events.append(Finished(run.key, run.attempt, "diverged", "non-finite train/loss at step 29"))
    elif run.name == "sgd lr=0.001 s1":
        events.append(Failed(run.key, run.attempt, "user", "ValueError: no such file"))
    elif run.name == "sgd lr=0.01 s0":
        events.append(Finished(run.key, run.attempt, "stopped", "stopped by the user"))
    else:
        events.append(Finished(run.key, run.attempt, "finished", "all epochs"))
    return events


def _points(run: RunRecord, metric: str, steps: Sequence[int], values: Sequence[float]) -> Points:
    return Points(run.key, run.attempt, metric, list(steps), [60 * step for step in steps], list(values))


def _fix_times(path: Path) -> None:
    """Set start, duration and host of all runs, so that golden screens do not depend on the clock or the machine."""
    began = time.time() - 3.5 * 86400
    connection = sqlite3.connect(path)
    with connection:
        connection.execute("UPDATE runs SET created = ?", (began,))
        connection.execute("UPDATE runs SET host = 'box', pid = 1 WHERE host IS NOT NULL")
        connection.execute("UPDATE runs SET started = ?, finished = ? WHERE started IS NOT NULL", (began, began + 12))
    connection.close()


def many_runs(path: Path, count: int) -> list[RunRecord]:
    """Queue `count` runs named `run 0`, `run 1`, ..."""
    new_runs = [NewRun(f"run {number}", {"lr": 0.1, "seed": number}, str(number)) for number in range(count)]
    with Writer(path) as writer:
        return writer.queue(Submission("many", "digits"), new_runs)


def portrait() -> Portrait:
    """Return a portrait computed by formulas, equal on all machines: three classes, a plane, images, two layers."""
    y, x = np.meshgrid(np.linspace(1, -1, 40), np.linspace(-1, 1, 80), indexing="ij")
    inside = np.where(x**2 + y**2 < 0.5, 0.95, 0.05)
    angles = np.arange(12) * np.pi / 6
    points = np.concatenate([0.3 * np.stack([np.cos(angles), np.sin(angles)], 1), np.array([[0.9, 0.9], [-0.9, -0.9]])])
    ramp = np.arange(64, dtype=np.uint8).reshape(8, 8, 1) * 4
    counts = np.arange(HISTOGRAM_BINS) ** 2
    return Portrait(
        epoch=4,
        confusion=np.array([[9, 1, 0], [0, 10, 0], [3, 0, 7]]),
        mistakes=Mistakes(
            np.stack([ramp, 255 - ramp]),
            np.array([2, 0]),
            np.array([[0.9, 0.05, 0.05], [0.2, 0.7, 0.1]], dtype=np.float32),
        ),
        plane=Plane(
            np.stack([1 - inside, inside], axis=2).astype(np.float16),
            (-1.0, 1.0, -1.0, 1.0),
            points.astype(np.float32),
            np.array([1] * 12 + [0, 0]),
        ),
        weights=np.linspace(-0.5, 0.5, 18, dtype=np.float32).reshape(2, 3, 3, 1),
        histograms=[
            Histogram(epoch, kind, layer, low, high, counts * epoch)
            for epoch in (1, 2, 4)
            for kind, low, high in (("activations", -1.5, 2.25), ("gradients", -8.0, 0.0))
            for layer in ("1.linear", "4.linear")
        ],
    )


def write_portraits(path: Path, runs: Sequence[RunRecord]) -> None:
    """Write the sample portrait for each of the runs."""
    for run in runs:
        file = portrait_path(path, run.key)
        assert file is not None
        write_portrait(file, portrait())
