"""Portraits of watched runs show the answers of their own networks, and are read with numpy only."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import Result
from torch import nn

from helpers.training import run_of
from labbench import load_model
from labbench.errors import InputError
from labbench.files import files_folder
from labbench.portraits.file import HISTOGRAM_BINS, Portrait, portrait_path, read_portrait
from labbench.records import Runtime
from labbench.runner.planner import make_stack
from labbench.store.reader import Reader
from labbench.train.data.dataset import load_digits
from labbench.train.data.toys import make_toy
from labbench.train.diagnostics.portrait import confusion_matrix, first_layer_weights, make_histogram, to_probabilities
from labbench.train.loop import train
from labbench.train.tasks.task import load_task

DIGITS = {"task": "digits", "epochs": 3, "hidden": [8], "lr": 0.05}
MOONS = {"task": "toy", "data": "moons", "epochs": 12, "hidden": [16], "optimizer": "adam", "lr": 0.02}


def train_and_read_portraits(
    labbench: Callable[..., Result], folder: Path, params: Mapping[str, Any], *, more: str = ""
) -> dict[str, Portrait | None]:
    """Train a watched grid of two seeds with the CLI; return the portraits by run key."""
    rest = "\n".join(f"{key} = {value!r}" for key, value in params.items() if key != "task")
    grid = folder / "grid.toml"
    runtime = '[runtime]\nwatch = true\nkeep = "last"\n'
    grid.write_text(f'task = "{params["task"]}"\n[params]\n{rest}\n[repeat]\nseeds = [0, 1]\n{more}{runtime}')
    result = labbench("run", grid, "--workers", "0")
    assert result.exit_code == 0, result.stderr
    with Reader(folder / "runs.db") as reader:
        return {run.key: read_portrait(portrait_path(folder / "runs.db", run.key)) for run in reader.runs(None)}


def test_the_confusion_matrix_equals_the_predictions_of_the_saved_model(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    portraits = train_and_read_portraits(labbench, tmp_path, DIGITS)
    assert len(portraits) == 2
    inputs, targets = load_digits().val
    for key, portrait in portraits.items():
        assert portrait is not None
        assert portrait.confusion is not None
        with torch.no_grad():
            predictions = load_model(key, db=tmp_path / "runs.db")(inputs).argmax(dim=1)
        expected = np.zeros((10, 10), dtype=np.int64)
        np.add.at(expected, (targets.numpy(), predictions.numpy()), 1)
        assert (portrait.confusion == expected).all()
    first, second = portraits.values()
    assert (first.confusion != second.confusion).any()  # each run of a stack has its own


def test_mistakes_are_misclassified_validation_images_by_decreasing_confidence(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    for portrait in train_and_read_portraits(labbench, tmp_path, DIGITS).values():
        assert portrait is not None
        mistakes = portrait.mistakes
        assert mistakes is not None
        assert mistakes.images.shape == (12, 8, 8, 1)
        confidence, predictions = mistakes.probabilities.max(axis=1), mistakes.probabilities.argmax(axis=1)
        assert (predictions != mistakes.labels).all()
        assert (np.diff(confidence) <= 0).all()
        mistake_images = {image.tobytes() for image in mistakes.images}
        validation_images = {(image * 255).round().to(torch.uint8).numpy().tobytes() for image in load_digits().val[0]}
        assert mistake_images <= validation_images


def test_the_plane_of_two_moons_equals_the_predictions_of_the_saved_model(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    for key, portrait in train_and_read_portraits(labbench, tmp_path, MOONS).items():
        assert portrait is not None
        plane = portrait.plane
        assert plane is not None
        assert plane.scores.shape == (40, 80, 2)
        left, right, bottom, top = plane.bounds
        inputs = make_toy("moons", None).val[0]
        assert left < inputs[:, 0].min() < inputs[:, 0].max() < right
        corner = torch.tensor([[right, bottom], [left, top]])
        with torch.no_grad():
            expected = load_model(key, db=tmp_path / "runs.db")(corner).softmax(dim=1).numpy()
        np.testing.assert_allclose(plane.scores[-1, -1], expected[0], atol=2e-3)
        np.testing.assert_allclose(plane.scores[0, 0], expected[1], atol=2e-3)
        assert portrait.mistakes is None
        assert portrait.weights is None


def test_histograms_are_recorded_at_powers_of_two_and_at_the_end(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    portrait = next(iter(train_and_read_portraits(labbench, tmp_path, MOONS).values()))
    assert portrait is not None
    assert sorted({histogram.epoch for histogram in portrait.histograms}) == [1, 2, 4, 8, 12]
    activations = {
        histogram.layer: histogram
        for histogram in portrait.histograms
        if histogram.kind == "activations" and histogram.epoch == 12
    }
    assert list(activations) == ["1.linear", "2.relu", "4.linear"]
    assert activations["2.relu"].low == 0.0
    assert activations["2.relu"].counts.sum() == 16 * min(256, len(make_toy("moons", None).val[0]))
    gradient_counts = {
        histogram.layer: histogram.counts.sum()
        for histogram in portrait.histograms
        if histogram.kind == "gradients" and histogram.epoch == 1
    }
    assert gradient_counts == {"1.linear": 2 * 16 + 16, "4.linear": 16 * 2 + 2}


def test_a_portrait_is_removed_with_its_run(labbench: Callable[..., Result], tmp_path: Path) -> None:
    first, second = train_and_read_portraits(labbench, tmp_path, {**MOONS, "epochs": 1})
    assert labbench("rm", first, "--yes").exit_code == 0
    assert not portrait_path(tmp_path / "runs.db", first).exists()
    assert portrait_path(tmp_path / "runs.db", second).exists()
    assert labbench("rm", second, "--yes").exit_code == 0
    assert not files_folder(tmp_path / "runs.db").exists()


def test_a_run_that_diverged_has_no_portrait(labbench: Callable[..., Result], tmp_path: Path) -> None:
    portraits = train_and_read_portraits(labbench, tmp_path, {**DIGITS, "lr": 1e30})
    assert list(portraits.values()) == [None, None]


def test_reading_a_portrait_does_not_import_torch(labbench: Callable[..., Result], tmp_path: Path) -> None:
    key = next(iter(train_and_read_portraits(labbench, tmp_path, {**MOONS, "epochs": 1})))
    path = portrait_path(tmp_path / "runs.db", key)
    code = f"""import sys
