"""User data for the task `own`: tables, arrays and images as people have them, and errors that name the place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("PIL")

import numpy as np

from helpers.png_files import png
from helpers.training import History, histories, run_of, train_run
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN
from labbench.params.param import with_defaults
from labbench.records import Runtime
from labbench.runner.planner import make_stack
from labbench.train.data.dataset import Data
from labbench.train.data.user_files import load_user_data
from labbench.train.loop import train
from labbench.train.tasks.losses import prediction_loss, prediction_metrics
from labbench.train.tasks.task import load_task, make_data, make_model


def table(folder: Path, text: str, name: str = "table.csv") -> str:
    (folder / name).write_text(text)
    return str(folder / name)


def own_data(**config: Any) -> Data:
    return make_data(load_task("own"), with_defaults(config, BUILTIN["own"]))


WINE = "colour,strength,kind\n" + "".join(
    f"{c},{i % 7 + k},{w}\n" for i in range(20) for c, k, w in (("red", 0, "b"), ("white", 9, "a"))
)


def test_words_in_a_table_are_one_hot_encoded(tmp_path: Path) -> None:
    data = own_data(path=table(tmp_path, WINE))
    assert data.test is not None
    inputs, classes = data.train
    assert [len(split[0]) for split in (data.train, data.val, data.test)] == [28, 6, 6]
    assert inputs.shape == (28, 3)
    assert torch.equal(classes == 1, inputs[:, 0] > 0)  # kind b is red, the first colour in the alphabet
    torch.testing.assert_close(inputs.mean(0), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(inputs.std(0, correction=0), torch.ones(3))


def test_the_target_column_can_be_named(tmp_path: Path) -> None:
    data = own_data(path=table(tmp_path, WINE), target="colour")
    assert (data.train[0].shape[1], data.classes) == (3, 2)


def test_a_target_of_fractions_is_a_regression(tmp_path: Path) -> None:
    rows = [(x / 7, 3 * x / 7 + 0.5) for x in range(-50, 50)]
    path = table(tmp_path, "x\ty\n" + "".join(f"{x}\t{y}\n" for x, y in rows), "line.tsv")
    history = train_run({"path": path, "hidden": [], "epochs": 60, "lr": 0.05, "batch_size": 10}, task=load_task("own"))
    assert history.last("val/loss") < 1e-3
    assert history.last("val/mae") < 0.03


PRICES = "rooms,garden,price\n" + "".join(
    f"{r},{g},{100_000 * r + 30_000.5 * g + 400_000}\n" for r in range(1, 11) for g in range(10)
)


def train_prices(path: str, engine: Any, **config: Any) -> list[History]:
    """Train two runs on prices of about a million."""
    base = {"path": path, "hidden": [], "epochs": 3, "lr": 0.05, "batch_size": 10, **config}
    runs = [run_of({**base, "seed": seed}, str(seed)) for seed in (0, 1)]
    runtime = Runtime(precision="float64", engine=engine)
    by_run = histories(train(make_stack(runs, task="own", stop=None, runtime=runtime), load_task("own"), "cpu"))
    return [by_run["0"], by_run["1"]]


@pytest.mark.parametrize("engine", ["stacked", "vmap", "loop"])
def test_standardized_targets_train_and_metrics_keep_the_unit_of_the_data(tmp_path: Path, engine: Any) -> None:
    path = table(tmp_path, PRICES)
    deviation = own_data(path=path).train[1].double().std(correction=0).item()
    reference = train_prices(path, "loop", standardize_target=True)
    for history, expected in zip(train_prices(path, engine, standardize_target=True), reference, strict=True):
        assert history.started is not None
        assert history.started.way == engine
        assert history.last("val/loss") < 0.1  # of the variance
        assert 0.3 < history.last("val/mae") / (deviation * history.last("val/loss") ** 0.5) <= 1
        for name in ("train/loss", "val/mae", "test/mae"):
            assert history.curves[name] == pytest.approx(expected.curves[name], rel=1e-9)


def test_targets_are_standardized_by_the_training_split(tmp_path: Path) -> None:
    path = table(tmp_path, PRICES)
    plain, scaled = own_data(path=path), own_data(path=path, standardize_target=True)
    assert plain.test is not None
    assert scaled.test is not None
    mean, deviation = plain.train[1].double().mean(), plain.train[1].double().std(correction=0)
    for ours, theirs in ((scaled.train, plain.train), (scaled.test, plain.test)):
        torch.testing.assert_close(ours[1], ((theirs[1].double() - mean) / deviation).float())
    with pytest.raises(InputError, match="standardize_target needs numbers as targets"):
        own_data(path=table(tmp_path, WINE, "wine.csv"), standardize_target=True)


def test_a_network_learns_the_classes_of_a_table(tmp_path: Path) -> None:
    config = {"path": table(tmp_path, WINE), "hidden": [8], "epochs": 20, "lr": 0.1, "batch_size": 8}
    assert train_run(config, task=load_task("own")).last("test/accuracy") == 1


def test_losses_are_one_number_per_sample() -> None:
    outputs, numbers = torch.tensor([[1.0], [2.0]]), torch.tensor([1.5, 0.0])
    assert prediction_loss(outputs, numbers).tolist() == [0.25, 4]
    assert prediction_metrics(outputs, numbers)["mae"].tolist() == [0.5, 2]
    scores, classes = torch.randn(2, 3), torch.tensor([0, 2])
    torch.testing.assert_close(prediction_loss(scores, classes), -scores.log_softmax(1)[torch.arange(2), classes])
    assert prediction_metrics(scores, classes).keys() == {"accuracy"}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a,b\n1,2\n3\n", r"table.csv:3: 1 cells, not 2"),
        ("a,b\n1,2\n,3\n", r"table.csv:3: an empty cell"),
        ("a,a\n1,2\n", "two columns with different names"),
        ("a,b\n", "rows of values"),
        ("", "two columns with different names"),
        ("a\n1\n", "two columns with different names"),
        ("a,b\nnan,1\n2,3\n", "column `a` has a value that is not finite"),
        ("a,b\n" + "".join(f"w{i},1\n" for i in range(200)), "column `a` has 200 different words, more than 100"),
        ("a,b\n1,x\n2,y\n", "2 samples are too few"),
    ],
)
def test_an_unusable_table_is_refused_with_its_line_or_column(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        own_data(path=table(tmp_path, text))


def test_a_table_in_another_encoding_is_refused(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_bytes("a,b\nblå,1\n".encode("latin-1"))
    with pytest.raises(InputError, match=r"table.csv is not a table in UTF-8"):
        own_data(path=str(tmp_path / "table.csv"))


@pytest.mark.parametrize(
    ("config", "complaint"),
    [
        ({"target": "strenght"}, "has no column `strenght`; did you mean `strength`"),
        ({"target": "zzz"}, "has no column `zzz`; it has colour, strength, kind"),
        ({"path": ""}, 'set path = "table.csv"'),
        ({"path": "/no/such/file.csv"}, "no such file or folder: /no/such/file.csv"),
        ({"path": __file__}, "unknown file type; use .csv, .tsv, .npz or a folder of images"),
    ],
)
def test_a_missing_column_or_file_is_reported(tmp_path: Path, config: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        own_data(**{"path": table(tmp_path, WINE), **config})


def test_class_options_are_refused_for_numeric_targets(tmp_path: Path) -> None:
    path = table(tmp_path, "x,y\n" + "".join(f"{i},{i}.5\n" for i in range(20)))
    assert len(own_data(path=path, train_size=5).train[0]) == 5
    for config in ({"classes": [0, 1]}, {"label_noise": 0.5}):
        with pytest.raises(InputError, match="needs classes as targets, but the targets of this data are numbers"):
            own_data(path=path, **config)


def test_a_changed_file_is_read_again(tmp_path: Path) -> None:
    import os

    path = table(tmp_path, WINE)
    assert own_data(path=path).classes == 2
    table(tmp_path, WINE.replace("19,a", "19,c").replace("9,a", "9,c"))
    os.utime(path, ns=(1, 1))
    assert own_data(path=path).classes == 3


def save_npz(folder: Path, **arrays: np.ndarray) -> str:
    np.savez(folder / "arrays.npz", **arrays)
    return str(folder / "arrays.npz")


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((8, 6), (1, 8, 6)), ((8, 6, 3), (3, 8, 6)), ((3, 8, 6), (3, 8, 6)), ((8, 6, 1), (1, 8, 6)), ((5,), (5,))],
)
def test_arrays_are_tables_or_images(tmp_path: Path, shape: tuple[int, ...], expected: tuple[int, ...]) -> None:
    path = save_npz(tmp_path, x=np.random.default_rng(0).random((40, *shape)), y=np.arange(40) % 4)
    config = {**with_defaults({"path": path}, BUILTIN["own"]), "seed": 0}
    data = make_data(load_task("own"), config)
    assert data.train[0].shape == (28, *expected)
    assert make_model(load_task("own"), config)(data.train[0]).shape == (28, 4)


def test_images_of_bytes_are_scaled_to_0_to_1(tmp_path: Path) -> None:
    images = np.full((40, 4, 4), 255, np.uint8)
    data = own_data(path=save_npz(tmp_path, x=images, y=np.array(["cat", "dog"] * 20)))
    assert (data.train[0] == 1).all()
    assert data.classes == 2


def test_split_arrays_stay_split_and_share_their_class_numbers(tmp_path: Path) -> None:
    x, y = np.arange(40.0)[:, None], np.arange(40) % 2 + 5
    path = save_npz(tmp_path, x_train=x, y_train=y, x_test=x[:10], y_test=np.full(10, 7), x_val=x[:4], y_val=y[:4])
    data = own_data(path=path)
    assert data.test is not None
    assert [len(split[0]) for split in (data.train, data.val, data.test)] == [40, 4, 10]
    assert (data.val[1].tolist(), data.test[1].tolist(), data.classes) == ([0, 1, 0, 1], [2] * 10, 3)
    without_val = own_data(path=save_npz(tmp_path, x_train=x, y_train=y, x_test=x[:10], y_test=y[:10]))
    assert without_val.test is not None
    assert [len(split[0]) for split in (without_val.train, without_val.val, without_val.test)] == [34, 6, 10]


@pytest.mark.parametrize(
    ("arrays", "complaint"),
    [
        ({"a": np.zeros(3)}, "must hold x and y, or x_train and y_train; it has a"),
        ({"x": np.zeros(3)}, "must hold both x and y"),
        ({"x": np.zeros((3, 2)), "y": np.zeros(4)}, "with one target per sample"),
        ({"x": np.array(["a"]), "y": np.zeros(1)}, "x must be numbers"),
        ({"x": np.zeros((20, 2, 2, 2, 2)), "y": np.zeros(20)}, "not 5-dimensional"),
        ({"x": np.array([{}]), "y": np.zeros(1)}, "cannot be read"),
    ],
)
def test_unusable_arrays_are_refused_with_the_reason(tmp_path: Path, arrays: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InputError, match=rf"arrays.npz.*{complaint}"):
        own_data(path=save_npz(tmp_path, **arrays))


def test_a_cnn_is_refused_for_a_table(tmp_path: Path) -> None:
    config = {**with_defaults({"path": table(tmp_path, WINE), "model": "cnn"}, BUILTIN["own"]), "seed": 0}
    with pytest.raises(InputError, match=r'model = "cnn" takes images, but .* is a table; use model = "mlp"'):
        make_model(load_task("own"), config)


def image_folder(folder: Path) -> Path:
    for name, brightness in (("bright", 200), ("dark", 20)):
        (folder / name).mkdir()
        for number in range(12):
            pixels = np.full((6, 5, 3), brightness + number, np.uint8)
            (folder / name / f"{number}.png").write_bytes(png(pixels, filters="14"))
    (folder / "bright" / "notes.txt").touch()
    return folder


def test_each_subfolder_of_an_image_folder_is_a_class(tmp_path: Path) -> None:
    path = str(image_folder(tmp_path))
    data = own_data(path=path)
    assert data.train[0].shape == (16, 3, 6, 5)
    assert torch.equal(data.train[1] == 0, data.train[0][:, 0, 0, 0] > 0.5)
    config = {"path": path, "model": "cnn", "channels": [8], "epochs": 15, "optimizer": "adam", "lr": 0.02}
    assert train_run({**config, "batch_size": 4}, task=load_task("own")).last("val/accuracy") == 1


def test_unusable_images_are_refused_with_the_reason(tmp_path: Path) -> None:
    folder = image_folder(tmp_path)
    odd = folder / "dark" / "odd.png"
    odd.write_bytes(png(np.zeros((6, 4, 3), np.uint8)))
    with pytest.raises(InputError, match=r"odd.png and .*0.png differ, 4x6 in colours and 5x6 in colours"):
        own_data(path=str(folder))
    with pytest.raises(InputError, match="must have at least two subfolders of images, one per class"):
        own_data(path=str(folder / "dark"))


def test_an_unchanged_file_is_read_once(tmp_path: Path) -> None:
    path = table(tmp_path, WINE)
    assert load_user_data(path, None) is load_user_data(path, None)
