"""The web site of the documentation: its pages, and those that are generated from the code."""

from __future__ import annotations

import re
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import click
import pytest

pytest.importorskip("torch")

import labbench
from labbench.cli import main
from labbench.params.builtin import BUILTIN

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """Return the program that generates pages of the reference."""
    spec = spec_from_file_location("reference_pages", ROOT / "docs" / "reference_pages.py")
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    sys.modules["reference_pages"] = module
    spec.loader.exec_module(module)
    return module


def test_every_page_is_in_the_navigation(generator: ModuleType) -> None:
    linked = re.findall(r": ([\w/]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.MULTILINE)
    written = [page.relative_to(ROOT / "docs").as_posix() for page in (ROOT / "docs").rglob("*.md")]
    assert sorted(linked) == sorted([*written, *generator.pages()])


def test_the_generated_pages_have_every_command_and_option(generator: ModuleType) -> None:
    sections = generator.pages()["reference/commands.md"].split("\n## ")
    for name, command in generator.walk("labbench", main):
        [section] = [text for text in sections if text.startswith(f"`{name}`\n")]
        for param in command.params:
            if isinstance(param, click.Option):
                assert all(f"`{option}`" in section for option in param.opts), (name, param.opts)


def test_the_generated_pages_have_every_parameter_with_its_default(generator: ModuleType) -> None:
    page = generator.pages()["reference/parameters.md"]
    for params in BUILTIN.values():
        for key, param in params.items():
            assert f"| `{key}` | {param.type} | {generator.code(param.default)} |" in page
    assert "| `label_smoothing` | float | `0.0` | `0 <= x < 1` |" in page
    assert "| `snapshot_every` | duration | `30.0` |" in page


def test_the_generated_pages_have_every_public_name(generator: ModuleType) -> None:
    page = generator.pages()["reference/api.md"]
    for name in labbench.__all__:
        assert f"## `labbench.{name}`\n" in page or name == "__version__"
    assert "### `Reader.runs`" in page
