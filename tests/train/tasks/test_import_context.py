"""Two tasks with modules of the same names: each uses its own, in every process and at any time."""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

torch = pytest.importorskip("torch")

from click.testing import Result

import labbench as labbench_package
from labbench.params.param import Param
from labbench.store.reader import Reader
from labbench.train.tasks.import_context import imports_of
from labbench.train.tasks.task import load_task

TASK = """
import torch
from torch import nn
from blocks import Block
from labbench.params import Param
from labbench.train.loading import Datasets

class Points(torch.utils.data.Dataset):
    def __len__(self):
        return 8

    def __getitem__(self, index):
        import numbers_of.samples as samples  # in a process that reads samples
        return torch.full((2,), float(samples.LEVEL)), index % 2

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.block = Block()

    def forward(self, x):
        from factors import FACTOR  # while it trains
        return FACTOR * self.block(x)

class Task:
    params = {}

    def data(self, config):
        return Datasets(train=Points(), val=Points())

    def model(self, config):
        return Net()

    def metrics(self, outputs, targets):
        import factors
        from importlib import import_module
        level = import_module("numbers_of.samples").LEVEL
        return {"level": targets * 0.0 + level, "factor": targets * 0.0 + factors.FACTOR}
"""

BLOCKS = """
from dataclasses import dataclass
from torch import nn

@dataclass
class Size:
    inputs: int = 2

class Block(nn.Linear):
    def __init__(self):
        super().__init__(Size().inputs, 2, bias={bias})
"""


def write_task(folder: Path, level: int, *, bias: bool = False) -> None:
    """Write a task and its modules, whose names do not depend on `level`."""
    (folder / "numbers_of").mkdir(parents=True)
    (folder / "numbers_of" / "samples.py").write_text(f"from .levels import LEVEL\nassert LEVEL == {level}\n")
    (folder / "numbers_of" / "levels.py").write_text(f"LEVEL = {level}\n")
    (folder / "factors.py").write_text(f"FACTOR = {10 * level}\n")
    (folder / "blocks.py").write_text(BLOCKS.format(bias=bias))
    (folder / "task.py").write_text(TASK)
    (folder / "grid.toml").write_text(
        f'name = "{folder.name}"\ntask = "task.py:Task"\n[params]\nepochs = 1\nbatch_size = 4\n'
        '[runtime]\nloaders = 1\nkeep = "last"\n'
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_two_grids_in_one_command_train_with_their_own_modules(
    labbench: Callable[..., Result], tmp_path: Path, workers: int
) -> None:
    for level, name in enumerate("ab", start=1):
        write_task(tmp_path / name, level)
    before = dict(sys.modules), list(sys.path)
    result = labbench("run", "a/grid.toml", "b/grid.toml", "--workers", workers)
    assert result.exit_code == 0, result.stderr
    with Reader(tmp_path / "runs.db") as reader:
        lasts = {run.experiment: run.summary for run in reader.runs()}
    assert [lasts[name]["val/level"].last for name in "ab"] == [1.0, 2.0]
    assert [lasts[name]["val/factor"].last for name in "ab"] == [10.0, 20.0]
    assert not {"blocks", "factors", "numbers_of", "labbench_task_task"} & (sys.modules.keys() - before[0].keys())
    assert sys.path == before[1]


def test_load_model_leaves_the_modules_of_the_process_unchanged(
    labbench: Callable[..., Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["first", "second"]  # a single letter might also be the beginning of a run's random key
    write_task(tmp_path / names[0], 1)
    write_task(tmp_path / names[1], 2, bias=True)
    grids = [f"{name}/grid.toml" for name in names]
    assert labbench("run", *grids, "--workers", "0").exit_code == 0
    other_module = ModuleType("blocks")
    other_module.__file__ = str(tmp_path / "elsewhere" / "blocks.py")
    monkeypatch.setitem(sys.modules, "blocks", other_module)
    models = [labbench_package.load_model(name) for name in names]
    assert [model.block.bias is None for model in models] == [True, False]
    assert sys.modules["blocks"] is other_module


def test_a_changed_module_beside_a_task_is_imported_again(tmp_path: Path) -> None:
    task = f"{tmp_path / 'mine.py'}:Mine"
    (tmp_path / "mine.py").write_text(
        "from labbench.params import Param\nfrom sizes import WIDTH, Size\n"
        "class Mine:\n    params = {'width': Param('int', WIDTH)}\n    size = Size()\n"
        "    def data(self, config): pass\n    def model(self, config): pass\n"
    )
    (tmp_path / "sizes.py").write_text("WIDTH = 7\nclass Size: pass\n")
    assert load_task(task).params == {"width": Param("int", 7)}
    with imports_of(task):
        first = sys.modules["sizes"]
        assert isinstance(pickle.loads(pickle.dumps(first.Size())), first.Size)
    with imports_of(task):
        assert sys.modules["sizes"] is first  # with its state
    (tmp_path / "sizes.py").write_text("WIDTH = 11\nclass Size: pass\n")
    assert load_task(task).params == {"width": Param("int", 11)}


def test_a_folder_that_a_task_adds_to_sys_path_is_seen_by_that_task_alone(tmp_path: Path) -> None:
    widths = []
    for name, width in (("a", 3), ("b", 4)):
        (tmp_path / name / "lib").mkdir(parents=True)
        (tmp_path / name / "lib" / "shared_sizes.py").write_text(f"WIDTH = {width}\n")
        (tmp_path / name / "mine.py").write_text(
            "import sys\nfrom pathlib import Path\nsys.path.append(str(Path(__file__).parent / 'lib'))\n"
            "from shared_sizes import WIDTH\nfrom labbench.params import Param\n"
            "class Mine:\n    params = {'width': Param('int', WIDTH)}\n"
            "    def data(self, config): pass\n    def model(self, config): pass\n"
        )
    before = list(sys.path)
    for name in "aba":
        widths.append(load_task(f"{tmp_path / name / 'mine.py'}:Mine").params["width"].default)
    assert widths == [3, 4, 3]
    assert sys.path == before
