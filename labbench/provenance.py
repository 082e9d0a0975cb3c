"""Provenance of a result: git commit and diff of the code, versions of the libraries."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from labbench._version import __version__

MAX_DIFF_CHARACTERS = 1_000_000
"""Characters of `git diff` that are recorded; longer diffs are generated files, not edits."""


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


def read_git_state(folder: Path) -> tuple[str | None, bool | None, str]:
    """Return the checked-out commit, a flag for uncommitted changes, and their diff.

    Without a repository the first two are None.
    """
    commit = run_git(folder, "rev-parse", "HEAD")
    diff = run_git(folder, "diff", "HEAD") if commit else ""
    return commit or None, bool(diff) if commit else None, diff[:MAX_DIFF_CHARACTERS]


def run_git(folder: Path, *words: str) -> str:
    """Return the output of a git command, or "" if it cannot be run or fails."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


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
