"""Compaction of a database."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from click.testing import Result

from helpers.store_samples import new_run, queue, start
from labbench.records import Finished
from labbench.store.maintenance.health import diagnose
from labbench.store.writer import Writer


def test_vacuum_shrinks_the_file_and_is_refused_while_runs_are_running(
    labbench: Callable[..., Result], other: Path
) -> None:
    size = other.stat().st_size
    with Writer(other) as writer:
        [running] = start(writer, [new_run(9)])
        assert "1 run is running" in labbench("vacuum", "--db", other).stderr
        writer.write([Finished(running.key, 1, "finished", "all epochs")])
        writer.remove([run.key for run in queue(writer, [new_run(0)])])
    assert "MB now" in labbench("vacuum", "--db", other).stdout
    assert other.stat().st_size < size / 5
    assert diagnose(other).is_sound
    assert labbench("vacuum", "--db", "nothing.db").exit_code == 2
    assert not Path("nothing.db").exists()
