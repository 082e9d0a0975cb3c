"""Where each key and value of a TOML document stands, which `tomllib` does not tell.

The document has been read by `tomllib` already, so that this scanner may take for granted that it is valid: it
steps over values without understanding them.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

Path: TypeAlias = tuple[str | int, ...]
"""Keys and list indices from the top: `("grid", "lr", 2)`; an array of tables has an index too."""

Span: TypeAlias = tuple[int, int]
"""Offsets of the first character and of the one behind the last."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*""")
_SCALAR = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""(?:"{0,2})'''
    r"""|\'\'\'.*?\'\'\'(?:'{0,2})"""
    r'''|"(?:[^"\\\n]|\\.)*"'''
    r"""|'[^'\n]*'"""
    r"|\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]+"  # a date and a time may be two words
    r"|[^\s,\]}#]+",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Positions:
    """The spans of a document. A key that a table header or a dotted key defines on the way is in `keys` alone."""

    text: str
    keys: dict[Path, Span] = field(default_factory=dict)
    values: dict[Path, Span] = field(default_factory=dict)

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Both count from 1, columns in characters."""
        return self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)


def find_positions(text: str) -> Positions:
    """Spans of every key and value of a valid TOML document."""
    positions = Positions(text)
    scanner = _Scanner(text, positions)
    scanner.document()
    return positions


class _Scanner:
    """Reads the document once; each method leaves `at` behind what it stepped over."""

    def __init__(self, text: str, positions: Positions) -> None:
        self.text = text
        self.positions = positions
        self.at = 0
        self.lengths: dict[Path, int] = {}
        """Of the arrays of tables, by path."""

    def document(self) -> None:
        table: Path = ()
        while self.blank() < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        """`[a.b]` or `[[a.b]]`: the path of the table it opens."""
        start = self.at
        is_array = self.text.startswith("[[", start)
        self.at += 2 if is_array else 1
        path: Path = ()
        for part, span in self.dotted():
            if path in self.lengths:
                path += (self.lengths[path] - 1,)
            path += (part,)
            self.positions.keys.setdefault(path, span)
        self.at += 2 if is_array else 1
        if is_array:
            self.lengths[path] = self.lengths.get(path, 0) + 1
            path += (self.lengths[path] - 1,)
            self.positions.keys[path] = (start, self.at)
        return path

    def pair(self, table: Path) -> None:
        path = table
        for part, span in self.dotted():
            path += (part,)
            self.positions.keys.setdefault(path, span)
        self.at += 1  # the equals sign
        self.blank()
        self.value(path)

    def dotted(self) -> Iterator[tuple[str, Span]]:
        """The parts of a key, unquoted, with their spans; ends behind the last and its spaces."""
        while True:
            found = _KEY_PART.match(self.text, self.at)
            assert found is not None, "tomllib has read this key"
            self.at = found.end()
            word = found[1]
            yield tomllib.loads(f"key = {word}")["key"] if word[0] in "\"'" else word, found.span(1)
            if not self.text.startswith(".", self.at):
                return
            self.at += 1

    def value(self, path: Path) -> None:
        start = self.at
        if self.text[start] == "[":
            self.items(path)
        elif self.text[start] == "{":
            self.inline_table(path)
        else:
            found = _SCALAR.match(self.text, start)
            assert found is not None, "tomllib has read this value"
            self.at = found.end()
        self.positions.values[path] = (start, self.at)

    def items(self, path: Path) -> None:
        index = 0
        while not self.closes("]"):
            self.value((*path, index))
            index += 1

    def inline_table(self, path: Path) -> None:
        while not self.closes("}"):
            self.pair(path)

    def closes(self, bracket: str) -> bool:
        """Step over an opening bracket or a comma; whether the closing bracket comes next (it is stepped over too)."""
        self.blank()
        if self.text[self.at] in "[{,":
            self.at += 1
        self.blank()
        closed = self.text[self.at] == bracket
        self.at += closed
        return closed

    def blank(self) -> int:
        found = _BLANK.match(self.text, self.at)
        self.at = found.end() if found else self.at
        return self.at
