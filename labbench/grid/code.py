"""Code of a task: digests of its files that ignore comments, docstrings and layout, and its uses of a parameter.

A file's digest is the SHA-256 of labbench's own serialization of its syntax tree, which is the same on every Python
that can parse it. Positions, comments, docstrings and other bare strings are left out. Empty fields are left out too,
because later versions of Python add some.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbench.errors import InputError
from labbench.grid.command_template import Word, is_filled_as_before

IMPORTERS = ("import_module", "__import__")
"""Functions that import the module that their first argument names."""

COMMAND = "the command"
"""Name under which the words of a command are listed among its files."""

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment"})
"""Fields that are determined by other fields or have no effect."""


@dataclass(frozen=True, slots=True)
class Code:
    """Code that computes a grid's results."""

    version: str
    """`digits@1` for a built-in task, else the SHA-256 of all files' digests and of all names but the first."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by path relative to the task's folder, the task's own file first; empty for a built-in task."""

    @classmethod
    def from_files(cls, files: Mapping[str, str]) -> Code:
        """Return the code of files given by name and digest.

        The first file is the task's own.
        """
        (_, first), *others = files.items()
        return cls(hashlib.sha256(json.dumps([first, sorted(others)]).encode()).hexdigest(), files)

    @property
    def text(self) -> str:
        """The files as JSON, as recorded in the database; empty without files."""
        return json.dumps(dict(sorted(self.files.items()))) if self.files else ""


def task_code(file: Path) -> Code:
    """Return the code of a task file and of the modules that it imports.

    Only modules in its folder count, whether imported directly or indirectly.

    Imports are found by the `import` statements and by `import_module("name")`, at any place in a file, also in folders
    that a file adds to `sys.path`.

    Raises:
        InputError: A file cannot be read.
    """
    digests: dict[str, str] = {}
    trees: dict[Path, ast.Module] = {}
    folders, pending = [file.parent], [file]
    while pending:
        path = pending.pop()
        name = path.relative_to(file.parent).as_posix()
        if name in digests:
            continue
        content = read_bytes(path)
        tree = parse_python(content)
        digests[name] = hashlib.sha256(content).hexdigest() if tree is None else tree_digest(tree)
        if tree is not None:
            trees[path] = tree
            added = [each for each in _added_folders(tree, path, file.parent) if each not in folders]
            folders += added
            for other in trees if added else [path]:
                pending += _imported_files(trees[other], other, folders)
    return Code.from_files(digests)


def command_code(
    words: Sequence[Word], script: Path | None, *, env: Mapping[str, str] | None = None, cwd: str = ""
) -> Code:
    """Return the code of a command: its words, environment variables, working directory and its script's bytes.

    A command without the two, whose placeholders have been filled in the same way since the first release, keeps its
    digest of that release.

    Raises:
        InputError: The script cannot be read.
    """
    files = {} if script is None else {script.name: hashlib.sha256(read_bytes(script)).hexdigest()}
    content: Any = list(words)
    if env or cwd or not is_filled_as_before(words):
        content = {"words": content, "env": dict(sorted((env or {}).items())), "cwd": cwd, "template": 2}
    return Code.from_files({**files, COMMAND: hashlib.sha256(json.dumps(content).encode()).hexdigest()})


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the names of files that are new, missing or different, sorted."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def tree_digest(tree: ast.Module) -> str:
    """Return the SHA-256, hexadecimal, of a module's syntax tree."""
    return hashlib.sha256("".join(_tokens(tree)).encode()).hexdigest()


def read_bytes(file: Path) -> bytes:
    """Return the content of a file. Raises InputError if it cannot be read."""
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None


