"""Files of a script: the script itself, and the modules beside it that it imports."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from labbench.errors import InputError
from labbench.scaffolding.script_options import ScriptOptions, read_options

_OTHER_PARSERS = ("click", "typer", "fire", "tyro", "hydra", "absl", "jsonargparse", "simple_parsing", "docopt", "plac")
"""Libraries that read options in other ways than argparse."""

_MAX_MODULES = 50
"""Number of modules beside the script that are searched for options."""


@dataclass(frozen=True, slots=True)
class Script:
    """Options of a script, and the libraries with which it logs."""

    path: Path
    options: ScriptOptions
    imports: frozenset[str]
    """Names of the packages that the script and its modules import."""


def read_script(path: Path) -> Script:
    """Return the options of a script, or of the modules beside it that it imports, without running anything.

    Raises:
        InputError: The script cannot be read, or declares no options with argparse.
    """
    trees = dict(_parse_modules(path))
    imports = frozenset(name.partition(".")[0] for tree in trees.values() for name in _imported_names(tree))
    for tree in trees.values():
        options = read_options(tree)
        if options.options or options.left_out:
            return Script(path, options, imports)
    if (task := _find_task(trees[path])) is not None:
        raise InputError(f"{path}: a task, not a script with options; --task {path}:{task} writes a grid of it")
    raise InputError(_explain_missing_options(path, imports))


def _find_task(tree: ast.Module) -> str | None:
    """Return the first class with the methods of a task, None if there is none."""
    for node in tree.body:
        names = {item.name for item in getattr(node, "body", ()) if isinstance(item, ast.FunctionDef)}
        if isinstance(node, ast.ClassDef) and {"data", "model"} <= names:
            return node.name
    return None


def _explain_missing_options(path: Path, imports: frozenset[str]) -> str:
    """Return the message for a script without calls of argparse: the reason and the next step."""
    words = f'command = ["python", "{path.name}", "--lr", "{{lr}}"]'
    library = next((name for name in _OTHER_PARSERS if name in imports), None)
    if library == "hydra":
        words = f'command = ["python", "{path.name}", "lr={{lr}}"]'
    if library is not None:
        return (
            f"{path}: reads its options with {library}; only those of argparse can be read without running the script. "
            f"Write the words of the command into a grid file yourself: {words}, and the values of lr into [grid]"
        )
    if "labbench" in imports:
        return (
            f"{path}: declares no options with argparse. With labbench.start() it needs none: a grid with "
            f'command = ["python", "{path.name}"] passes the values of its [grid] in run.config'
        )
    return (
        f"{path}: declares no options with argparse, so that a grid has nothing to set. Add some, such as "
        f'parser.add_argument("--lr", type=float, default=0.1), or read the values from labbench.start().config'
    )


def _parse_modules(path: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Yield the syntax trees of a script and of the modules beside it that it imports, the nearest first."""
    waiting, seen = [path], {path}
    while waiting and len(seen) <= _MAX_MODULES:
        module = waiting.pop(0)
        try:
            tree = ast.parse(module.read_bytes(), filename=str(module))
        except SyntaxError as error:
            if module == path:
                raise InputError(f"{path}:{error.lineno or 1}: not Python: {error.msg}") from error
            continue
        except (ValueError, RecursionError, MemoryError) as error:
            raise InputError(f"{module}: not Python: {error}") from error
        yield module, tree
        names = list(_imported_names(tree))
        for candidate in (file for root in (path.parent, module.parent) for file in _local_files(root, names)):
            if candidate not in seen and candidate.is_file():
                seen.add(candidate)
                waiting.append(candidate)


def _imported_names(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of the modules that a module imports, or may import."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if module:
                yield module
            yield from (f"{module}.{alias.name}".lstrip(".") for alias in node.names)


def _local_files(root: Path, names: Iterable[str]) -> Iterator[Path]:
    """Yield the paths that modules have if they are beneath `root`."""
    for name in names:
        base = root.joinpath(*name.split("."))
        yield base.with_name(base.name + ".py")
        yield base / "__init__.py"
