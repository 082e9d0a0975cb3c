"""Completion of filter expressions: keys, metrics, functions and values. Text and words in, words out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from labbench.filters.parser import FUNCTIONS, RESERVED
from labbench.records import STATUSES

_WORD = re.compile(r"""(?:[^\s()=<>~!,'"\\]|!(?!=))*$""")
_KEY_BEFORE = re.compile(r"""([^\s()=<>~!,'"\\]+)\)?\s*(?:[=<>~]|!=)=?\s*(?:[^\s()=<>~!'"\\]*,)*$""")
_FUNCTION_BEFORE = re.compile(rf"\b({'|'.join(FUNCTIONS)})\($")
_UNQUOTED = re.compile(r"""[^\s()=<>~!,'"\\]+""")


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """Words that a filter on one database may use."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Values of each configuration key, and of `tag` and `experiment`, as text."""
    metrics: Sequence[str] = ()


def complete(expression: str, words: Vocabulary) -> tuple[int, list[str]]:
    """Return the index at which the expression's last word begins, and its completions, likeliest first."""
    match = _WORD.search(expression)
    start = match.start() if match else len(expression)
    typed, before = expression[start:], expression[:start]
    if _FUNCTION_BEFORE.search(before):
        return start, _matching(typed, words.metrics)
    if key_match := _KEY_BEFORE.search(before):
        key = key_match[1]
        values = STATUSES if key == "status" else words.values.get(key, ())
        return start, [quote_word(word) for word in _matching(typed, values)]
    keys = [key for key in words.values if key not in RESERVED]
    names = _matching(typed, [*keys, *words.metrics, *sorted(RESERVED)])
    return start, [*map(quote_word, names), *_matching(typed, [f"best({metric})" for metric in words.metrics])]


def _matching(typed: str, candidates: Iterable[str]) -> list[str]:
    """Return the candidates that contain the typed text.

    Candidates that start with it come first; the text itself is left out.
    """
    needle = typed.lower()
    matches = [word for word in dict.fromkeys(candidates) if needle in word.lower() and word != typed]
    return sorted(matches, key=lambda word: not word.lower().startswith(needle))


def quote_word(word: str) -> str:
    """Return a name or a value as a filter spells it: in double quotes unless it consists of plain characters."""
    if _UNQUOTED.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
