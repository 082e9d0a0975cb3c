"""Every key in the tables of docs/tui.md is bound on its screen and explained in help and palette."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import press, use
from helpers.tui_samples import grid_of_runs
from labbench.tui.charts.panel import ChartPanel

TEXT = (Path(__file__).parents[2] / "docs" / "tui.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| (.+) \| `([^`]+)` \| (\w+) \|$", TEXT, re.MULTILINE)
NAMES = {
    "*": "asterisk", "+": "plus", "=": "equals_sign", ">": "greater_than_sign", "#": "number_sign", "/": "slash",
    ":": "colon", "@": "at", "{": "left_curly_bracket", "%": "percent_sign", "?": "question_mark",
}  # fmt: skip
PLACES = {"runs": (), "compare": ("2",), "grid": ("3",), "run": ("enter",), "charts": ("tab",)}


def test_the_tables_list_keys_of_every_screen() -> None:
    assert {place for _, _, place in ROWS} == set(PLACES)
    assert len(ROWS) > 45


@pytest.mark.parametrize("place", PLACES)
def test_every_key_in_the_tables_is_bound_and_explained(tmp_path: Path, place: str) -> None:
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, *PLACES[place])
        assert place != "charts" or isinstance(pilot.app.focused, ChartPanel)
        bound = pilot.app.screen.active_bindings
        for feature, key, where in ROWS:
            if where == place:
                name = NAMES.get(key, key)
                assert name in bound, f"{feature}: `{key}` is not bound"
                assert bound[name].binding.tooltip, f"{feature}: `{key}` has no explanation"

    use(tmp_path / "runs.db", look)
