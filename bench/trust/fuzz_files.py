"""Damaged files of other programs and of labbench: importers, spill files, portraits, checkpoints.

A file is read, or refused with a message; nothing takes longer than `MAX_SECONDS`, and memory stays below `MAX_MB`.
"""

from __future__ import annotations

import copy
import json
import random
import resource
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
from click.testing import CliRunner

from bench.trust.checks import database_fault
from bench.trust.fuzz_databases import Hang, describe_error, time_limit
from bench.trust.mutations import mutate_bytes, mutate_text
from bench.trust.results import Outcome, keep_input
from bench.trust.samples import write_sample
from labbench.cli import main
from labbench.errors import LabbenchError
from labbench.files import checkpoint_file
from labbench.portraits.file import read_portrait
from labbench.records import Finished, Points, RunRecord
from labbench.store.scripts.script_run import new_script_run
from labbench.store.scripts.spill import Spill
from labbench.store.writer import Writer

MAX_MB = 500.0
"""Maximum of the resident memory of the process, which has loaded torch for the checkpoints."""

ROOT = Path(__file__).parents[2]
IMPORTERS = ("tensorboard", "wandb", "lightning", "huggingface", "keras", "mlflow", "trackio")


def prepare(folder: Path) -> Callable[[int, int], Iterator[Outcome]]:
    """Create the samples; return the function that runs one trial: one input of each kind."""
    readers = Readers(folder)

    def run_trial(seed: int, number: int) -> Iterator[Outcome]:
        rng = random.Random(f"{seed} {number}")
        for kind, read in readers.kinds().items():
            shutil.rmtree(readers.work, ignore_errors=True)
            readers.work.mkdir()
            fault = read(rng)
            if fault is not None:
                for path in readers.work.rglob("*"):
                    if path.is_file() and path.stat().st_size < 200_000:
                        keep_input(f"files-{kind.replace(' ', '-')}-{path.name[-20:]}", path.read_bytes())
            megabytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            if fault is None and megabytes > MAX_MB:
                fault = f"{megabytes:.0f} MB"
            yield Outcome(f"{kind} (figure: MB)", fault, megabytes)

    return run_trial


class Readers:
    """Sample files, and functions that damage one of a kind and read it."""

    def __init__(self, folder: Path) -> None:
        self.work = folder / "work"
        """Folder of one input."""
        self._sample = write_sample(folder / "sample.db", runs=2, points=20)
        self._csv = CliRunner().invoke(main, ["--db", str(self._sample), "export"]).stdout.encode()
        self._spill = _write_spill(folder)
        self._portraits = sorted(ROOT.glob("runs.db.example.files/*/portrait.npz"))[:5]

    def kinds(self) -> dict[str, Callable[[random.Random], str | None]]:
        """Return the functions by name; each returns what was wrong, in one line."""
        importers = {
            f"import {name}": partial(self.read_importer, name)
            for name in IMPORTERS
            if (ROOT / "tests" / "writers" / name / "files").is_dir()
        }
        others = {
            "csv file": self.read_csv, "spill file": self.read_spill, "portrait": self.read_portrait,
            "checkpoint": self.read_checkpoint,
        }  # fmt: skip
        return others | importers

    def read_importer(self, name: str, rng: random.Random) -> str | None:
        shutil.copytree(ROOT / "tests" / "writers" / name / "files", self.work / "source")
        files = [path for path in sorted((self.work / "source").rglob("*")) if path.is_file() and path.stat().st_size]
        for path in rng.sample(files, rng.choice([1, 1, min(3, len(files))])) if files else ():
            damage_file(path, rng)
        return fault_of_command("import", name, str(self.work / "source"), database=self.work / "runs.db")

    def read_csv(self, rng: random.Random) -> str | None:
        path = self.work / "points.csv"
        path.write_bytes(mutate_bytes(rng, self._csv))
        return fault_of_command("import", "csv", str(path), database=self.work / "runs.db")

    def read_spill(self, rng: random.Random) -> str | None:
        database = self.work / "runs.db"
        shutil.copy(self._sample, database)
        damaged = damaged_lines(rng, self._spill.read_text())
        (self.work / self._spill.name.replace("spill.db", "runs.db")).write_bytes(damaged)
        return fault_of_call(lambda: Writer(database).close()) or database_fault(database)

    def read_portrait(self, rng: random.Random) -> str | None:
        path = self.work / "portrait.npz"
        path.write_bytes(mutate_bytes(rng, rng.choice(self._portraits).read_bytes()))
        return fault_of_call(lambda: read_portrait(path))

    def read_checkpoint(self, rng: random.Random) -> str | None:
        import torch

        from labbench.train.checkpoints import load_checkpoint, write_safetensors

        run = RunRecord(1, "abcdefgh", "run", "experiment", "running", {}, boundary=1)
        path = checkpoint_file(self.work, run.key, 1)
        write_safetensors(path, {"weight": torch.zeros(3, 4), "bias": torch.ones(2)}, {"step": 3, "x": [1, 2]})
        path.write_bytes(mutate_bytes(rng, path.read_bytes()))
        return fault_of_call(lambda: load_checkpoint(self.work, run, torch.device("cpu")))


