"""Parser of filters such as `optimizer=adam lr<=0.01 (tag=best or best(val/loss)<0.2)`.

Terms joined by a space must all hold; `or` binds less tightly, `not` more tightly. The evaluation of the tree decides
the meaning of a key (reserved word, configuration key or metric): the store compiles the tree to SQL, `matches_config`
walks it. A filter is either true or false for a run: a comparison is false if the run lacks the key, so `lr!=0.1`
matches runs with another lr, and `not lr=0.1` also matches runs without lr.

    filter = all ("or" all)*        term = "not" term | "(" filter ")" | key operator value ("," value)*
    all    = term ("and"? term)*    key  = word | quoted | function "(" word ")"
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal, TypeAlias

from labbench.errors import FilterError, did_you_mean
from labbench.filters.lexer import KEY, Lexer, Operator, Value, compact_json
from labbench.records import STATUSES

RESERVED: frozenset[str] = frozenset(
    {"status", "name", "key", "experiment", "tag", "started", "archived", "older_code"}
)
"""Keys of the run itself, which take precedence over configuration keys and metrics of the same name."""

Function: TypeAlias = Literal["last", "smooth", "best", "min", "max", "first", "n"]

RUN_WORDS: tuple[str, ...] = ("source", "note", "id", "host")
"""Further keys of the run itself; a configuration key or a metric of the same name takes precedence."""

FUNCTIONS: tuple[Function, ...] = ("last", "smooth", "best", "min", "max", "first", "n")
"""Functions of a metric; a metric without a function means its last value.

`smooth` is the mean of the last points, which a single lucky step hardly changes.
"""

_OTHER_STATUSES = {
    **dict.fromkeys(("crashed", "killed", "dead", "oom", "zombie"), "lost,failed"),
    **dict.fromkeys(("done", "complete", "completed", "success", "succeeded", "ok"), "finished"),
    **dict.fromkeys(("error", "errored", "exception"), "failed"),
    **dict.fromkeys(("canceled", "cancelled", "aborted", "interrupted", "preempted"), "stopped"),
    **dict.fromkeys(("pending", "waiting", "scheduled"), "queued"),
    **dict.fromkeys(("active", "live", "started"), "running"),
    "nan": "diverged",
}
"""Statuses of other tools, and the ones that the same runs have here."""

_MAX_DEPTH = 50  # maximum depth of parentheses and `not`, well within the limits of Python's stack and of SQLite


@dataclass(frozen=True, slots=True)
class Comparison:
    """`key operator values`: true if one of the values matches (`!=`: if none does).

    A string is compared with `texts`, a number with the values that are numbers, a boolean with `true` and `false`,
    null with `none`. `~` searches for a substring, ignoring case. A list is compared by its compact JSON text,
    `[128,64]`.
    """

    key: str
    """Reserved word, configuration key or metric; always a metric if there is a `function`."""
    function: Function | None
    operator: Operator
    values: tuple[Value, ...]
    """One value, or several alternatives separated by commas (`=`, `!=` and `~` only). A quoted value is a string."""
    texts: tuple[str, ...]
    """Values as written, without quotes: `pooling=none` also matches the string, and `key=00123456` keeps its zeros."""
    position: int = field(default=0, compare=False)
    """Index of the term's first character in the expression."""


@dataclass(frozen=True, slots=True)
class Not:
    """True if the term is false, including a term that is false because the run lacks the key."""

    term: Filter


