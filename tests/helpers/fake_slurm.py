"""Fake commands of SLURM that run jobs as processes: `python fake_slurm.py COMMAND ARGUMENTS...`.

The folder FAKE_SLURM holds the state. A test may create the file `down` in it (the controller does not answer), and
`JOB.end` with a final state, such as NODE_FAIL, that a killed job then has.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import IO

ROOT = Path(os.environ.get("FAKE_SLURM", "."))
ACTIVE = ("PENDING", "RUNNING")


def write(job: str, name: str, text: str) -> None:
    draft = ROOT / f"{job}.{name}.{os.getpid()}.{threading.get_ident()}"
    draft.write_text(text)
    draft.replace(ROOT / f"{job}.{name}")


def read(job: str, name: str) -> str:
    try:
        return (ROOT / f"{job}.{name}").read_text()
    except FileNotFoundError:
        return ""


def jobs_of(words: list[str]) -> list[str]:
    """Return the jobs that the ids name; the id of an array names all its elements."""
    known = sorted(path.name.removesuffix(".state") for path in ROOT.glob("*.state"))
    return [job for job in known if any(job == word or job.startswith(f"{word}_") for word in words)]


def sbatch(words: list[str]) -> int:
    script = Path(words[-1])
    options = dict(re.findall(r"^#SBATCH --([\w-]+)=(.*)$", script.read_text(), re.MULTILINE))
    number = 1 + max([int(path.name.split("_")[0].split(".")[0]) for path in ROOT.glob("*.state")], default=100)
    array = re.match(r"0-(\d+)%(\d+)", options.get("array", ""))
    jobs = [f"{number}_{index}" for index in range(int(array[1]) + 1)] if array else [f"{number}"]
    for job in jobs:
        write(job, "state", "PENDING")
    command = [sys.executable, __file__, "supervise", str(script), array[2] if array else "1", *jobs]
    with (ROOT / f"{number}.log").open("ab") as output:
        supervisor = subprocess.Popen(
            command, start_new_session=True, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        )
    write(str(number), "supervisor", str(supervisor.pid))
    print(f"Submitted batch job {number}")
    return 0


def supervise(words: list[str]) -> int:
    """Run the elements of an array, at most so many at once."""
    script, parallel, *jobs = words
    slots = threading.Semaphore(int(parallel))

    def run(job: str) -> None:
        with slots:
            while read(job, "state") == "PENDING":
                write(job, "state", run_once(script, job))

    threads = [threading.Thread(target=run, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 0


def run_once(script: str, job: str) -> str:
    """Run an element, and return its next state."""
    number, _, index = job.partition("_")
    environment = {
        **os.environ,
        "SLURM_JOB_ID": number + index,
        "SLURM_NTASKS": "1",
        "SLURM_JOB_NUM_NODES": "1",
        "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0",
        "SLURM_NODEID": "0",
        "SLURM_JOB_NODELIST": "node1",
    }
    if index:
        environment |= {"SLURM_ARRAY_JOB_ID": number, "SLURM_ARRAY_TASK_ID": index}
    with open_output(script, job) as output:
        process = subprocess.Popen(
            ["/bin/bash", script], env=environment, start_new_session=True, stdout=output, stderr=output
        )
    write(job, "pid", str(process.pid))
    write(job, "state", "RUNNING")
    if read(job, "cancelled"):  # while it started
        write(job, "end", "CANCELLED")
        end_group(process.pid)
    status = process.wait()
    end_group(process.pid)
    if read(job, "requeue"):
        (ROOT / f"{job}.requeue").unlink()
        return "PENDING"
    return read(job, "end") or ("FAILED" if status else "COMPLETED")


def open_output(script: str, job: str) -> IO[bytes]:
    """Open the file of `--output` for a job, to append to it."""
    [pattern] = re.findall(r"^#SBATCH --output=(.*)$", Path(script).read_text(), re.MULTILINE)
    number, _, index = job.partition("_")
    for name, value in (("%A", number), ("%a", index), ("%j", number)):
        pattern = pattern.replace(name, value)
    return Path(pattern).open("ab")


def end_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


def srun(words: list[str]) -> int:
    """Execute the program in this process, or report to the probe that the folder is not shared."""
    output = None
    while words and words[0].startswith("-"):
        word = words.pop(0)
        name, has_value, value = word.partition("=")
        if name in ("--output", "--error") and not has_value:
            value = words.pop(0)
        if name == "--output":
            output = value
    if os.environ.get("FAKE_SLURM_UNSHARED"):
        print("missing")
        return 0
    for pattern, variable in (("%A", "SLURM_ARRAY_JOB_ID"), ("%a", "SLURM_ARRAY_TASK_ID"), ("%j", "SLURM_JOB_ID")):
        output = output and output.replace(pattern, os.environ.get(variable, ""))
    if output:
        file = os.open(output.replace("%t", "0"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, 1)
        os.dup2(file, 2)
    return os.execvp(words[0], words)


def squeue(words: list[str]) -> int:
    [ids] = [word.removeprefix("--jobs=") for word in words if word.startswith("--jobs=")]
    jobs = [job for job in jobs_of(ids.split(",")) if not read(job, "forgotten")]
    if not jobs:
        print("slurm_load_jobs error: Invalid job id specified", file=sys.stderr)
        return 1
    for job in jobs:
        print(f"{job}|{read(job, 'state')}")
    return 0


def sacct(words: list[str]) -> int:
    [ids] = [word.removeprefix("--jobs=") for word in words if word.startswith("--jobs=")]
    for job in jobs_of(ids.split(",")):
        print(f"{job}|{read(job, 'state')}")
    return 0


def scancel(words: list[str]) -> int:
    for job in jobs_of(words):
        write(job, "cancelled", "1")
        if read(job, "state") == "PENDING":
            write(job, "state", "CANCELLED")
        elif read(job, "state") == "RUNNING":
            write(job, "end", "CANCELLED")
            end_group(int(read(job, "pid")))
    return 0


def scontrol(words: list[str]) -> int:
    if words[0] == "show":
        print("ClusterName             = fake")
        return 0
    for job in jobs_of(words[1:]):
        write(job, "requeue", "1")
    return 0


def main() -> int:
    command, *words = sys.argv[1:]
    if (ROOT / "down").exists() and command not in ("supervise", "srun"):
        print("slurm_load_jobs error: Unable to contact slurm controller (connect failure)", file=sys.stderr)
        return 1
    return int(globals()[command](words))


def install(folder: Path) -> dict[str, str]:
    """Write the commands to a new folder; return the environment in which they are found."""
    state, commands = folder / "state", folder / "bin"
    state.mkdir(parents=True)
    commands.mkdir()
    for name in ("sbatch", "srun", "squeue", "sacct", "scancel", "scontrol"):
        file = commands / name
        file.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{__file__}" {name} "$@"\n')
        file.chmod(0o755)
    return {"FAKE_SLURM": str(state), "PATH": f"{commands}:{os.environ['PATH']}"}


def stop_all(state: Path) -> None:
    """End all supervisors and jobs."""
    for pattern in ("*.supervisor", "*.pid"):
        for path in state.glob(pattern):
            end_group(int(path.read_text()))


if __name__ == "__main__":
    sys.exit(main())
