"""Data frames of runs: typed columns of the CSV, with NaN as NaN and missing values as null."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.store_samples import new_run, points, start
from labbench.errors import InputError
from labbench.store.queries import export_tables
from labbench.store.reader import Reader
from labbench.store.writer import Writer

PACKAGES = ["pandas", "polars"]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    path = tmp_path / "runs.db"
    with Writer(path) as writer:
        a, b = start(writer, [new_run(0, hidden=[8, 4], drop=1, mixed=True), new_run(1, drop=0.5, mixed="x")])
        writer.write([points(a, "loss", [1.0, math.nan]), points(b, "loss", {1: 2.5}), points(b, "step", {1: 7.0})])
    with Reader(path) as reader:
        yield reader


def frame(reader: Reader, package: str, **options: object) -> dict[str, list[object]]:
    """Return the columns of a data frame, with None for missing values."""
    pytest.importorskip(package)
    table = getattr(reader, f"to_{package}")(**options)
    if package == "polars":
        return table.to_dict(as_series=False)
    return {name: [None if _is_missing(value) else value for value in table[name].tolist()] for name in table.columns}


def _is_missing(value: object) -> bool:
    return value is None or (isinstance(value, float) and math.isnan(value))


@pytest.mark.parametrize("package", PACKAGES)
def test_summary_frame_has_one_row_per_run(reader: Reader, package: str) -> None:
    columns = frame(reader, package)
    assert columns["lr"] == [0.1, 0.1]
    assert columns["drop"] == [1.0, 0.5]
    assert columns["hidden"] == ["[8, 4]", None]
    assert columns["mixed"] == ["true", '"x"']
    assert columns["loss:n"] == [2, 1]
    assert columns["loss:min"] == [1.0, 2.5]
    assert columns["step:last"] == [None, 7.0]


@pytest.mark.parametrize("package", PACKAGES)
def test_long_frame_has_one_row_per_point_and_wide_frame_one_per_step(reader: Reader, package: str) -> None:
    long = frame(reader, package, shape="long", metrics=["loss"], filter="seed=1")
    assert (long["metric"], long["step"], long["time"], long["value"]) == (["loss"], [1], [0.01], [2.5])
    wide = frame(reader, package, shape="wide")
    assert (wide["step"], wide["metric.step"], len(wide["loss"])) == ([0, 1, 1], [None, None, 7.0], 3)


@pytest.mark.parametrize("package", PACKAGES)
def test_empty_frame_has_all_columns(reader: Reader, package: str) -> None:
    assert frame(reader, package, shape="long", filter="lr=9")["value"] == []


@pytest.mark.parametrize("package", PACKAGES)
def test_missing_package_is_named_in_the_error(reader: Reader, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(export_tables, "import_module", missing)
    with pytest.raises(InputError, match=f"pip install {package}"):
        getattr(reader, f"to_{package}")()
