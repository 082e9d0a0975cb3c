"""Errors that a caller may want to distinguish.

Each message says what failed, where, and what to do next.

LabbenchError            any error with a message for the user; the CLI exits with status 1
├── InputError           wrong usage or invalid input, nothing was changed; the CLI exits with status 2
│   ├── GridError        a grid file that cannot be used, with file, line and column
│   ├── FilterError      a filter expression that does not parse, with the position
│   └── RunNotFound      text that names no run, or several
├── SampleError          a sample of a task's data that cannot be read
├── DeviceLost           a GPU that does not answer any more; only a new process can use it again
└── StoreError           a database that cannot be opened, read or written
"""

import errno
import re
from collections.abc import Iterable

_QUOTED_CHARACTERS = 72
"""Number of characters of a line that a message quotes."""


MESSAGE_PREFIX = "labbench: "
"""Beginning of the lines that labbench prints on stderr in the process of a script."""


class LabbenchError(Exception):
    """Error whose message explains it to the user."""


class InputError(LabbenchError):
    """Wrong usage or invalid input; nothing was changed."""


class GridError(InputError):
    """Invalid grid file.

    The text is `file:line:column: message`, then the line with a caret under the column.
    """

    def __init__(self, message: str, *, file: str = "", line: int = 0, column: int = 0, text: str = "") -> None:
        """Make an error at a position of a grid file.

        `line` and `column` count from 1; `text` is the line; 0 and "" mean unknown.
        """
        self.message, self.file, self.line, self.column, self.text = message, file, line, column, text
        where = ":".join(str(part) for part in (file, line, column) if part)
        caret = quote_line(text, column) if text else ""
        super().__init__(f"{where}: {message}{caret}" if where else f"{message}{caret}")


class FilterError(InputError):
    """Invalid filter expression; `position` counts characters from 0."""

    def __init__(self, message: str, *, expression: str, position: int) -> None:
        self.message, self.expression, self.position = message, expression, position
        super().__init__(f"{message}{quote_line(expression, position + 1)}")


class RunNotFound(InputError):
    """Text that names no run, or more than one.

    `candidates` are the keys and names that it could mean.
    """

    def __init__(self, message: str, *, candidates: tuple[str, ...] = ()) -> None:
        self.candidates = candidates
        super().__init__(message)


class SampleError(LabbenchError):
    """Unreadable sample of a task's data, which ends all runs that train on it."""


class DeviceLost(LabbenchError):
    """GPU that does not answer any more: every further operation of this process on it fails."""


class StoreError(LabbenchError):
    """Database that cannot be opened, read or written."""


def as_labbench_error(error: Exception) -> LabbenchError:
    """Return an error with a message for the user: `error` itself, or one that reports a fault of labbench."""
    if isinstance(error, LabbenchError):
        return error
    return LabbenchError(f"internal error in labbench, please report it: {type(error).__name__}: {error!s:.200}")


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """Return `; did you mean ...?` with the most similar of `words`, or "".

    Capitals do not count, and a name without its path (`lr` for `optimizer.lr`) is the most similar.
    """
    from difflib import get_close_matches  # takes 2 ms, needed only for an error

    spellings: dict[str, str] = {}
    for name in words:
        spellings.setdefault(name.lower(), name)
    lower = word.lower()
    same_end = [text for text in spellings if re.split(r"[./]", text)[-1] == lower]
    matches = [lower] if lower in spellings else same_end or get_close_matches(lower, list(spellings), n=1)
    return f"; did you mean `{spellings[matches[0]]}`?" if matches else ""


def quote_line(text: str, column: int) -> str:
    """Return two indented lines, each after a newline: `text` and a caret under a column (from 1).

    A long text is cut at both ends, so that the lines fit a terminal of 80 columns.
    """
    start = max(0, min(column - 1 - _QUOTED_CHARACTERS // 2, len(text) - _QUOTED_CHARACTERS))
    shown = text[start : start + _QUOTED_CHARACTERS]
    before, after = "…" if start else "", "…" if start + len(shown) < len(text) else ""
    return f"\n    {before}{shown}{after}\n    {before and ' '}{_caret_under(shown, column - start)}"


def _caret_under(text: str, column: int) -> str:
    """Return a line with a caret under a column (from 1) of `text`.

    Tabs are kept, so that the two lines align.
    """
    return "".join("\t" if character == "\t" else " " for character in text[: column - 1]) + "^"


def is_device_error(error: BaseException) -> bool:
    """Return True if an operation on a GPU failed, except for a lack of memory.

    CUDA has one state per process: after most such errors, all further operations fail as well.
    """
    if is_out_of_memory(error):
        return False
    is_from_cuda = isinstance(error, RuntimeError) and str(error).startswith("CUDA error")
    return is_from_cuda or type(error).__name__ == "AcceleratorError"


def is_lack_of_resources(error: OSError) -> bool:
    """Return True if the process or the machine has no file descriptor, memory or process left for an operation."""
    return error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if memory ran out.

    On a CPU, torch raises a RuntimeError, without a class of its own.
    """
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
