"""Create docs/pictures/: every screen of the terminal interface at two sizes, on dark and light ground.

    python docs/pictures.py runs.db.example docs/pictures

Needs no terminal. Pictures are SVG, compressed by leaving out what does not change the drawing.
"""

from __future__ import annotations

import argparse
import asyncio
import re
from pathlib import Path

from textual.pilot import Pilot

from labbench.cli.tui import EXAMPLE_FILTER
from labbench.tui.app import LabbenchApp
from labbench.tui.theme import DARK, LIGHT

SCREENS = {
    "runs": "",
    "compare": "space j j j space 2",
    "grid": "3",
    "why": "4",
    "run": "enter",
}
"""Keys that show each screen."""
SIZES = ((120, 40), (200, 50))


async def draw(database: Path, keys: str, *, size: tuple[int, int], theme: str) -> str:
    """Return the screen after these keys as SVG."""
    app = LabbenchApp(database, theme=theme)
    app.session.restore({"filter": EXAMPLE_FILTER})
    async with app.run_test(size=size) as pilot:
        await settle(pilot)
        for key in keys.split():
            await pilot.press(key)
            await settle(pilot)
        ground = app.screen.background_colors[1].hex.lower()
        return compress(app.export_screenshot(title="labbench", simplify=True), ground)


async def settle(pilot: Pilot[None]) -> None:
    """Wait until the thread workers have read what the screen shows."""
    for _ in range(3):
        await pilot.pause(0.05)
        while any(worker.group != "watch" and not worker.is_finished for worker in pilot.app.workers):
            await pilot.pause(0.05)


def compress(svg: str, ground: str) -> str:
    """Return an SVG picture on one ground, without web fonts, comments, clip paths, and cells of the same ground."""
    svg = re.sub(r"@font-face \{.*?\}|<!--.*?-->|<clipPath id=.*?</clipPath>", "", svg, flags=re.DOTALL)
    svg = re.sub(r' clip-path="[^"]*"| shape-rendering="crispEdges"', "", svg)
    svg = re.sub(r'(="\d+\.\d)\d+', r"\1", re.sub(r"terminal-\d+-", "t", svg))
    svg = re.sub(r'<rect fill="#292929"', f'<rect fill="{ground}"', svg, count=1)
    svg = re.sub(rf'<rect fill="{ground}" x="[^"]*" y="[^"]*" width="[^"]*" height="24.6"/>', "", svg)
    return re.sub(r"\n\s+", "\n", svg)


def main() -> None:
    """Parse the command line and draw all screens."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    options.folder.mkdir(exist_ok=True)
    for name, keys in SCREENS.items():
        for size in SIZES:
            for theme in (DARK, LIGHT):
                picture = asyncio.run(draw(options.database, keys, size=size, theme=theme.name))
                ground = theme.name.removeprefix("labbench-")
                (options.folder / f"{name}-{size[0]}x{size[1]}-{ground}.svg").write_text(picture, encoding="utf-8")


if __name__ == "__main__":
    main()
