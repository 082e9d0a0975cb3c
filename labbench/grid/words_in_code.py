"""Search of a task's code for uses of a parameter."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from labbench.grid.code import parse_python, read_bytes


def find_readers(folder: Path, files: list[str], key: str) -> str | None:
    """Return the first of the files in `folder` that may read the parameter `key`, None if none does.

    A file reads it if `key` occurs as text, as an attribute or as an argument of a function. The declaration
    `params = {key: Param(...)}` does not count.

    Raises:
        InputError: A file cannot be read.
    """
    for name in files:
        tree = parse_python(read_bytes(folder / name))
        if tree is None or key in _words(tree):
            return name
    return None


def _words(tree: ast.Module) -> Iterator[str]:
    """Yield the texts, attributes and arguments in a module."""
    declared = {
        id(key)
        for node in ast.walk(tree)
        if isinstance(node, ast.Dict)
        for key, value in zip(node.keys, node.values, strict=True)
        if isinstance(value, ast.Call) and _name(value.func) == "Param"
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in declared:
            yield node.value
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.arg):
            yield node.arg


def _name(function: ast.expr) -> str:
    return function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
