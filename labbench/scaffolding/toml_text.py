"""Values and commented lines of TOML."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
MAX_LINE = 110
"""Characters of a line, its comment included; a longer comment is left out."""


def toml_key(key: str) -> str:
    """Return a key as TOML writes it."""
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)


def toml_value(value: Any) -> str:
    """Return a number, text, boolean or list as TOML writes it; None is the text "none" of grid files."""
    if value is None:
        return '"none"'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml_value, value))}]"
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")


def commented_lines(lines: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines with their comments in one column, (text, comment) each; a comment may be empty."""
    width = max((len(text) for text, comment in lines if comment and len(text) < MAX_LINE // 2), default=0)
    result = []
    for text, comment in lines:
        with_comment = f"{text.ljust(width)}  # {comment}"
        result.append(with_comment if comment and len(with_comment) <= MAX_LINE else text)
    return result