@dataclass(frozen=True, slots=True)
class And:
    """True if all of the terms (two or more) are true."""

    terms: tuple[Filter, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True if at least one of the terms (two or more) is true."""

    terms: tuple[Filter, ...]


Filter: TypeAlias = Comparison | Not | And | Or


def parse(expression: str | Sequence[str]) -> Filter | None:
    """Parse an expression; the words of a command line are joined by spaces. Returns None for an empty one.

    Raises:
        FilterError: The expression does not parse; the error has the position.
    """
    lexer = Lexer(join_words(expression))
    if lexer.at_end():
        return None
    tree = _parse_or(lexer, 0)
    if not lexer.at_end():  # only a closing parenthesis ends the terms before the end of the text
        raise lexer.error("this `)` closes nothing")
    return tree


def join_words(expression: str | Sequence[str]) -> str:
    """Return the expression as one text; positions in errors are indices into this text."""
    return expression if isinstance(expression, str) else " ".join(expression)


def comparisons(tree: Filter) -> Iterator[Comparison]:
    """Yield every comparison of the tree in the order of the expression."""
    if isinstance(tree, Comparison):
        yield tree
    else:
        for term in (tree.term,) if isinstance(tree, Not) else tree.terms:
            yield from comparisons(term)


def uses_key(tree: Filter | None, key: str) -> bool:
    """Return True if the tree compares the key itself.

    A function of a metric of that name does not count.
    """
    return tree is not None and any(term.key == key and term.function is None for term in comparisons(tree))


def present_code(tree: Filter | None) -> Filter:
    """Return the filter restricted to runs of the current code, unless it uses `older_code`.

    Means over runs use this filter.
    """
    if tree is not None and uses_key(tree, "older_code"):
        return tree
    return _PRESENT if tree is None else And((tree, _PRESENT))


def without_pruned(tree: Filter | None) -> Filter:
    """Return the filter restricted to runs that no search has pruned, unless it uses `status`.

    Mean curves use this filter: pruned runs are shorter and worse, so means would jump where they end.
    """
    if tree is not None and uses_key(tree, "status"):
        return tree
    return _NOT_PRUNED if tree is None else And((tree, _NOT_PRUNED))


_PRESENT = Comparison("older_code", None, "=", (False,), ("false",))
_NOT_PRUNED = Comparison("status", None, "!=", ("pruned",), ("pruned",))


def require_config_keys(tree: Filter, expression: str | Sequence[str], keys: Collection[str]) -> None:
    """Raise FilterError at the first comparison whose key is not one of these configuration keys."""
    for term in comparisons(tree):
        if term.function is None and term.key in keys:
            continue
        name = term.key if term.function is None else f"{term.function}({term.key})"
        hint = did_you_mean(term.key, keys) if term.function is None else ""
        hint = hint or "; only configuration keys can be used here"
        raise FilterError(
            f"no configuration has the key `{name}`{hint}", expression=join_words(expression), position=term.position
        )


def matches_config(tree: Filter | None, config: Mapping[str, Any]) -> bool:
    """Return True if a configuration matches; None matches all.

    Every key is a configuration key, so that functions of metrics never match.
    """
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
    """Return the Unix time in seconds of ISO 8601 text.

    The time is local unless the text names a zone.

    Raises:
        ValueError: The text is not a time, or out of range.
    """
    try:
        return datetime.fromisoformat(text).timestamp()
    except (OverflowError, OSError) as error:  # such as the year 1 in local time
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


# Recursive descent, one function per rule of the grammar above.


def _parse_or(lexer: Lexer, depth: int) -> Filter:
    terms = [_parse_and(lexer, depth)]
    while lexer.take("or"):
        terms.append(_parse_and(lexer, depth))
    return terms[0] if len(terms) == 1 else Or(tuple(terms))


def _parse_and(lexer: Lexer, depth: int) -> Filter:
    terms = [_parse_term(lexer, depth)]
    while lexer.take("and") or not (lexer.at_end() or lexer.peek() == ")" or lexer.next_is("or")):
        terms.append(_parse_term(lexer, depth))
    return terms[0] if len(terms) == 1 else And(tuple(terms))


def _parse_term(lexer: Lexer, depth: int) -> Filter:
    if lexer.at_end():
        raise lexer.error("a term is missing here, such as `lr<0.1`")
    if depth > _MAX_DEPTH:
        raise lexer.error(f"parentheses and `not` are nested deeper than {_MAX_DEPTH}")
    if lexer.take("not"):
        return Not(_parse_term(lexer, depth + 1))
    if lexer.peek() == "(":
        return _parse_group(lexer, depth + 1)
    return _parse_comparison(lexer)


def _parse_group(lexer: Lexer, depth: int) -> Filter:
    start = lexer.at
    lexer.at += 1
    tree = _parse_or(lexer, depth)
    if lexer.at_end():
        raise lexer.error("this `(` is never closed", start)
    lexer.at += 1
    return tree


def _parse_comparison(lexer: Lexer) -> Comparison:
    position = lexer.at
    key, function = _parse_key(lexer)
    operator = lexer.operator(key)
    values: list[Value] = []
    texts: list[str] = []
    while True:
        before, start = lexer.at, lexer.skip_space()
        value, text = lexer.value(f"{key}{operator}")
        if problem := _reason_never_true(key, function, operator, value, text):
            raise lexer.error(problem, start)
        if values and before < start and re.match(r"[^'\"]*[=<>~]", lexer.expression[start : lexer.at]):
            raise lexer.error("join terms by a space, not by a comma", before - 1)
        values.append(value)
        texts.append(text)
        if lexer.at_end() or lexer.peek() != ",":
            return Comparison(key, function, operator, tuple(values), tuple(texts), position)
        if operator not in ("=", "!=", "~"):
            raise lexer.error(f"`{operator}` takes one value, not several")
        lexer.at += 1


def _parse_key(lexer: Lexer) -> tuple[str, Function | None]:
    start = lexer.at
    misplaced = next((word for word in ("or", "and") if lexer.next_is(word)), None)
    word, quoted = lexer.text(KEY)
    if misplaced or lexer.at == start:
        raise lexer.error(f"a term is missing before `{misplaced or lexer.peek()}`, such as `lr<0.1`", start)
    if quoted or lexer.peek() != "(":
        return word, None
    function = next((name for name in FUNCTIONS if name == word), None)
    if function is None:
        raise lexer.error(unknown_function(word), start)
    lexer.at += 1
    lexer.skip_space()
    metric, _ = lexer.text(KEY)
    if lexer.at_end() or lexer.peek() != ")" or not metric:
        raise lexer.error(f"expected one metric in parentheses, as in `{function}(val/loss)`", start)
    lexer.at += 1
    return metric, function


def unknown_function(word: str) -> str:
    """Return the message for a function of a metric that does not exist."""
    hint = did_you_mean(word, FUNCTIONS) or f"; the functions are {', '.join(FUNCTIONS)}"
    return f"unknown function `{word}`{hint}"


def _reason_never_true(key: str, function: str | None, operator: Operator, value: Value, text: str) -> str | None:
    """Return the reason why a comparison can never match, or None.

    The user then gets a message about the mistake instead of an empty table.
    """
    if function is not None and (operator == "~" or not _is_number(value)):
        return f"{function}({key}) is a number and cannot be compared with `{operator}{text}`"
    if operator.startswith(("<", ">")) and (value is None or isinstance(value, bool)):
        return f"`{operator}` compares with a number, not with `{text}`"
    if function is not None or operator == "~":
        return None
    if key == "status" and text not in STATUSES:
        return _unknown_status(text)
    if key in ("archived", "older_code") and not isinstance(value, bool):
        return f"{key} must be true or false, not `{text}`"
    if key == "started" and value is not None:
        try:
            parse_timestamp(text)
        except ValueError:
            return f"`{text}` is not a time; write 2026-11-30 or 2026-11-30T14:00"
    return None


def _unknown_status(text: str) -> str:
    """Return the message for a status that no run can have, with the one of the same runs in other tools."""
    other = _OTHER_STATUSES.get(text.lower())
    if other == "lost,failed":
        return f"unknown status `{text}`; a script that was killed is `lost`, a run of a grid `failed`: status={other}"
    if other is not None:
        return f"unknown status `{text}`; did you mean `{other}`?"
    hint = did_you_mean(text, STATUSES) or f"; the statuses are {', '.join(STATUSES)}"
    return f"unknown status `{text}`{hint}"


RunFilter: TypeAlias = Filter | str | None
"""A filter, parsed or as text; None matches every run that is not archived."""
