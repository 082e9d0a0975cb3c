"""Several databases in one terminal interface: all their runs, live and read-only."""

from __future__ import annotations

from pathlib import Path

import pytest

from helpers.store_samples import new_run, points, queue, start
from helpers.waiting import wait_for
from labbench.errors import InputError
from labbench.sharing.union import open_union
from labbench.store.reader import Reader
from labbench.store.writer import Writer


def test_a_union_has_the_runs_of_all_databases_and_follows_them(tmp_path: Path) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    with Writer(first) as writer:
        [run] = start(writer, 1)
        writer.write([points(run, "loss", [2.0, 1.0])])
    with Writer(second) as writer:
        queue(writer, [new_run(0), new_run(1)])
    before = second.read_bytes()
    with open_union([first, second]) as union, Reader(union) as reader:
        assert union.name == "first + second.db"
        sources = [run.source for run in reader.runs()]
        assert sorted(map(str, sources)) == [str(first), str(second), str(second)]
        with Writer(first) as writer:
            writer.write([points(run, "loss", {5: 0.5})])
            wait_for(lambda: reader.find(run.key).summary["loss"].n == 3)
    assert not union.exists()
    assert second.read_bytes() == before


def test_a_union_with_a_missing_database_is_refused(tmp_path: Path, path: Path, other: Path) -> None:
    with pytest.raises(InputError, match="no such database"), open_union([other, path]):
        pass
