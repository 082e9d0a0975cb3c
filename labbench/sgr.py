"""Styles of text as SGR sequences (ECMA-48, section 8.3.117): colours, bold, dim, italic, underline, reverse, strike.

Blinking and concealed text and other fonts are not kept: text that was recorded elsewhere must stay readable.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

_SEQUENCE = re.compile(r"\x1b\[([0-9:;]*)m")
_ATTRIBUTES = frozenset("1234789") - {"8"}
_ENDS = {"22": "12", "23": "3", "24": "4", "27": "7", "29": "9"}
"""Attributes that a parameter ends."""
_COLOUR_NUMBERS = {"5": 1, "2": 3}
"""Count of the numbers of a colour: its index among 256, or red, green and blue."""


@dataclass(frozen=True, slots=True)
class TextStyle:
    """Style of text, as parameters of an SGR sequence."""

    attributes: frozenset[str] = frozenset()
    foreground: str = ""
    """Parameters of the colour, such as `31` or `38;5;208`; "" for the default one."""
    background: str = ""

    @property
    def parameters(self) -> str:
        """All parameters of the style; "" for plain text."""
        return ";".join(filter(None, (*sorted(self.attributes), self.foreground, self.background)))

    def styled(self, text: str) -> str:
        """Return text between the sequences that begin and end the style."""
        return f"{self.begin}{text}{END}" if self != PLAIN else text

    @property
    def begin(self) -> str:
        """Sequence that begins the style after plain text; "" for plain text."""
        return f"\x1b[{self.parameters}m" if self != PLAIN else ""

    def change(self, parameters: str) -> TextStyle:
        """Return the style after an SGR sequence with these parameters; unknown ones are ignored."""
        return _change(self, parameters)


PLAIN = TextStyle()
"""Style of plain text."""
END = "\x1b[0m"
"""Sequence that ends every style."""


def remove_styles(text: str) -> str:
    """Return text without SGR sequences."""
    return _SEQUENCE.sub("", text) if "\x1b" in text else text


def split_styles(line: str) -> Iterator[tuple[str, TextStyle]]:
    """Yield the pieces of a line with their styles."""
    style, position = PLAIN, 0
    for match in _SEQUENCE.finditer(line):
        if match.start() > position:
            yield line[position : match.start()], style
        style, position = style.change(match[1]), match.end()
    if position < len(line):
        yield line[position:], style


@lru_cache(4096)
def _change(style: TextStyle, parameters: str) -> TextStyle:
    words = parameters.split(";")
    while words:
        word, *words = words
        first, *rest = word.split(":")
        if first in ("38", "48"):
            if not rest:  # the numbers are parameters of their own
                count = 1 + _COLOUR_NUMBERS.get(words[0], 0) if words else 0
                rest, words = words[:count], words[count:]
            style = _set_colour(style, first, rest)
        elif first == "4" and rest == ["0"]:
            style = _set_simple(style, "24")
        else:
            style = _set_simple(style, first)
    return style


def _set_colour(style: TextStyle, target: str, words: Sequence[str]) -> TextStyle:
    """Return the style with a colour, given as its kind and its numbers, with a colour space that is ignored."""
    kind, *numbers = words or [""]
    numbers = numbers[-_COLOUR_NUMBERS.get(kind, 0) :]
    values = [int(number) for number in numbers if number.isdecimal()]
    if len(values) != _COLOUR_NUMBERS.get(kind) or max(values) > 255:
        return style
    colour = ";".join([target, kind, *map(str, values)])
    return replace(style, foreground=colour) if target == "38" else replace(style, background=colour)


def _set_simple(style: TextStyle, word: str) -> TextStyle:
    """Return the style after a parameter that stands alone."""
    code = int(word) if word.isdecimal() else 0 if not word else -1
    if code == 0:
        return PLAIN
    word = str(code)
    if word in _ATTRIBUTES:
        return replace(style, attributes=style.attributes | {word})
    if word in _ENDS:
        return replace(style, attributes=style.attributes - set(_ENDS[word]))
    if 30 <= code <= 37 or 90 <= code <= 97 or code == 39:
        return replace(style, foreground=word if code != 39 else "")
    if 40 <= code <= 47 or 100 <= code <= 107 or code == 49:
        return replace(style, background=word if code != 49 else "")
    return style
