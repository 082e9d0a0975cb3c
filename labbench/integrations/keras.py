"""Callback for Keras 3: `model.fit(..., callbacks=[KerasCallback()])`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import keras

from labbench.tracking.run import Run
from labbench.tracking.start import start


class KerasCallback(keras.callbacks.Callback):
    """Record the logs of each epoch in a labbench run, which ends with the training.

    Args:
        name: Name of the run.
        batches: Also record the logs of each batch, as `batch/NAME`.
        options: Other arguments of `labbench.start`: `experiment`, `db`, `tags`, `config`, ...
    """

    def __init__(self, name: str | None = None, *, batches: bool = False, **options: Any) -> None:
        super().__init__()
        self.name = name
        self.options = options
        self.run: Run | None = None
        self._batches = batches
        self._step = 0

    def on_train_begin(self, logs: Mapping[str, Any] | None = None) -> None:
        """Start the run, with the parameters of `fit` and the optimizer's config as its config."""
        config = {key: value for key, value in (self.params or {}).items() if key != "verbose"}
        optimizer = getattr(self.model, "optimizer", None)
        if optimizer is not None:
            config |= {"optimizer": type(optimizer).__name__, "lr": float(optimizer.learning_rate)}
        self.run = start(self.name, **(self.options | {"config": config | self.options.get("config", {})}))
        self._step = 0

    def on_train_batch_end(self, batch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log the values of a batch, if asked to."""
        self._step += 1
        if self._batches and self.run is not None and logs:
            self.run.log({f"batch/{name}": value for name, value in logs.items()}, self._step)

    def on_epoch_end(self, epoch: int, logs: Mapping[str, Any] | None = None) -> None:
        """Log the values of an epoch, at its number or, with batches, at the step of its last batch."""
        if self.run is not None and logs:
            self.run.log({**logs, "epoch": epoch}, self._step if self._batches else epoch)

    def on_train_end(self, logs: Mapping[str, Any] | None = None) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()
