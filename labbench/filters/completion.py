"""What may come next in a filter: keys, metrics, functions, operators' values. Text and words in, words out."""

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
    """The words of a database."""

    values: Mapping[str, Sequence[str]] = field(default_factory=dict)
    """Of each config key, and of `tag` and `experiment`."""
    metrics: Sequence[str] = ()


def complete(expression: str, words: Vocabulary) -> tuple[int, list[str]]:
    """Where the word at the end of an expression begins, and what it may become, the likeliest first."""
    match = _WORD.search(expression)
    start = match.start() if match else len(expression)
    typed, before = expression[start:], expression[:start]
    if _FUNCTION_BEFORE.search(before):
        return start, _matching(typed, words.metrics)
    if asked := _KEY_BEFORE.search(before):
        values = STATUSES if asked[1] == "status" else words.values.get(asked[1], ())
        return start, [_quote(word) for word in _matching(typed, values)]
    keys = [key for key in words.values if key not in RESERVED]
    found = _matching(typed, [*keys, *words.metrics, *sorted(RESERVED)])
    return start, [*map(_quote, found), *_matching(typed, [f"best({metric})" for metric in words.metrics])]


def _matching(typed: str, candidates: Iterable[str]) -> list[str]:
    """Those that begin with what was typed, then those that have it within; not what is there already."""
    wanted = typed.lower()
    found = [word for word in dict.fromkeys(candidates) if wanted in word.lower() and word != typed]
    return sorted(found, key=lambda word: not word.lower().startswith(wanted))


def _quote(word: str) -> str:
    if _UNQUOTED.fullmatch(word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
