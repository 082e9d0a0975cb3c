"""Datasets read sample by sample: a real folder of images, with and without loader processes, alone and in stacks."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from click.testing import Result
from torch.utils.data import Dataset, IterableDataset

from helpers.cuda import needs_cuda
from helpers.training import CPU, histories, run_of
from helpers.waiting import HANG_SECONDS, wait_for
from labbench.errors import InputError
from labbench.grid import read_grid
from labbench.records import Boundary, Failed, Finished, RunRecord, Runtime
from labbench.runner.planner import make_stack
from labbench.runner.run_grid import set_loader_count
from labbench.store.reader import Reader
from labbench.train.data.dataset import Data, load_digits
from labbench.train.data.loading import Datasets, DatasetSource
from labbench.train.loop import train
from labbench.train.tasks.losses import accuracy, cross_entropy
from labbench.train.tasks.task import FileTask, load_task

EXAMPLE = Path(__file__).parents[3] / "experiments" / "my_images.py"

# since 3.12 Python warns about forks in a process with threads; torch's DataLoader forks the same way
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder of 90 digits in three classes, PGM files of 8x8 pixels."""
    inputs, targets = load_digits().train
    for name in range(3):
        folder = tmp_path / "images" / str(name)
        folder.mkdir(parents=True)
        for number, image in enumerate(inputs[targets == name][:30]):
            pixels = (image[0] * 255).to(torch.uint8).numpy().tobytes()
            (folder / f"{number:02}.pgm").write_bytes(b"P5 8 8 255\n" + pixels)
    return tmp_path / "images"


def curves(
    path: Path, seeds: list[int], *, loaders: int = 0, precision: Any = "float32", **config: Any
) -> dict[str, dict[str, dict[int, float]]]:
    """Train runs of the example in one stack; return their curves without times, by index of the run and metric."""
    common = {"path": str(path), "epochs": 2, "batch_size": 16, "channels": 4, **config}
    runs = [run_of({**common, "seed": seed}, f"{row}") for row, seed in enumerate(seeds)]
    stack = make_stack(runs, task="", stop=None, runtime=Runtime(loaders=loaders, precision=precision))
    by_run = histories(train(stack, load_task(f"{EXAMPLE}:Task"), "cpu"))
    assert all(history.finished is not None for history in by_run.values())
    return {key: {k: c for k, c in h.curves.items() if not k.startswith("time/")} for key, h in by_run.items()}


def test_loader_processes_give_the_same_curves_and_end_with_the_training(images: Path) -> None:
    before = multiprocessing.active_children()
    assert curves(images, [0, 1, 0], loaders=2) == curves(images, [0, 1, 0], loaders=0)
    assert multiprocessing.active_children() == before


def test_a_run_gives_the_same_curves_alone_and_in_a_stack(images: Path) -> None:
    together = curves(images, [0, 1, 1], loaders=2, precision="float64")
    alone = curves(images, [1], precision="float64")["0"]
    for metric, curve in alone.items():
        assert together["1"][metric] == pytest.approx(curve, rel=1e-9)
    assert together["1"] == together["2"]
    assert together["0"]["train/loss"] != together["1"]["train/loss"]


def test_augmentation_differs_by_epoch_in_train_and_never_in_val(images: Path) -> None:
    """With a learning rate of 0, only the samples change the losses."""
    (run,) = curves(images, [0], lr=0.0, epochs=3, batch_size=72).values()
    assert len(set(run["train/loss"].values())) == 3
    assert len(set(run["val/loss"].values())) == 1
    (still,) = curves(images, [0], lr=0.0, epochs=3, batch_size=72, shift=0, precision="float64").values()
    assert max(still["train/loss"].values()) == pytest.approx(min(still["train/loss"].values()), rel=1e-12)


class Numbers(Dataset[Any]):
    """Pairs of an index and a random number; records the indices that were read."""

    def __init__(self, count: int = 40) -> None:
        self.count, self.indices = count, list[int]()

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        self.indices.append(index)
        return np.array([index, np.random.random()], dtype=np.float32), index % 2