from pathlib import Path
from labbench.portraits.file import read_portrait
read_portrait(Path({str(path)!r}))
print("torch" in sys.modules)"""
    process = subprocess.run([sys.executable, "-c", code], capture_output=True)
    assert process.stdout == b"False\n", process.stderr


@pytest.mark.parametrize("content", [b"", b"no portrait", b"\x93NUMPY\x01\x00torn", b"PK\x03\x04 torn"])
def test_a_file_that_is_not_a_portrait_is_an_input_error(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "portrait.npz"
    file.write_bytes(content)
    with pytest.raises(InputError, match="is not a valid portrait"):
        read_portrait(file)


def test_inconsistent_arrays_and_pickled_objects_are_input_errors(tmp_path: Path) -> None:
    file = tmp_path / "portrait.npz"
    np.savez(file, epoch=1, confusion=np.zeros((2, 3)))
    with pytest.raises(InputError, match="square"):
        read_portrait(file)
    np.savez(file, epoch=np.array([print], dtype=object))
    with pytest.raises(InputError, match="is not a valid portrait"):
        read_portrait(file)


def test_a_key_with_a_path_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a key is letters and digits"):
        portrait_path(tmp_path / "runs.db", "../../etc")


def test_the_sign_of_a_single_output_is_the_class() -> None:
    probabilities = to_probabilities(torch.tensor([[3.0], [-3.0], [0.5]]))
    assert confusion_matrix(probabilities, torch.tensor([1, 0, 0])).tolist() == [[1, 1], [0, 1]]


def test_first_layer_weights_are_kernels_or_rows_by_decreasing_norm() -> None:
    inputs = load_digits().val[0]
    dense = nn.Sequential(nn.Flatten(), nn.Linear(64, 30))
    with torch.no_grad():
        dense[1].weight[7] += 10
    weights = first_layer_weights(dense, inputs)
    assert weights.shape == (24, 8, 8, 1)
    np.testing.assert_array_equal(weights[0, :, :, 0], dense[1].weight[7].detach().view(8, 8).numpy())
    assert first_layer_weights(nn.Sequential(nn.Conv2d(1, 4, 3)), inputs).shape == (4, 3, 3, 1)
    assert first_layer_weights(dense, torch.rand(5, 64)) is None


def test_histograms_of_nearly_equal_or_non_finite_activations() -> None:
    ulp = np.nextafter(1.0, 2.0)
    assert make_histogram(1, "activations", "a", np.array([1.0, 1.0, ulp])).counts.sum() == 3
    assert make_histogram(1, "activations", "a", np.array([7.0, 7.0])).counts.tolist() == [2] + [0] * 15
    assert make_histogram(1, "activations", "a", np.array([np.inf, np.nan])).counts.sum() == 0


def test_a_run_that_starts_again_loses_its_old_portrait(tmp_path: Path) -> None:
    config = {key: value for key, value in {**MOONS, "epochs": 1, "seed": 0}.items() if key != "task"}
    for watch in (True, False):
        stack = make_stack([run_of(config, "again000")], task="toy", stop=None, runtime=Runtime(watch=watch))
        list(train(replace(stack, files=str(tmp_path)), load_task("toy"), "cpu"))
        assert (tmp_path / "again000" / "portrait.npz").exists() == watch


def test_small_gradients_are_in_different_bins() -> None:
    counts = make_histogram(1, "gradients", "a", np.array([0.0, 1e-12, -1e-4, 0.3, 1e9])).counts
    assert len(counts) == HISTOGRAM_BINS
    assert (counts[0], counts[8], counts[14], counts[15]) == (2, 1, 1, 1)
