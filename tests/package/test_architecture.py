"""docs/architecture.md is a true map: every folder and module stands in its table, in the order of the layers."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "labbench"


def listed_paths() -> list[str]:
    """Return the paths in the first column of the tables under "Folders and modules"."""
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    section = text.split("## Folders and modules")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (.+?) \|", section, flags=re.MULTILINE)
    return [path for row in rows for path in re.findall(r"`([\w./]+)`", row)]


def test_every_folder_and_module_is_on_the_map() -> None:
    modules = {str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    folders = {str(path.parent.relative_to(PACKAGE)) + "/" for path in PACKAGE.rglob("__init__.py")} - {"./"}
    listed = listed_paths()
    assert len(listed) == len(set(listed)), "a path stands twice"
    assert set(listed) == modules | folders


def test_layers_on_the_map_are_those_that_the_import_contracts_hold() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    order = {
        name.strip().removeprefix("labbench."): level for level, line in enumerate(layers) for name in line.split("|")
    }
    tops = [
        path.removesuffix("/").removesuffix(".py") for path in listed_paths() if path.count("/") == path.endswith("/")
    ]
    levels = [order[top] for top in tops if top != "__main__"]
    assert levels == sorted(levels)
    assert set(tops) - {"__main__"} == set(order)
