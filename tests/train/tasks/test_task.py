"""Loading a task, built in or from a user's file, and the errors for unusable files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from click.testing import Result

from helpers.training import train_run
from labbench.errors import InputError
from labbench.params.builtin import BUILTIN
from labbench.params.param import TRAINING, Param, with_defaults
from labbench.train.tasks.builtin import TASKS
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import load_task, make_data, make_model

EXAMPLE = Path(__file__).parents[3] / "experiments" / "my_task.py"

WHOLE = """
import torch
from torch import nn
from labbench.params import Param
from labbench.train.data import Data

class Mine:
    params = {"width": Param("int", 3)}

    def data(self, config):
        points = torch.rand(20, 2)
        classes = (points[:, 0] > 0.5).long()
        return Data(train=(points, classes), val=(points, classes))

    def model(self, config):
        return nn.Sequential(nn.Linear(2, config["width"]), nn.ReLU(), nn.Linear(config["width"], 2))
"""


def write(folder: Path, text: str) -> str:
    """Write a task file and return the name of its task `Mine`."""
    file = folder / "mine.py"
    file.write_text(text)
    return f"{file}:Mine"


def test_an_input_error_in_a_run_is_reported_without_a_traceback(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "toy"\n[params]\ndata = "flowers"\nmodel = "perceptron"\n')
    trained = labbench("run", grid, "--workers", "0")
    assert trained.exit_code == 1
    reason = 'model = "perceptron" separates two classes, but flowers has 3; use "mlp"'
    assert f": {reason}\n" in trained.stderr
    details = labbench("show", "grid").stdout
    assert f"failed: {reason}" in details
    assert details.endswith(f"\n\n{reason}\n")
    assert "Traceback" not in details


def test_every_built_in_task_can_be_loaded_and_has_the_declared_parameters() -> None:
    assert TASKS.keys() == BUILTIN.keys()
    for name, params in BUILTIN.items():
        assert load_task(name).params == params


def test_a_class_in_a_file_trains_with_defaults_for_omitted_parts(tmp_path: Path) -> None:
    task = load_task(write(tmp_path, WHOLE))
    assert task.params == {"width": Param("int", 3)}
    assert (task.loss, task.metrics) == (cross_entropy, accuracy)
    history = train_run({"epochs": 1, "width": 5}, task=task)
    assert set(history.curves) >= {"train/loss", "val/loss", "val/accuracy"}


def test_a_task_file_can_import_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "beside_mine.py").write_text("WIDTH = 7\n")
    task = load_task(write(tmp_path, WHOLE.replace('Param("int", 3)', 'Param("int", __import__("beside_mine").WIDTH)')))
    assert task.params["width"].default == 7


def test_a_changed_task_file_is_imported_again(tmp_path: Path) -> None:
    assert load_task(write(tmp_path, WHOLE)).params["width"].default == 3
    assert load_task(write(tmp_path, WHOLE.replace("3)", "44)"))).params["width"].default == 44


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("digit", "no task 'digit'; did you mean `digits`?"),
        ("imagenet", "no task 'imagenet'; use a built-in task (digits, "),
        ("/no/such/place/mine.py:Mine", "no such task file: /no/such/place/mine.py"),
        ("/no/such/place/mine.py", "name the class of the task in this file, mine.py:CLASS"),
    ],
)
def test_an_unknown_task_name_is_refused_with_a_hint(name: str, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        load_task(name)
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("import torch\nimport no_such_module\n", "mine.py:2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("def f():\n    return 1 / 0\n\nf()\n", "mine.py:2: ZeroDivisionError: division by zero\n    return 1 / 0"),
        ("class Mine:\n    params = {\n", "mine.py:2: SyntaxError: '{' was never closed\n    params = {"),
        ("import sys\nsys.exit(3)\n", "mine.py:2: SystemExit: 3\n    sys.exit(3)"),
        ("class Other: pass\nclass Another: pass\n", "mine.py has no class 'Mine'; it has Other, Another"),
        ("Mine = 3\n", "mine.py has no class 'Mine'; it has none"),
        ("class Mine:\n    def __init__(self, x): pass\n", "cannot construct Mine(): "),
        ("class Mine:\n    def __init__(self):\n        self.x = nothing\n", "mine.py:3: NameError"),
        ("class Mine: pass\n", "lacks params (a dict of labbench.Param) and data(self, config) and model(self"),
        (WHOLE.replace("def model", "def modell"), "mine.py lacks model(self, config)"),
        (WHOLE.replace('Param("int", 3)', "3"), "Mine.params['width'] in "),
    ],
)
def test_an_unusable_task_file_is_refused_with_its_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        load_task(write(tmp_path, text))
    assert complaint in str(raised.value)


def test_the_default_loss_is_one_number_per_sample() -> None:
    scores, classes = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    losses = cross_entropy(scores, classes)
    torch.testing.assert_close(losses, -scores.log_softmax(dim=1)[torch.arange(6), classes])


def test_the_default_metric_is_accuracy_for_class_targets() -> None:
    scores = torch.tensor([[2.0, 1.0], [0.0, 3.0]])
    assert accuracy(scores, torch.tensor([0, 0]))["accuracy"].tolist() == [True, False]
    assert accuracy(scores, torch.rand(2)) == {}
    assert accuracy(scores, torch.rand(2, 2)) == {}
    assert accuracy((scores, scores), torch.tensor([0, 0])) == {}


def test_parameters_missing_in_a_config_get_their_defaults() -> None:
    params = {"width": Param("int", 3), "name": Param("str", None)}
    assert with_defaults({"width": None, "lr": 0.1}, params) == {"width": 3, "name": None, "lr": 0.1}
    assert with_defaults({}, TRAINING)["optimizer"] == "sgd"


def test_the_example_task_is_short_and_learns() -> None:
    task = load_task(f"{EXAMPLE}:Task")
    assert len(EXAMPLE.read_text().splitlines()) <= 40
    history = train_run({"epochs": 10, "optimizer": "adam", "lr": 0.01}, task=task)
    assert history.last("val/accuracy") > 0.93
    assert set(history.curves) >= {"train/accuracy", "val/loss"}


def test_the_example_task_uses_its_parameters() -> None:
    task = load_task(f"{EXAMPLE}:Task")
    config = with_defaults({"depth": 3, "width": 5, "noise": 0.0}, {**TRAINING, **task.params})
    assert sum(parameter.numel() for parameter in make_model(task, config).parameters()) == 15 + 2 * 30 + 12
    points, moons = make_data(task, config).train
    centre = torch.stack([moons.double(), moons.double() / 2], dim=1)
    torch.testing.assert_close((points - centre).norm(dim=1), torch.ones(1000, dtype=torch.float64))
