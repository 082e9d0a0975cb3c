"""Reads a filter expression word by word: keys, operators, quoted and bare values, with the position for every error.

What a character means depends on where it stands (`name~lr=0.1` has one operator), so there is no list of tokens:
the parser asks for what may come next.
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
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_NAMED: dict[str, Value] = {"true": True, "false": False, "none": None}
_NAMED |= {"nan": math.nan, "inf": math.inf, "+inf": math.inf, "-inf": -math.inf}
_OTHER_SPELLINGS = {"==": "=", "=<": "<=", "=>": ">=", "<>": "!=", "=~": "~", "~=": "~", "!": "!="}


class Lexer:
    """An expression and how far it is read; each method leaves `at` behind what it took."""

    def __init__(self, expression: str) -> None:
        self.expression = expression
        self.at = 0

    def peek(self) -> str:
        """The next character, "" at the end."""
        return self.expression[self.at : self.at + 1]

    def skip_space(self) -> int:
        while self.peek().isspace():
            self.at += 1
        return self.at

    def at_end(self) -> bool:
        return self.skip_space() == len(self.expression)

    def error(self, message: str, position: int | None = None) -> FilterError:
        return FilterError(message, expression=self.expression, position=self.at if position is None else position)

    def next_is(self, keyword: str) -> bool:
        """Whether the keyword comes next, alone and not as a key (`not=1`)."""
        found = KEY.match(self.expression, self.skip_space())
        return found is not None and found[0].lower() == keyword and not _OPERATOR.match(self.expression, found.end())

    def take(self, keyword: str) -> bool:
        """Read the keyword if it comes next."""
        found = self.next_is(keyword)
        if found:
            self.at += len(keyword)
        return found

    def operator(self, key: str) -> Operator:
        found = _OPERATOR.match(self.expression, self.skip_space())
        if found is None:
            raise self.error(
                f"an operator is missing after `{key}` ({' '.join(OPERATORS)}); "
                f"a part of a run's name is asked for with `name~{key}`, and a value with spaces needs quotes"
            )
        for operator in OPERATORS:
            if found[1] == operator:
                self.at = found.end()
                return operator
        meant = _OTHER_SPELLINGS.get(found[1])
        hint = f"; did you mean `{meant}`?" if meant else f": there are {' '.join(OPERATORS)}"
        raise self.error(f"no operator is written `{found[1]}`{hint}")

    def value(self, after: str) -> tuple[Value, str]:
        """A value and its text without quotes; `after` is what it stands behind, for the message if it is missing."""
        start = self.at
        if self.peek() == "[":
            text = self._list()
            return text, text
        text, quoted = self.text(WORD)
        if self.at == start:
            raise self.error(f"a value is missing after `{after}`")
        return (text if quoted else parse_word(text)), text

    def text(self, bare: re.Pattern[str]) -> tuple[str, bool]:
        """What a shell would make of the characters up to the next space: (text, whether any of it was quoted)."""
        parts, quoted = [], False
        while character := self.peek():
            if found := bare.match(self.expression, self.at):
                parts.append(found[0])
                self.at = found.end()
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
        """The text between two quotes; between double ones a backslash keeps the next quote or backslash."""
        found = _QUOTED[quote].match(self.expression, self.at)
        if found is None:
            raise self.error(f"this {quote} is never closed")
        self.at = found.end()
        return re.sub(r'\\(["\\])', r"\1", found[1]) if quote == '"' else found[1]

    def _list(self) -> str:
        """A list as compact JSON; items that are no JSON are strings, so that `[relu,tanh]` needs no quotes."""
        start = self.at
        try:
            items, self.at = json.JSONDecoder().raw_decode(self.expression, start)
        except (ValueError, RecursionError):
            end = self.expression.find("]", start)
            if end < 0:
                raise self.error("this `[` is never closed", start) from None
            if "[" in self.expression[start + 1 : end]:
                raise self.error("a list of lists must be JSON, with its strings in double quotes", start) from None
            items = [_json_or_plain(item.strip()) for item in self.expression[start + 1 : end].split(",")]
            self.at = end + 1
        return compact_json(items)


def parse_word(word: str) -> Value:
    """What an unquoted word means: a number, true, false, none, or itself."""
    return float(word) if _NUMBER.fullmatch(word) else _NAMED.get(word.lower(), word)


def compact_json(value: Any) -> str:
    """JSON without spaces: how a list is compared."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def _json_or_plain(item: str) -> Any:
    try:
        return json.loads(item)
    except ValueError:
        return item
