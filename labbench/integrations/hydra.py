"""Callback for Hydra: every job, also each of a multirun, is a run of one experiment.

hydra:
  callbacks:
    labbench:
      _target_: labbench.integrations.HydraCallback
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from labbench.files import default_database
from labbench.tracking.process_hooks import exit_info_of_status
from labbench.tracking.run import Run
from labbench.tracking.start import start


class HydraCallback(Callback):
    """Start a run before each job, with the job's config, and end it with the job's result.

    `labbench.log({...})` in the job logs to it; `labbench.start()` and `wandb.init()` in the job return it. The
    experiment is the name of the job, the name of a run the overrides. The
    database is in the folder in which the script was started, also if Hydra changes to a folder for each job.

    Args:
        options: Other arguments of `labbench.start`: `experiment`, `db`, `tags`, ...
    """

    def __init__(self, **options: Any) -> None:
        self._options = options
        self._run: Run | None = None

    def on_job_start(self, config: DictConfig, **kwargs: Any) -> None:
        """Start the run of a job."""
        hydra = config.get("hydra", {})
        overrides = hydra.get("overrides", {}).get("task", [])
        options = {
            "experiment": hydra.get("job", {}).get("name"),
            "config": _resolve(config),
            "db": Path(hydra.get("runtime", {}).get("cwd", "")) / default_database(),
            **self._options,
        }
        self._run = start(" ".join(overrides) or None, **options)
        self._run._is_shared = True

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **kwargs: Any) -> None:
        """End the run; a job that raised an error is a failed run."""
        run, self._run = self._run, None
        if run is not None:
            run._end(exit_info_of_status(0 if job_return.status is JobStatus.COMPLETED else 1))


def _resolve(config: DictConfig) -> dict[str, Any]:
    """Return the configuration of a job with its interpolations resolved, or as written if one cannot be."""
    job = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        settings = OmegaConf.to_container(job, resolve=True)
    except OmegaConfBaseException:
        settings = OmegaConf.to_container(job)
    return cast(dict[str, Any], settings)
