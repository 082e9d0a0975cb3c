"""Captured output as a terminal shows it, in bounded memory.

A progress bar writes its line again and again: with carriage returns, or with cursor movements if it has several lines.
`TerminalLines` follows the cursor, so that each line is recorded once, in its last state. `CapturedOutput` turns the
lines into texts for the database and bounds their size.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

WINDOW_LINES = 50
"""Lines above the cursor that cursor movements can reach."""

MAX_LINE_CHARACTERS = 65_536
"""Characters per line; a longer line continues on the next line."""

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

_STRING_CHARACTERS = 4096
"""Maximum number of characters of a control string, such as a window title."""

_OTHER_THAN_LINES = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")

# Control sequences of ECMA-48, section 5.4; control strings end with BEL or ST (`ESC \`)
_CONTROL = re.compile(
    r"(?P<csi>(?:\x1b\[|\x9b)(?P<parameters>[0-?]{0,64})[ -/]{0,8}(?P<final>[@-~]))"
    rf"|\x1b[\]PX^_][^\x07\x1b]{{0,{_STRING_CHARACTERS}}}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]{0,8}[0-OQ-WYZ\\`-~]"
    r"|(?P<incomplete>(?:\x1b|(?:\x1b\[|\x9b)[0-?]{0,64}[ -/]{0,8}|\x1b[ -/]{1,8}"
    rf"|\x1b[\]PX^_][^\x07\x1b]{{0,{_STRING_CHARACTERS}}}\x1b?|\r)\Z)"
    r"|(?P<character>\r\n|[\x00-\x08\x0a-\x1f\x7f-\x9f])"
)


class TerminalLines:
    """Screen of a terminal that is endlessly wide, for the text of one stream.

    Lines are final once they are complete. From a cursor movement on (a bare carriage return is one), the last
    `WINDOW_LINES` lines may still change, until as many lines without a cursor movement have followed. A column is a
    character, also if it is drawn two cells wide. Colours and sequences that place the cursor on the whole screen are
    ignored.
    """

    def __init__(self) -> None:
        self._incomplete = ""
        """Start of a control sequence that the next text completes."""
        self._clear()

    def _clear(self) -> None:
        self.lines = [""]
        """Lines that may still change, the one with the cursor included."""
        self._row = self._column = 0
        self._has_moving_cursor = False
        self._plain_lines = 0
        """Number of lines since the last cursor movement."""

    @property
    def is_at_empty_end(self) -> bool:
        """True if the cursor is below the last line with text."""
        return not self._incomplete and self._row == len(self.lines) - 1 and not self.lines[-1]

    def feed(self, text: str) -> list[str]:
        """Draw text; return the lines that became final."""
        text = self._incomplete + text
        self._incomplete = ""
        final: list[str] = []
        if not self._has_moving_cursor and not _OTHER_THAN_LINES.search(text):
            *lines, rest = (self.lines[0] + text).split("\n")
            if max(map(len, (*lines, rest))) <= MAX_LINE_CHARACTERS:
                self.lines, self._column = [rest], len(rest)
                return lines
        position = 0
        for match in _CONTROL.finditer(text):
            self._draw(text[position : match.start()], final)
            position = match.end()
            if match["incomplete"] is not None:
                self._incomplete = match["incomplete"]
            elif match["character"] is not None:
                self._obey_character(match["character"], final)
            elif match["csi"] is not None and match["final"] != "m":
                self._obey_csi(match["final"], match["parameters"])
        self._draw(text[position:], final)
        return final

    def close(self) -> list[str]:
        """Return the lines that were not final yet; the cursor is then on a new line."""
        lines = [line.rstrip() for line in self.lines] if self._has_moving_cursor else self.lines
        while lines and not lines[-1]:
            lines = lines[:-1]
        self._incomplete = ""
        self._clear()
        return lines

    def _draw(self, text: str, final: list[str]) -> None:
        while text:
            line = self.lines[self._row]
            piece, text = text[: MAX_LINE_CHARACTERS - self._column], text[MAX_LINE_CHARACTERS - self._column :]
            end = self._column + len(piece)
            self.lines[self._row] = line[: self._column].ljust(self._column) + piece + line[end:]
            self._column = end
            if text:
                self._start_line(final)

    def _start_line(self, final: list[str]) -> None:
        """Move the cursor to the start of the next line, which is added below the last one."""
        self._row += 1
        self._column = 0
        if self._row < len(self.lines):
            return
        self.lines.append("")
        if not self._has_moving_cursor:
            final += self.lines[:-1]
            self._clear()
            return
        self._plain_lines += 1
        count = len(self.lines) - 1 if self._plain_lines > WINDOW_LINES else len(self.lines) - 1 - WINDOW_LINES
        if count > 0:
            final += [line.rstrip() for line in self.lines[:count]]  # bars are cleared with spaces
            del self.lines[:count]
            self._row -= count
        self._has_moving_cursor = self._plain_lines <= WINDOW_LINES

    def _obey_character(self, character: str, final: list[str]) -> None:
        if character in ("\n", "\r\n", "\x0b", "\x0c", "\x85"):
            self._start_line(final)
        elif character == "\r":
            self._note_movement()
            self._column = 0
        elif character == "\b":
            self._note_movement()
            self._column = max(0, self._column - 1)

    def _obey_csi(self, final_byte: str, parameters: str) -> None:
        self._note_movement()
        first = parameters.partition(";")[0]
        number = min(int(first), MAX_LINE_CHARACTERS - 1) if first.isdecimal() else 0
        count = max(1, number)
        line = self.lines[self._row]
        match final_byte:
            case "A" | "F":
                self._row = max(0, self._row - count)
            case "B" | "E":
                self._row = min(len(self.lines) - 1, self._row + count)
            case "C":
                self._column = min(MAX_LINE_CHARACTERS - 1, self._column + count)
            case "D":
                self._column = max(0, self._column - count)
            case "G":
                self._column = count - 1
            case "K" if number == 1:
                self.lines[self._row] = " " * (self._column + 1) + line[self._column + 1 :]
            case "K":
                self.lines[self._row] = line[: self._column] if number == 0 else ""
            case "J" if number == 0:
                self.lines[self._row] = line[: self._column]
                del self.lines[self._row + 1 :]
        if final_byte in "EF":
            self._column = 0

    def _note_movement(self) -> None:
        self._has_moving_cursor = True
        self._plain_lines = 0


def terminal_lines(texts: Iterable[str]) -> Iterator[str]:
    """Yield the lines that a terminal shows after printing the texts."""
    screen = TerminalLines()
    for text in texts:
        yield from screen.feed(text)
    yield from screen.close()


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
        """Return the last lines, at most `LAST_LINES`."""
        lines = [*self._last_lines, *self._screen.lines]
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
