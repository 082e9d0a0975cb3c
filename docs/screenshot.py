"""Create the SVG screenshot of the terminal interface in the README.

    python docs/screenshot.py runs.db.example docs/tui.svg
    python docs/screenshot.py runs.db docs/tui.svg --size 200x50 --light --keys "space j space y"

Needs no terminal. Keys have Textual's names (`space`, `j`, `enter`) and are pressed one after another.
"""

from __future__ import annotations

import argparse
import asyncio
from pathlib import Path

from labbench.cli.tui import EXAMPLE_FILTER
from labbench.tui.app import LabbenchApp
from labbench.tui.theme import DARK, LIGHT

DEFAULT_KEYS = "space j j j space y"
"""Keys that mark two runs and switch to a logarithmic axis."""


async def draw(
    database: Path, picture: Path, *, size: tuple[int, int], theme: str, expression: str, keys: list[str]
) -> None:
    """Open the database in a terminal of this size, press the keys, and write the screenshot."""
    app = LabbenchApp(database)
    app.session.restore({"filter": expression})
    async with app.run_test(size=size) as pilot:
        app.theme = theme
        for key in ["", *keys]:
            if key:
                await pilot.press(key)
            await pilot.pause(0.3)  # until the worker has read the database
        picture.write_text(app.export_screenshot(title="labbench", simplify=True), encoding="utf-8")


def main() -> None:
    """Parse the command line and draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("database", type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--size", default="140x38", metavar="COLUMNSxROWS")
    parser.add_argument("--light", action="store_true", help="use the light theme")
    parser.add_argument("--filter", default=EXAMPLE_FILTER)
    parser.add_argument("--keys", default=DEFAULT_KEYS)
    options = parser.parse_args()
    columns, rows = map(int, options.size.split("x"))
    theme = (LIGHT if options.light else DARK).name
    look = {"size": (columns, rows), "theme": theme, "expression": options.filter, "keys": options.keys.split()}
    asyncio.run(draw(options.database, options.picture, **look))


if __name__ == "__main__":
    main()
