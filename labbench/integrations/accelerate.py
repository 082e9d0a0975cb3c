"""Tracker for Hugging Face's accelerate: importing this module registers it as "labbench"."""

from __future__ import annotations

from typing import Any

from accelerate.tracking import GeneralTracker, on_main_process, register_tracker_class

from labbench.tracking.run import Run
from labbench.tracking.start import start


class LabbenchTracker(GeneralTracker):
    """Record what `Accelerator.log` logs: `Accelerator(log_with="labbench")` once this class is imported.

    Args:
        run_name: Project name of `Accelerator.init_trackers`, which becomes the experiment.
        options: Arguments of `labbench.start`, from `init_kwargs={"labbench": {...}}`.
    """

    name = "labbench"
    requires_logging_directory = False

    @on_main_process
    def __init__(self, run_name: str, **options: Any) -> None:
        super().__init__()
        self._options = {"experiment": run_name, **options}
        self.run: Run | None = None

    @on_main_process
    def start(self) -> None:
        """Start the run."""
        self.run = start(**self._options)

    @property
    def tracker(self) -> Run | None:
        """The run."""
        return self.run

    @on_main_process
    def store_init_configuration(self, values: dict[str, Any]) -> None:
        """Add values to the config of the run."""
        if self.run is not None:
            self.run.config.update(values)

    @on_main_process
    def log(self, values: dict[str, Any], step: int | None = None, **kwargs: Any) -> None:
        """Log numbers."""
        if self.run is not None:
            self.run.log(values, step)

    @on_main_process
    def finish(self) -> None:
        """End the run."""
        if self.run is not None:
            self.run.finish()


register_tracker_class(LabbenchTracker)
