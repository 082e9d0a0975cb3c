"""Recorded tracebacks without the calls inside libraries, so that the lines of the user's code stand out."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby
from pathlib import Path

_FRAME = re.compile(r'\s*File "([^"]+)", line \d+')
_LABBENCH_FOLDER = f"{Path(__file__).parent}/"
_LIBRARIES = ("/site-packages/", "/dist-packages/", "/lib/python3", "<frozen ", _LABBENCH_FOLDER)
"""Parts of the paths of files that are not the user's."""


def fold_traceback(traceback: str) -> str:
    """Return a traceback with each series of calls in libraries replaced by a line with their number.

    A traceback without a call in the user's code is returned unchanged.
    """
    entries = list(_entries(traceback.splitlines()))
    if not any(_is_library(entry) is False for entry in entries):
        return traceback
    lines: list[str] = []
    for is_library, group in groupby(entries, _is_library):
        calls = list(group)
        if is_library:
            lines.append(f"  ... {len(calls)} call{'s' * (len(calls) > 1)} in libraries ...")
        else:
            lines += [line for entry in calls for line in entry]
    return "\n".join(lines)


def _entries(lines: list[str]) -> Iterator[list[str]]:
    """Yield each frame with the lines of source below it, and each other line alone."""
    entry: list[str] = []
    for line in lines:
        if entry and (line.startswith("    ") and not _FRAME.match(line)):
            entry.append(line)
            continue
        if entry:
            yield entry
        entry = [line] if _FRAME.match(line) else []
        if not entry:
            yield [line]
    if entry:
        yield entry


def _is_library(entry: list[str]) -> bool | None:
    """Return True for a frame in a library, False for one in other code, None for another line."""
    match = _FRAME.match(entry[0])
    return None if match is None else any(part in match[1] for part in _LIBRARIES)
