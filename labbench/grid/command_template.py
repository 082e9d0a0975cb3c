"""Words of a command: placeholders and `~`, which no shell expands.

| form | replaced by |
| --- | --- |
| `{lr}` | the run's value: text unchanged, other values as JSON |
| `{lr:.3e}` | a number in a format of Python |
| `{amp:--use-amp}` | the text after the colon if the value is true; a word of nothing else is left out if it is false |
| `{hidden...}` | the items of a list: the word is repeated for each |
| `{clip?}` | the value; the word is left out if the run has none, or `"none"` or `""` |
| `{hidden...?}`, `{hidden?...}` | the items of a list; the word is left out if the run has none |
| `{{word}}` | the text `{word}` |

A list of words is left out as a whole if one of its words is. `${HOME}`, and braces that do not enclose a name, are
text.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

Word: TypeAlias = str | tuple[str, ...]
"""Word of a command, or words that are left out together."""

BUILT_IN = ("python", "experiment", "run.key", "run.dir")
"""Placeholders of every command; a parameter of the same name replaces them."""

_NAME = r"[^\W\d][\w-]*(?:\.[\w-]+)*"
_TOKEN = re.compile(
    r"\$\{\{[^{}]*\}\}|\$\{[^{}]*\}"  # text of a shell
    rf"|\{{(?P<text>\{{{_NAME}(?:\.\.\.\??|\?(?:\.\.\.)?)?(?::[^{{}}]*)?\}})\}}(?!\}})"
    rf"|(?<![{{$])(?P<braces>\{{\{{)?\{{(?P<key>{_NAME})(?P<signs>\.\.\.\??|\?(?:\.\.\.)?)?"
    r"(?::(?P<form>(?! )[^{}]*))?\}(?(braces)\}\})"
)
_NUMBER_FORMAT = re.compile(r".*[bdeEfFgGnoxX%]|0\d+")
_FIRST_PLACEHOLDER = re.compile(r"(?<![${])\{([A-Za-z_][\w.-]*)\}(?!\})")
"""Placeholders of the first release, which left `{{word}}` as it was."""


class TemplateError(ValueError):
    """A value does not fit its placeholder; the message says why."""


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Reference to a run's value in a word."""

    source: str
    """The placeholder as it is written, such as `{lr:.3e}`."""
    key: str
    repeats: bool
    """True if the word is repeated for each item of a list."""
    optional: bool
    """True if the word is left out without a value."""
    form: str | None
    """Format of a number, or the text of a flag."""

    def is_absent(self, values: Mapping[str, Any]) -> bool:
        """Return True if the placeholder leaves its word out."""
        return self.optional and values.get(self.key) in (None, "none", "")

    def fill(self, value: Any) -> str:
        """Return the text for a value.

        Raises:
            TemplateError: The value has no such format.
        """
        if self.form is None:
            return value if isinstance(value, str) else json.dumps(value)
        if isinstance(value, bool):
            return self.form if value else ""
        if isinstance(value, int | float) and _NUMBER_FORMAT.fullmatch(self.form):
            try:
                return format(value, self.form)
            except ValueError:
                pass
        shown = json.dumps(value, ensure_ascii=False)
        raise TemplateError(
            f"`{self.source}` needs true or false, or a number and its format, as in {{{self.key}:.3e}}, not {shown}; "
            f"for the text {self.source} write {{{self.source}}}"
        )

    def items(self, values: Mapping[str, Any]) -> Sequence[Any]:
        """Return the items of the list for which the word is repeated.

        Raises:
            TemplateError: The value is not a list.
        """
        items = values[self.key]
        if not isinstance(items, list | tuple):
            raise TemplateError(f"`{self.source}` needs a list, not {json.dumps(items, ensure_ascii=False)}")
        return items


