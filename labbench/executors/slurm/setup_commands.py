"""Setup commands of a job, such as `module load cuda`: guarded lines of bash, and the failure that they print."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

_FAILED = "labbench: setup command failed with status "
"""Beginning of the last line that a job prints if a setup command fails; the status and the command follow."""

_FUNCTION = f'labbench_setup_failed() {{ echo "{_FAILED}$1: $2" >&2; exit "$1"; }}'


def guarded_lines(commands: Sequence[str]) -> list[str]:
    """Return lines of bash that execute the commands in this shell, and exit after the first one that fails."""
    lines = [_FUNCTION] if commands else []
    for command in commands:
        shown = shlex.quote(" ".join(command.split()))
        lines.append(f"eval {shlex.quote(command)} || labbench_setup_failed $? {shown}")
    return lines


def write_setup_script(path: Path, commands: Sequence[str]) -> None:
    """Write a script for bash that executes the commands, then its arguments as a program."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text("\n".join([*guarded_lines(commands), 'exec "$@"', ""]))


def find_setup_failure(output: Sequence[str]) -> str | None:
    """Return what the last line of a job's output says of a failed setup command, as `status 1: COMMAND`."""
    last = output[-1] if output else ""
    return f"status {last.removeprefix(_FAILED)}" if last.startswith(_FAILED) else None
