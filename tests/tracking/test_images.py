"""Images of a run: PNG files by name and step, whatever the script passes, and never an end of the training."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import labbench
from helpers import scripts
from labbench import messages, wandb
from labbench.cli import main
from labbench.errors import InputError
from labbench.portraits import logged_images
from labbench.portraits.logged_images import images_by_name
from labbench.portraits.png_file import encode_png, read_image_file, shrink


@pytest.fixture(autouse=True)
def _run_in_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("LABBENCH_DB", "LABBENCH_RUN", "LABBENCH_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def stored_images(run: labbench.Run) -> dict[str, dict[int, np.ndarray]]:
    """Return the pixels of a run's images by name and step, after checking the hashes of the files."""
    folder = Path(f"{run.path}.files") / run.key
    with labbench.open(run.path) as db:
        artifacts = db.artifacts(run.key)
    for artifact in artifacts:
        content = (folder / artifact.path).read_bytes()
        assert (len(content), hashlib.sha256(content).hexdigest()) == (artifact.size, artifact.sha256)
    return {
        name: {step: read_image_file(folder / artifact.path) for step, artifact in by_step.items()}
        for name, by_step in images_by_name(artifacts).items()
    }


def test_images_are_recorded_by_name_and_step_beside_the_numbers_of_the_same_call() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    with labbench.start(system_metrics=False) as run:
        image = labbench.Image(pixels)
        expected = pixels.copy()
        pixels[:] = 0  # the image is a copy
        for step in (0, 100):
            run.log({"loss": 1.0, "val": {"samples": image}, "pair": [image, image]}, step=step)
        run.log({"again": labbench.Image(np.zeros((2, 2)))}, step=3)
        run.log({"again": labbench.Image(np.ones((2, 2)))}, step=3)
    images = stored_images(run)
    assert {name: list(steps) for name, steps in images.items()} == {
        "again": [3], "pair/0": [0, 100], "pair/1": [0, 100], "val/samples": [0, 100]
    }  # fmt: skip
    np.testing.assert_array_equal(images["val/samples"][100], expected)
    assert images["again"][3].min() == 255
    assert list(scripts.only_run(Path()).summary) == ["loss"]


@pytest.mark.parametrize(("low", "high"), [(-1.5, 2.5), (-0.1, 0.1), (0.0, 2.5), (-300.0, 1000.0)])
@pytest.mark.parametrize("as_tensor", [False, True])
@pytest.mark.parametrize("image_class", [labbench.Image, wandb.Image])
def test_normalised_inputs_are_rescaled_and_the_user_is_told(
    low: float, high: float, as_tensor: bool, image_class: type[labbench.Image], capsys: pytest.CaptureFixture[str]
) -> None:
    messages._printed.clear()
    shares = np.linspace(0, 1, 48).reshape(4, 4, 3)
    floats: Any = (low + (high - low) * shares).astype(np.float32)
    if as_tensor:
        floats = pytest.importorskip("torch").tensor(floats).permute(2, 0, 1)
    for _ in range(2):
        pixels = image_class(floats).pixels
    np.testing.assert_allclose(pixels, shares * 255, atol=1)
    assert capsys.readouterr().err.count("are rescaled") == 1


def test_floats_of_both_usual_ranges_are_stored_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    bytes_as_floats = np.linspace(0, 200, 12).reshape(2, 2, 3)
    np.testing.assert_array_equal(labbench.Image(bytes_as_floats).pixels, bytes_as_floats.round())
    np.testing.assert_array_equal(labbench.Image(np.full((2, 2), 0.2)).pixels, np.full((2, 2, 1), 51))
    assert labbench.Image(np.array([[np.nan, np.inf], [-np.inf, 1.0]])).pixels.ravel().tolist() == [0, 255, 0, 255]
    assert capsys.readouterr().err == ""
    assert labbench.Image(np.full((2, 2), -3.0)).pixels.max() == 0  # a constant has no range


