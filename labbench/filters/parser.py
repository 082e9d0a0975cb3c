"""The filter language: text to a small tree, `optimizer=adam lr<=0.01 (tag=best or best(val/loss)<0.2)`.

Terms joined by a space must all hold; `or` binds weaker, `not` stronger. What a key stands for (a reserved word, a
config key, a metric) is left to whoever evaluates the tree: the store compiles it to SQL, `matches_config` walks it.
A filter is two-valued: a compare is false for a run that lacks its key, so `lr!=0.1` asks for another lr and
`not lr=0.1` is also true where there is none.

    filter = all ("or" all)*        term = "not" term | "(" filter ")" | key operator value ("," value)*
    all    = term ("and"? term)*    key  = word | quoted | function "(" word ")"
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from labbench.errors import FilterError, did_you_mean
from labbench.filters.lexer import KEY, Lexer, Operator, Value, compact_json
from labbench.records import STATUSES

if TYPE_CHECKING:
    pass


RESERVED: frozenset[str] = frozenset(
    {"status", "name", "key", "experiment", "tag", "started", "archived", "older_code"}
)
"""Words that mean the run itself, whatever its config or its metrics are called."""


Function: TypeAlias = Literal["last", "smooth", "best", "min", "max", "first", "n"]


FUNCTIONS: tuple[Function, ...] = ("last", "smooth", "best", "min", "max", "first", "n")
"""What can be asked of a metric; without one, a metric stands for its last value. `smooth` is the mean of its last
points, so that one lucky step does not decide."""


_MAX_DEPTH = 50  # nested parentheses: far beyond use, far within Python's stack and SQLite's limit on an expression


@dataclass(frozen=True, slots=True)
class Comparison:
    """`key operator values`: true when one of the values fits (`!=`: when none does).

    A string fits by `texts`, a number by the values that are numbers, a boolean by `true` and `false`, null by
    `none`. `~` looks for a part of a string, whatever the case. A list is its compact JSON text, `[128,64]`.
    """

    key: str
    """A reserved word, a config key or a metric; always a metric where there is a `function`."""
    function: Function | None
    operator: Operator
    values: tuple[Value, ...]
    """One, or the alternatives of a comma (`=`, `!=` and `~` alone). A quoted value is a string."""
    texts: tuple[str, ...]
    """The values as written, unquoted: `pooling=none` finds the string, and `key=00123456` keeps its zeros."""
    position: int = field(default=0, compare=False)
    """Where the term begins in the expression, in characters from 0."""


@dataclass(frozen=True, slots=True)
class Not:
    """True where the term is false, so also where a run lacks the key."""

    term: Filter


@dataclass(frozen=True, slots=True)
class And:
    """All of the terms (two or more) hold."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """One of the terms (two or more) holds."""

    terms: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Not | And | Or


def parse(expression: str | Sequence[str]) -> Filter | None:
    """The tree of an expression (words of a command line are joined by spaces), None for an empty one.

    Raises FilterError with the position of what cannot be read.
    """
    scanner = Lexer(join_words(expression))
    if scanner.at_end():
        return None
    tree = _parse_or(scanner, 0)
    if not scanner.at_end():  # nothing but a closing parenthesis ends the terms early
        raise scanner.error("this `)` closes nothing")
    return tree


def join_words(expression: str | Sequence[str]) -> str:
    """The one text that the positions count in."""
    return expression if isinstance(expression, str) else " ".join(expression)


def comparisons(tree: Filter) -> Iterator[Comparison]:
    """Every compare of the tree, in the order they were written."""
    if isinstance(tree, Comparison):
        yield tree
    else:
        for term in (tree.term,) if isinstance(tree, Not) else tree.terms:
            yield from comparisons(term)


def uses_key(tree: Filter | None, key: str) -> bool:
    """Whether the key itself is asked about (not a function of a metric of that name)."""
    return tree is not None and any(compare.key == key and compare.function is None for compare in comparisons(tree))


def present_code(tree: Filter | None) -> Filter:
    """Return the filter without runs of older code, unless it asks about them: what averages are made of."""
    if tree is not None and uses_key(tree, "older_code"):
        return tree
    return _PRESENT if tree is None else And((tree, _PRESENT))


_PRESENT = Comparison("older_code", None, "=", (False,), ("false",))


def require_config_keys(tree: Filter, expression: str | Sequence[str], keys: Collection[str]) -> None:
    """Raise FilterError at the first compare that is not about one of these config keys."""
    for compare in comparisons(tree):
        if compare.function is None and compare.key in keys:
            continue
        name = compare.key if compare.function is None else f"{compare.function}({compare.key})"
        near = did_you_mean(compare.key, keys) if compare.function is None else ""
        hint = near or ", and these runs can only be chosen by their configs"
        raise FilterError(f"no config has `{name}`{hint}", expression=join_words(expression), position=compare.position)


def matches_config(tree: Filter | None, config: Mapping[str, Any]) -> bool:
    """Whether a config fits (every config fits no filter). Keys are config keys here, and functions never match."""
    if tree is None:
        return True
    if isinstance(tree, Not):
        return not matches_config(tree.term, config)
    if isinstance(tree, And):
        return all(matches_config(term, config) for term in tree.terms)
    if isinstance(tree, Or):
        return any(matches_config(term, config) for term in tree.terms)
    if tree.function is not None or tree.key not in config:
        return False
    actual = config[tree.key]
    pairs = zip(tree.values, tree.texts, strict=True)
    if tree.operator == "!=":
        return not any(_matches(actual, "=", value, text) for value, text in pairs)
    return any(_matches(actual, tree.operator, value, text) for value, text in pairs)


def parse_timestamp(text: str) -> float:
    """Unix seconds of what `started` is compared with: ISO 8601, local time where it names no zone.

    Raises ValueError when it is no time.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except (OverflowError, OSError) as error:  # the year 1 in local time
        raise ValueError(str(error)) from None


