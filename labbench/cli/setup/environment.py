"""Environment for `labbench doctor`: versions, devices, abilities of the terminal, the file system of the database."""

from __future__ import annotations

import platform
import re
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from labbench._version import __version__
from labbench.ascii_text import needs_ascii
from labbench.text import format_count, has_true_color, no_color_requested

_EXTRAS = "train|parquet|gpu|optuna|frames|plots|slurm|ray"
_OPTIONAL_PACKAGE = re.compile(rf"""([\w.-]+).*extra == ['"]({_EXTRAS})['"]""")
"""Requirement of an extra that users install, as the metadata of the distribution writes it."""

_KITTY_PROGRAMS = ("ghostty", "wezterm", "kitty", "konsole")


def environment_facts(database: Path, environ: Mapping[str, str]) -> dict[str, str]:
    """Return the facts of the environment by name, as text."""
    installed, missing = _packages()
    return {
        "labbench": f"{__version__}, Python {platform.python_version()} ({sys.executable}), {platform.platform()}",
        "packages": ", ".join(installed),
        "not installed": ", ".join(missing),
        "devices": _devices(),
        "terminal": _terminal(environ),
        "file system": _file_system(database),
    }


def _packages() -> tuple[list[str], list[str]]:
    """Return the installed optional packages with their versions, and the missing ones with their extras."""
    try:
        requirements = requires("labbench-ml") or []
    except PackageNotFoundError:  # started from a checkout that is not installed
        requirements = []
    installed, missing = {}, {}
    for name, extra in (match.groups() for match in map(_OPTIONAL_PACKAGE.match, requirements) if match):
        try:
            installed[name] = f"{name} {version(name)}"
        except PackageNotFoundError:
            missing[name] = f"{name} (extra {extra})"
    return [*installed.values()], [*missing.values()]


def _devices() -> str:
    """Return the devices that `labbench run` would use, and the number of cores."""
    from labbench.system.cgroups import usable_cpu_count

    cores = format_count(usable_cpu_count(), "CPU core")
    try:
        version("torch")
    except PackageNotFoundError:
        return f"{cores}; without torch, only commands and scripts can be trained"
    try:
        from labbench.train.devices import resolve_devices

        return f"{cores}; a grid trains on {', '.join(resolve_devices('auto'))}"
    except Exception as error:  # a damaged installation of torch may raise anything
        return f"{cores}; torch cannot be imported: {type(error).__name__}: {error!s:.200}"


def _terminal(environ: Mapping[str, str]) -> str:
    """Return size, colours and characters of the terminal, as far as its environment tells them."""
    if not sys.stdout.isatty():
        return "none: the output goes to a file or a pipe"
    size = shutil.get_terminal_size()
    multiplexer = "tmux" if environ.get("TMUX") else "screen" if environ.get("STY") else ""
    program = f"{environ.get('TERM_PROGRAM', '')} {environ.get('TERM', '')}".strip()
    has_kitty = "KITTY_WINDOW_ID" in environ or any(name in program.lower() for name in _KITTY_PROGRAMS)
    graphics = "Kitty graphics" if has_kitty and not multiplexer else "no Kitty graphics known"
    facts = [f"{size.columns} x {size.lines}", program or "TERM is not set", multiplexer, _colours(environ)]
    return ", ".join(filter(None, [*facts, "no UTF-8: ASCII" if needs_ascii(environ) else "UTF-8", graphics]))


def _colours(environ: Mapping[str, str]) -> str:
    term = environ.get("TERM", "")
    if no_color_requested(environ):
        return "no colours (NO_COLOR)"
    if has_true_color(environ):
        return "16 million colours"
    return "no colours" if term in ("", "dumb") else "256 colours" if "256" in term else "16 colours"


def _file_system(database: Path) -> str:
    """Return the type of the database's file system, and whether it can have a write-ahead log."""
    from labbench.store.file_systems import file_system_type, has_shared_memory, network_file_system

    kind = file_system_type(database) or "unknown type"
    if not database.absolute().parent.is_dir():
        return f"the folder {database.parent} does not exist"
    network = network_file_system(database) is not None
    if network or not has_shared_memory(database.absolute().parent):
        reason = "a network file system" if network else "no shared memory or locks"
        return f"{kind}: {reason}, so that the database has a rollback journal; write from one machine"
    return f"{kind}: write-ahead log; {shutil.disk_usage(database.absolute().parent).free / 1e9:.1f} GB free"
