"""Keys that the page on the terminal interface names exist on one of its screens."""

from __future__ import annotations

import re
from pathlib import Path

from textual.keys import _character_to_key
from textual.pilot import Pilot

from helpers.doc_pages import ROOT
from helpers.golden import press, use
from helpers.tui_samples import grid_of_runs

SCREENS = ((), ("2",), ("3",), ("4",), ("enter",))
"""Keys that open each screen from the first one."""


def documented_keys() -> set[str]:
    """Return the keys in the second column of the first table, by the names that Textual gives them."""
    table = (ROOT / "docs" / "howto" / "tui.md").read_text(encoding="utf-8").partition("| to | press |")[2]
    cells = [row.split(" | ")[1] for row in table.partition("\n\n")[0].splitlines()[2:]]
    words = [word for cell in cells for word in re.findall(r"`([^`\s]+)`", cell)]
    keys = [word for word in words if len(word) == 1 or word in ("space", "Enter") or word.startswith("ctrl+")]
    return {_character_to_key(key) if len(key) == 1 else key.lower() for key in keys}


def test_every_key_of_the_page_is_bound(tmp_path: Path) -> None:
    grid_of_runs(tmp_path / "runs.db")
    bound: set[str] = set()

    async def look(pilot: Pilot[None]) -> None:
        for keys in SCREENS:
            await press(pilot, *keys)
            bound.update(pilot.app.screen.active_bindings)
            await press(pilot, "escape")

    use(tmp_path / "runs.db", look)
    assert len(documented_keys()) > 25
    assert documented_keys() - bound == set()
