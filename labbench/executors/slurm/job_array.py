"""Submission of jobs by submitit."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from labbench.errors import InputError, LabbenchError
from labbench.executors.slurm.job_folder import JobFolder
from labbench.executors.slurm.job_main import TrainingJob
from labbench.executors.slurm.parameters import (
    executor_options,
    executor_parameters,
    log_folder,
    setup_script,
    write_setup_script,
)
from labbench.records import SlurmOptions

EXIT_SECONDS = 10.0
"""Seconds that a local job may need to exit."""

PROBE_SECONDS = 60
"""Seconds that the check of the shared folder may wait for a node."""


_NODE_OPTIONS = ("constraint", "exclude", "nodelist", "reservation")
"""Options of sbatch that choose the nodes, for the check of the shared folder."""


def require_slurm(options: SlurmOptions) -> None:
    """Raise InputError if submitit or the commands of SLURM are missing."""
    if find_spec("submitit") is None:
        raise InputError(
            '--executor slurm needs submitit, which is not installed: pip install -e ".[slurm]" in labbench\'s checkout'
        )
    if options.cluster == "slurm" and shutil.which("sbatch") is None:
        raise InputError(
            "--executor slurm: there is no sbatch in PATH; run this command on a login node of the cluster, or try the "
            'grid with [resources.slurm] cluster = "local"'
        )


class Submitter:
    """Submits jobs to one cluster."""

    def __init__(self, options: SlurmOptions, folder: Path) -> None:
        """`folder` holds the folders of the jobs and submitit's files."""
        self._options, self._folder = options, folder
        self._jobs: list[Any] = []

    def submit(self, folders: Sequence[JobFolder]) -> list[str]:
        """Submit one array of jobs, and return their ids.

        Raises:
            LabbenchError: The scheduler refused the jobs.
        """
        import submitit

        options, folder = self._options, str(log_folder(self._folder))
        if options.cluster == "local":
            write_setup_script(setup_script(self._folder), options.setup)
        executor = submitit.AutoExecutor(folder, cluster=options.cluster, **executor_options(options, self._folder))
        executor.update_parameters(**executor_parameters(options))
        redirect = options.cluster != "debug"
        try:
            with executor.batch():
                jobs = [executor.submit(TrainingJob(str(folder.path), redirect=redirect)) for folder in folders]
        except (submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError, OSError) as error:
            raise LabbenchError(f"the jobs could not be submitted: {' '.join(str(error).split())}") from error
        self._jobs += jobs
        return [str(job.job_id) for job in jobs]

    def run_debug_jobs(self) -> None:
        """Run the jobs of `cluster = "debug"` in this process; no-op on any other cluster."""
        if self._options.cluster == "debug":
            for job in self._jobs:
                job.results()
            self._jobs = []

    def close(self) -> None:
        """Wait for the processes of ended local jobs."""
        for process in (getattr(job, "_process", None) for job in self._jobs):
            if isinstance(process, subprocess.Popen):
                with suppress(subprocess.TimeoutExpired):
                    process.wait(EXIT_SECONDS)


def probe_shared_folder(options: SlurmOptions, folder: Path, paths: Sequence[str]) -> None:
    """Check with a short job that the nodes see `folder` and `paths`; a cluster without a free node is not waited for.

    Raises:
        InputError: The nodes do not see one of them.
    """
    if options.cluster != "slurm" or shutil.which("srun") is None:
        return
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    probe = folder / f"probe-{os.urandom(8).hex()}"
    probe.write_text("labbench looks for this file on a node\n")
    requests = {"partition": options.partition, "account": options.account, "qos": options.qos}
    requests |= {name: str(value) for name, value in options.options.items() if name in _NODE_OPTIONS}
    nodes = [f"--{name}={value}" for name, value in requests.items() if value is not None]
    script = 'for path do test -e "$path" || { echo missing; echo "$path"; exit; }; done; echo seen'
    words = ["srun", "--quiet", "--ntasks=1", "--time=1", f"--immediate={PROBE_SECONDS}", *nodes]
    try:
        result = subprocess.run(
            [*words, "/bin/sh", "-c", script, "sh", str(probe), *paths],
            capture_output=True,
            text=True,
            timeout=2 * PROBE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return
    finally:
        probe.unlink(missing_ok=True)
    lines = result.stdout.splitlines()
    if "missing" in lines:
        path = next(iter(lines[lines.index("missing") + 1 :]), str(probe))
        name, remedy = (folder, " (--db)") if path == str(probe) else (path, "")
        raise InputError(
            f"the nodes of the cluster do not see {name}: put it on a disk that they share with this machine{remedy}"
        )
