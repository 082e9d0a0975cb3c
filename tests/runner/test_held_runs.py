"""Runs of SLURM jobs without a driver: released once their scheduler has lost the job, stopped and deleted."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from helpers.store_samples import new_run, queue
from labbench.executors.slurm import scheduler
from labbench.records import RunRecord
from labbench.runner.held_runs import find_held_jobs, settle_held_jobs
from labbench.store.liveness import HOST
from labbench.store.reader import Reader
from labbench.store.writer import Writer

Labbench = Callable[..., Result]

CLAIM = """
import sys
from pathlib import Path
from labbench.records import Submitted
from labbench.store.writer import Writer
with Writer(Path(sys.argv[1])) as writer:
    for run in writer.claim(sys.argv[3:]):
        writer.write([Submitted(run.key, 1, "slurm", sys.argv[2], "99999999")])
"""


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def hold(db: Path, cluster: str) -> list[RunRecord]:
    """Return two runs that a driver has left to a job that does not exist, whose folder is lost."""
    with Writer(db) as writer:
        runs = queue(writer, [new_run(index) for index in range(2)])
    subprocess.run([sys.executable, "-c", CLAIM, db, cluster, *(run.key for run in runs)], check=True)
    return runs


def statuses(db: Path) -> list[str]:
    with Reader(db) as reader:
        return [run.shown_status for run in reader.runs()]


def settle(db: Path) -> list[RunRecord]:
    with Writer(db) as writer, Reader(db) as reader:
        return settle_held_jobs(writer, reader.runs(), None)[0]


def test_runs_whose_job_has_ended_return_to_the_queue_also_if_its_folder_is_lost(db: Path) -> None:
    hold(db, HOST)
    assert statuses(db) == ["running (no driver)"] * 2
    assert [run.status for run in settle(db)] == ["queued", "queued"]
    assert not find_held_jobs(db)


def test_runs_whose_scheduler_is_elsewhere_or_cannot_be_asked_stay_with_their_jobs(
    db: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold(db, "another-cluster")
    settle(db)
    monkeypatch.setattr(scheduler, "_cluster_name", lambda: "another-cluster")
    monkeypatch.setattr(scheduler, "_run", lambda words: None)
    settle(db)
    assert statuses(db) == ["running (no driver)"] * 2
    monkeypatch.setattr(scheduler, "_run", lambda words: {})
    settle(db)
    assert statuses(db) == ["queued"] * 2


def test_runs_without_a_driver_can_be_stopped_and_deleted(labbench: Labbench, db: Path) -> None:
    stopped, deleted = hold(db, HOST)
    result = labbench("--db", db, "stop", stopped.key)
    assert result.stdout.startswith("1 running run asked to stop (running their grid records the end")
    assert "deleted 1 run" in labbench("--db", db, "rm", deleted.key, "--yes").stdout
    assert [run.status for run in settle(db)] == ["stopped"]
