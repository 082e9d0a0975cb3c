"""Logger for Lightning 2: `Trainer(logger=LightningLogger("baseline"))`."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

try:
    from lightning.pytorch.callbacks import ModelCheckpoint
    from lightning.pytorch.loggers.logger import Logger, rank_zero_experiment
    from lightning.pytorch.utilities.rank_zero import rank_zero_only
except ImportError:  # the package's earlier name
    from pytorch_lightning.callbacks import ModelCheckpoint
    from pytorch_lightning.loggers.logger import Logger, rank_zero_experiment
    from pytorch_lightning.utilities.rank_zero import rank_zero_only

from labbench.errors import InputError
from labbench.files import files_folder
from labbench.messages import warn_once
from labbench.tracking.run import Run
from labbench.tracking.start import start


class LightningLogger(Logger):
    """Record metrics, hyperparameters and checkpoints of a `Trainer` in a labbench run.

    The run starts with the first value that is logged, in the process of rank 0, and ends with the training.
    `ModelCheckpoint` saves to the folder of the run.

    Args:
        name: Name of the run.
        options: Other arguments of `labbench.start`: `experiment`, `db`, `tags`, `config`, ...
    """

    def __init__(self, name: str | None = None, **options: Any) -> None:
        super().__init__()
        self._name = name
        self._options = options
        self._run: Run | None = None
        self._checkpoints: ModelCheckpoint | None = None

    @property
    @rank_zero_experiment
    def experiment(self) -> Run:
        """Run of the process of rank 0, which is started if it does not exist."""
        if self._run is None:
            self._run = start(self._name, **self._options)
        return self._run

    @property
    def name(self) -> str:
        """Empty: `save_dir` is the folder of the run already."""
        return ""

    @property
    def version(self) -> str | None:
        """Key of the run."""
        return self.experiment.key

    @property
    def save_dir(self) -> str | None:
        """Folder beside the database; `ModelCheckpoint` saves to the folder `KEY/checkpoints` in it."""
        path = self.experiment.path
        return str(files_folder(path)) if isinstance(path, Path) else None

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Log metrics at a step of the optimizer."""
        self.experiment.log(metrics, step)

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Add hyperparameters to the config of the run."""
        self.experiment.config.update(params if isinstance(params, Mapping) else vars(params))

    def after_save_checkpoint(self, checkpoint_callback: ModelCheckpoint) -> None:
        """Remember the callback, whose best checkpoint becomes an artifact at the end."""
        self._checkpoints = checkpoint_callback

    @rank_zero_only
    def save(self) -> None:
        """Wait until everything that was logged is in the database."""
        if self._run is not None:
            self._run.flush()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """End the run; `status` is "success", "finished", "failed" or "aborted"."""
        run, self._run = self._run, None
        if run is None:
            return
        if self._checkpoints is not None and Path(self._checkpoints.best_model_path).is_file():
            try:
                run.artifact(self._checkpoints.best_model_path)
            except InputError as error:  # it cannot be read
                warn_once(str(error))
        run.finish(0 if status in ("success", "finished") else 1)
