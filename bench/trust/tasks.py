"""Tasks of users that misbehave, at each place of a task and in each executor.

One run of a grid misbehaves and three do not. The driver must end with a documented status, leave no process, record
every run as ended, train the others, and the database must be sound.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from bench.trust.checks import database_fault, first_fault, statuses
from bench.trust.processes import Place, labbench_words
from bench.trust.results import Outcome

TASK = """
import os, signal, sys, threading, time
import torch
from torch import nn
from labbench import Data

def misbehave():
{code}

class Task:
    params = {{}}

    def data(self, config):
        if config["seed"] == 3 and {place!r} == "data": misbehave()
        x = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
        y = (x.sum(1) > 0).long()
        return Data(train=(x, y), val=(x, y))

    def model(self, config):
        if config["seed"] == 3 and {place!r} == "model": misbehave()
        torch.manual_seed(config["seed"])
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))

    def loss(self, outputs, targets):
        if {place!r} == "loss": misbehave()
        return nn.functional.cross_entropy(outputs, targets, reduction="none")

    def metrics(self, outputs, targets):
        if {place!r} == "metrics": misbehave()
        return {{"accuracy": (outputs.argmax(-1) == targets).float()}}
"""

SCRIPT = """
import os, signal, sys, threading, time
import labbench
def misbehave():
{code}
with labbench.start() as run:
    for step in range(20):
        run.log({{"val/loss": 1 / (1 + step)}})
    if run.config["seed"] == 3: misbehave()
"""

GRID = """
name = "g"
{what}
[params]
epochs = 2
[repeat]
seeds = [0, 1, 2, 3]
"""

LIMIT = '[resources]\ntimeout = "8s"\n'
"""Time limit of a run, which needs a worker process."""

MISBEHAVIOURS = {
    "os._exit": "os._exit(7)",
    "os._exit(0)": "os._exit(0)",
    "sys.exit": "sys.exit('bye')",
    "sys.exit(0)": "sys.exit(0)",
    "chdir": "os.chdir('/')",
    "fork": "pid = os.fork()\n    if pid == 0:\n        os._exit(0)\n    os.waitpid(pid, 0)",
    "forked child goes on": "os.fork()",
    "close descriptors": "os.closerange(3, 256)",
    "close streams": "sys.stdout.close(); sys.stderr.close()",
    "print 100 MB": "print(('x' * 99 + '\\n') * 1_000_000)",
    "SIGKILL": "os.kill(os.getpid(), signal.SIGKILL)",
    "SIGSEGV": "import ctypes; ctypes.string_at(0)",
    "real-time signal": "os.kill(os.getpid(), signal.SIGRTMIN + 1)",
    "hang": "time.sleep(1000)",
    "recursion": "def deeper(): return deeper()\n    deeper()",
    "odd message": "raise ValueError('\\x1b[2J\\ud800[/bold]' + 'x' * 100_000)",
    "exception without text": "class E(Exception):\n        def __str__(self): raise RuntimeError\n    raise E",
    "memory": "raise MemoryError",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "thread that goes on": "threading.Thread(target=time.sleep, args=(1000,)).start()",
    "environment": "os.environ.clear()",
}
PLACES = ("data", "model", "loss", "metrics", "script")
EXECUTORS = {"workers": "2", "this process": "0"}

HARMLESS = {"chdir", "fork", "print 100 MB", "environment", "os._exit(0)", "sys.exit(0)", "close streams"}
"""What may leave all runs finished."""
ENDS_PROCESS = {"os._exit", "os._exit(0)", "SIGKILL", "SIGSEGV", "real-time signal", "hang", "keyboard interrupt",
                "forked child goes on", "close descriptors", "thread that goes on", "close streams"}  # fmt: skip
"""What ends or blocks the driver if the task runs in its process, which `--workers 0` is documented to do."""

TRIALS = [
    (executor, place, name)
    for executor in EXECUTORS
    for place in PLACES
    for name in MISBEHAVIOURS
    if not (executor == "this process" and (name in ENDS_PROCESS or place == "script"))
]
N_TRIALS = len(TRIALS)


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Return the function that runs one trial: a misbehaviour at a place in an executor."""

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        trials = list(TRIALS)
        random.Random(seed).shuffle(trials)
        executor, position, name = trials[number]
        place = Place(folder / "work").make()
        fault = _fault_of_task(place, position, name, EXECUTORS[executor])
        yield Outcome(f"{position} in {executor}", fault and f"{name}: {fault}")
        place.survivors(seconds=0)
        shutil.rmtree(place.folder)

    return run_trial


def _fault_of_task(place: Place, position: str, name: str, workers: str) -> str | None:
    """Train the grid with the misbehaviour; return what was wrong, in one line."""
    code = "    " + MISBEHAVIOURS[name]
    template = SCRIPT if position == "script" else TASK
    (place.folder / "task.py").write_text(template.format(code=code, place=position))
    what = 'command = ["python", "task.py"]' if position == "script" else 'task = "task.py:Task"'
    (place.folder / "g.toml").write_text(GRID.format(what=what) + (LIMIT if workers != "0" else ""))
    ended = place.run(labbench_words("run", "g.toml", "--workers", workers), timeout=120)
    database = place.folder / "runs.db"
    if fault := ended.fault((0, 1)):
        return fault
    states = statuses(database)
    odd = {run: status for run, status in states.items() if status not in ("finished", "failed", "diverged")}
    n_finished = list(states.values()).count("finished")
    return first_fault(
        check()
        for check in (
            lambda: f"not ended: {odd}" if odd else None,
            lambda: f"exit status {ended.status} with {states}" if (ended.status == 0) != (n_finished == 4) else None,
            # a loss sees all runs at once: there each of them misbehaves
            lambda: f"only {n_finished} of 4 finished" if position in ("model", "script") and n_finished < 3 else None,
            lambda: (
                f"{states}"
                if name in HARMLESS and position != "script" and n_finished < 3 and "exit" not in name
                else None
            ),
            lambda: database_fault(database),
            lambda: _fault_of_survivors(place, name),
        )
    )


def _fault_of_survivors(place: Place, name: str) -> str | None:
    """Processes of a script may go on if it has left them running on purpose."""
    survivors = place.survivors(seconds=10)
    return f"processes left: {survivors!r:.150}" if survivors and name != "forked child goes on" else None
