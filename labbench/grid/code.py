"""Code versions: a digest of what a task's files compute, whatever their comments, docstrings and layout.

A file's digest is the SHA-256 of our own serialisation of its syntax tree, which is the same on every Python that can
read it: positions, comments, docstrings and other bare strings are left out, and so is every field that is empty, since
later versions of Python add some.
"""

from __future__ import annotations

import ast
import hashlib
import json
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labbench.errors import InputError

COMMAND = "the command"
"""What stands for a command's words among its files."""

_LEFT_OUT = frozenset({"ctx", "kind", "type_comment"})
"""Fields that follow from the others or change nothing."""


@dataclass(frozen=True, slots=True)
class Code:
    """What computes a grid's results, as it is now."""

    version: str
    """`digits@1` for a built-in task, else the SHA-256 of all files' digests and of the names of all but the first."""
    files: Mapping[str, str] = field(default_factory=dict)
    """SHA-256 by path relative to the task's folder, the task's own file first; none of a built-in task."""

    @classmethod
    def of(cls, files: Mapping[str, str]) -> Code:
        (_, first), *others = files.items()
        return cls(hashlib.sha256(json.dumps([first, sorted(others)]).encode()).hexdigest(), files)

    @property
    def text(self) -> str:
        """The files as JSON, as it is recorded; empty without files."""
        return json.dumps(dict(sorted(self.files.items()))) if self.files else ""


def task_code(file: Path) -> Code:
    """Return the code of a task file: the file itself and the modules of its folder that it imports, directly or not.

    They are found by their `import` statements, wherever these stand. Raises InputError where the file cannot be read.
    """
    digests: dict[str, str] = {}
    pending = [file]
    while pending:
        path = pending.pop()
        name = path.relative_to(file.parent).as_posix()
        if name not in digests:
            content = read_bytes(path)
            tree = _parsed(content)
            digests[name] = hashlib.sha256(content).hexdigest() if tree is None else tree_digest(tree)
            pending += _imported_files(tree, path, file.parent)
    return Code.of(digests)


def command_code(words: Sequence[str], script: Path | None) -> Code:
    """Return the code of a command: its words, and the bytes of its script, in whatever language."""
    files = {} if script is None else {script.name: hashlib.sha256(read_bytes(script)).hexdigest()}
    return Code.of({**files, COMMAND: hashlib.sha256(json.dumps(list(words)).encode()).hexdigest()})


def changed_files(before: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Return the files that are new, gone or different, by name."""
    return sorted(name for name in before.keys() | now.keys() if before.get(name) != now.get(name))


def tree_digest(tree: ast.Module) -> str:
    """Return the SHA-256, hexadecimal, of a module's syntax tree."""
    return hashlib.sha256("".join(_tokens(tree)).encode()).hexdigest()


def read_bytes(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}") from None


def _parsed(content: bytes) -> ast.Module | None:
    """The syntax tree of a file, None where this Python cannot read it."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes that mean nothing
        try:
            return ast.parse(content)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return None


# The serialisation: `(Class field=value ...)`, lists in brackets, constants with their type. Iterative, since trees are
# as deep as a sum is long.


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
    """Text that is written as it is."""


def _fields(node: ast.AST) -> list[tuple[str, Any]]:
    """The fields of a node that say something, by name."""
    fields = [(name, value) for name, value in ast.iter_fields(node) if name not in _LEFT_OUT]
    if isinstance(node, ast.JoinedStr):
        fields = [("values", _pieces(node.values))]
    fields = [(name, _statements(value) if isinstance(value, list) else value) for name, value in fields]
    return sorted((name, value) for name, value in fields if value is not None and value != [])


def _statements(items: list[Any]) -> list[Any]:
    """A block without strings that are never used, such as docstrings; any other list as it is."""
    return [item for item in items if not (isinstance(item, ast.Expr) and _is_text(item.value))]


def _pieces(values: list[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string, text in one piece: versions of Python cut it in different places."""
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
    """A constant in ASCII, with its type, in one spelling."""
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


def _imported_files(tree: ast.Module | None, path: Path, folder: Path) -> list[Path]:
    """The files inside `folder` that the module in `path` imports."""
    files = []
    for node in ast.walk(tree) if tree else ():
        if isinstance(node, ast.Import):
            names = [(folder, alias.name) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = folder if node.level == 0 else path.parents[min(node.level, len(path.parents)) - 1]
            prefix = f"{node.module}." if node.module else ""
            names = [(base, f"{prefix}{alias.name}") for alias in node.names]
        else:
            continue
        for base, name in names:
            files += [file for file in _files_of(base, name) if file.is_relative_to(folder)]
    return files


def _files_of(base: Path, name: str) -> list[Path]:
    """The files that importing a dotted name runs: the packages on the way, and the module if the name is one's."""
    files = []
    parts = name.split(".")
    if parts[0] == "labbench":
        return []  # which is not found beside a task, even in its own checkout
    here = base
    for part in parts:
        module, package = here / f"{part}.py", here / part
        if (package / "__init__.py").is_file():
            files.append(package / "__init__.py")
        elif module.is_file():
            files.append(module)
            break
        here = package
    return files
