"""Styles of the terminal as parameters of SGR sequences: the shortest change from one to another."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

_OFF = {"1": "22", "2": "22", "3": "23", "4": "24", "5": "25", "7": "27", "8": "28", "9": "29"}
"""Parameters that end an attribute."""
_INVISIBLE_ON_BLANKS = frozenset({"1", "2", "3"})
"""Bold, dim and italic."""


@lru_cache(maxsize=4096)
def style_change(before: str, after: str) -> str:
    """Return the shortest SGR sequence from one style to another."""
    if not after:
        return "\x1b[0m"
    full = f"\x1b[0;{after}m" if before else f"\x1b[{after}m"
    old, new = _Style.parse(before), _Style.parse(after)
    removed, added = old.attributes - new.attributes, new.attributes - old.attributes
    if not removed <= _OFF.keys():
        return full
    changes = sorted({_OFF[code] for code in removed})
    if "22" in changes:  # ends bold and dim
        added |= new.attributes & {"1", "2"}
    changes += sorted(added)
    if old.foreground != new.foreground:
        changes.append(new.foreground or "39")
    if old.background != new.background:
        changes.append(new.background or "49")
    return min(f"\x1b[{';'.join(changes)}m", full, key=len)


@lru_cache(maxsize=4096)
def blank_style(style: str) -> str:
    """Return the visible part of a space's style: the background, or all of it if it draws lines or is reversed."""
    parsed = _Style.parse(style)
    return style if parsed.attributes - _INVISIBLE_ON_BLANKS else parsed.background


@lru_cache(maxsize=4096)
def shows_blank(pen: str, blank: str) -> bool:
    """Return True if a space looks the same in the styles `pen` and `blank`."""
    return blank_style(pen) == blank


@lru_cache(maxsize=4096)
def is_background(style: str) -> bool:
    """Return True if a space in this style shows a background and nothing else."""
    return style == _Style.parse(style).background


@dataclass(frozen=True, slots=True)
class _Style:
    """Parameters of an SGR sequence."""

    attributes: frozenset[str]
    foreground: str
    background: str

    @staticmethod
    @lru_cache(maxsize=4096)
    def parse(style: str) -> _Style:
        words = style.split(";") if style else []
        attributes, foreground, background = set(), "", ""
        while words:
            word, words = words[0], words[1:]
            if word in ("38", "48"):
                count = 4 if words[0] == "2" else 2
                word, words = ";".join([word, *words[:count]]), words[count:]
            code = int(word.partition(";")[0])
            if 30 <= code <= 39 or 90 <= code <= 97:
                foreground = word
            elif 40 <= code <= 49 or 100 <= code <= 107:
                background = word
            else:
                attributes.add(word)
        return _Style(frozenset(attributes), foreground, background)
