"""Runs written as TensorBoard event files are read back by the import, and by TensorBoard where it is installed."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import Result

from helpers.store_samples import new_run, points, start
from labbench.store.reader import Reader
from labbench.store.writer import Writer

CONFIG = {"lr": 0.5, "optimizer": "adam", "bn": True, "hidden": [1, 2], "clip": None}
LOSS = {0: 1.5, 5: 0.1, 70_000: math.nan, 70_001: -math.inf}


@pytest.fixture
def folder(labbench: Callable[..., Result], tmp_path: Path) -> Path:
    """Return a folder of event files of two runs with names that are no paths."""
    with Writer(tmp_path / "from.db") as writer:
        runs = start(writer, [new_run(0, name="../up", **CONFIG), new_run(1, name="b\0c")], experiment="an/experiment")
        writer.write([points(runs[0], "train/loss", LOSS), points(runs[1], "val/accuracy", {3: 0.25})])
    result = labbench("--db", "from.db", "export", "--format", "tensorboard", "-o", "logs")
    assert (result.exit_code, "2 runs in logs: tensorboard --logdir logs" in result.stderr) == (0, True)
    return tmp_path / "logs"


def test_runs_are_read_back_with_their_steps_values_and_configs(
    labbench: Callable[..., Result], tmp_path: Path, folder: Path
) -> None:
    assert [path.name for path in folder.iterdir()] == ["an_experiment"]
    assert labbench("--db", "to.db", "import", "tensorboard", "logs").exit_code == 0
    with Reader(tmp_path / "to.db") as reader:
        [first, second] = sorted(reader.runs(), key=lambda run: len(run.config), reverse=True)
        assert first.config.items() >= {"lr": 0.5, "optimizer": "adam", "bn": True, "hidden": "[1, 2]"}.items()
        steps, values = reader.series(first.key, "train/loss")
        assert steps.tolist() == list(LOSS)
        np.testing.assert_array_equal(values, np.array(list(LOSS.values())).astype("f4").astype("f8"))
        assert reader.series(second.key, "val/accuracy")[1].tolist() == [0.25]


def test_tensorboard_reads_scalars_and_parameters(folder: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    plugin = pytest.importorskip("tensorboard.plugins.hparams.plugin_data_pb2")
    [run] = (folder / "an_experiment").glob("_up*")
    events = accumulators.EventAccumulator(str(run))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(LOSS)
    content = events.summary_metadata["_hparams_/session_start_info"].plugin_data.content
    parameters = plugin.HParamsPluginData.FromString(content).session_start_info.hparams
    assert (parameters["lr"].number_value, parameters["optimizer"].string_value) == (0.5, "adam")
    assert parameters["bn"].bool_value is True


def test_event_files_need_a_folder(labbench: Callable[..., Result], folder: Path) -> None:
    result = labbench("--db", "from.db", "export", "--format", "tensorboard")
    assert (result.exit_code, "add -o FOLDER" in result.stderr) == (2, True)
    result = labbench("--db", "from.db", "export", "-o", "logs")
    assert (result.exit_code, "logs is a folder" in result.stderr) == (2, True)
