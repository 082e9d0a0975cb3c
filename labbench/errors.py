"""The errors that a caller may want to tell apart; each message says what happened, where, and what to do next.

LabbenchError            anything labbench can explain; the CLI exits 1
├── InputError           wrong usage or bad input, nothing was changed; the CLI exits 2
│   ├── GridError        a grid.toml that cannot be used, with its file, line and column
│   ├── FilterError      a filter expression that does not parse, with the position
│   └── RunNotFound      a word that names no run, or several
├── SampleError          a sample of a task's data that cannot be read
└── StoreError           a database that cannot be opened, read or written
"""

from collections.abc import Iterable


class LabbenchError(Exception):
    """Something that labbench can explain to a person in its message."""


class InputError(LabbenchError):
    """Wrong usage or bad input; nothing was changed."""


class GridError(InputError):
    """A grid file that cannot be used: `file:line:col: message`, then the line with a caret."""

    def __init__(self, message: str, *, file: str = "", line: int = 0, column: int = 0, text: str = "") -> None:
        """`line` and `column` count from 1; `text` is the offending line; 0 and "" mean unknown."""
        self.message, self.file, self.line, self.column, self.text = message, file, line, column, text
        where = ":".join(str(part) for part in (file, line, column) if part)
        caret = f"\n    {text}\n    {caret_under(text, column)}" if text else ""
        super().__init__(f"{where}: {message}{caret}" if where else f"{message}{caret}")


class FilterError(InputError):
    """A filter expression that does not parse; `position` counts characters from 0."""

    def __init__(self, message: str, *, expression: str, position: int) -> None:
        self.message, self.expression, self.position = message, expression, position
        super().__init__(f"{message}\n    {expression}\n    {caret_under(expression, position + 1)}")


class RunNotFound(InputError):
    """A word that names no run, or more than one; `candidates` are the keys and names it could mean."""

    def __init__(self, message: str, *, candidates: tuple[str, ...] = ()) -> None:
        self.candidates = candidates
        super().__init__(message)


class SampleError(LabbenchError):
    """A sample of a task's data that cannot be read: none of the runs that learn from it can go on."""


class StoreError(LabbenchError):
    """A database that cannot be opened, read or written."""


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of a message about an unknown word: the one that was probably meant, or nothing."""
    from difflib import get_close_matches  # costs 2 ms, and most runs have no error

    near = get_close_matches(word, list(words), n=1)
    return f"; did you mean `{near[0]}`?" if near else ""


def caret_under(text: str, column: int) -> str:
    """A caret under the given column (from 1) of a line, keeping its tabs so that the two line up."""
    return "".join("\t" if character == "\t" else " " for character in text[: column - 1]) + "^"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: Python's, a GPU's, or on a CPU torch's, which has no class of its own for it."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
