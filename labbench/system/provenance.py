"""Provenance of a result: git commit and uncommitted changes of the code, versions of the libraries."""

from __future__ import annotations

import os
import platform
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from threading import Timer

from labbench._version import __version__
from labbench.errors import is_lack_of_resources

MAX_PATCH_CHARACTERS = 1_000_000
"""Characters of the patch that are recorded; files with longer changes are generated, not edited."""

_MAX_READ_BYTES = 16 * MAX_PATCH_CHARACTERS

_GIT_SECONDS = 10.0
"""Maximum seconds of one git command."""

_CONFIG = {
    "color.ui": "false", "color.diff": "false", "core.fsmonitor": "false", "core.quotePath": "true",
    "diff.context": "3", "diff.interHunkContext": "0", "diff.noprefix": "false", "diff.mnemonicPrefix": "false",
    "diff.orderFile": os.devnull, "diff.relative": "false", "diff.renames": "false", "diff.submodule": "short",
}  # fmt: skip
"""Replaces the user's settings. Unlike options, it reaches submodules, and no version of git rejects an unknown key."""

_OPTIONS = (
    "--no-ext-diff", "--no-textconv", "--binary", "--src-prefix=a/", "--dst-prefix=b/", "--ignore-submodules=untracked"
)  # fmt: skip

_VARIABLES_OF_HOOKS = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_DIFF_OPTS"}
"""Variables that git sets for its hooks and `rebase --exec`; they may refer to another repository."""

_START = b"diff --git "
"""Start of the first line of each file's patch. No line within a patch starts like this."""


@dataclass(frozen=True, slots=True)
class Provenance:
    """State of the code in a folder, and versions of the libraries."""

    git_commit: str | None
    git_dirty: bool | None
    git_diff: str
    versions: dict[str, str]


def read_provenance(folder: Path) -> Provenance:
    """Return the git state of `folder` and the library versions.

    The git fields are empty if `folder` is not in a repository or git cannot be started.
    """
    try:
        commit, dirty, diff = read_git_state(folder)
    except OSError:
        commit, dirty, diff = None, None, ""
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


def read_git_state(folder: Path) -> tuple[str | None, bool | None, str]:
    """Return the checked-out commit, a flag for uncommitted changes, and these changes as a patch.

    `git apply` accepts the patch, whatever the user's git configuration is. Untracked files do not count as changes.
    Without a repository or git, the first two are None; the flag is also None if git takes longer than 10 s, or
    refuses the repository of another user, such as a folder of the host in a container.

    Raises:
        OSError: If the process lacks the file descriptors or the memory to start git.
    """
    # reading the commit runs no command of a repository that git does not trust, unlike reading its changes
    commit = (_run_git(folder, ["-c", "safe.directory=*", "rev-parse", "HEAD"]) or b"").decode().strip()
    diff = _read_diff(folder) if commit else None
    if diff is None:
        return commit or None, None, ""
    return commit, bool(diff), _join_patches(_split_by_file(diff), folder)


def _read_diff(folder: Path, **config: str) -> bytes | None:
    settings = [word for name, value in (_CONFIG | config).items() for word in ("-c", f"{name}={value}")]
    return _run_git(folder, [*settings, "diff", *_OPTIONS, "HEAD", "--"])


def _run_git(folder: Path, words: list[str]) -> bytes | None:
    """Return the output of a git command, at most `_MAX_READ_BYTES`, or None if there is no git or it fails.

    Raises:
        OSError: If the process lacks the file descriptors or the memory to start it.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _VARIABLES_OF_HOOKS}
    environment["GIT_OPTIONAL_LOCKS"] = "0"  # do not write to the index beside the user's own git commands
    try:
        process = subprocess.Popen(
            ["git", "-C", str(folder), *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
    except OSError as error:
        if is_lack_of_resources(error):
            raise
        return None
    timer = Timer(_GIT_SECONDS, process.kill)
    with process:
        timer.start()
        assert process.stdout is not None
        output = process.stdout.read(_MAX_READ_BYTES)
        if len(output) == _MAX_READ_BYTES:
            process.kill()
    timer.cancel()
    return output if process.returncode == 0 or len(output) == _MAX_READ_BYTES else None


def _split_by_file(diff: bytes) -> dict[bytes, bytes]:
    """Return the patch of each file by its first line."""
    patches: dict[bytes, bytes] = {}
    for part in (b"\n" + diff.removesuffix(b"\n")).split(b"\n" + _START)[1:]:
        patch = _START + part + b"\n"
        heading = patch.partition(b"\n")[0]
        patches[heading] = patches.get(heading, b"") + patch  # a file that became a link has two patches
    if patches and len(diff) == _MAX_READ_BYTES:
        patches[heading] = b"\0"  # its end was not read
    return patches


def _join_patches(patches: dict[bytes, bytes], folder: Path) -> str:
    """Return the patches as text with their line ends, headed by the names of files that are left out.

    A patch whose lines are not UTF-8, or that was not read to its end, is replaced by a binary patch.
    """
    if not all(map(_is_text, patches.values())):
        texts = {heading: patch for heading, patch in patches.items() if _is_text(patch)}
        patches = patches | _read_binary_patches(folder) | texts
    included, omitted, free = [], [], MAX_PATCH_CHARACTERS
    for heading, patch in patches.items():
        if _is_text(patch) and len(patch) <= free:
            included.append(patch.decode())
            free -= len(patch)
        else:
            omitted.append(f"# left out, too long or not UTF-8: {heading.removeprefix(_START).decode()}\n")
    return "".join([*omitted, *included])


def _is_text(patch: bytes) -> bool:
    try:
        return "\0" not in patch.decode()
    except UnicodeDecodeError:
        return False


def _read_binary_patches(folder: Path) -> dict[bytes, bytes]:
    with tempfile.NamedTemporaryFile(suffix=".gitattributes") as attributes:
        attributes.write(b"* -diff\n")
        attributes.flush()
        return _split_by_file(_read_diff(folder, **{"core.attributesFile": attributes.name}) or b"")
