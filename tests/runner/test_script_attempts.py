"""Attempts of the scripts of a grid: points of earlier attempts are kept if the script announces that it resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from labbench.records import RunRecord
from labbench.store.reader import Reader

Labbench = Callable[..., Result]

SCRIPT = """
import sys
from pathlib import Path
import labbench
from labbench import wandb

case = sys.argv[1]
file = Path(f"{case}.attempts")
attempt = len(file.read_text()) + 1 if file.exists() else 1
file.write_text("x" * attempt)
if case == "late" and attempt == 2:
    sys.exit("failed before init")
if case == "scratch":
    run = labbench.start(id="id-scratch")
elif case == "start":
    run = labbench.start(id="id-start", resume="allow")
elif case == "auto":
    run = wandb.init(resume="auto")
elif case == "no id":
    run = wandb.init(resume="allow")
else:
    run = wandb.init(id=f"id-{case}", resume="allow")
first = {True: 3, False: 0}[run.resumed]
for step in range(first, 3 if attempt == 1 else 5):
    if case == "earlier" and run.resumed and step == 3:
        run.log({"loss": 10.0 * attempt}, step=1)
    run.log({"loss": 10.0 * attempt + step})
print("id", getattr(run, "id", run.key), "resumed", run.resumed)
run.finish()
if case == "twice":
    second = wandb.init(id="id-twice", resume="allow")
    second.log({"loss": 99.0})
    second.finish()
if attempt < (3 if case == "late" else 2):
    sys.exit(f"attempt {attempt} failed")
"""

CASES = ("wandb", "start", "auto", "scratch", "no id", "earlier", "late", "twice")


def points(folder: Path) -> dict[str, dict[int, float]]:
    with Reader(folder / "runs.db") as reader:
        series = {run.config["case"]: reader.series(run.key, "loss") for run in reader.runs()}
    return {case: dict(zip(steps.tolist(), values.tolist(), strict=True)) for case, (steps, values) in series.items()}


def runs(folder: Path) -> dict[str, RunRecord]:
    with Reader(folder / "runs.db") as reader:
        return {run.config["case"]: run for run in reader.runs()}


def write_grid(folder: Path, *cases: str, retries: int) -> None:
    (folder / "train.py").write_text(SCRIPT)
    tables = f"[grid]\ncase = {list(cases)}\n[resources]\nretries = {retries}\n"
    (folder / "grid.toml").write_text('command = ["python", "train.py", "{case}"]\n' + tables)


def test_retries_keep_the_points_of_a_script_that_resumes_and_replace_all_others(
    labbench: Labbench, tmp_path: Path
) -> None:
    write_grid(tmp_path, *CASES, retries=2)
    result = labbench("run", "grid.toml", "--workers", "2")
    assert result.exit_code == 0, result.stderr
    continued = {0: 10.0, 1: 11.0, 2: 12.0, 3: 23.0, 4: 24.0}
    replaced = {step: 20.0 + step for step in range(5)}
    assert points(tmp_path) == {
        "wandb": continued,
        "start": continued,
        "auto": continued,
        "scratch": replaced,
        "no id": replaced,  # as with W&B, which begins another run
        "earlier": {0: 10.0, 1: 20.0, 3: 23.0, 4: 24.0},
        "late": {0: 10.0, 1: 11.0, 2: 12.0, 3: 33.0, 4: 34.0},
        "twice": {0: 10.0, 1: 11.0, 2: 12.0, 3: 99.0, 4: 23.0, 5: 24.0, 6: 99.0},
    }
    ended = runs(tmp_path)
    assert {case: run.attempt for case, run in ended.items()} == {case: 3 if case == "late" else 2 for case in CASES}
    assert ended["wandb"].external_id == "id-wandb"
    with Reader(tmp_path / "runs.db") as reader:
        logs = {case: "".join(reader.logs(run.key)) for case, run in ended.items()}
    assert "id id-wandb resumed True" in logs["wandb"]
    assert logs["auto"].count(f"id {ended['auto'].key}") == 2  # the same in both attempts
    assert "resumed True" not in logs["scratch"] + logs["no id"]
    assert "labbench:" not in logs["auto"] + logs["no id"]


def test_a_run_is_shown_by_the_id_that_its_script_gave(labbench: Labbench, tmp_path: Path) -> None:
    write_grid(tmp_path, "wandb", retries=1)
    assert labbench("run", "grid.toml", "--workers", "1").exit_code == 0
    shown = labbench("show", "id-wandb")
    assert (shown.exit_code, runs(tmp_path)["wandb"].key in shown.stdout) == (0, True)


def test_a_later_command_continues_a_failed_script_unless_it_is_retried_from_the_start(
    labbench: Labbench, tmp_path: Path
) -> None:
    write_grid(tmp_path, "wandb", "start", retries=0)
    assert labbench("run", "grid.toml", "--workers", "2").exit_code == 1
    ended = runs(tmp_path)
    assert labbench("retry", ended["wandb"].key).exit_code == 0
    assert labbench("retry", ended["start"].key, "--from-start").exit_code == 0
    assert labbench("run", "grid.toml", "--workers", "2").exit_code == 0
    assert points(tmp_path) == {
        "wandb": {0: 10.0, 1: 11.0, 2: 12.0, 3: 23.0, 4: 24.0},
        "start": {step: 20.0 + step for step in range(5)},
    }
