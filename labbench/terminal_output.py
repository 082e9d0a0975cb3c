"""Captured output as a terminal shows it, in bounded memory.

A progress bar writes its line again and again: with carriage returns, or with cursor movements if it has several lines.
`TerminalLines` follows the cursor, so that each line is recorded once, in its last state. `CapturedOutput` turns the
lines into texts for the database and bounds their size.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import chain

from labbench.sgr import remove_styles
from labbench.terminal_lines import TerminalLines

HEAD_CHARACTERS = 1024 * 1024
"""Characters that are kept from the start of the output."""

TAIL_CHARACTERS = 128 * 1024
"""Characters that are kept from the end of an output that is longer than its head."""

MIN_HEAD_CHARACTERS, MIN_TAIL_CHARACTERS = 64 * 1024, 16 * 1024
"""Characters that are kept at least of the start and of the end, however many runs record the output."""

UNFINISHED_SECONDS = 1.0
"""Seconds between two records of lines that may still change."""

TAIL_SECONDS = 5.0
"""Seconds between two records of the tail, which is written as a whole."""

LAST_LINES = 20
"""Lines that tell why a process failed."""


@dataclass(frozen=True, slots=True)
class LineEnds:
    """First and last lines of an output."""

    first: Sequence[str]
    n_between: int
    """Number of lines between the first and the last ones."""
    last: Sequence[str]


def keep_ends(lines: Iterable[str], head: int, tail: int, size: Callable[[str], int]) -> LineEnds:
    """Return the first and last lines, up to a total `size` of `head` and `tail`, without holding the others."""
    first: list[str] = []
    rest = iter(lines)
    for line in rest:
        head -= size(line)
        if head < 0:
            rest = chain([line], rest)
            break
        first.append(line)
    last: deque[str] = deque()
    n_between = 0
    for line in rest:
        last.append(line)
        tail -= size(line)
        while tail < 0:
            tail += size(last.popleft())
            n_between += 1
    return LineEnds(first, n_between, last)


@dataclass(frozen=True, slots=True)
class OutputText:
    """Text to append to a recorded output."""

    text: str
    """Complete lines with their line ends; or, without a line end at its end, lines that may still change."""
    replaces_unfinished: bool
    """True if the last text without a line end is deleted first."""


class CapturedOutput:
    """Lines of one stream, as texts for the database: the head as it comes, then a tail that moves along."""

    def __init__(self, *, n_runs: int = 1) -> None:
        """`n_runs` is the number of runs that record the output, such as the runs of a stack: they share its bounds."""
        self.omitted_lines = 0
        """Number of lines between head and tail that are not kept."""
        self._screen = TerminalLines()
        self._head: list[str] = []
        """Lines that the next `take` returns."""
        self._head_room = max(MIN_HEAD_CHARACTERS, HEAD_CHARACTERS // n_runs)
        self._tail_room = max(MIN_TAIL_CHARACTERS, TAIL_CHARACTERS // n_runs)
        self._tail: deque[str] = deque()
        self._tail_characters = 0
        self._last_lines: deque[str] = deque(maxlen=LAST_LINES)
        self._changed = self._has_unfinished = False
        self._next_unfinished = 0.0

    @property
    def is_due(self) -> bool:
        """True if `take` would return something."""
        return bool(self._head) or (self._changed and time.monotonic() >= self._next_unfinished)

    @property
    def has_changed(self) -> bool:
        """True if text was added that `take` has not returned, due or not."""
        return bool(self._head) or self._changed

    def feed(self, text: str) -> None:
        """Add printed text."""
        self._keep(self._screen.feed(text))
        self._changed = True

    def expedite(self) -> None:
        """Make all text due now."""
        self._next_unfinished = 0.0

    def take(self) -> list[OutputText]:
        """Return what is due."""
        if not self.is_due:
            return []
        head, self._head = _join_lines(self._head), []
        unfinished = "\n".join([*self._tail_lines(), *self._screen.lines]).rstrip()
        return self._texts(head, unfinished)

    def take_before_other_output(self) -> list[OutputText]:
        """Return everything that changed, so that it precedes the output of another stream.

        The lines above an empty last line are final then. A tail waits for the next `take`: it is written as a whole.
        """
        if self._screen.is_at_empty_end:
            self._keep(self._screen.close())
        if self._tail or not self.has_changed:
            return []
        self.expedite()
        return self.take()

    def close(self) -> list[OutputText]:
        """Return the rest; without a line end at its end if the output ends so."""
        ends_in_line = bool(self._screen.lines[-1])
        self._keep(self._screen.close())
        rest = _join_lines([*self._head, *self._tail_lines()])
        self._head = []
        self._tail.clear()
        return self._texts(rest.removesuffix("\n") if ends_in_line else rest, "")

    def last_lines(self) -> list[str]:
        """Return the last lines without their styles, at most `LAST_LINES`."""
        lines = [remove_styles(line) for line in (*self._last_lines, *self._screen.lines)]
        return (lines if lines[-1] else lines[:-1])[-LAST_LINES:]

    def _keep(self, lines: list[str]) -> None:
        self._last_lines.extend(lines)
        for line in lines:
            self._head_room -= len(line) + 1
            if self._head_room >= 0:
                self._head.append(line)
                continue
            self._tail.append(line)
            self._tail_characters += len(line) + 1
            while self._tail_characters > self._tail_room:
                self._tail_characters -= len(self._tail.popleft()) + 1
                self.omitted_lines += 1

    def _tail_lines(self) -> list[str]:
        omitted = [f"… {self.omitted_lines:,} lines not kept …"] if self.omitted_lines else []
        return [*omitted, *self._tail]

    def _texts(self, complete: str, unfinished: str) -> list[OutputText]:
        """Return complete and unfinished text; the first replaces unfinished text that was returned before."""
        texts = [text for text in (complete, unfinished) if text]
        if self._has_unfinished and not texts:
            texts = [""]
        replaces = self._has_unfinished
        self._changed, self._has_unfinished = False, bool(unfinished)
        self._next_unfinished = time.monotonic() + (TAIL_SECONDS if self._tail else UNFINISHED_SECONDS)
        return [OutputText(text, replaces and index == 0) for index, text in enumerate(texts)]


def _join_lines(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
