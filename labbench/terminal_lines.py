"""Lines that a terminal shows after text with colours, carriage returns and cursor movements was printed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from labbench.sgr import END, PLAIN, TextStyle

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


@dataclass(slots=True)
class _Line:
    """Text of a line, and its styles."""

    text: str = ""
    inks: str = ""
    """Index of the style of each character, as a character; those that are missing at the end are plain."""

    def write(self, column: int, piece: str, ink: str) -> None:
        """Write text over the line from a column on."""
        end = column + len(piece)
        self.text = self.text[:column].ljust(column) + piece + self.text[end:]
        if ink != _PLAIN or self.inks:
            self.inks = self.inks[:column].ljust(column, _PLAIN) + ink * len(piece) + self.inks[end:]

    def cut(self, column: int) -> None:
        """Erase the line from a column on."""
        self.text, self.inks = self.text[:column], self.inks[:column]


_PLAIN = chr(0)
_PRIVATE = ("<", "=", ">", "?")
"""First characters of the parameters of sequences that are not standardized."""
_RUN = re.compile(r"(.)\1*", re.DOTALL)
"""Characters of one style."""
_MAX_STYLES = 0xD000
"""Maximum number of different styles; text in more is plain."""
_MAX_CHANGES = 1000
"""Maximum number of changes of the style in a line; a line with more is plain."""


class TerminalLines:
    """Screen of a terminal that is endlessly wide, for the text of one stream.

    Lines are final once they are complete. From a cursor movement on (a bare carriage return is one), the last
    `WINDOW_LINES` lines may still change, until as many lines without a cursor movement have followed. A column is a
    character, also if it is drawn two cells wide. Each line has the SGR sequences of its styles and no other control
    sequence: those that place the cursor on the whole screen are ignored.
    """

    def __init__(self) -> None:
        self._incomplete = ""
        """Start of a control sequence that the next text completes."""
        self._styles, self._ink_of_style = [PLAIN], {PLAIN: _PLAIN}
        self._begins = [""]
        """Sequence that begins each style."""
        self._changes: dict[tuple[str, str], str] = {}
        """Styles by the style before and the parameters of the sequence, as indices."""
        self._ink = _PLAIN
        """Style of the next text, as an index."""
        self._clear()

    def _clear(self) -> None:
        self._lines = [_Line()]
        """Lines that may still change, the one with the cursor included."""
        self._row = self._column = 0
        self._has_moving_cursor = False
        self._plain_lines = 0
        """Number of lines since the last cursor movement."""

    @property
    def lines(self) -> list[str]:
        """Lines that may still change, at least the one with the cursor."""
        return self._final_lines(self._lines)

    @property
    def is_at_empty_end(self) -> bool:
        """True if the cursor is below the last line with text."""
        return not self._incomplete and self._row == len(self._lines) - 1 and not self._lines[-1].text

    def feed(self, text: str) -> list[str]:
        """Draw text; return the lines that became final."""
        text = self._incomplete + text
        self._incomplete = ""
        final: list[str] = []
        is_plain = self._ink == _PLAIN and not self._lines[0].inks
        if is_plain and not self._has_moving_cursor and not _OTHER_THAN_LINES.search(text):
            *lines, rest = (self._lines[0].text + text).split("\n")
            if max(map(len, (*lines, rest))) <= MAX_LINE_CHARACTERS:
                self._lines, self._column = [_Line(rest)], len(rest)
                return lines
        position = 0
        for match in _CONTROL.finditer(text):
            self._draw(text[position : match.start()], final)
            position = match.end()
            if match["incomplete"] is not None:
                self._incomplete = match["incomplete"]
            elif match["character"] is not None:
                self._obey_character(match["character"], final)
            elif match["final"] == "m":
                if not match["parameters"].startswith(_PRIVATE):
                    self._select_style(match["parameters"])
            elif match["csi"] is not None:
                self._obey_csi(match["final"], match["parameters"])
        self._draw(text[position:], final)
        return final

    def close(self) -> list[str]:
        """Return the lines that were not final yet; the cursor is then on a new line."""
        lines = self._final_lines(self._lines)
        while lines and not lines[-1]:
            lines = lines[:-1]
        self._incomplete = ""
        self._clear()
        return lines

    def _final_lines(self, lines: Iterable[_Line]) -> list[str]:
        """Return lines with their styles; from those that could change, spaces at the end are removed."""
        if self._has_moving_cursor:  # bars are cleared with spaces
            return [self._with_styles(line.text.rstrip(), line.inks) for line in lines]
        return [self._with_styles(line.text, line.inks) for line in lines]

    def _with_styles(self, text: str, inks: str) -> str:
        if not inks:
            return text
        runs = [*_RUN.finditer(inks[: len(text)].ljust(len(text), _PLAIN))]
        if len(runs) > _MAX_CHANGES:
            return text
        pieces = ((self._begins[ord(run[1])], text[run.start() : run.end()]) for run in runs)
        return "".join(f"{begin}{piece}{END}" if begin else piece for begin, piece in pieces)

    def _select_style(self, parameters: str) -> None:
        key = self._ink, parameters
        if key not in self._changes:
            if len(self._changes) == _MAX_STYLES:
                self._changes.clear()
            self._changes[key] = self._find_ink(self._styles[ord(self._ink)].change(parameters))
        self._ink = self._changes[key]

    def _find_ink(self, style: TextStyle) -> str:
        """Return the index of a style; plain if there are too many styles."""
        if style not in self._ink_of_style and len(self._styles) < _MAX_STYLES:
            self._ink_of_style[style] = chr(len(self._styles))
            self._styles.append(style)
            self._begins.append(style.begin)
        return self._ink_of_style.get(style, _PLAIN)

    def _draw(self, text: str, final: list[str]) -> None:
        while text:
            piece, text = text[: MAX_LINE_CHARACTERS - self._column], text[MAX_LINE_CHARACTERS - self._column :]
            self._lines[self._row].write(self._column, piece, self._ink)
            self._column += len(piece)
            if text:
                self._start_line(final)

    def _start_line(self, final: list[str]) -> None:
        """Move the cursor to the start of the next line, which is added below the last one."""
        self._row += 1
        self._column = 0
        if self._row < len(self._lines):
            return
        self._lines.append(_Line())
        if not self._has_moving_cursor:
            final += self._final_lines(self._lines[:-1])
            self._clear()
            return
        self._plain_lines += 1
        count = len(self._lines) - 1 if self._plain_lines > WINDOW_LINES else len(self._lines) - 1 - WINDOW_LINES
        if count > 0:
            final += self._final_lines(self._lines[:count])
            del self._lines[:count]
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
        line = self._lines[self._row]
        match final_byte:
            case "A" | "F":
                self._row = max(0, self._row - count)
            case "B" | "E":
                self._row = min(len(self._lines) - 1, self._row + count)
            case "C":
                self._column = min(MAX_LINE_CHARACTERS - 1, self._column + count)
            case "D":
                self._column = max(0, self._column - count)
            case "G":
                self._column = count - 1
            case "K" if number == 1:
                line.write(0, " " * (self._column + 1), _PLAIN)
            case "K":
                line.cut(self._column if number == 0 else 0)
            case "J" if number == 0:
                line.cut(self._column)
                del self._lines[self._row + 1 :]
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
