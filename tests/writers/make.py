"""Write the files in this folder with the programs whose formats labbench imports, and the values that they hold.

    python tests/writers/make.py FORMAT [FOLDER]

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
import sqlite3
import sys
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
HOST, USER, HOME = "host", "user", "/tmp/neutral"

Runs = dict[str, dict[str, Any]]
"""By name of the run: `config`, `status` and `series`, a list of [step, value] by metric."""


def hide_identity() -> None:
    """Replace host and user names in everything that this process writes, and work in a neutral folder."""
    socket.gethostname = lambda: HOST
    getpass.getuser = lambda: USER
    os.environ.update(USER=USER, LOGNAME=USER, HOME=HOME, HOSTNAME=HOST)
    os.uname = lambda: os.uname_result(("Linux", HOST, "6.1.0", "1", "x86_64"))
    shutil.rmtree(HOME, ignore_errors=True)
    Path(HOME).mkdir(parents=True)
    os.chdir(HOME)


def curve(n: int, scale: float = 1.0) -> list[list[float]]:
    """Return [step, value] pairs that are exact in 32 bits, as TensorBoard stores them."""
    return [[step, round(scale * 1024 * math.exp(-step / 5)) / 1024] for step in range(n)]


def compact(database: Path) -> None:
    """Rewrite an SQLite database with small pages: hundreds of empty tables take a page each."""
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("PRAGMA journal_mode = DELETE")
        connection.execute("PRAGMA page_size = 512")
        connection.execute("VACUUM")


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


def huggingface(folder: Path) -> tuple[str, Runs]:
    import torch
    from transformers import Trainer, TrainingArguments

    class Model(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(2, 1)

        def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
            outputs = self.layer(x)
            return {"loss": (outputs - labels).square().mean(), "logits": outputs}

    data = [{"x": torch.ones(2), "labels": torch.zeros(1)} for _ in range(16)]
    arguments = TrainingArguments(
        "out", num_train_epochs=2, logging_steps=1, eval_strategy="epoch", save_strategy="epoch", report_to="none",
        learning_rate=0.0078125, disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = Trainer(model=Model(), args=arguments, train_dataset=data, eval_dataset=data)
    trainer.train()
    series: dict[str, list[list[float]]] = {}
    for entry in trainer.state.log_history[:-1]:  # the checkpoints hold all but the last entry
        for key, value in entry.items():
            prefix = "" if key == "epoch" else "train/"
            name = f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else prefix + key
            if key != "step":
                points = series.setdefault(name, [])
                if not points or points[-1][0] < entry["step"]:
                    points.append([entry["step"], value])
    for path in sorted(Path("out").rglob("*")):
        if path.name in ("trainer_state.json", "training_args.bin"):
            target = folder / "tiny" / path.relative_to("out")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    runs = {"tiny": {"series": series, "config includes": {"learning_rate": 0.0078125, "num_train_epochs": 2}}}
    return importlib.metadata.version("transformers"), runs


def lightning(folder: Path) -> tuple[str, Runs]:
    import lightning as L
    import torch
    from lightning.pytorch.loggers import CSVLogger

    logged: dict[str, list[list[float]]] = {"train/loss": [], "val_loss": []}

    class Model(L.LightningModule):
        def __init__(self, lr: float = 0.125, hidden: tuple[int, ...] = (8, 4)) -> None:
            super().__init__()
            self.save_hyperparameters()
            self.layer = torch.nn.Linear(2, 1)

        def training_step(self, batch: torch.Tensor, index: int) -> torch.Tensor:
            loss = self.layer(batch).square().mean()
            self.log("train/loss", loss)
            logged["train/loss"].append([self.global_step, loss.item()])
            return loss

        def validation_step(self, batch: torch.Tensor, index: int) -> None:
            self.log("val_loss", torch.tensor(0.5), batch_size=8)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), lr=self.hparams.lr)

    data = torch.utils.data.DataLoader(torch.ones(32, 2), batch_size=8)
    L.Trainer(
        max_epochs=2, logger=CSVLogger(folder, "logs"), log_every_n_steps=1, enable_progress_bar=False,
        enable_model_summary=False, enable_checkpointing=False, num_sanity_val_steps=0, accelerator="cpu",
    ).fit(Model(), data, data)  # fmt: skip
    losses = logged["train/loss"]
    series = {
        "epoch": [[step, step // 4] for step, _ in losses],
        "train/loss": losses,
        "val_loss": [[3, 0.5], [7, 0.5]],
    }
    runs = {"logs/version_0": {"config": {"lr": 0.125, "hidden": [8, 4]}, "series": series}}
    return importlib.metadata.version("lightning"), runs


def keras(folder: Path) -> tuple[str, Runs]:
    os.environ["KERAS_BACKEND"] = "torch"
    import keras
    import numpy

    model = keras.Sequential([keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    history = model.fit(
        numpy.ones((8, 2)), numpy.zeros((8, 1)), validation_split=0.5, epochs=3, verbose=0,
        callbacks=[keras.callbacks.CSVLogger(folder / "training.log")],
    )  # fmt: skip
    series = {name: [[step, value] for step, value in enumerate(values)] for name, values in history.history.items()}
    series["epoch"] = [[step, step] for step in range(3)]
    return keras.__version__, {"training": {"config": {}, "series": series}}


def wandb(folder: Path) -> tuple[str, Runs]:
    os.environ["WANDB_MODE"] = "offline"
    import wandb

    config = {"lr": 0.125, "model": {"width": 3}, "optimizer": "adam"}
    loss = curve(12)
    settings = wandb.Settings(x_disable_stats=True, x_disable_machine_info=True, disable_git=True, disable_code=True)
    run = wandb.init(project="project", name="first", config=config, tags=["a"], notes="n", settings=settings)
    for _, value in loss:
        run.log({"loss": value, "val": {"accuracy": value / 2}, "text": "x"})
    run.log({"late": 1.0}, step=40)
    run.config.update({"extra": [1, 2]})
    run.summary["best"] = 5
    run.finish()
    failed = wandb.init(project="project", name="second", settings=settings)
    failed.log({"loss": float("nan")})
    failed.finish(exit_code=3)
    shutil.copytree(
        "wandb", folder / "wandb", symlinks=False, ignore=shutil.ignore_patterns("logs", "files", "latest*", "debug*")
    )
    series = {
        "loss": loss,
        "val.accuracy": [[step, value / 2] for step, value in loss],
        "late": [[40, 1.0]],
        "best": [[40, 5.0]],
    }
    return wandb.__version__, {
        "first": {"config": config | {"extra": [1, 2], "summary/text": "x"}, "series": series},
        "second": {"config": {}, "status": "failed", "series": {"loss": [[0, None]]}},
    }


def mlflow(folder: Path) -> tuple[str, Runs]:
    os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"
    import mlflow

    runs: Runs = {}
    loss = curve(8)
    for store, uri in (("database", f"sqlite:///{folder}/mlflow.db"), ("files", f"file:{folder}/mlruns")):
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment("an experiment")
        with mlflow.start_run(run_name=store):
            mlflow.log_params({"lr": 0.125, "optimizer": "adam", "bn": True, "hidden": [1, 2]})
            for step, value in loss:
                mlflow.log_metric("train/loss", value, step=step)
            mlflow.log_metric("nan", float("nan"), step=3)
            with mlflow.start_run(run_name=f"{store} child", nested=True):
                mlflow.log_metric("a", 1.0)
        config = {"lr": 0.125, "optimizer": "adam", "bn": True, "hidden": [1, 2]}
        runs[store] = {"config": config, "series": {"train/loss": loss, "nan": [[3, None]]}}
        runs[f"{store} child"] = {"config": {}, "series": {"a": [[0, 1.0]]}}
    return mlflow.__version__, runs


def trackio(folder: Path) -> tuple[str, Runs]:
    os.environ["TRACKIO_DIR"] = str(folder)
    import trackio

    loss = curve(8)
    trackio.init(project="project", name="first", config={"lr": 0.125, "model": {"width": 3}}, auto_log_cpu=False)
    for step, value in loss:
        trackio.log({"loss": value, "val": {"accuracy": value / 2}, "bad": float("inf")}, step=step)
    trackio.finish()
    for file in folder.glob("*.lock"):
        file.unlink()
    series = {
        "loss": loss,
        "val/accuracy": [[step, value / 2] for step, value in loss],
        "bad": [[step, math.inf] for step, _ in loss],
    }
    return trackio.__version__, {"first": {"config": {"lr": 0.125, "model": {"width": 3}}, "series": series}}


def trackio_parquet(folder: Path) -> tuple[str, Runs]:
    """Write the Parquet files that are uploaded to a data set; needs pyarrow."""
    version, runs = trackio(folder)
    from trackio.sqlite_storage import SQLiteStorage

    SQLiteStorage._dataset_import_attempted = True
    SQLiteStorage.export_to_parquet()
    for database in folder.glob("*.db"):
        database.unlink()
    return version, runs


FORMATS: dict[str, Callable[[Path], tuple[str, Runs]]] = {
    "huggingface": huggingface,
    "keras": keras,
    "lightning": lightning,
    "mlflow": mlflow,
    "tensorboard": tensorboard,
    "trackio": trackio,
    "trackio-parquet": trackio_parquet,
    "wandb": wandb,
}


def main(name: str, folder: str | None = None) -> None:
    hide_identity()
    with tempfile.TemporaryDirectory(dir=HOME) as work:
        files = Path(work, "files")
        files.mkdir()
        version, runs = FORMATS[name](files)
        for database in files.rglob("*.db"):
            compact(database)
        target = Path(folder or HERE) / name
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        shutil.copytree(files, target / "files")
        expected = {"program": f"{name} {version}", "runs": runs}
        (target / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
