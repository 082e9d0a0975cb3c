"""Lexer of filter expressions: keys, operators and values.

The meaning of a character depends on its context (`name~lr=0.1` has one operator), so there is no list of tokens: the
parser requests the token that may come next.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, Literal, TypeAlias

from labbench.errors import FilterError

Operator: TypeAlias = Literal["=", "!=", "<", "<=", ">", ">=", "~"]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=", "~")

Value: TypeAlias = str | float | bool | None

KEY = re.compile(r"""(?:[^\s()=<>~!,'"\\]|!(?!=))+""")
WORD = re.compile(r"""[^\s(),'"\\]+""")

_OPERATOR = re.compile(r"\s*([=<>~!]+)")
_QUOTED = {"'": re.compile(r"'([^']*)'"), '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)}
_LONG_INTEGER = re.compile(r"[+-]?[0-9]{16,300}")
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAMED: dict[str, Value] = {"true": True, "false": False, "none": None}
_NAMED |= {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf}
_OTHER_SPELLINGS = {"==": "=", "=<": "<=", "=>": ">=", "<>": "!=", "=~": "~", "~=": "~", "!": "!="}


class Lexer:
    """Reader of one expression; each method advances `at`, the index of the next character."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.at = 0

    def peek(self) -> str:
        """Return the next character, "" at the end."""
        return self.expression[self.at : self.at + 1]

    def skip_space(self) -> int:
        """Advance to the next character that is not a space, and return its index."""
        while self.peek().isspace():
            self.at += 1
        return self.at

    def at_end(self) -> bool:
        return self.skip_space() == len(self.expression)

    def error(self, message: str, position: int | None = None) -> FilterError:
        """Return an error at `position`, by default the next character."""
        return FilterError(message, expression=self.expression, position=self.at if position is None else position)

    def next_is(self, keyword: str) -> bool:
        """Return True if the keyword comes next and is not used as a key (as in `not=1`)."""
        match = KEY.match(self.expression, self.skip_space())
        return match is not None and match[0].lower() == keyword and not _OPERATOR.match(self.expression, match.end())

    def take(self, keyword: str) -> bool:
        """Read the keyword if it comes next; return True if it did."""
        is_next = self.next_is(keyword)
        if is_next:
            self.at += len(keyword)
        return is_next

    def operator(self, key: str) -> Operator:
        """Read the operator after `key`. Raises FilterError if there is none."""
        match = _OPERATOR.match(self.expression, self.skip_space())
        if match is None:
            raise self.error(
                f"an operator is missing after `{key}` ({' '.join(OPERATORS)}); "
                f"to search run names write `name~{key}`, and put a value with spaces in quotes"
            )
        for operator in OPERATORS:
            if match[1] == operator:
                self.at = match.end()
                return operator
        meant = _OTHER_SPELLINGS.get(match[1])
        hint = f"; did you mean `{meant}`?" if meant else f"; the operators are {' '.join(OPERATORS)}"
        raise self.error(f"unknown operator `{match[1]}`{hint}")

    def value(self, after: str) -> tuple[Value, str]:
        """Read a value; return it and its text without quotes.

        Raises FilterError if there is none; the message names `after`, the text before the value.
        """
        start = self.at
        if self.peek() == "[":
            text = self._list()
            return text, text
        text, quoted = self.text(WORD)
        if self.at == start:
            raise self.error(f"a value is missing after `{after}`")
        return (text if quoted else parse_word(text)), text

    def text(self, bare: re.Pattern[str]) -> tuple[str, bool]:
        """Read up to the next space, with quotes and backslashes as in a shell.

        Returns the text, and True if any of it is quoted.
        """
        parts, quoted = [], False
        while character := self.peek():
            if match := bare.match(self.expression, self.at):
                parts.append(match[0])
                self.at = match.end()
            elif character in _QUOTED:
                parts.append(self._quoted(character))
                quoted = True
            elif character == "\\" and self.at + 1 < len(self.expression):
                parts.append(self.expression[self.at + 1])
                self.at += 2
                quoted = True
            else:
                break
        return "".join(parts), quoted

    def _quoted(self, quote: str) -> str:
        """Read the text between two quotes.

        In double quotes a backslash escapes a quote or a backslash.
        """
        match = _QUOTED[quote].match(self.expression, self.at)
        if match is None:
            raise self.error(f"this {quote} is never closed")
        self.at = match.end()
        return re.sub(r'\\(["\\])', r"\1", match[1]) if quote == '"' else match[1]

    def _list(self) -> str:
        """Read a list as compact JSON.

        Items that are not JSON are strings, so that `[relu,tanh]` needs no quotes.
        """
        start = self.at
        try:
            items, self.at = json.JSONDecoder().raw_decode(self.expression, start)
        except (ValueError, RecursionError):
            end = self.expression.find("]", start)
            if end < 0:
                raise self.error("this `[` is never closed", start) from None
            if "[" in self.expression[start + 1 : end]:
                raise self.error("a list of lists must be JSON, with strings in double quotes", start) from None
            items = [_json_or_plain(item.strip()) for item in self.expression[start + 1 : end].split(",")]
            self.at = end + 1
        return compact_json(items)


def parse_word(word: str) -> Value:
    """Return an unquoted word as a number, boolean, None, or the word itself.

    Integers that a float cannot represent exactly, such as 64-bit seeds, stay integers.
    """
    if _LONG_INTEGER.fullmatch(word):
        number = int(word)
        return float(number) if abs(number) <= 2**53 else number
    return float(word) if _NUMBER.fullmatch(word) else _NAMED.get(word.lower(), word)


def compact_json(value: Any) -> str:
    """Return JSON without spaces; lists are compared as this text."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _json_or_plain(item: str) -> Any:
    try:
        return json.loads(item)
    except ValueError:
        return item
