"""The web site of the documentation: its pages, and those that are generated from the code."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from types import ModuleType
from xml.etree import ElementTree

import click
import pytest

pytest.importorskip("torch")

import labbench
from helpers.programs import load_program
from labbench.cli import main
from labbench.params.builtin import BUILTIN

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def generator() -> ModuleType:
    """Return the program that generates pages of the reference."""
    return load_program("docs/reference_pages.py")


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
    assert "log(metrics: Mapping[str, Any], step: int | None = None" in page


def test_the_recording_shows_commands_and_their_output_in_order() -> None:
    recording = load_program("docs/recording.py")
    assert 'name = "first"' in recording.first_grid()
    lines = [recording.Line(0.5, "$ labbench ls 'lr<1'", is_command=True), recording.Line(1.0, "█ 3 runs")]
    picture = ElementTree.fromstring(recording.draw(lines))
    assert [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")] == [line.text for line in lines]
    tracked = ElementTree.parse(ROOT / "docs" / "recording.svg").getroot()
    assert [command for command, _ in recording.COMMANDS] == [
        text.text[2:] for text in tracked.iter("{http://www.w3.org/2000/svg}text") if text.text.startswith("$ ")
    ]


# Messages of the FAQ.


def package_texts() -> list[str]:
    """Return the texts in the code of the package, with a zero character for each part that varies."""
    texts = []
    for module in Path(labbench.__file__).parent.rglob("*.py"):
        nodes = list(ast.walk(ast.parse(module.read_text(encoding="utf-8"))))
        docstrings = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
        for node in nodes:
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
                texts.append(node.value)
            elif isinstance(node, ast.JoinedStr):
                texts.append("".join(part.value if isinstance(part, ast.Constant) else "\0" for part in node.values))
    return texts


def has_in_order(text: str, parts: list[str]) -> bool:
    """Return True if a text has these parts one after another."""
    for part in parts:
        _, separator, text = text.partition(part) if part else ("", "-", text)
        if not separator:
            return False
    return True


def test_every_message_of_the_faq_is_in_the_program() -> None:
    page = (ROOT / "docs" / "faq.md").read_text(encoding="utf-8").partition("## Messages")[2]
    messages = [row.partition(" | ")[0].strip("| ") for row in page.splitlines() if row.startswith("| `")]
    assert len(messages) > 60
    texts = package_texts()
    for message in messages:
        parts = message.strip("`").split("…")
        assert max(map(len, parts)) >= 6, message
        assert any(has_in_order(text, parts) for text in texts), message
