"""Files that other programs wrote (tests/writers) are imported completely; importing them again changes nothing."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result

from labbench.configs import flatten
from labbench.store.maintenance.health import diagnose
from labbench.store.reader import Reader

WRITERS = Path(__file__).parents[1] / "writers"
FORMATS = sorted(path.parent.name for path in WRITERS.glob("*/expected.json"))

FORMAT_TAKES_FOLDERS = {"keras": False}


@pytest.mark.parametrize("name", FORMATS)
def test_every_run_config_and_point_is_imported_and_importing_again_changes_nothing(
    labbench: Callable[..., Result], tmp_path: Path, name: str
) -> None:
    expected = json.loads((WRITERS / name / "expected.json").read_text())["runs"]
    shutil.copytree(WRITERS / name / "files", tmp_path / "files")
    files = tmp_path / "files"
    paths = [files] if FORMAT_TAKES_FOLDERS.get(name, True) else sorted(files.iterdir())
    if name == "trackio-parquet":
        pytest.importorskip("pyarrow")
    source = name.partition("-")[0]
    result = labbench("import", source, *paths)
    assert (result.exit_code, f"imported {len(expected)} new run" in result.stdout) == (0, True), result.output
    with Reader(tmp_path / "runs.db") as reader:
        runs = {run.name: run for run in reader.runs()}
        assert runs.keys() == expected.keys()
        for label, run in runs.items():
            if "config" in expected[label]:
                assert run.config == dict(flatten(expected[label]["config"])), label
            assert run.config.items() >= expected[label].get("config includes", {}).items()
            assert run.status == expected[label].get("status", "finished")
            series = expected[label]["series"]
            assert run.summary.keys() == series.keys(), label
            for metric, points in series.items():
                steps, values = reader.series(run.key, metric)
                pairs = [
                    [int(step), None if math.isnan(value) else value] for step, value in zip(steps, values, strict=True)
                ]
                assert pairs == points, (label, metric)
    assert diagnose(tmp_path / "runs.db").is_sound
    again = labbench("import", source, *paths)
    assert again.stdout.splitlines()[0] == f"imported 0 new runs, 0 points; 0 grown, {len(expected)} already present"


@pytest.mark.parametrize("name", FORMATS)
def test_the_table_of_formats_has_writer_and_number_of_compared_values(name: str) -> None:
    document = json.loads((WRITERS / name / "expected.json").read_text())
    runs = document["runs"].values()
    n_values = sum(
        len(run.get("config", {})) + len(run.get("config includes", {})) + sum(map(len, run["series"].values()))
        for run in runs
    )
    source, _, variant = name.partition("-")
    program, version = {"huggingface": "transformers"}.get(source, source), document["program"].rpartition(" ")[2]
    table = (WRITERS.parents[1] / "docs" / "reference" / "formats.md").read_text(encoding="utf-8")
    start = f"| `{source}`, {variant.capitalize()} |" if variant else f"| `{source}` |"
    [row] = [line for line in table.splitlines() if line.startswith(start)]
    assert row.endswith(f"| {n_values} | {program} {version} |")


def test_written_files_name_no_host_user_or_folder() -> None:
    """The files are public."""
    personal = {Path.home().name, Path.home().as_posix()} - {"root", "/root"} | {"/home/"}
    for path in WRITERS.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert not [word for word in personal if word.encode() in content or word in path.name], path