def test_runs_of_one_seed_share_reads_and_each_sees_every_sample_once_per_epoch() -> None:
    dataset = Numbers()
    source = DatasetSource(Datasets(dataset, Numbers(3)), CPU, torch.float64, loaders=0)
    seen: list[list[int]] = [[], [], []]
    for batch in source.batches([5, 9, 5], 1, 16):
        for row, numbers in enumerate(batch):
            inputs, targets = source.gather(numbers)
            assert (inputs.dtype, targets.tolist()) == (torch.float64, [int(x) % 2 for x in inputs[:, 0]])
            seen[row] += inputs[:, 0].long().tolist()
    assert all(sorted(each) == list(range(40)) for each in seen)
    assert seen[0] == seen[2] != seen[1]
    assert len(dataset.indices) == 2 * 40


def test_datasets_train_like_the_same_data_in_memory() -> None:
    digits = load_digits()
    in_memory = Data(*((x[:200], y[:200]) for x, y in (digits.train, digits.val, digits.val)))
    splits = (in_memory.train, in_memory.val, in_memory.val)
    on_demand = Datasets(*([*zip(x, y.tolist(), strict=True)] for x, y in splits))

    def curves_of(data: Data | Datasets) -> list[dict[str, dict[int, float]]]:
        task = FileTask({}, lambda config: data, small, cross_entropy, accuracy)
        runs = [run_of({"epochs": 2, "batch_size": 64, "seed": seed}, str(seed)) for seed in range(2)]
        stack = make_stack(runs, task="", stop=None, runtime=Runtime(precision="float64", loaders=1))
        return [history.curves for history in histories(train(stack, task, "cpu")).values()]

    for ours, theirs in zip(curves_of(on_demand), curves_of(in_memory), strict=True):
        assert "test/accuracy" in ours
        for metric in ours.keys() - {"time/compute_s"}:
            assert ours[metric] == pytest.approx(theirs[metric], rel=1e-9)


def small(config: Any) -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))


def test_an_abandoned_epoch_does_not_affect_the_next_one() -> None:
    with closing(DatasetSource(Datasets(Numbers(), Numbers(3)), CPU, torch.float32, loaders=2)) as source:
        whole = [source.gather(numbers[0])[0] for numbers in source.batches([1], 2, 8)]
        for _ in source.batches([1], 1, 8):
            break
        again = [source.gather(numbers[0])[0] for numbers in source.batches([1], 2, 8)]
    assert torch.equal(torch.cat(whole), torch.cat(again))


def test_a_resumed_run_reads_the_same_samples_as_an_uninterrupted_one(images: Path, tmp_path: Path) -> None:
    config = {"path": str(images), "epochs": 4, "batch_size": 16, "channels": 4}
    runs = [run_of({**config, "seed": seed}, str(seed)) for seed in range(2)]
    task, runtime = load_task(f"{EXAMPLE}:Task"), Runtime(loaders=1, snapshot_every=0.0)
    whole = histories(train(make_stack(runs, task="", stop=None, runtime=runtime), task, "cpu"))
    reached: dict[str, int] = {}
    way = ""
    events = train(make_stack(runs, task="", stop=None, runtime=runtime, files=str(tmp_path)), task, "cpu")
    for event in events:
        way = getattr(event, "way", way)
        if isinstance(event, Boundary):
            reached[event.run] = event.step
        if set(reached.values()) == {10}:  # end of the second epoch
            break
    events.close()  # type: ignore[attr-defined]
    again = [RunRecord(1, run.key, "", "", "running", run.config, boundary=10, way=way) for run in runs]
    stack = make_stack(again, task="", stop=None, runtime=runtime, files=str(tmp_path))
    for key, history in histories(train(stack, task, "cpu")).items():
        assert history.curves["train/loss"].keys() == set(range(10, 20))
        for metric in ("train/loss", "val/loss", "val/accuracy"):
            assert history.curves[metric].items() <= whole[key].curves[metric].items()


