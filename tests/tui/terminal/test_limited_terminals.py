"""Readable output without colours and without UTF-8."""

from __future__ import annotations

from pathlib import Path

import pytest
from textual.pilot import Pilot

from helpers.golden import SMALL, press, screen, use
from helpers.tui_samples import grid_of_runs
from labbench.ascii_text import needs_ascii, to_ascii
from labbench.charts.glyphs import SERIES_GLYPHS, STATUS_GLYPHS
from labbench.tui.terminal.limited_terminals import AsciiFilter


def test_every_glyph_has_an_ascii_substitute() -> None:
    for glyph in SERIES_GLYPHS + "".join(look.glyph for look in STATUS_GLYPHS.values()):
        assert to_ascii(glyph).isascii()
        assert to_ascii(glyph) != "?" or glyph == "?"
    assert to_ascii("⠑⢄⡇⠉⣀⣿ ") == "\\\\|'_# "
    assert to_ascii("学 é") == "?? ?"


@pytest.mark.parametrize(
    ("environ", "ascii"),
    [
        ({}, False),
        ({"LANG": "en_US.UTF-8"}, False),
        ({"LANG": "C.utf8"}, False),
        ({"LANG": "C"}, True),
        ({"LANG": "C", "LC_CTYPE": "C.UTF-8"}, True),
        ({"LC_ALL": "de_DE.ISO-8859-1", "LANG": "de_DE.UTF-8"}, True),
        ({"LANG": "en_US.UTF-8", "LABBENCH_ASCII": "1"}, True),
    ],
)
def test_ascii_is_used_for_locales_with_another_encoding(environ: dict[str, str], ascii: bool) -> None:
    assert needs_ascii(environ) is ascii


def test_without_utf8_every_line_is_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABBENCH_ASCII", "1")
    grid_of_runs(tmp_path / "runs.db")

    async def look(pilot: Pilot[None]) -> None:
        await press(pilot, "space", "j", "space", "y")
        [ascii_filter] = [f for f in pilot.app.get_line_filters() if isinstance(f, AsciiFilter)]
        background = pilot.app.screen.background_colors[1]
        lines = [ascii_filter.apply(list(strip), background) for strip in pilot.app.screen._compositor.render_strips()]
        drawn = "\n".join("".join(segment.text for segment in line) for line in lines)
        assert drawn.isascii()
        assert {len(line) for line in drawn.splitlines()} == {SMALL[0]}
        assert "val/loss" in drawn

    use(tmp_path / "runs.db", look, size=SMALL)


def test_without_colours_lines_have_glyphs_along_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid_of_runs(tmp_path / "runs.db")

    def glyphs_on_the_chart(with_colours: bool) -> int:
        counts = []

        async def look(pilot: Pilot[None]) -> None:
            await press(pilot, "space", "j", "j", "j", "space")
            counts.append(screen(pilot).count("●"))

        monkeypatch.setenv("NO_COLOR", "1")
        if with_colours:
            monkeypatch.delenv("NO_COLOR")
        use(tmp_path / "runs.db", look)
        return counts[0]

    assert glyphs_on_the_chart(with_colours=False) >= glyphs_on_the_chart(with_colours=True) + 3
