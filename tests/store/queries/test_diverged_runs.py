"""Runs whose last loss is not finite count as diverged, also if an earlier version recorded them as finished."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import Result

import labbench
from helpers.store_samples import execute, new_run, points, start
from labbench.records import Finished, RunRecord
from labbench.store.connection import open_for_reading
from labbench.store.queries.run_sql import HAS_DIVERGED, REASON, STATUS
from labbench.store.reader import Reader
from labbench.store.writer import Writer

NAN, INF = math.nan, math.inf


@pytest.fixture
def db(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


def record(db: Path, metric: str, values: list[float], status: str = "finished", *, by_earlier_version: bool) -> None:
    """Record one run beside a good one."""
    with Writer(db) as writer:
        good, run = start(writer, [new_run(0, name="good"), new_run(1, name="run")])
        writer.write([points(good, "val/loss", [1.0, 0.5]), points(run, metric, values)])
        writer.write([Finished(each.key, 1, "finished", "all epochs") for each in (good, run)])
    if by_earlier_version or status != "finished":
        execute(db, f"UPDATE runs SET status = '{status}', reason = 'all epochs' WHERE name = 'run'")


def read(db: Path) -> RunRecord:
    with Reader(db) as reader:
        return reader.find("run")


@pytest.mark.parametrize("by_earlier_version", [True, False])
@pytest.mark.parametrize("last", [NAN, INF, -INF])
@pytest.mark.parametrize("metric", ["val/loss", "train/loss", "perplexity"])
def test_a_finished_run_whose_last_loss_is_not_finite_has_diverged(
    db: Path, metric: str, last: float, by_earlier_version: bool
) -> None:
    record(db, metric, [1.0, 0.1, last], by_earlier_version=by_earlier_version)
    before = db.read_bytes()
    run = read(db)
    assert (run.status, run.reason) == ("diverged", f"non-finite {metric} at step 2")
    assert run.best(metric, "min") is None
    with Reader(db) as reader:
        assert reader.status_counts() == {"finished": 1, "diverged": 1}
        assert [each.name for each in reader.each_run("status=diverged")] == ["run"]
        assert [each.name for each in reader.finished("grid")] == ["good"]
        assert len(reader.identities("grid", statuses=["diverged"])) == 1
        assert [row[1:] for row in reader.values(["status", f"best({metric})"], "name=run")] == [
            ("[]", "diverged", None)
        ]
    assert db.read_bytes() == before


@pytest.mark.parametrize("by_earlier_version", [True, False])
@pytest.mark.parametrize(
    ("metric", "values"),
    [
        ("val/loss", [1.0, NAN, 0.5]),  # a single NaN, from which it recovers
        ("val/loss", [1.0, 1e308]),
        ("val/accuracy", [0.1, NAN]),  # such as a mean over no sample
        ("grad_norm", [1.0, INF]),
    ],
)
def test_other_finished_runs_have_not_diverged(
    db: Path, metric: str, values: list[float], by_earlier_version: bool
) -> None:
    record(db, metric, values, by_earlier_version=by_earlier_version)
    assert (read(db).status, read(db).reason) == ("finished", "all epochs")
    assert (read(db).best(metric, "min") is None) == (not math.isfinite(values[-1]))
    with Reader(db) as reader:
        assert len(reader.keys(f"{metric}=nan")) == math.isnan(values[-1])


@pytest.mark.parametrize("status", ["failed", "stopped", "pruned", "queued"])
def test_a_run_that_did_not_finish_keeps_its_status(db: Path, status: str) -> None:
    record(db, "val/loss", [1.0, NAN], status, by_earlier_version=True)
    assert read(db).status == status
    with Reader(db) as reader:
        assert reader.keys("status=diverged") == []
        assert [row[2] for row in reader.values(["best(val/loss)"], "name=run")] == [None]


def test_a_diverged_run_of_an_earlier_version_is_retried_from_the_start(db: Path) -> None:
    record(db, "val/loss", [1.0, NAN], by_earlier_version=True)
    execute(db, "UPDATE runs SET boundary = 1")
    with Writer(db) as writer:
        assert writer.retry([read(db).key]) == [read(db).key]
    assert (read(db).status, read(db).boundary) == ("queued", 0)


def test_a_script_that_is_resumed_after_its_divergence_may_finish(db: Path) -> None:
    with labbench.start(name="run", db=db, system_metrics=False) as script:
        script.log({"val/loss": 0.5}, step=0)
        script.log({"val/loss": NAN}, step=1)
    assert read(db).status == "diverged"
    with labbench.start(resume=script.key, db=db, system_metrics=False) as script:
        assert read(db).status == "running"
        script.log({"val/loss": 0.4}, step=2)
    assert (read(db).status, read(db).best("val/loss", "min")) == ("finished", 0.4)


def test_an_imported_run_that_grows_may_diverge_and_recover(
    db: Path, tmp_path: Path, labbench: Callable[..., Result]
) -> None:
    lines = ["step,val/loss", "0,1.0"]
    for step, (value, status) in enumerate([("nan", "diverged"), ("0.5", "finished"), ("inf", "diverged")], 1):
        lines.append(f"{step},{value}")
        (tmp_path / "run.csv").write_text("\n".join(lines) + "\n")
        assert labbench("import", "run.csv").exit_code == 0
        assert read(db).status == status
    execute(db, "UPDATE runs SET status = 'finished', reason = NULL")  # as earlier versions imported it
    assert (read(db).status, read(db).reason) == ("diverged", "non-finite val/loss at step 1")


def test_every_command_agrees_on_a_diverged_run_of_an_earlier_version(
    db: Path, labbench: Callable[..., Result]
) -> None:
    record(db, "val/loss", [1.0, 0.1, NAN], by_earlier_version=True)
    shown = labbench("show", "run").stdout
    assert "diverged: non-finite val/loss at step 2" in shown
    assert "0.1000" not in shown
    assert "1 finished, 1 diverged" in labbench("experiments").stdout
    assert labbench("ls", "status=diverged", "--columns", "name", "--format", "csv").stdout.count("diverged") == 1
    assert "diverged" in labbench("export", "name=run", "--summary").stdout
    assert '"status": "diverged"' in labbench("ls", "name=run", "--json").stdout
    assert "1 of 2 runs diverged" in labbench("why", "val/loss").stdout
    compared = labbench("compare", "run", "good", "--format", "csv").stdout.splitlines()
    assert compared[1] == "status,diverged,finished"
    assert "best val/loss,'-,0.5000" in compared


def test_the_status_is_read_with_the_index_of_series_that_do_not_end_finite(db: Path) -> None:
    record(db, "val/loss", [1.0, NAN], by_earlier_version=True)
    with closing(open_for_reading(db, live=True)) as connection:
        for expression in (STATUS, REASON, HAS_DIVERGED):
            plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT {expression} FROM runs").fetchall()
            assert any("summary_not_finite" in row[3] for row in plan), plan
