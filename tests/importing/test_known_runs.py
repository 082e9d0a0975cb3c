"""A run that was imported before is known: from another folder, after a rename, while its first record is missing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import Result

from helpers.event_files import write_event_file
from labbench.importing.formats import reader_of
from labbench.importing.import_runs import import_runs
from labbench.importing.source_run import FoundRun
from labbench.records import RunRecord
from labbench.store.reader import Reader

Labbench = Callable[..., Result]
WRITERS = Path(__file__).parents[1] / "writers"

RUN_FOLDERS = {
    "lightning": "lightning/files/logs/version_0",
    "tensorboard": "tensorboard/files/adam",
    "huggingface": "huggingface/files/tiny",
}
"""Folder of a real run, by format."""


@pytest.fixture(params=RUN_FOLDERS)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Return a format whose runs have no ids, with a copy of a real run in project/logs/first."""
    name: str = request.param
    shutil.copytree(WRITERS / RUN_FOLDERS[name], tmp_path / "project" / "logs" / "first")
    return name


def read_runs(folder: Path) -> dict[str, RunRecord]:
    with Reader(folder / "runs.db") as reader:
        return {f"{run.experiment}: {run.name}": run for run in reader.runs()}


@pytest.mark.parametrize(
    "paths", [("project/logs", "project", ".", "project/logs/first"), ("project", "project/logs/first", "project/logs")]
)
def test_a_folder_above_or_beneath_the_imported_one_gives_the_same_run(
    labbench: Labbench, tmp_path: Path, source: str, paths: tuple[str, ...]
) -> None:
    assert labbench("import", source, paths[0]).stdout.startswith("imported 1 new run")
    known = read_runs(tmp_path)
    for path in paths[1:]:
        assert labbench("import", source, path, "--dry-run").stdout.startswith("would import 0 new runs")
        assert labbench("import", source, path).stdout.startswith("imported 0 new runs, 0 points; 0 grown, 1 already")
    assert read_runs(tmp_path) == known


def test_a_renamed_experiment_keeps_its_runs(labbench: Labbench, tmp_path: Path, source: str) -> None:
    assert labbench("import", source, "project/logs").exit_code == 0
    assert labbench("rename", "logs", "baseline").exit_code == 0
    assert labbench("import", source, "project/logs").stdout.startswith("imported 0 new runs, 0 points")
    assert read_runs(tmp_path).keys() == {"baseline: first"}


def test_equal_logs_of_two_projects_are_two_runs(labbench: Labbench, tmp_path: Path, source: str) -> None:
    shutil.copytree(tmp_path / "project", tmp_path / "other")
    for project in ("project", "other"):
        assert labbench("import", source, project).stdout.startswith("imported 1 new run")
    assert labbench("import", source, "other", "--experiment", "again").stdout.startswith("imported 1 new run")


def test_runs_that_earlier_versions_imported_are_known(labbench: Labbench, tmp_path: Path, source: str) -> None:
    """They were known by the path relative to the imported folder in an experiment of its name."""

    def as_before(found: FoundRun) -> FoundRun:
        run = found.read()
        assert run.earlier_id is not None
        return replace(found, read=lambda: replace(run, id=str(run.earlier_id), earlier_id=None, other_ids=()))

    runs = [as_before(found) for found in reader_of(source)(tmp_path / "project" / "logs")]
    assert import_runs(tmp_path / "runs.db", runs, source).n_new == 1
    for path in ("project/logs", "project"):
        assert labbench("import", source, path).stdout.startswith("imported 0 new runs, 0 points; 0 grown, 1 already")


def live_event_files(folder: Path) -> Iterator[None]:
    """Yield as a writer opens its event file, names its version, and writes scalars."""
    file = write_event_file(folder, [("loss", 0, 2.0), ("loss", 1, 1.0)])
    content = file.read_bytes()
    for n_bytes in (0, 30, content.index(b"loss") + 20, len(content)):
        file.write_bytes(content[:n_bytes])
        yield


def live_trainer_states(folder: Path) -> Iterator[None]:
    """Yield as the Trainer saves its state before and after it has logged something."""
    folder.mkdir(parents=True)
    history: list[dict[str, object]] = []
    for step in range(3):
        state = {"log_history": history[:step], "global_step": step, "max_steps": 2}
        (folder / "trainer_state.json").write_text(json.dumps(state))
        history.append({"step": step + 1, "loss": 0.5})
        yield


@pytest.mark.parametrize(("source", "write"), [("tensorboard", live_event_files), ("huggingface", live_trainer_states)])
def test_a_run_without_points_is_completed(
    labbench: Labbench, tmp_path: Path, source: str, write: Callable[[Path], Iterator[None]]
) -> None:
    for _ in write(tmp_path / "logs" / "a"):
        assert labbench("import", source, "logs").exit_code == 0
    [run] = read_runs(tmp_path).values()
    assert next(iter(run.summary.values())).n == 2


def test_the_id_of_a_run_counts_in_every_experiment(labbench: Labbench, tmp_path: Path) -> None:
    files = WRITERS / "wandb" / "files"
    n_runs = len([*files.rglob("*.wandb")])
    assert labbench("import", "wandb", files, "--experiment", "mine").stdout.startswith(f"imported {n_runs} new")
    assert labbench("import", "wandb", files).stdout.splitlines()[0] == (
        f"imported 0 new runs, 0 points; 0 grown, {n_runs} already present"
    )
    assert {run.experiment for run in read_runs(tmp_path).values()} == {"mine"}


def test_a_second_experiment_for_the_same_runs_is_answered_with_rename(labbench: Labbench, tmp_path: Path) -> None:
    files = WRITERS / "wandb" / "files"
    assert labbench("import", "wandb", files, "--experiment", "mine").exit_code == 0
    known = read_runs(tmp_path)
    for more in ((), ("--dry-run",)):
        again = labbench("import", "wandb", files, "--experiment", "my paper", *more)
        assert again.exit_code == 0
        assert again.stderr == (
            f"{len(known)} runs are in the experiment mine already; a run is in one experiment only. "
            "To rename this one: labbench rename mine 'my paper'\n"
        )
    assert read_runs(tmp_path) == known
    assert labbench("import", "wandb", files, "--experiment", "mine").stderr == ""


@pytest.mark.parametrize("format_name", ["wandb", "mlflow", "trackio"])
def test_runs_with_ids_are_known_after_the_named_experiment_was_renamed(
    labbench: Labbench, tmp_path: Path, format_name: str
) -> None:
    files = WRITERS / format_name / "files"
    words = ("import", format_name, files, "--experiment", "mine")
    assert labbench(*words).exit_code == 0
    n_runs = len(read_runs(tmp_path))
    assert labbench("rename", "mine", "baseline").exit_code == 0
    again = labbench(*words)
    assert (again.exit_code, again.stdout.startswith("imported 0 new runs, 0 points")) == (0, True), again.output
    assert len(read_runs(tmp_path)) == n_runs
    assert {run.experiment for run in read_runs(tmp_path).values()} == {"baseline"}