def test_arrays_tensors_figures_and_files_of_every_kind_become_the_same_pixels(tmp_path: Path) -> None:
    torch, pillow = pytest.importorskip("torch"), pytest.importorskip("PIL.Image")
    floats = np.random.default_rng(0).random((4, 6, 3)).astype(np.float32)
    pixels = (floats * 255).round().astype(np.uint8)
    pillow.fromarray(pixels).save(tmp_path / "a.png")
    same = [floats, pixels, torch.tensor(floats).permute(2, 0, 1), pillow.fromarray(pixels), tmp_path / "a.png"]
    for data in same:
        np.testing.assert_array_equal(labbench.Image(data).pixels, pixels)
    grey = np.array([[0, 128, 255]], np.uint8)
    for data in (grey, grey[..., None], torch.tensor(grey), torch.tensor(grey)[None], pillow.fromarray(grey)):
        np.testing.assert_array_equal(labbench.Image(data).pixels, grey[..., None])
    assert labbench.Image(np.zeros((2, 3, 4))).pixels.shape == (2, 3, 4)
    np.testing.assert_array_equal(labbench.Image(np.array([[np.nan, -1.0, 2.0]])).pixels[..., 0], [[0, 0, 255]])
    assert labbench.Image(np.array([[True, False]])).pixels.ravel().tolist() == [255, 0]


@pytest.mark.parametrize("data", [np.zeros((2, 3, 5)), np.zeros((0, 3)), np.zeros(4), "missing.png", [["a", "b"]]])
def test_what_is_no_image_is_refused_with_a_message(data: Any) -> None:
    with pytest.raises(InputError, match=r"labbench.Image takes|missing.png: the image cannot be read"):
        labbench.Image(data)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_pillow_reads_the_files_and_what_pillow_writes_is_read(tmp_path: Path, channels: int) -> None:
    pillow = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(channels).integers(0, 256, (9, 13, channels), dtype=np.uint8)
    decoded = np.asarray(pillow.open(io.BytesIO(encode_png(pixels))))
    np.testing.assert_array_equal(decoded.reshape(pixels.shape), pixels)
    pillow.fromarray(pixels.squeeze()).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image_file(tmp_path / "a.png"), pixels)


def test_large_images_are_stored_smaller_and_too_many_are_left_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(logged_images, "MAX_IMAGES", 3)
    with labbench.start(system_metrics=False) as run:
        for step in range(5):
            run.log({"large": labbench.Image(np.ones((3000, 10))), "loss": 1.0}, step=step)
    images = stored_images(run)["large"]
    assert list(images) == [0, 1, 2]
    assert images[0].shape == (1000, 4, 1)
    assert "has 3 images: further ones are not recorded" in capsys.readouterr().err
    assert scripts.only_run(Path()).summary["loss"].n == 5
    np.testing.assert_array_equal(shrink(np.array([[[0], [2]], [[4], [6]]], np.uint8), 1), [[[3]]])


@pytest.mark.parametrize("name", ["../../escape", "a/../b", "/etc/x", "con\0trol", "a b%2F", "Größe/ü", "x" * 300, "."])
def test_files_stay_in_the_folder_of_the_run_whatever_the_metric_is_called(name: str, tmp_path: Path) -> None:
    with labbench.start(system_metrics=False) as run:
        run.log({name: labbench.Image(np.zeros((2, 2)))}, step=-4)
    files = list(tmp_path.rglob("*.png"))
    folder = tmp_path / "runs.db.files" / run.key / "images"
    assert [path.resolve().is_relative_to(folder) for path in files] == [True]
    [(stored, steps)] = stored_images(run).items()
    assert list(steps) == [-4]
    assert stored == name or len(name) > 80 or "\0" in name


def test_a_disabled_run_writes_no_image(tmp_path: Path) -> None:
    with labbench.start(mode="disabled") as run:
        run.log({"samples": labbench.Image(np.zeros((2, 2)))})
        assert run.flush()
    assert list(tmp_path.iterdir()) == []


def test_show_lists_images() -> None:
    with labbench.start("a", system_metrics=False) as run:
        for step in range(3):
            run.log({"val/samples": labbench.Image(np.zeros((2, 2)))}, step=step)
    output = CliRunner().invoke(main, ["show", "a"]).output
    assert "val/samples   0 to 2 (3)" in output
    assert f"{run.key}/images/val/samples" in output


def test_images_that_cannot_be_written_cost_no_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with labbench.start(system_metrics=False) as run:
        (tmp_path / "runs.db.files").write_text("in the way")
        run.log({"samples": labbench.Image(np.zeros((2, 2))), "loss": 1.0})
    assert "the image `samples` could not be written" in capsys.readouterr().err
    assert scripts.only_run(tmp_path).summary["loss"].n == 1
