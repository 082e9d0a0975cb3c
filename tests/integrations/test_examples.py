"""The examples in docs/reference/integrations.md, run with the real frameworks as scripts of a user."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from helpers.waiting import HANG_SECONDS
from labbench.records import RunRecord
from labbench.store.reader import Reader

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "integrations.md"


def run_example(folder: Path, heading: str, package: str, *words: str) -> list[RunRecord]:
    """Run the Python block below a heading in a process of its own, and return the runs that it recorded."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    [code] = re.findall(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    (folder / "train.py").write_text(code)
    environment = os.environ | {"KERAS_BACKEND": "torch", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
    result = subprocess.run(
        [sys.executable, "train.py", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=HANG_SECONDS,
    )
    assert result.returncode == 0, result.stderr
    databases = sorted(folder.glob("*.db"))
    assert len(databases) == 1, result.stderr
    with Reader(databases[0]) as reader:
        return reader.runs()


def test_lightning(tmp_path: Path) -> None:
    [run] = run_example(tmp_path, "Lightning", "lightning")
    assert (run.name, run.experiment, run.status, run.config) == ("baseline", "demo", "finished", {"lr": 0.1})
    assert (run.summary["train/loss"].n, run.summary["epoch"].last) == (16, 1)
    assert list((tmp_path / "runs.db.files" / run.key / "checkpoints").glob("*.ckpt"))
    with Reader(tmp_path / "runs.db") as reader:
        assert [artifact.name.endswith(".ckpt") for artifact in reader.artifacts(run.key)] == [True]


def test_transformers(tmp_path: Path) -> None:
    [run] = run_example(tmp_path, "Hugging Face transformers", "transformers")
    assert (run.name, run.experiment, run.status, run.config["num_train_epochs"]) == ("baseline", "demo", "finished", 2)
    assert run.summary["train/loss"].n == 16
    assert run.summary["train/train_loss"].n == 1


def test_accelerate(tmp_path: Path) -> None:
    [run] = run_example(tmp_path, "Hugging Face accelerate", "accelerate")
    assert (run.name, run.experiment, run.status, run.config) == ("baseline", "demo", "finished", {"lr": 0.1})
    assert (run.summary["train/loss"].n, run.summary["train/loss"].last) == (10, 0.1)


def test_keras(tmp_path: Path) -> None:
    [run] = run_example(tmp_path, "Keras", "keras")
    assert (run.name, run.experiment, run.status, run.config["epochs"]) == ("baseline", "demo", "finished", 3)
    assert (run.summary["loss"].n, run.summary["val_loss"].n, run.summary["epoch"].last) == (3, 3, 2)


def test_optuna(tmp_path: Path) -> None:
    runs = run_example(tmp_path, "Optuna", "optuna")
    assert sorted(run.name for run in runs) == [f"trial {number}" for number in range(4)]
    for run in runs:
        assert (run.experiment, run.status, run.summary["val/loss"].n) == ("demo", "finished", 6)
        assert run.summary["val/loss"].last == run.config["lr"]


def test_pruned_and_failed_trials_of_optuna_have_their_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna = pytest.importorskip("optuna")
    from labbench.integrations import OptunaCallback

    def objective(trial: Any) -> float:
        trial.report(0.5, 0)
        if trial.number == 1:
            raise optuna.TrialPruned
        if trial.number == 2:
            raise ValueError("diverged")
        return 0.25

    monkeypatch.chdir(tmp_path)
    callbacks = [OptunaCallback(["val/loss"], capture_output=False)]
    optuna.create_study(study_name="demo").optimize(objective, n_trials=3, callbacks=callbacks, catch=ValueError)
    with Reader(tmp_path / "runs.db") as reader:
        runs = {run.name: run for run in reader.runs()}
    assert [runs[f"trial {number}"].status for number in range(3)] == ["finished", "pruned", "failed"]
    assert [runs[f"trial {number}"].summary["val/loss"].n for number in range(3)] == [2, 1, 1]
    assert runs["trial 1"].tags == ()


@pytest.mark.parametrize("is_multirun", [False, True])
def test_hydra(tmp_path: Path, is_multirun: bool) -> None:
    [callbacks] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "config.yaml").write_text("lr: 0.1\nwarmup: ${lr}\nmodel:\n  width: 3\n" + callbacks)
    words = ["-m", "lr=0.1,0.2"] if is_multirun else ["lr=0.5"]
    runs = run_example(tmp_path, "Hydra", "hydra", *words, "hydra.job.chdir=True")
    assert {run.experiment for run in runs} == {"train"}
    assert sorted(run.name for run in runs) == (["lr=0.1", "lr=0.2"] if is_multirun else ["lr=0.5"])
    for run in runs:
        assert (run.status, run.config["model.width"], run.summary["train/loss"].n) == ("finished", 3, 10)
        assert run.config["warmup"] == run.config["lr"]


def test_a_job_of_hydra_that_starts_a_run_itself_records_one_run(tmp_path: Path) -> None:
    pytest.importorskip("hydra")
    [callbacks] = re.findall(r"^```yaml\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    (tmp_path / "config.yaml").write_text("lr: 0.1\n" + callbacks)
    (tmp_path / "train.py").write_text(
        "import hydra\nfrom labbench import wandb\n"
        "@hydra.main(version_base=None, config_path='.', config_name='config')\n"
        "def main(config):\n"
        "    wandb.init(project='p', config={'lr': config.lr, 'wd': 1}, tags=['t'])\n"
        "    wandb.log({'loss': config.lr})\n"
        "    wandb.finish()\n"
        "    if config.lr == 0.2: raise ValueError\n"
        "main()\n"
    )
    subprocess.run([sys.executable, "train.py", "-m", "lr=0.1,0.2"], cwd=tmp_path, timeout=HANG_SECONDS)
    with Reader(tmp_path / "runs.db") as reader:
        runs = reader.runs()
    assert [(run.name, run.status, run.summary["loss"].n) for run in runs] == [
        ("lr=0.1", "finished", 1),
        ("lr=0.2", "failed", 1),
    ]
    assert all(run.config["wd"] == 1 and run.tags == ("t",) for run in runs)


@pytest.mark.parametrize(
    ("package", "points"),
    [("skorch", {"train/loss": 3, "val/loss": 3}), ("ignite", {"train/loss": 10}), ("fastai", {"train/loss": 8})],
)
def test_recipes(tmp_path: Path, package: str, points: dict[str, int]) -> None:
    [run] = run_example(tmp_path, package, package)
    assert (run.name, run.experiment, run.status) == ("baseline", "demo", "finished")
    assert {name: run.summary[name].n for name in points} == points


def test_modules_are_short_and_the_table_has_their_lengths() -> None:
    folder = PAGE.parents[2] / "labbench" / "integrations"
    table = PAGE.read_text(encoding="utf-8").partition("\n## ")[0]
    rows = re.findall(r"^\| [^|]* \| `(\w+)` \| (\d+) \|", table, re.MULTILINE)
    assert len(rows) >= 7
    for name, lines in rows:
        [module] = [
            file for file in folder.glob("*.py") if re.search(rf"^class {name}\b", file.read_text(), re.MULTILINE)
        ]
        assert len(module.read_text().splitlines()) == int(lines) < 100


def test_code_written_for_tensorboard(tmp_path: Path) -> None:
    [run] = run_example(tmp_path, "Code written for TensorBoard", "torch")
    assert (run.name, run.experiment, run.status, run.summary["train/loss"].n) == ("baseline", "demo", "finished", 10)
