"""Parameters of submitit's executors for `[resources.slurm]`, and the setup commands of the jobs."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from labbench.records import SlurmOptions

_SETUP_FAILED = "labbench: setup command failed with status "
"""Beginning of the last line that a job prints if a setup command fails; the status and the command follow."""

_SETUP_FUNCTION = f'labbench_setup_failed() {{ echo "{_SETUP_FAILED}$1: $2" >&2; exit "$1"; }}'


def log_folder(folder: Path) -> Path:
    """Return the folder of submitit's files, which holds the output of the jobs; `folder` has their folders."""
    return folder / "submitit"


def log_file(folder: Path, job_id: str) -> Path:
    """Return the file with the output of a job's batch script."""
    return log_folder(folder) / f"{job_id}_0_log.out"


def setup_script(folder: Path) -> Path:
    """Return the file of the script that executes the setup commands of local jobs."""
    return log_folder(folder) / "setup.sh"


def executor_parameters(options: SlurmOptions) -> dict[str, Any]:
    """Return the parameters for `update_parameters` of submitit's AutoExecutor."""
    if options.cluster == "slurm":
        return {f"slurm_{name}": value for name, value in _sbatch_parameters(options).items()}
    parameters = {
        "timeout_min": _minutes(options),
        "gpus_per_node": options.gpu_count,
        "cpus_per_task": options.cpus,
        "mem_gb": options.memory,
        "stderr_to_stdout": True,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def executor_options(options: SlurmOptions, folder: Path) -> dict[str, str]:
    """Return arguments of submitit's AutoExecutor: how local jobs start Python after their setup commands."""
    if options.cluster != "local" or not options.setup:
        return {}
    return {"local_python": shlex.join(["bash", str(setup_script(folder).absolute()), sys.executable])}


def batch_script_header(options: SlurmOptions, folder: Path, n_jobs: int) -> list[str]:
    """Return the `#SBATCH` lines and the setup commands of the script of an array of jobs.

    SLURM need not be installed.

    Raises:
        ImportError: submitit is not installed.
    """
    from submitit.slurm.slurm import _make_sbatch_string

    count = n_jobs if n_jobs > 1 else None
    script = _make_sbatch_string(
        command="", folder=log_folder(folder).absolute(), map_count=count, **_sbatch_parameters(options)
    )
    return [*(line for line in script.splitlines() if line.startswith("#SBATCH ")), *options.setup]


def _sbatch_parameters(options: SlurmOptions) -> dict[str, Any]:
    """Return the parameters of submitit's executor of SLURM."""
    parameters = {
        "job_name": "labbench",
        "time": _minutes(options),
        "gpus_per_node": options.gpus if options.gpu_count and not options.requests_gpus_by_gres else None,
        "cpus_per_task": options.cpus,
        "mem": None if options.memory is None else _format_memory(options.memory),
        "stderr_to_stdout": True,
        "partition": options.partition,
        "account": options.account,
        "qos": options.qos,
        "array_parallelism": options.array,
        "setup": guarded_lines(options.setup) or None,
        "signal_delay_s": math.ceil(options.grace),
        # with the underscores of submitit's own parameters, which they replace
        "additional_parameters": {name.replace("-", "_"): value for name, value in options.options.items()} or None,
    }
    return {name: value for name, value in parameters.items() if value is not None}


def _minutes(options: SlurmOptions) -> int:
    return math.ceil(options.time / 60)


def _format_memory(gigabytes: float) -> str:
    return f"{int(gigabytes)}GB" if gigabytes == int(gigabytes) else f"{int(gigabytes * 1024)}MB"


def guarded_lines(commands: Sequence[str]) -> list[str]:
    """Return lines of bash that execute the commands in this shell, and exit after the first one that fails."""
    lines = [_SETUP_FUNCTION] if commands else []
    for command in commands:
        quoted = shlex.quote(" ".join(command.split()))
        lines.append(f"eval {shlex.quote(command)} || labbench_setup_failed $? {quoted}")
    return lines


def write_setup_script(path: Path, commands: Sequence[str]) -> None:
    """Write a script for bash that executes the commands, then its arguments as a program."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text("\n".join([*guarded_lines(commands), 'exec "$@"', ""]))


def find_setup_failure(output: Sequence[str]) -> str | None:
    """Return the failed setup command in the last line of a job's output, as `status 1: COMMAND`; None without one."""
    last = output[-1] if output else ""
    return f"status {last.removeprefix(_SETUP_FAILED)}" if last.startswith(_SETUP_FAILED) else None
