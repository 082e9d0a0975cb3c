"""Spill files are merged into the database once, as far as they are intact."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from helpers import scripts
from labbench.records import Points
from labbench.store.reader import Reader
from labbench.store.script_writer import ScriptWriter
from labbench.store.scripts.script_run import new_script_run
from labbench.store.scripts.spill import Spill


def write_spill_file(folder: Path, steps: int = 3) -> Path:
    """Write a spill file of the run `abcdefgh`, which the database need not have."""
    run = replace(new_script_run("spilled", "e", {"lr": 0.1}), key="abcdefgh", status="failed", finished=time.time())
    spill = Spill(folder / "runs.db", run)
    spill.append(run, [Points("abcdefgh", 1, "loss", [*range(steps)], [0] * steps, [0.5] * steps)])
    spill.close()
    return spill.path


def test_spill_file_with_a_torn_last_line_is_merged_up_to_it(tmp_path: Path) -> None:
    with write_spill_file(tmp_path).open("ab") as file:
        file.write(b'{"points": {"metric": "loss", "st')
    scripts.merge_spill_files(tmp_path)
    assert scripts.only_run(tmp_path).summary["loss"].n == 3
    assert scripts.database_files(tmp_path) == ["runs.db"]


def test_merging_a_spill_file_twice_changes_nothing(tmp_path: Path) -> None:
    path = write_spill_file(tmp_path)
    content = path.read_bytes()
    scripts.merge_spill_files(tmp_path)
    path.write_bytes(content)
    scripts.merge_spill_files(tmp_path)
    assert scripts.only_run(tmp_path).summary["loss"].n == 3


def test_spill_file_of_an_earlier_attempt_is_kept_and_changes_nothing(tmp_path: Path) -> None:
    with ScriptWriter(tmp_path / "runs.db") as writer:
        write_spill_file(tmp_path)
        writer.merge_spilled()
        assert writer.resume("abcdefgh")[0].attempt == 2
        write_spill_file(tmp_path, steps=100)
        with pytest.warns(UserWarning, match=r"superseded-abcdefgh-.*resumed before this data of an earlier attempt"):
            writer.merge_spilled()
        writer.merge_spilled()
    assert scripts.only_run(tmp_path).summary["loss"].n == 3
    [kept] = tmp_path.glob("runs.db.superseded-*.jsonl")
    assert len(kept.read_text().splitlines()) == 2


def test_spill_file_of_the_first_release_is_merged(tmp_path: Path) -> None:
    path = write_spill_file(tmp_path)
    first, *others = path.read_text().splitlines(keepends=True)
    run = json.loads(first)["run"]
    del run["process"]
    path.write_text(json.dumps({"run": {**run, "host": "there", "pid": 7}}) + "\n" + "".join(others))
    scripts.merge_spill_files(tmp_path)
    assert scripts.only_run(tmp_path).host == "there"
    assert scripts.database_files(tmp_path) == ["runs.db"]


def test_damaged_spill_file_stays_and_causes_a_warning(tmp_path: Path) -> None:
    path = write_spill_file(tmp_path)
    path.write_bytes(b'{"points": 3}\n')
    with pytest.warns(UserWarning, match="damaged spill file, not merged into the database"):
        scripts.merge_spill_files(tmp_path)
    assert path.exists()


@pytest.mark.parametrize(("column", "value"), [("finished", "late"), ("status", "odd"), ("reason", [1])])
def test_spill_file_with_a_value_of_another_type_stays_and_changes_nothing(
    tmp_path: Path, column: str, value: object
) -> None:
    path = write_spill_file(tmp_path)
    first, *others = [json.loads(line) for line in path.read_text().splitlines()]
    first["run"][column] = value
    path.write_text("".join(json.dumps(line) + "\n" for line in (first, *others)))
    with pytest.warns(UserWarning, match="damaged spill file, not merged into the database"):
        scripts.merge_spill_files(tmp_path)
    assert path.exists()
    with Reader(tmp_path / "runs.db") as reader:
        assert reader.count() == 0


def test_spill_file_that_a_process_still_writes_is_skipped(tmp_path: Path) -> None:
    run = replace(new_script_run("spilled", "e", {}), key="abcdefgh")
    spill = Spill(tmp_path / "runs.db", run)
    spill.append(run)
    scripts.merge_spill_files(tmp_path)
    assert scripts.spill_files(tmp_path) == [spill.path]
    spill.close()
    scripts.merge_spill_files(tmp_path)
    assert scripts.spill_files(tmp_path) == []
