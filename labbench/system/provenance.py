"""Provenance of a result: git commit and diff of the code, versions of the libraries."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from pathlib import Path

from labbench._version import __version__
from labbench.system.git_state import read_git_state


@dataclass(frozen=True, slots=True)
class Provenance:
    """State of the code in a folder, and versions of the libraries."""

    git_commit: str | None
    git_dirty: bool | None
    git_diff: str
    versions: dict[str, str]


def read_provenance(folder: Path) -> Provenance:
    """Return the git state of `folder` and the library versions.

    The git fields are empty if `folder` is not in a repository or git is missing.
    """
    commit, dirty, diff = read_git_state(folder)
    return Provenance(commit, dirty, diff, library_versions())


def library_versions() -> dict[str, str]:
    """Return the versions of Python, labbench and, if installed, torch and numpy."""
    from importlib import metadata  # 25 ms

    versions = {"python": platform.python_version(), "labbench": __version__}
    for name in ("torch", "numpy"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions
