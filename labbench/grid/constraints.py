"""Constraints of `[[require]]`: comparisons and arithmetic over the keys of a config.

An expression has Python's syntax, restricted to names, numbers, texts, lists, comparisons, arithmetic, `and`, `or` and
`not`. Nothing is executed: the syntax tree is interpreted.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from labbench.grid.checks import NONE, is_equal

_CONSTANTS = {"true": True, "false": False, "none": None}

_ARITHMETIC: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: math.pow,  # of floats: an integer power may have millions of digits
}

_ORDER: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}

_SIGNS: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}

_HINTS = {r"&&?": "and", r"\|\|?": "or", r"!(?!=)": "not", r"\^": "**", r"(?<![=<>!])=(?!=)": "=="}
"""Patterns of operators of other languages, and the operators to use instead."""


class ConstraintError(ValueError):
    """Invalid expression, or one that cannot be evaluated for a config.

    `part` is the text from the position of the error to the end of the expression, "" if the position is unknown.
    """

    def __init__(self, message: str, part: str = "") -> None:
        self.part = part
        super().__init__(message)


@dataclass(frozen=True, slots=True)
class Constraint:
    """Condition that every run of a grid meets."""

    text: str
    tree: ast.expr

    def used_keys(self) -> Iterator[tuple[str, str]]:
        """Yield each config key with the text from its position to the end of the expression."""
        yield from ((key, self._part(node)) for node, key in _names(self.tree) if key not in _CONSTANTS)

    def holds(self, config: Mapping[str, Any]) -> bool:
        """Return True if a config meets the constraint; a key that the config lacks is none.

        Raises:
            ConstraintError: The values have no order, or the result is not true or false.
        """
        return self._truth(self.tree, config)

    def _truth(self, node: ast.expr, config: Mapping[str, Any]) -> bool:
        value = self._value(node, config)
        if not isinstance(value, bool):
            raise ConstraintError(f"`{ast.unparse(node)}` is {_quote(value)}, not true or false", self._part(node))
        return value

    def _value(self, node: ast.expr, config: Mapping[str, Any]) -> Any:
        match node:
            case ast.Constant(value=value):
                return value
            case ast.List(elts=items) | ast.Tuple(elts=items):
                return [self._value(item, config) for item in items]
            case ast.Name() | ast.Attribute():
                key = _key(node)
                return config[key] if key in config else _CONSTANTS.get(key)
            case ast.BoolOp(op=ast.And(), values=values):
                return all(self._truth(value, config) for value in values)
            case ast.BoolOp(values=values):
                return any(self._truth(value, config) for value in values)
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return not self._truth(operand, config)
            case ast.UnaryOp(op=sign, operand=operand):
                return _SIGNS[type(sign)](self._number(operand, config))
            case ast.BinOp(left=left, op=operation, right=right):
                return self._compute(node, operation, self._number(left, config), self._number(right, config))
            case ast.Compare(left=left, ops=comparisons, comparators=others):
                values = [self._value(operand, config) for operand in (left, *others)]
                pairs = zip(comparisons, values, values[1:], strict=False)
                return all(self._compare(node, comparison, one, other) for comparison, one, other in pairs)
        raise AssertionError(f"parse_constraint accepts no {type(node).__name__}")

    def _number(self, node: ast.expr, config: Mapping[str, Any]) -> float:
        value = self._value(node, config)
        if not _is_number(value):
            raise ConstraintError(f"`{ast.unparse(node)}` is {_quote(value)}, not a number", self._part(node))
        return float(value) if isinstance(value, float) else int(value)

    def _compute(self, node: ast.expr, operation: ast.operator, left: float, right: float) -> float:
        try:
            result: float = _ARITHMETIC[type(operation)](left, right)
        except (ArithmeticError, ValueError):
            raise ConstraintError(
                f"`{ast.unparse(node)}` has no value with {left} and {right}", self._part(node)
            ) from None
        return result

    def _compare(self, node: ast.expr, comparison: ast.cmpop, left: Any, right: Any) -> bool:
        if isinstance(comparison, ast.Eq | ast.NotEq):
            return _is_equal(left, right) is isinstance(comparison, ast.Eq)
        if isinstance(comparison, ast.In | ast.NotIn):
            if not isinstance(right, list | tuple):
                raise ConstraintError(f"`in` needs a list, not {_quote(right)}", self._part(node))
            return any(_is_equal(left, item) for item in right) is isinstance(comparison, ast.In)
        if not (_is_number(left) and _is_number(right)) and not (isinstance(left, str) and isinstance(right, str)):
            message = f"{_quote(left)} and {_quote(right)} in `{ast.unparse(node)}` have no order"
            hint = "; write `key == none or ...` for runs without a value" if left is None or right is None else ""
            raise ConstraintError(message + hint, self._part(node))
        return _ORDER[type(comparison)](left, right)

    def _part(self, node: ast.expr) -> str:
        return _text_from(self.text, node)


def parse_constraint(text: str) -> Constraint:
    """Parse an expression.

    Raises:
        ConstraintError: The text is no expression, or uses more than a constraint may.
    """
    text = text.strip()
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise ConstraintError(f"not an expression{_hint(text)}") from None
    for node in ast.walk(tree):
        if isinstance(node, ast.expr) and not _is_allowed(node):
            raise ConstraintError(
                f"`{ast.unparse(node)}` cannot be used in a condition{_hint(text)}: "
                "it has keys, numbers, texts, lists, comparisons, arithmetic, and, or, not",
                _text_from(text, node),
            )
    return Constraint(text, tree)


def _is_allowed(node: ast.expr) -> bool:
    match node:
        case ast.Constant(value=value):
            return value is None or isinstance(value, str | int | float)
        case ast.Attribute(value=value):
            return isinstance(value, ast.Name | ast.Attribute)
        case ast.UnaryOp(op=sign):
            return isinstance(sign, ast.Not) or type(sign) in _SIGNS
        case ast.BinOp(op=operation):
            return type(operation) in _ARITHMETIC
        case ast.Compare(ops=comparisons):
            return not any(isinstance(comparison, ast.Is | ast.IsNot) for comparison in comparisons)
    return isinstance(node, ast.Name | ast.BoolOp | ast.List | ast.Tuple)


def _names(tree: ast.expr) -> Iterator[tuple[ast.expr, str]]:
    """Yield the names of an expression with their keys; `model.width` is one name."""
    if isinstance(tree, ast.Name | ast.Attribute):
        yield tree, _key(tree)
        return
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.expr):
            yield from _names(child)


def _key(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return f"{_key(node.value)}.{node.attr}"
    assert isinstance(node, ast.Name)
    return node.id


def _text_from(text: str, node: ast.expr) -> str:
    return text.encode()[node.col_offset :].decode() if node.lineno == 1 else ""


def _hint(text: str) -> str:
    matches = ((re.search(pattern, text), word) for pattern, word in _HINTS.items())
    return next((f"; write `{word}` for `{match[0]}`" for match, word in matches if match), "")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_equal(left: Any, right: Any) -> bool:
    """Return True if two values are equal; none equals "none", and true does not equal 1."""
    left, right = (NONE if value is None else value for value in (left, right))
    return is_equal(left, right)


def _quote(value: object) -> str:
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
