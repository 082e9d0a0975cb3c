"""Identities of runs: two runs with equal identities have the same result.

Parameters at their defaults are left out, so that a later release can add parameters without invalidating existing
runs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from labbench.configs import canonical_json
from labbench.grid.code import Code, command_code, read_bytes, task_code
from labbench.grid.command_template import expand_home_in_word, is_filled_as_before, placeholders, plain_words
from labbench.grid.read import Grid
from labbench.params.builtin import TASK_VERSIONS, takes_weights
from labbench.params.param import Param, Params
from labbench.params.paths import resolve_checkpoint, resolve_data_path
from labbench.records import Config, Stop


def grid_code(grid: Grid) -> Code:
    """Return the code that computes a grid's runs. Raises InputError if one of its files cannot be read."""
    if grid.task in TASK_VERSIONS:
        return Code(f"{grid.task}@{TASK_VERSIONS[grid.task]}")
    if grid.command:
        return command_code(grid.command, find_command_script(grid), env=grid.env, cwd=grid.cwd)
    return task_code(Path(grid.task.rpartition(":")[0]))


def task_identity(grid: Grid, code: Code) -> str:
    """Return the identity of the grid's task.

    The identity is `digits@1`, or a code version with the name of a class.
    """
    return f"code:{code.version}:{grid.task.rpartition(':')[2]}" if code.files else code.version


def former_task_identity(grid: Grid) -> str:
    """Return the `task_identity` of the first release, which hashed the bytes of one file.

    Returns "" for a command that the first release would have started otherwise.

    Raises:
        InputError: The file cannot be read.
    """
    if grid.command:
        if grid.env or grid.cwd or not is_filled_as_before(grid.command):
            return ""
        script = find_command_script(grid)
        content = read_bytes(script) if script else b""
        return f"command:{_sha256(canonical_json(list(grid.command)).encode() + content)}"
    file, _, name = grid.task.rpartition(":")
    return f"file:{_sha256(read_bytes(Path(file)))}:{name}"


def find_command_script(grid: Grid) -> Path | None:
    """Return the script of a grid's command, None if no word is a file."""
    cwd = "" if any(placeholders([grid.cwd])) else expand_home_in_word(grid.cwd)
    return find_script(plain_words(grid.command), grid.path.parent / cwd)


def find_script(command: Sequence[str], folder: Path) -> Path | None:
    """Return the script that a command runs.

    The script is the first word if that is a script, else the first file among the other words.

    For example train.py in `python train.py`, train.sh in `./train.sh data.csv`; the path of an interpreter is not a
    script. Returns None if no word is a file.
    """
    first, *others = map(expand_home_in_word, command)
    program = folder / first
    if "/" in first and _is_file(program) and (not Path(first).is_absolute() or read_bytes(program)[:2] == b"#!"):
        return program
    return next((folder / word for word in others if _is_file(folder / word)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # such as a word that is too long for a path
        return False


def identity(task: str, config: Config, params: Params, stop: Stop | None) -> str:
    """Return the SHA-256, hexadecimal, of the task's identity, the config without defaults, and `[stop]`.

    Identities with a code version have the prefix `v2`, others `v1`; identities of built-in tasks have never changed.
    """
    version = "v2" if task.startswith("code:") else "v1"
    values = {key: value for key, value in config.items() if key not in params or not _is_default(params[key], value)}
    rule = {f.name: value for f in fields(stop) if (value := getattr(stop, f.name)) != f.default} if stop else None
    return _sha256("\n".join((version, task, canonical_json(values), canonical_json(rule))).encode())


def with_file_digests(
    task: str, config: Config, params: Params, digest: Callable[[Path], str], files: Path | None
) -> Config:
    """Return the config with paths replaced by digests of the files.

    `files` is the folder of the database's files.

    Raises:
        InputError: A file is missing.
    """
    content = dict(config)
    if task == "own":
        content["path"] = digest(resolve_data_path(config["path"]))
    if takes_weights(params) and config["init_from"] is not None:
        content["init_from"] = digest(resolve_checkpoint(config["init_from"], files))
    return content


def _is_default(param: Param, value: Any) -> bool:
    return bool(value == (list(param.default) if isinstance(param.default, tuple) else param.default))


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