@pytest.mark.parametrize("loaders", [0, 2])
def test_an_unreadable_sample_fails_the_runs_and_names_the_line(images: Path, loaders: int) -> None:
    (images / "1" / "07.pgm").write_bytes(b"P5 8 8 255\n too short")
    runs = [run_of({"path": str(images), "seed": seed, "epochs": 1}, str(seed)) for seed in range(3)]
    stack = make_stack(runs, task="", stop=None, runtime=Runtime(loaders=loaders))
    events = list(train(stack, load_task(f"{EXAMPLE}:Task"), "cpu"))
    failures = {event.run: event for event in events if isinstance(event, Failed)}
    assert failures.keys() == {"0", "1", "2"}
    assert not [event for event in events if isinstance(event, Finished)]
    line = next(n for n, text in enumerate(EXAMPLE.read_text().splitlines(), 1) if "read_image(file)" in text)
    assert failures["0"].message.startswith("sample ")
    assert f"of `train` cannot be read: {EXAMPLE}:{line}: " in failures["0"].message
    assert "07.pgm" in failures["0"].message
    assert "in read_image" in failures["0"].traceback
    assert multiprocessing.active_children() == []


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter([(torch.zeros(2), 0)])


def task_of(train: Any, val: Any) -> FileTask:
    def linear(config: Any) -> torch.nn.Module:
        return torch.nn.Linear(2, 2)

    return FileTask({}, lambda config: Datasets(train, val), linear, cross_entropy, accuracy)


GOOD = [(torch.zeros(2), 0)] * 4


@pytest.mark.parametrize(
    ("train", "complaint"),
    [
        (
            Stream(),
            "`train` is an IterableDataset, which determines its own order; use a Dataset with",
        ),
        (7, "`train` must be a Dataset with __len__ and __getitem__, not 7"),
        ([], "`train` has no samples"),
    ],
)
def test_an_object_that_is_not_a_map_dataset_is_refused(train: Any, complaint: str) -> None:
    with pytest.raises(InputError) as raised:
        task_of(train, GOOD).data({})
    assert complaint in str(raised.value)


@pytest.mark.parametrize(
    ("train", "complaint"),
    [
        (
            [(torch.zeros(2), 0), (torch.zeros(3), 0)] * 2,
            "all of the same shape: stack expects each tensor",
        ),
        ([(torch.zeros(2), 0, 1)] * 4, "must be pairs (inputs, target)"),
        ([("a word", 0)] * 4, "they contain str"),
    ],
)
def test_samples_that_do_not_form_a_batch_fail_the_run(train: Any, complaint: str) -> None:
    stack = make_stack([run_of({"epochs": 1})], task="", stop=None, runtime=Runtime())
    *_, last = _train(stack, task_of(train, GOOD))
    assert isinstance(last, Failed)
    assert complaint in last.message


def _train(stack: Any, task: Any) -> list[Any]:
    return list(train(stack, task, "cpu"))


def test_a_dataset_in_data_is_refused_with_a_hint_at_datasets() -> None:
    with pytest.raises(InputError, match=r"pass a torch Dataset, .* to labbench.Datasets"):
        Data(train=Numbers(), val=Numbers())  # type: ignore[arg-type]


def test_the_number_of_loaders_is_set_by_the_grid_or_the_idle_cores(tmp_path: Path) -> None:
    grid = tmp_path / "grid.toml"
    grid.write_text('task = "digits"\n[runtime]\nloaders = 3\n')
    assert set_loader_count(read_grid(grid).runtime, ["cpu"], 1).loaders == 3
    assert set_loader_count(Runtime(), ["cpu"], 1000).loaders == 0
    assert set_loader_count(Runtime(), ["cuda:0"], 1000).loaders == 1


