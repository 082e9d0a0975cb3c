"""Import contexts: each task file sees the modules of its own folder, and of no other task.

A task file imports its neighbours by plain names (`from models import make`), and two tasks in two folders may each
have a `models.py`. Within its context, a file's modules are in `sys.modules` under these names and its folder is first
in `sys.path`, also for imports inside functions, for pickling and in forked processes. On leaving, both are restored,
and the modules are cached for the next time.
"""

from __future__ import annotations

import importlib
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

from labbench.train.failures import LABBENCH_FOLDER, LIBRARY_FOLDERS

Stamp: TypeAlias = tuple[int, int]
"""Modification time of a file in nanoseconds, and its size in bytes."""

_UNKNOWN = (0, 0)


def imports_of(task: str) -> AbstractContextManager[None]:
    """Return the import context in which a task's code must run."""
    file, _, _ = task.rpartition(":")
    return _context_of(Path(file).absolute()).enter() if file.endswith(".py") else nullcontext()


def open_modules() -> list[ModuleType]:
    """Return the imported modules of the task whose context is open."""
    context = ImportContext._open
    return [] if context is None else list(context.owned(sys.modules).values())


def imported_files(task: str) -> list[Path]:
    """Return the files of the modules that a task has imported from its folder and from paths that it has added."""
    context = _context_of(Path(task.rpartition(":")[0]).absolute())
    return context.files


class ImportContext:
    """Local modules of one task file.

    Entering the context that is already open is a no-op.
    """

    _open: ImportContext | None = None
    """Context that is open in this process."""

    def __init__(self, file: Path) -> None:
        self.folder = file.parent
        self._paths = [str(self.folder)]
        """Entries at the front of `sys.path`: the folder, then paths that the task has added."""
        self._modules: dict[str, ModuleType] = {}
        """Cached modules by name while the context is closed."""
        self._stamps: dict[Path, Stamp] = {}

    @contextmanager
    def enter(self) -> Iterator[None]:
        """Install the task's modules and paths for the block.

        The modules and paths of the process are restored afterwards.
        """
        outer, start = ImportContext._open, time.time_ns()
        if outer is self:
            yield
            return
        modules, paths = dict(sys.modules), list(sys.path)
        shadowed = self._shadowed(modules)
        for name in shadowed:
            del sys.modules[name]
        sys.path[:0] = self._paths
        if any(_stamp(path) != stamp for path, stamp in self._stamps.items()):
            self._modules, self._stamps = {}, {}
        sys.modules.update(self._modules)
        importlib.invalidate_caches()  # a module of the task may be newer than Python's cached listing of its folder
        ImportContext._open = self
        try:
            yield
        finally:
            ImportContext._open = outer
            self._paths = [str(self.folder), *dict.fromkeys(path for path in sys.path if path not in paths)]
            new = {name: module for name, module in list(sys.modules.items()) if module is not modules.get(name)}
            self._modules = self.owned(new)
            for path in (location for module in self._modules.values() for location in _locations(module)):
                self._stamps.setdefault(path, _stamp(path, before=start))
            for name in self._modules:
                del sys.modules[name]
            sys.modules.update(shadowed)
            sys.path[:] = paths

    @property
    def files(self) -> list[Path]:
        """Files of the cached modules."""
        return [path for module in self._modules.values() for path in _locations(module) if path.is_file()]

    def owned(self, modules: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
        """Return the modules that were imported from the paths of this task."""
        folders = [Path(path).absolute() for path in self._paths]
        return {
            name: module
            for name, module in list(modules.items())
            if any(_lies_in(location, folder) for location in _locations(module) for folder in folders)
        }

    def _shadowed(self, modules: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
        """Return the loaded modules that have the name of a module in the task's folder.

        Libraries are never shadowed.
        """
        local = {entry.stem for entry in self.folder.glob("*") if entry.suffix == ".py" or entry.is_dir()}
        candidates = {
            name: module for name, module in modules.items() if name.partition(".")[0] in local - {"__main__"}
        }
        return {
            name: module
            for name, module in candidates.items()
            if any(
                not is_of_library(location) and not location.is_relative_to(self.folder)
                for location in _locations(module)
            )
        }


@cache
def _context_of(file: Path) -> ImportContext:
    return ImportContext(file)


def _locations(module: ModuleType) -> list[Path]:
    """Return the file of a module, or the folders of a namespace package.

    Built-in modules have none.
    """
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [_parse(file)]
    try:
        return [_parse(path) for path in getattr(module, "__path__", ()) if isinstance(path, str)]
    except (TypeError, KeyError):  # not a module, or a package whose parent was removed
        return []


@cache
def _parse(path: str) -> Path:
    """Return the path; parsing the thousands of paths of `sys.modules` takes longer than comparing them."""
    return Path(path)


def _lies_in(path: Path, folder: Path) -> bool:
    parts = folder.parts
    return path.parts[: len(parts)] == parts and not is_of_library(path)  # `is_relative_to` parses the folder each time


def is_of_library(path: Path) -> bool:
    return any(map(path.is_relative_to, (*LIBRARY_FOLDERS, LABBENCH_FOLDER))) or "site-packages" in path.parts


def _stamp(path: Path, *, before: int | None = None) -> Stamp:
    """Return the stamp of a file; `_UNKNOWN` for a folder, a missing file, or one changed after `before`.

    A file that changed after `before` may differ from the imported one.
    """
    try:
        stat = path.stat()
    except OSError:
        return _UNKNOWN
    if path.is_dir() or (before is not None and stat.st_mtime_ns > before):
        return _UNKNOWN
    return stat.st_mtime_ns, stat.st_size
