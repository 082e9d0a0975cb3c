"""Longer runs begin from the final states of shorter ones, with the numbers of a training from the start."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import execute
from labbench.store.reader import Reader

torch = pytest.importorskip("torch")

Labbench = Callable[..., Result]

GRID = """
name = "g"
task = "digits"
[params]
epochs = 2
hidden = [16]
dropout = 0.2
batch_size = 128
[grid]
optimizer = ["sgd", "adam"]
lr = [0.1, 0.01]
[runtime]
keep = "resume"
"""

OWN_TASK = """
import torch
from labbench import Data, Param
class Task:
    params = {"epochs": Param("int", 2)}
    def data(self, config):
        x = torch.randn(64, 4)
        return Data(train=(x, x[:, :1]), val=(x, x[:, :1]))
    def model(self, config):
        return torch.nn.Linear(4, 1)
    def loss(self, outputs, targets):
        return (outputs - targets).square().mean(1)
    def metrics(self, outputs, targets):
        return {}
"""


def write_grid(path: Path, *changes: tuple[str, str]) -> Path:
    text = GRID
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    path.write_text(text)
    return path


def points(db: str, epochs: int) -> dict[tuple[str, str, int], float]:
    """Return the points of the runs with this number of epochs, by (name of the run, metric, step)."""
    query = """SELECT runs.name, metrics.name, step, value FROM points
               JOIN runs ON runs.id = run_id JOIN metrics ON metrics.id = metric_id
               WHERE metrics.name NOT LIKE 'time/%' AND coalesce(json_extract(config, '$.epochs'), 10) = ?"""
    with closing(sqlite3.connect(db)) as connection:
        return {(name, metric, step): value for name, metric, step, value in connection.execute(query, (epochs,))}


def models(db: str, epochs: int) -> dict[str, bytes]:
    """Return the files of the models of the runs with this number of epochs, by name of the run."""
    with Reader(db) as reader:
        runs = reader.runs(f"epochs={epochs}")
    return {run.name: Path(f"{db}.files", run.key, "model.safetensors").read_bytes() for run in runs}


@pytest.mark.parametrize("engine", ["loop", "stacked", "vmap"])
@pytest.mark.parametrize("log_every", ['"auto"', "7"])
def test_continued_runs_equal_runs_trained_at_once(
    labbench: Labbench, tmp_path: Path, engine: str, log_every: str
) -> None:
    grid = write_grid(tmp_path / "g.toml", ("[runtime]", f'[runtime]\nengine = "{engine}"\nlog_every = {log_every}'))
    run = ("run", grid, "--workers", "0")
    assert labbench("--db", "once.db", *run, "--set", "epochs=4").exit_code == 0
    assert labbench("--db", "parts.db", *run).exit_code == 0
    before = points("parts.db", 2)
    result = labbench("--db", "parts.db", *run, "--set", "epochs=4")
    assert "g: 4 runs continue from the end of runs of 2 epochs" in result.stderr
    assert points("parts.db", 4) == points("once.db", 4)
    assert models("parts.db", 4) == models("once.db", 4)
    assert points("parts.db", 2) == before
    with Reader("parts.db") as reader, Reader("once.db") as once:
        longer, shorter = reader.runs("epochs=4"), reader.runs("epochs=2")
        assert [run.continued_from for run in longer] == [run.key for run in shorter]
        assert [run.continued_step for run in longer] == [20] * 4
        assert {run.attempt for run in longer} == {1}
        assert {run.way for run in longer} == {engine}
        for run, whole in zip(longer, once.runs(), strict=True):
            del run.summary["time/compute_s"], whole.summary["time/compute_s"]  # type: ignore[attr-defined]
            assert run.summary == whole.summary
    assert "continued from  " in labbench("--db", "parts.db", "show", longer[0].key).stdout


def test_dry_run_names_the_continued_runs_and_changes_nothing(labbench: Labbench, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "g.toml")
    assert labbench("run", grid, "--workers", "0", "--only", "lr=0.1").exit_code == 0
    before = Path("runs.db").read_bytes()
    result = labbench("run", grid, "--dry-run", "--set", "epochs=3")
    assert result.exit_code == 0
    assert "g: 2 runs continue from the end of runs of 2 epochs" in result.stderr
    assert "2 stacks of 2" in result.stderr  # at different steps
    assert "about" in result.stderr
    assert Path("runs.db").read_bytes() == before


def test_the_longest_state_is_continued_and_the_chain_is_recorded(labbench: Labbench, tmp_path: Path) -> None:
    grid = write_grid(tmp_path / "g.toml", ("epochs = 2", "epochs = 1"))
    for epochs in (1, 2, 3):
        assert labbench("run", grid, "--workers", "0", "--limit", "1", "--set", f"epochs={epochs}").exit_code == 0
    with Reader("runs.db") as reader:
        first, second, third = reader.runs()
    assert [run.continued_from for run in (first, second, third)] == [None, first.key, second.key]
    assert json.loads(labbench("show", third.key, "--json").stdout)["continued_step"] == 20
    # a run does not need the shorter one that it began from
    assert labbench("rm", first.key, second.key, "--yes").exit_code == 0
    assert labbench("run", grid, "--workers", "0", "--limit", "1", "--set", "epochs=4").exit_code == 0
    assert len(points("runs.db", 4)) > len(points("runs.db", 3))


KEEP = 'keep = "resume"'
STOP = '[stop]\nmetric = "val/loss"\n'


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        ([("dropout = 0.2", 'schedule = "cosine"')], None, '`schedule = "cosine"` depends on `epochs`'),
        ([("[runtime]", f"{STOP}target = 100.0\n[runtime]")], None, "ended before its last epoch (target reached)"),
        ([(KEEP, "")], [], "the shorter run kept no state"),
        ([(KEEP, "")], None, None),  # no state was kept, and none is asked for
        ([(KEEP, 'keep = "best"')], None, None),
        ([], [(KEEP, 'keep = "best"')], 'keep = "best" needs the best weights'),
        ([], [(KEEP, f'{KEEP}\nengine = "vmap"')], "engine is vmap, and the shorter run was trained by loop"),
        ([], [(KEEP, f'{KEEP}\nprecision = "float64"')], "precision is float64, and the shorter run's was float32"),
    ],
)
def test_runs_begin_from_the_start_if_the_result_could_differ(
    labbench: Labbench,
    tmp_path: Path,
    before: list[tuple[str, str]],
    after: list[tuple[str, str]] | None,
    reason: str | None,
) -> None:
    run = ("run", tmp_path / "g.toml", "--workers", "0", "--limit", "1")
    write_grid(tmp_path / "g.toml", *before)
    assert labbench(*run).exit_code == 0
    write_grid(tmp_path / "g.toml", *(before if after is None else after))
    result = labbench(*run, "--set", "epochs=3")
    assert result.exit_code == 0
    assert ("g: 1 run trains from the start" in result.stderr) == (reason is not None)
    assert (reason or "") in result.stderr
    with Reader("runs.db") as reader:
        assert [run.continued_from for run in reader.runs()] == [None, None]


@pytest.mark.parametrize(
    ("code", "is_continued"),
    [
        (OWN_TASK, True),
        (OWN_TASK.replace("Linear(4, 1)", "Linear(4, 1, bias=config['epochs'] > 2)"), False),
        (OWN_TASK.replace("def model(self, config):", "def model(self, config, epochs=3):"), False),
    ],
)
def test_tasks_that_use_epochs_begin_from_the_start(
    labbench: Labbench, tmp_path: Path, code: str, is_continued: bool
) -> None:
    (tmp_path / "task.py").write_text(code)
    (tmp_path / "g.toml").write_text('task = "task.py:Task"\n[grid]\nlr = [0.1, 0.01]\n[runtime]\nkeep = "resume"\n')
    run = ("run", "g.toml", "--workers", "0")
    assert labbench(*run).exit_code == 0
    result = labbench(*run, "--set", "epochs=3")
    assert result.exit_code == 0
    assert ("2 runs continue" in result.stderr) == is_continued
    assert ("2 runs train from the start: task.py uses `epochs`" in result.stderr) != is_continued


def test_a_damaged_state_is_not_continued(labbench: Labbench, tmp_path: Path) -> None:
    run = ("run", write_grid(tmp_path / "g.toml"), "--workers", "0", "--limit", "1")
    assert labbench(*run).exit_code == 0
    (state,) = tmp_path.glob("runs.db.files/*/snapshot-20.safetensors")
    state.write_bytes(state.read_bytes()[:-1])
    result = labbench(*run, "--set", "epochs=3")
    assert "1 run trains from the start: the state of the shorter run cannot be read" in result.stderr
    assert result.exit_code == 0


def test_a_retry_from_the_start_is_no_continuation(labbench: Labbench, tmp_path: Path) -> None:
    run = ("run", write_grid(tmp_path / "g.toml"), "--workers", "0", "--limit", "1")
    assert labbench(*run).exit_code == 0
    assert labbench(*run, "--set", "epochs=3").exit_code == 0
    whole = points("runs.db", 3)
    with closing(sqlite3.connect("runs.db")) as connection, connection:
        connection.execute("UPDATE runs SET status = 'failed' WHERE continued_from IS NOT NULL")
    with Reader("runs.db") as reader:
        (longer,) = reader.runs("status=failed")
    assert labbench("retry", longer.key, "--from-start").exit_code == 0
    assert labbench(*run, "--set", "epochs=3").exit_code == 0
    with Reader("runs.db") as reader:
        assert reader.find(longer.key).continued_from is None
    assert points("runs.db", 3) == whole


def test_kept_states_are_counted_and_can_be_deleted(labbench: Labbench, tmp_path: Path) -> None:
    run = ("run", write_grid(tmp_path / "g.toml"), "--workers", "0")
    result = labbench(*run)
    states = list(tmp_path.glob("runs.db.files/*/snapshot-*.safetensors"))
    assert len(states) == 4  # one per run
    size = sum(state.stat().st_size for state in states) / 1e6
    assert f"4 states of {size:.1f} MB are kept" in result.stderr
    assert "labbench vacuum --states" in result.stderr
    execute(tmp_path / "runs.db", "UPDATE runs SET status = 'diverged' WHERE id = 1")  # its validation loss became NaN
    assert f"4 states of {size:.1f} MB deleted" in labbench("vacuum", "--states").stdout
    assert not list(tmp_path.glob("runs.db.files/*/snapshot-*.safetensors"))
    assert len(list(tmp_path.glob("runs.db.files/*/model.safetensors"))) == 4
