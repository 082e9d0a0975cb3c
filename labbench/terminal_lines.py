"""Lines that a terminal shows after text with carriage returns and cursor movements was printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

WINDOW_LINES = 50
"""Lines above the cursor that cursor movements can reach."""

MAX_LINE_CHARACTERS = 65_536
"""Characters per line; a longer line continues on the next line."""

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