def _matches(actual: Any, operator: Operator, value: Value, text: str) -> bool:
    if isinstance(actual, list | dict):
        actual = compact_json(actual)
    if operator == "~":
        return isinstance(actual, str) and text.lower() in actual.lower()
    if operator == "=":
        if isinstance(actual, str):
            return actual == text
        if isinstance(actual, bool) or actual is None:
            return actual is value
        return _is_number(value) and bool(actual == value)
    comparable = (isinstance(actual, str) and isinstance(value, str)) or (_is_number(actual) and _is_number(value))
    return comparable and _compare_order(actual, operator, value)


def _compare_order(left: Any, operator: Operator, right: Any) -> bool:
    if operator.startswith("<"):
        return bool(left < right) or (operator == "<=" and bool(left == right))
    return bool(left > right) or (operator == ">=" and bool(left == right))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


# Recursive descent, one function a rule of the grammar above.


def _parse_or(scanner: Lexer, depth: int) -> Filter:
    terms = [_parse_and(scanner, depth)]
    while scanner.take("or"):
        terms.append(_parse_and(scanner, depth))
    return terms[0] if len(terms) == 1 else Or(tuple(terms))


def _parse_and(scanner: Lexer, depth: int) -> Filter:
    terms = [_parse_term(scanner, depth)]
    while scanner.take("and") or not (scanner.at_end() or scanner.peek() == ")" or scanner.next_is("or")):
        terms.append(_parse_term(scanner, depth))
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _parse_term(scanner: Lexer, depth: int) -> Filter:
    if scanner.at_end():
        raise scanner.error("a term is missing here, such as `lr<0.1`")
    if depth > _MAX_DEPTH:
        raise scanner.error(f"nested deeper than {_MAX_DEPTH}")
    if scanner.take("not"):
        return Not(_parse_term(scanner, depth + 1))
    if scanner.peek() == "(":
        return _parse_group(scanner, depth + 1)
    return _parse_comparison(scanner)


def _parse_group(scanner: Lexer, depth: int) -> Filter:
    opened = scanner.at
    scanner.at += 1
    tree = _parse_or(scanner, depth)
    if scanner.at_end():
        raise scanner.error("this `(` is never closed", opened)
    scanner.at += 1
    return tree


def _parse_comparison(scanner: Lexer) -> Comparison:
    position = scanner.at
    key, function = _parse_key(scanner)
    operator = scanner.operator(key)
    values: list[Value] = []
    texts: list[str] = []
    while True:
        before, start = scanner.at, scanner.skip_space()
        value, text = scanner.value(f"{key}{operator}")
        if problem := _reason_never_true(key, function, operator, value, text):
            raise scanner.error(problem, start)
        if values and before < start and re.match(r"[^'\"]*[=<>~]", scanner.expression[start : scanner.at]):
            raise scanner.error("terms are joined by a space, not by a comma", before - 1)
        values.append(value)
        texts.append(text)
        if scanner.at_end() or scanner.peek() != ",":
            return Comparison(key, function, operator, tuple(values), tuple(texts), position)
        if operator not in ("=", "!=", "~"):
            raise scanner.error(f"`{operator}` takes one value, not several")
        scanner.at += 1


def _parse_key(scanner: Lexer) -> tuple[str, Function | None]:
    start = scanner.at
    misplaced = next((word for word in ("or", "and") if scanner.next_is(word)), None)
    word, quoted = scanner.text(KEY)
    if misplaced or scanner.at == start:
        raise scanner.error(f"a term is missing before `{misplaced or scanner.peek()}`, such as `lr<0.1`", start)
    if quoted or scanner.peek() != "(":
        return word, None
    function = next((name for name in FUNCTIONS if name == word), None)
    if function is None:
        hint = did_you_mean(word, FUNCTIONS) or f": there are {', '.join(FUNCTIONS)}"
        raise scanner.error(f"no function is called `{word}`{hint}", start)
    scanner.at += 1
    scanner.skip_space()
    metric, _ = scanner.text(KEY)
    if scanner.at_end() or scanner.peek() != ")" or not metric:
        raise scanner.error(f"expected one metric in parentheses, as in `{function}(val/loss)`", start)
    scanner.at += 1
    return metric, function


def _reason_never_true(key: str, function: str | None, operator: Operator, value: Value, text: str) -> str | None:
    """Why a compare can never match, so that a slip of the pen is not just an empty table."""
    if function is not None and (operator == "~" or not _is_number(value)):
        return f"{function}({key}) is a number and cannot be compared by `{operator}{text}`"
    if operator.startswith(("<", ">")) and (value is None or isinstance(value, bool)):
        return f"`{operator}` compares with a number, not with `{text}`"
    if function is not None or operator == "~":
        return None
    if key == "status" and text not in STATUSES:
        hint = did_you_mean(text, STATUSES) or f": there are {', '.join(STATUSES)}"
        return f"no status is called `{text}`{hint}"
    if key in ("archived", "older_code") and not isinstance(value, bool):
        return f"{key} is true or false, not `{text}`"
    if key == "started" and value is not None:
        try:
            parse_timestamp(text)
        except ValueError:
            return f"`{text}` is no time: write 2026-11-30 or 2026-11-30T14:00"
    return None


RunFilter: TypeAlias = Filter | str | None
"""A filter, parsed or as text; None is every run that is not archived."""
