"""Positions of the keys and values of a TOML document, which `tomllib` does not report.

`tomllib` has already parsed the document, so this scanner may assume that it is valid: it skips values without
interpreting them.
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
"""Offsets of the first character and of the character after the last."""

_BLANK = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_KEY_PART = re.compile(r"""[ \t]*([A-Za-z0-9_-]+|"(?:[^"\\\n]|\\.)*"|'[^'\n]*')[ \t]*""")
_SCALAR = re.compile(
    r'''"""(?:[^\\]|\\.)*?"""(?:"{0,2})'''
    r"""|\'\'\'.*?\'\'\'(?:'{0,2})"""
    r'''|"(?:[^"\\\n]|\\.)*"'''
    r"""|'[^'\n]*'"""
    r"|\d{4}-\d\d-\d\d \d\d:[^\s,\]}#]+"  # a date and a time may be separated by a space
    r"|[^\s,\]}#]+",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Positions:
    """Spans of a document's keys and values.

    A table that a header or dotted key defines is in `keys` only.
    """

    text: str
    keys: dict[Path, Span] = field(default_factory=dict)
    values: dict[Path, Span] = field(default_factory=dict)

    def line_and_column(self, offset: int) -> tuple[int, int]:
        """Return (line, column) of an offset, both from 1, columns in characters."""
        return self.text.count("\n", 0, offset) + 1, offset - self.text.rfind("\n", 0, offset)


def find_positions(text: str) -> Positions:
    """Return the spans of every key and value of a valid TOML document."""
    positions = Positions(text)
    scanner = _Scanner(text, positions)
    scanner.document()
    return positions


class _Scanner:
    """Scanner of one document; each method advances `at`, the offset of the next character."""

    def __init__(self, text: str, positions: Positions) -> None:
        self.text = text
        self.positions = positions
        self.at = 0
        self.lengths: dict[Path, int] = {}
        """Lengths of the arrays of tables so far, by path."""

    def document(self) -> None:
        table: Path = ()
        while self.blank() < len(self.text):
            if self.text[self.at] == "[":
                table = self.header()
            else:
                self.pair(table)

    def header(self) -> Path:
        """Skip `[a.b]` or `[[a.b]]`, and return the path of its table."""
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
        """Yield the unquoted parts of a key with their spans, and skip the key."""
        while True:
            match = _KEY_PART.match(self.text, self.at)
            assert match is not None, "tomllib has parsed this key"
            self.at = match.end()
            word = match[1]
            yield tomllib.loads(f"key = {word}")["key"] if word[0] in "\"'" else word, match.span(1)
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
            match = _SCALAR.match(self.text, start)
            assert match is not None, "tomllib has parsed this value"
            self.at = match.end()
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
        """Skip an opening bracket or a comma.

        Returns True if the closing bracket follows, which is skipped too.
        """
        self.blank()
        if self.text[self.at] in "[{,":
            self.at += 1
        self.blank()
        closed = self.text[self.at] == bracket
        self.at += closed
        return closed

    def blank(self) -> int:
        match = _BLANK.match(self.text, self.at)
        self.at = match.end() if match else self.at
        return self.at
