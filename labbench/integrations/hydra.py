"""Callback for Hydra: every job, also each of a multirun, is a run of one experiment.

hydra:
  callbacks:
    labbench:
      _target_: labbench.integrations.HydraCallback
"""

from __future__ import annotations

from typing import Any, cast

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf

from labbench.tracking.run import Run
from labbench.tracking.start import start


class HydraCallback(Callback):
    """Start a run before each job, with the job's config, and end it with the job's result.

    `labbench.log({...})` in the job logs to it. The experiment is the name of the job, the name of a run the overrides.

    Args:
        options: Other arguments of `labbench.start`: `experiment`, `db`, `tags`, ...
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._run: Run | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the run of a job."""
        settings = cast(dict[str, Any], OmegaConf.to_container(config))
        hydra = config.get("hydra", {})
        overrides = hydra.get("overrides", {}).get("task", [])
        settings.pop("hydra", None)
        options = {"experiment": hydra.get("job", {}).get("name"), "config": settings, **self._options}
        self._run = start(" ".join(overrides) or None, **options)

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """End the run; a job that raised an error is a failed run."""
        run, self._run = self._run, None
        if run is not None:
            run.finish(0 if job_return.status is JobStatus.COMPLETED else 1)
