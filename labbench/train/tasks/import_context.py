"""Import contexts: each task file sees the modules of its own folder, and no other task's.

A task file imports what lies beside it by plain names (`from models import make`), and two tasks in two folders may
each have a `models.py`. Within its context a file's modules are in `sys.modules` under these names and its folder is
first in `sys.path`: for imports inside functions, for pickling, and for processes that are forked there. Afterwards
both are as they were before, and the modules are kept for the next time.
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

from labbench.train.user_errors import LABBENCH_FOLDER, LIBRARY_FOLDERS

Stamp: TypeAlias = tuple[int, int]
"""Time of a file's last change in nanoseconds, and its size in bytes."""

_UNKNOWN = (0, 0)


def imports_of(task: str) -> AbstractContextManager[None]:
    """Return the import context of a task, in which all of its code has to run."""
    file, _, _ = task.rpartition(":")
    return _context_of(Path(file).absolute()).entered() if file.endswith(".py") else nullcontext()


class ImportContext:
    """The local modules of one task file. To enter the context that is open already changes nothing."""

    _open: ImportContext | None = None
    """The context in which this process is now."""

    def __init__(self, file: Path) -> None:
        self.folder = file.parent
        self._paths = [str(self.folder)]
        """What precedes the rest of `sys.path`: the folder, and what the task has added."""
        self._modules: dict[str, ModuleType] = {}
        """By name, while the context is not open."""
        self._stamps: dict[Path, Stamp] = {}

    @contextmanager
    def entered(self) -> Iterator[None]:
        outer, began = ImportContext._open, time.time_ns()
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
        importlib.invalidate_caches()  # a file beside the task may be younger than the last look at its folder
        ImportContext._open = self
        try:
            yield
        finally:
            ImportContext._open = outer
            self._paths = [str(self.folder), *dict.fromkeys(path for path in sys.path if path not in paths)]
            self._modules = {
                name: module
                for name, module in list(sys.modules.items())
                if module is not modules.get(name) and self._owns(module)
            }
            for path in (place for module in self._modules.values() for place in _places(module)):
                self._stamps.setdefault(path, _stamp(path, before=began))
            for name in self._modules:
                del sys.modules[name]
            sys.modules.update(shadowed)
            sys.path[:] = paths

    def _owns(self, module: ModuleType) -> bool:
        """Return True for a module that was imported from where only this task looks."""
        return any(_lies_in(place, Path(path).absolute()) for place in _places(module) for path in self._paths)

    def _shadowed(self, modules: Mapping[str, ModuleType]) -> dict[str, ModuleType]:
        """The modules of the process whose names mean other files to this task; a library's go before the folder's."""
        local = {entry.stem for entry in self.folder.glob("*") if entry.suffix == ".py" or entry.is_dir()}
        named = {name: module for name, module in modules.items() if name.partition(".")[0] in local - {"__main__"}}
        return {
            name: module
            for name, module in named.items()
            if any(not is_of_library(place) and not place.is_relative_to(self.folder) for place in _places(module))
        }


@cache
def _context_of(file: Path) -> ImportContext:
    return ImportContext(file)


def _places(module: ModuleType) -> list[Path]:
    """The file of a module, or the folders of a package without one; nothing for what is built in."""
    file = getattr(module, "__file__", None)
    if isinstance(file, str):
        return [Path(file)]
    try:
        return [Path(path) for path in getattr(module, "__path__", ()) if isinstance(path, str)]
    except (TypeError, KeyError):  # no module, or a package whose parent is gone
        return []


def _lies_in(path: Path, folder: Path) -> bool:
    return path.is_relative_to(folder) and not is_of_library(path)


def is_of_library(path: Path) -> bool:
    return any(map(path.is_relative_to, (*LIBRARY_FOLDERS, LABBENCH_FOLDER))) or "site-packages" in path.parts


def _stamp(path: Path, *, before: int | None = None) -> Stamp:
    """The stamp of a file; that of no file where it changed after `before`, which may be after it was imported."""
    try:
        stat = path.stat()
    except OSError:
        return _UNKNOWN
    if path.is_dir() or (before is not None and stat.st_mtime_ns > before):
        return _UNKNOWN
    return stat.st_mtime_ns, stat.st_size
