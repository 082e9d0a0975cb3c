"""Where a result comes from: the code's commit and diff, the versions of what ran it."""

from __future__ import annotations

import platform
import subprocess
from dataclasses import dataclass
from pathlib import Path

from labbench._version import __version__

MAX_DIFF_CHARACTERS = 1_000_000
"""Characters of `git diff` that are kept: past that it is generated files, not a change somebody made."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """The state of the code in a folder, and the versions of the libraries."""

    git_commit: str | None
    git_dirty: bool | None
    git_diff: str
    versions: dict[str, str]


def read_provenance(folder: Path) -> Provenance:
    """What git knows of `folder` (nothing where it is no repository, or git is missing), and library versions."""
    commit, dirty, diff = read_git_state(folder)
    return Provenance(commit, dirty, diff, library_versions())


def read_git_state(folder: Path) -> tuple[str | None, bool | None, str]:
    """The commit that is checked out, whether files differ from it, and how."""
    commit = run_git(folder, "rev-parse", "HEAD")
    diff = run_git(folder, "diff", "HEAD") if commit else ""
    return commit or None, bool(diff) if commit else None, diff[:MAX_DIFF_CHARACTERS]


def run_git(folder: Path, *words: str) -> str:
    """What a git command prints, or "" where it cannot be run or fails."""
    try:
        result = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, errors="replace", timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return result.stdout.strip() if result.returncode == 0 else ""


def library_versions() -> dict[str, str]:
    """Versions of Python, labbench and, where they are installed, of the libraries that train."""
    from importlib import metadata  # 25 ms

    found = {"python": platform.python_version(), "labbench": __version__}
    for name in ("torch", "numpy"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