def parse_python(content: bytes) -> ast.Module | None:
    """Return the syntax tree of a file, None if this Python cannot parse it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about invalid escapes
        try:
            return ast.parse(content)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


# Serialization: `(Class field=value ...)`, lists in brackets, constants with their type. Iterative, since a long sum
# makes a deep tree.


def _tokens(tree: ast.Module) -> Iterator[str]:
    pending: list[Any] = [tree]
    while pending:
        item = pending.pop()
        if isinstance(item, _Token):
            yield item
        elif isinstance(item, ast.Constant):
            yield f"{_constant(item.value)} "
        elif isinstance(item, ast.AST):
            yield f"({type(item).__name__} "
            parts = [part for name, value in _fields(item) for part in (_Token(f"{name}="), value)]
            pending += reversed([*parts, _Token(") ")])
        elif isinstance(item, list):
            yield "["
            pending += reversed([*item, _Token("] ")])
        else:
            yield f"{_constant(item)} "


class _Token(str):
    """Text that is written without conversion."""


def _fields(node: ast.AST) -> list[tuple[str, Any]]:
    """Return the fields of a node that have an effect, sorted by name."""
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in _LEFT_OUT]
    if isinstance(node, ast.JoinedStr):
        fields = [("values", _merge_text(node.values))]
    fields = [(name, _statements(value) if isinstance(value, list) else value) for name, value in fields]
    return sorted((name, value) for name, value in fields if value is not None and value != [])


def _statements(items: list[Any]) -> list[Any]:
    """Return a list without bare strings such as docstrings."""
    return [item for item in items if not (isinstance(item, ast.Expr) and _is_text(item.value))]


def _merge_text(values: list[ast.expr]) -> list[ast.expr]:
    """Return the parts of an f-string with adjacent text merged: Python versions split it differently."""
    pieces: list[ast.expr] = []
    for value in values:
        if isinstance(value, ast.Constant) and pieces and isinstance(last := pieces[-1], ast.Constant):
            pieces[-1] = ast.Constant(str(last.value) + str(value.value))
        else:
            pieces.append(value)
    return [piece for piece in pieces if not (isinstance(piece, ast.Constant) and piece.value == "")]


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _constant(value: object) -> str:
    """Return a constant as ASCII text with its type; equal constants give equal text."""
    match value:
        case str():
            return json.dumps(value)
        case bytes():
            return f"b{value.hex()}"
        case bool() | None:
            return str(value)
        case int():
            return hex(value)
        case float():
            return f"f{value.hex()}"
        case complex():
            return f"c{value.real.hex()},{value.imag.hex()}"
    return type(value).__name__  # `...`


# Imports.


def _imported_files(tree: ast.Module, path: Path, folders: Sequence[Path]) -> list[Path]:
    """Return the files inside the first of `folders`, the task's, that the module in `path` imports from them."""
    files = []
    for level, name in _imported_names(tree, is_package=path.name == "__init__.py"):
        bases = folders if level == 0 else [path.parents[min(level, len(path.parents)) - 1]]
        files += [file for base in bases for file in _files_of(base, name) if file.is_relative_to(folders[0])]
    return files


def _imported_names(tree: ast.Module, *, is_package: bool) -> Iterator[tuple[int, str]]:
    """Yield level and dotted name of each import, and of each name in `__all__` of a package."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from ((0, alias.name) for alias in names)
            case ast.ImportFrom(names=names, level=level, module=module):
                yield from ((level, f"{module}.{alias.name}" if module else alias.name) for alias in names)
            case ast.Call(func=function, args=[ast.Constant(value=str(name)), *_]) if _name(function) in IMPORTERS:
                yield len(name) - len(name.lstrip(".")), name.lstrip(".")
            case ast.Assign(targets=[ast.Name(id="__all__")], value=value) if is_package:
                yield from ((1, text) for text in _texts(value))


def _added_folders(tree: ast.Module, path: Path, task_folder: Path) -> list[Path]:
    """Return the folders inside the task's folder that the module in `path` names where it changes `sys.path`."""
    names = [text for node in ast.walk(tree) if _changes_search_path(node) for text in _texts(node)]
    folders = [Path(os.path.normpath(base / name)) for base in (path.parent, task_folder) for name in names if name]
    return [each for each in folders if each.is_dir() and each.is_relative_to(task_folder)]


def _changes_search_path(node: ast.AST) -> bool:
    """Return True for `sys.path.append(...)` and the like, and for assignments to `sys.path` or a part of it."""
    match node:
        case ast.Call(func=ast.Attribute(value=changed)):
            pass
        case ast.Assign(targets=[changed, *_]) | ast.AugAssign(target=changed):
            pass
        case _:
            return False
    changed = changed.value if isinstance(changed, ast.Subscript) else changed
    return isinstance(changed, ast.Attribute) and changed.attr == "path" and _name(changed.value) == "sys"


def _texts(node: ast.AST) -> list[str]:
    return [each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str)]


def _files_of(base: Path, name: str) -> list[Path]:
    """Return the files that are executed when a dotted name is imported.

    These are the `__init__.py` of each package in the name, and the module's file if the name includes a module.
    """
    files = []
    parts = name.split(".")
    if parts[0] == "labbench":
        return []  # never part of a task, even in labbench's own checkout
    folder = base
    for part in parts:
        module, package = folder / f"{part}.py", folder / part
        if (package / "__init__.py").is_file():
            files.append(package / "__init__.py")
        elif module.is_file():
            files.append(module)
            break
        folder = package
    return files


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