def damage_file(path: Path, rng: random.Random) -> None:
    """Change a file as text if it is one, else as bytes."""
    data = path.read_bytes()
    try:
        text = data.decode()
    except UnicodeDecodeError:
        path.write_bytes(mutate_bytes(rng, data))
    else:
        path.write_bytes(mutate_text(rng, [text]).encode("utf-8", "surrogatepass"))


def damaged_lines(rng: random.Random, text: str) -> bytes:
    """Change a spill file: its bytes, or a value of its JSON."""
    if rng.random() < 0.4:
        return mutate_bytes(rng, text.encode())
    lines = [json.loads(line) for line in text.splitlines()]
    values = [None, -1, 2**70, "x", [], {}, [1, "a"], 1e308, True, "\ud800", {"a": {}}, "\x1b[2J", "running"]
    for _ in range(rng.choice([1, 1, 2])):
        place = rng.choice(lines)
        while True:
            key = rng.choice([*place]) if isinstance(place, dict) else rng.randrange(len(place))
            if isinstance(place[key], dict | list) and place[key] and rng.random() < 0.8:
                place = place[key]
                continue
            place[key] = copy.deepcopy(rng.choice(values))
            break
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def fault_of_command(*words: str, database: Path) -> str | None:
    """Run a command in this process; return what was wrong, in one line."""
    try:
        with time_limit():
            result = CliRunner().invoke(main, ["--db", str(database), *words])
    except Hang:
        return "too slow"
    if result.exc_info is not None and not isinstance(result.exception, SystemExit | None):
        return describe_error(result.exception)
    if "internal error" in result.output or result.exit_code not in (0, 1, 2):
        return f"exit status {result.exit_code}: {result.output[-100:]!r}"
    return database_fault(database) if database.exists() else None


def fault_of_call(function: Callable[[], object]) -> str | None:
    """Call a function; return what was wrong, in one line."""
    try:
        with time_limit(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a damaged spill file is a warning
            function()
    except LabbenchError:
        return None
    except Hang:
        return "too slow"
    except Exception as error:
        return describe_error(error)
    return None


def _write_spill(folder: Path) -> Path:
    """Write a spill file with points, output and the end of a run."""
    database = folder / "spill.db"
    Writer(database).close()
    run = new_script_run("spilled", "scripts", {"lr": 0.1})
    run = type(run)(**{**asdict(run), "process": run.process, "key": "abcdefgh"})
    spill = Spill(database, run)
    points = [
        Points("abcdefgh", 1, metric, range(30), range(30), np.linspace(0, 1, 30).tolist()) for metric in ("a", "b")
    ]
    spill.append(run, points, truncate_from=0)
    spill.append_event(run, Finished("abcdefgh", 1, "finished", "all epochs"))
    spill.close()
    return spill.path