def fill_command(words: Sequence[Word], values: Mapping[str, Any]) -> list[str]:
    """Return the words of a run's command, with placeholders filled and `~` expanded.

    `values` are the values of all placeholders that are not optional.

    Raises:
        TemplateError: A value does not fit its placeholder.
    """
    filled: list[str] = []
    for word in words:
        group = (word,) if isinstance(word, str) else word
        parts = [fill_word(item, values) for item in group]
        if None not in parts:
            filled += [expand_home_in_word(text) for texts in parts for text in texts or ()]
    return filled


def fill_word(word: str, values: Mapping[str, Any]) -> list[str] | None:
    """Return the words that one word becomes; None if it is left out.

    Raises:
        TemplateError: A value does not fit its placeholder.
    """
    parts = parse_word(word)
    fields = [part for part in parts if isinstance(part, Placeholder)]
    if any(field.is_absent(values) for field in fields):
        return None
    if len(parts) == 1 and fields and fields[0].form is not None and values[fields[0].key] is False:
        return None
    repeated = [field for field in fields if field.repeats]
    if len(repeated) > 1:
        raise TemplateError(f"a word repeats for one list, not for {' and '.join(f'`{f.source}`' for f in repeated)}")
    rows = [{repeated[0].key: item} for item in repeated[0].items(values)] if repeated else [{}]
    return [
        "".join(part if isinstance(part, str) else part.fill({**values, **row}[part.key]) for part in parts)
        for row in rows
    ]


def fill_text(text: str, values: Mapping[str, Any]) -> str:
    """Return a text with its placeholders filled; without a value, an optional one is empty.

    Raises:
        TemplateError: A value does not fit its placeholder, or one is repeated.
    """
    filled = fill_word(text, values)
    if filled is not None and len(filled) != 1:
        raise TemplateError("a list cannot be repeated here")
    return filled[0] if filled else ""


def parse_word(word: str) -> list[str | Placeholder]:
    """Return the texts and placeholders of a word, in order."""
    parts: list[str | Placeholder] = []
    position = 0
    for match in _TOKEN.finditer(word):
        parts.append(word[position : match.start()])
        position = match.end()
        if match["key"] is None:
            parts.append(match["text"] or match[0])
            continue
        source = match[0][2:-2] if match["braces"] else match[0]
        signs = match["signs"] or ""
        field = Placeholder(source, match["key"], "..." in signs, "?" in signs, match["form"])
        parts += ["{", field, "}"] if match["braces"] else [field]
    parts.append(word[position:])
    return [part for part in parts if part]


def placeholders(words: Sequence[Word]) -> Iterator[tuple[tuple[int, ...], Placeholder]]:
    """Yield the placeholders of a command with the index of their word; within a list of words with two indices."""
    for index, word in enumerate(words):
        for inner, item in enumerate((word,) if isinstance(word, str) else word):
            path = (index,) if isinstance(word, str) else (index, inner)
            yield from ((path, part) for part in parse_word(item) if isinstance(part, Placeholder))


def plain_words(words: Sequence[Word]) -> list[str]:
    """Return all words of a command in one list, with their placeholders."""
    return [item for word in words for item in ((word,) if isinstance(word, str) else word)]


def is_filled_as_before(words: Sequence[Word]) -> bool:
    """Return True if the first release filled the command in the same way."""
    return all(isinstance(word, str) and _is_filled_as_before(word) for word in words)


def _is_filled_as_before(word: str) -> bool:
    before = [match[1] for match in _FIRST_PLACEHOLDER.finditer(word)]
    now = parse_word(word)
    keys = [part.key for part in now if isinstance(part, Placeholder)]
    return (
        keys == before
        and "".join(part if isinstance(part, str) else part.source for part in now) == word
        and all(isinstance(part, str) or part.source == f"{{{part.key}}}" for part in now)
    )


def expand_home_in_word(word: str) -> str:
    """Return a word with a leading `~` or `~USER` expanded; every other word stays as it is."""
    return os.path.expanduser(word)  # noqa: PTH111 (a word need not be a path)
