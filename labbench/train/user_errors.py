"""Locate an error in a user's code: the line to fix, not the library line that raised it."""

from __future__ import annotations

import sysconfig
import traceback
from pathlib import Path

LIBRARY_FOLDERS = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
LABBENCH_FOLDER = str(Path(__file__).parents[1])


def error_location(error: BaseException, file: Path | None = None) -> str:
    """Return `file:line: Error: message`, followed by that source line.

    The line is the deepest frame in `file`, by default the deepest frame outside libraries.
    """
    summary = traceback.format_exception_only(error)[-1].strip()
    if isinstance(error, SyntaxError) and file is not None:
        return f"{error.filename or file}:{error.lineno}: {summary}\n    {(error.text or '').strip()}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_user_code(frame.filename, file)]
    if not frames:
        return summary if file is None else f"{file}: {summary}"
    return f"{frames[-1].filename}:{frames[-1].lineno}: {summary}\n    {(frames[-1].line or '').strip()}"


def user_line(error: BaseException) -> str | None:
    """Return the deepest line of user code in the traceback, as `task.py:12`; None if there is none."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_user_code(frame.filename, None)]
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else None


def _is_user_code(filename: str, file: Path | None) -> bool:
    """Return True for `file`, or if it is None, for any file outside libraries."""
    return (
        Path(filename) == file
        if file is not None
        else not filename.startswith((*LIBRARY_FOLDERS, LABBENCH_FOLDER, "<")) and "site-packages" not in filename
    )
