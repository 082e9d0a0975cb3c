"""Several databases in one terminal interface: all their runs, live and read-only."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

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


def test_runs_of_several_databases_are_listed_filtered_and_sorted_by_their_source(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    for name, rate, loss in (("a.db", 0.1, 3.0), ("b.db", 0.2, 1.0)):
        with Writer(tmp_path / name) as writer:
            [run] = start(writer, [new_run(lr=rate, name=f"of {name}")])
            writer.write([points(run, "loss", [loss, loss / 2])])
    table = labbench("ls", "a.db", "b.db", "--sort", "best(loss)", "--format", "csv").stdout
    rows = list(csv.DictReader(table.splitlines()))
    assert [(row["source"], row["lr"]) for row in rows] == [("b.db", "0.2"), ("a.db", "0.1")]
    rows = json.loads(labbench("ls", "a.db", "b.db", "source=a.db", "--json").stdout)
    assert [(row["name"], row["source"]) for row in rows] == [("of a.db", "a.db")]
    rows = json.loads(labbench("ls", "a.db", "b.db", "lr>0.1", "source~A,b", "--sort", "source", "--json").stdout)
    assert [row["source"] for row in rows] == ["b.db"]
    assert json.loads(labbench("ls", "b.db", "--json").stdout)[0]["name"] == "of b.db"
    assert "no run has a config key or a metric `source`" in labbench("ls", "b.db", "source=b.db").stderr
    result = labbench("ls", "a.db", "missing.db")
    assert (result.exit_code, "missing.db: no such database" in result.stderr) == (2, True)


def test_a_config_key_called_source_takes_precedence_in_filters(
    labbench: Callable[..., Result], tmp_path: Path
) -> None:
    for name, word in (("a.db", "mnist"), ("b.db", "svhn")):
        with Writer(tmp_path / name) as writer:
            start(writer, [new_run(source=word, name=word)])
    rows = json.loads(labbench("ls", "a.db", "b.db", "source=mnist", "--json").stdout)
    assert [row["name"] for row in rows] == ["mnist"]
    assert labbench("ls", "a.db", "b.db", "source=a.db", "--json").stdout == "[]\n"


def test_a_union_with_a_missing_database_is_refused(tmp_path: Path, path: Path, other: Path) -> None:
    with pytest.raises(InputError, match="no such database"), open_union([other, path]):
        pass