GRID = """
task = "{task}:Task"
[params]
path = "{path}"
epochs = {epochs}
channels = 2
[repeat]
seeds = [0, 1]
[runtime]
loaders = 2
snapshot_every = 0.1
"""


def test_a_grid_of_images_trains_in_worker_processes(images: Path, labbench: Callable[..., Result]) -> None:
    grid = images.parent / "grid.toml"
    grid.write_text(GRID.format(task=EXAMPLE, path=images, epochs=2))
    result = labbench("run", grid, "--workers", "1")
    assert result.exit_code == 0, result.output
    with Reader(images.parent / "runs.db") as reader:
        assert [run.status for run in reader.runs()] == ["finished"] * 2
    (images / "2" / "11.pgm").write_bytes(b"P5")
    result = labbench("run", grid, "--workers", "1", "--rerun")
    assert result.exit_code == 1
    assert "11.pgm" in labbench("show", "status=failed").output + result.output


def processes_of(session: int) -> list[int]:
    """Process ids of a session, without zombies."""
    pids = []
    for file in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = file.read_text().rpartition(")")[2].split()
        except OSError:  # the process has ended since the listing
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            pids.append(int(file.parent.name))
    return pids


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.parametrize(("workers", "end"), [("0", "Ctrl-C"), ("1", "Ctrl-C twice"), ("1", "kill")])
def test_no_loader_process_outlives_its_command(images: Path, workers: str, end: str) -> None:
    grid, db = images.parent / "grid.toml", images.parent / "runs.db"
    grid.write_text(GRID.format(task=EXAMPLE, path=images, epochs=100_000))
    words = [sys.executable, "-m", "labbench", "--db", str(db), "run", str(grid), "--workers", workers]
    process = subprocess.Popen(words, start_new_session=True, stderr=subprocess.PIPE, text=True, cwd=grid.parent)
    try:
        wait_for(lambda: has_boundary(db))
        assert len(processes_of(process.pid)) >= 3  # the command and two loaders
        if end == "kill":
            process.kill()
        else:
            os.killpg(process.pid, signal.SIGINT)
        if end == "Ctrl-C twice":
            time.sleep(0.2)  # signals sent at the same time are merged into one
            os.killpg(process.pid, signal.SIGINT)
        _, stderr = process.communicate(timeout=HANG_SECONDS)
    finally:
        process.kill()
    twice = [130, 1, -signal.SIGINT]  # the second signal may arrive while the command prints its result or exits
    assert process.returncode in {"kill": [-signal.SIGKILL], "Ctrl-C": [130], "Ctrl-C twice": twice}[end], stderr
    wait_for(lambda: not processes_of(process.pid))
    with Reader(db) as reader:
        assert not [run.error for run in reader.runs() if run.error]


def has_boundary(db: Path) -> bool:
    """Return True if the end of an epoch is recorded."""
    connection = sqlite3.connect(db)
    try:
        return any(boundary > 0 for (boundary,) in connection.execute("SELECT boundary FROM runs"))
    except sqlite3.OperationalError:  # the tables do not exist yet
        return False
    finally:
        connection.close()


@needs_cuda
def test_loader_processes_deliver_samples_to_the_gpu(images: Path) -> None:
    cuda = torch.device("cuda:0")
    data = load_task(f"{EXAMPLE}:Task").data({"path": str(images), "shift": 1})
    assert isinstance(data, Datasets)
    on_cpu = DatasetSource(data, CPU, torch.float32, loaders=0)
    with closing(DatasetSource(data, cuda, torch.float32, loaders=2)) as on_gpu:
        for ours, theirs in zip(on_gpu.batches([3, 4], 1, 16), on_cpu.batches([3, 4], 1, 16), strict=True):
            delivered, expected = on_gpu.gather(ours.flatten())[0], on_cpu.gather(theirs.flatten())[0]
            assert delivered.device == cuda
            assert torch.equal(delivered.cpu(), expected)
