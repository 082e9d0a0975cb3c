"""Messages to the user of a script or command: one line each on stderr."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from labbench.errors import MESSAGE_PREFIX, InputError

_printed: set[str] = set()

_MAX_CHARACTERS = 60

_MAX_SUBJECTS = 100
"""Maximum number of reported problems per run: a script may log text under a new key in every step."""


def warn_once(text: str) -> None:
    """Print a message unless it was printed before.

    Never raises, unlike a Python warning, which would end the training where warnings are errors.
    """
    if text not in _printed:
        _printed.add(text)
        warn(text)


def warn(text: str) -> None:
    """Print a message, even if it was printed before. Never raises."""
    try:
        print(f"{MESSAGE_PREFIX}{text}", file=sys.stderr, flush=True)
    except (OSError, ValueError):  # a closed pipe or stream
        return


def describe_error(error: BaseException) -> str:
    """Return the message of an error, or its class if it has none, as many a MemoryError."""
    return str(error) or type(error).__name__


def warn_of_internal_error(error: Exception) -> None:
    """Print a message about an error of labbench itself. Never raises."""
    warn_once(f"internal error in labbench, please report it: some data was not recorded: {error!r}")


class ProblemReporter:
    """Receiver of the problems of a script's calls: logging never stops a training unless the run is strict."""

    def __init__(self, *, strict: bool) -> None:
        self.strict = strict
        self._subjects: set[str] = set()

    def report(self, subject: str, problem: str, consequence: str = "it is not recorded") -> None:
        """Print a message, once per subject, for instance the key of a metric.

        Raises:
            InputError: In a strict run.
        """
        if self.strict:
            raise InputError(problem)
        if subject not in self._subjects and len(self._subjects) < _MAX_SUBJECTS:
            self._subjects.add(subject)
            last = len(self._subjects) == _MAX_SUBJECTS
            warn(f"{problem}; {consequence}{'; further problems of this run are not reported' if last else ''}")


def quote_value(value: Any) -> str:
    """Return a value for a message, shortened, with its type."""
    text = as_text(value, repr)
    return f"{text if len(text) <= _MAX_CHARACTERS else text[: _MAX_CHARACTERS - 1] + '…'} ({type(value).__name__})"


def as_text(value: Any, convert: Callable[[Any], str] = str) -> str:
    """Convert a value to text without raising.

    Python does not print integers of more than 4,300 digits, and a method of the value that `convert` calls may be
    broken.
    """
    if isinstance(value, int):
        try:
            return convert(value)
        except ValueError:
            return hex(value)
    try:
        return convert(value)
    except Exception as error:  # code of the value's class may raise anything, which must not end the training
        return f"<{type(value).__name__}, whose text conversion raised {type(error).__name__}>"
