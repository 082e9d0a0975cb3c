"""Export of the view to files and to the clipboard."""

from __future__ import annotations

import csv
from pathlib import Path
from statistics import fmean

import pytest
from textual.pilot import Pilot

from helpers.golden import press, type_in, use, wait_for_words
from labbench.store.reader import Reader


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


async def save_as(pilot: Pilot[None], kind: str) -> str:
    await press(pilot, "e")
    await type_in(pilot, kind)
    await press(pilot, "enter")
    return await press(pilot, "enter")


def test_the_view_is_exported_as_csv_text_and_picture(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        assert "saved: runs-runs.csv" in await shown_after(pilot, "table as csv")
        await save_as(pilot, "as text")
        await save_as(pilot, "screen as an svg")
        assert "already exists" in await save_as(pilot, "table as csv")
        await press(pilot, "escape")

    async def shown_after(pilot: Pilot[None], kind: str) -> str:
        await save_as(pilot, kind)
        return await wait_for_words(pilot, "saved:")

    use(database, look)
    with (database.parent / "runs-runs.csv").open(newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0][:5] == ["optimizer", "lr", "seed", "last val/loss", "best val/loss"]
    assert len(rows) == 13
    assert [*rows[1][:3], float(rows[1][3]), float(rows[1][4])] == [
        "adam",
        "1.0",
        "1",
        pytest.approx(0.0929, abs=5e-5),
        pytest.approx(0.0545, abs=5e-5),
    ]
    assert len(rows[1][3]) > 10
    assert "val/accuracy" in (database.parent / "runs-runs.txt").read_text()
    assert (database.parent / "runs-runs.svg").read_text().startswith("<svg")


def test_the_comparison_is_exported_with_exact_values(database: Path) -> None:
    use(database, lambda pilot: save_view(pilot, "space", "j", "space", "2"))
    with (database.parent / "runs-compare.csv").open(newline="") as file:
        rows = {name: values for name, *values in csv.reader(file)}
    with Reader(database) as reader:
        first, second = (reader.find(key) for key in rows["key"])
    assert [float(value) for value in rows["lr"]] == [first.config["lr"], second.config["lr"]]
    assert [float(value) for value in rows["best val/loss"]] == [
        first.summary["val/loss"].min,
        second.summary["val/loss"].min,
    ]
    assert "batch_size" not in rows


def test_the_heat_map_is_exported_with_exact_means(database: Path) -> None:
    use(database, lambda pilot: save_view(pilot, "3"))
    with (database.parent / "runs-grid.csv").open(newline="") as file:
        titles, *rows = csv.reader(file)
    with Reader(database) as reader:
        runs = reader.runs("optimizer=sgd lr=0.01")
    assert titles == ["optimizer", "lr 0.001", "lr 0.01", "lr 1"]
    assert rows[1][0] == "sgd"
    assert float(rows[1][2]) == pytest.approx(fmean(run.summary["val/loss"].min for run in runs), rel=1e-12)
    assert rows[1][3] == ""


async def save_view(pilot: Pilot[None], *keys: str) -> None:
    await press(pilot, *keys)
    await save_as(pilot, "table as csv")
    assert "saved:" in await wait_for_words(pilot, "saved:")


def test_the_view_is_copied_to_the_clipboard_as_csv(database: Path) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "3", "Y")
        await type_in(pilot, "view as")
        await press(pilot, "enter")
        assert pilot.app.clipboard.splitlines()[0] == "optimizer,lr 0.001,lr 0.01,lr 1"

    use(database, look)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nosuchuser/x.csv", "the folder ~nosuchuser does not exist"),
        ("x" * 300, "File name too long"),
        ("x\0.csv", "x␀.csv is not a valid file name"),
        ("x\ud800.csv", "is not a valid file name"),
        ("runs.db/x.csv", "Not a directory"),
        ("nowhere/x.csv", "the folder nowhere does not exist"),
    ],
)
def test_a_file_that_cannot_be_created_is_refused_with_a_message(database: Path, name: str, message: str) -> None:
    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "e", "enter")
        pilot.app.focused.value = name  # some of these cannot be typed in a terminal
        assert message in await press(pilot, "enter")

    use(database, look)
