"""Text in ASCII, for terminals without UTF-8: substitutes of the same width for lines, bars, marks and braille."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache, lru_cache

from labbench.text import cell_width

_ASCII_REPLACEMENTS = {
    "─━╌┄═▁⎯": "-",
    "│┃║▏▕▎▍▌▐": "|",
    "╭╮╰╯┌┐└┘├┤┬┴┼╔╗╚╝": "+",
    "█▉▊▋▇▆▅": "#",
    "▄▃▂▓▒░▀": ":",
    "▸▶►›": ">",
    "◂◀‹": "<",
    "●◉○◐◓◑◒": "o",
    "◆◈◇": "&",
    "■▣□": "#",
    "▲△↑": "^",
    "▼▽↓": "v",
    "★☆": "*",
    "✗✘×": "x",
    "✓✔": "+",
    "⊘": "/",
    "–—−": "-",
    "·•∙": ".",
    "…": "~",  # a mark of its own: "0.93 [." could be taken for a number
    "±": "~",
    "␣": "_",
    "⏎↵": "$",
    "→": ">",
    "←": "<",
    "“”„": '"',
    "‘’": "'",
}


_SLOPES = {(-1): "/", 0: "-", 1: "\\"}


def _braille_to_ascii(dots: int) -> str:
    """Return the ASCII character most similar to a braille cell."""
    left = [row for row, bit in enumerate((0x01, 0x02, 0x04, 0x40)) if dots & bit]
    right = [row for row, bit in enumerate((0x08, 0x10, 0x20, 0x80)) if dots & bit]
    rows = left + right
    if not rows:
        return " "
    if len(rows) >= 6:
        return "#"
    if max(rows) - min(rows) == 3 and not (left and right):
        return "|"
    if left and right and abs(sum(left) / len(left) - sum(right) / len(right)) >= 1:
        return _SLOPES[1 if sum(left) / len(left) < sum(right) / len(right) else -1]
    return "''-..__"[min(6, round(2 * sum(rows) / len(rows)))]


@cache
def _translation_table() -> dict[int, str]:
    """Return the substitutes by code point; most commands need none."""
    table = {ord(character): ascii for characters, ascii in _ASCII_REPLACEMENTS.items() for character in characters}
    return table | {0x2800 + dots: _braille_to_ascii(dots) for dots in range(256)}


@lru_cache(4096)
def to_ascii(text: str) -> str:
    """Return the text in ASCII, equally wide; characters without a substitute become question marks."""
    if text.isascii():
        return text
    translated = text.translate(_translation_table())
    return "".join(character if character.isascii() else "?" * cell_width(character) for character in translated)


def needs_ascii(environ: Mapping[str, str]) -> bool:
    """Return True if LABBENCH_ASCII is set, or if the locale is set to an encoding other than UTF-8.

    LC_CTYPE=C.UTF-8 is ignored: Python sets it in a C locale (PEP 538).
    """
    if environ.get("LABBENCH_ASCII"):
        return True
    coerced = environ.get("LC_CTYPE") in ("C.UTF-8", "C.utf8", "UTF-8")
    locale = environ.get("LC_ALL") or ("" if coerced else environ.get("LC_CTYPE", "")) or environ.get("LANG", "")
    return bool(locale) and "utf8" not in locale.lower().replace("-", "")
