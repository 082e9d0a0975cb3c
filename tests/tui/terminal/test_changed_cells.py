"""The terminal shows the same with the reduced output as with the whole, and unchanged cells cost nothing."""

from __future__ import annotations

import os
import re
from itertools import repeat
from typing import IO, cast

from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from textual.drivers._writer_thread import WriterThread

from labbench.tui.terminal.changed_cells import ChangedCells
from labbench.tui.terminal.terminal_driver import TerminalFile

_COLUMNS, _ROWS = 24, 3
_SEQUENCE = re.compile(r"\x1b\[([\d;?]*)([A-Za-z])|(.)", re.DOTALL)
_ATTRIBUTES = {"1": "bold", "2": "dim", "3": "italic", "4": "underline", "7": "reverse", "9": "strike"}
_ENDS = {"22": {"bold", "dim"}, "23": {"italic"}, "24": {"underline"}, "27": {"reverse"}, "29": {"strike"}}


class _Terminal:
    """Interprets cursor movement, styles and text, wide characters included."""

    def __init__(self) -> None:
        self.cells = [[(" ", frozenset[str](), "", "")] * _COLUMNS for _ in range(_ROWS)]
        self.row = self.column = 0
        self.attributes: set[str] = set()
        self.foreground = self.background = ""

    def feed(self, data: str) -> None:
        for parameters, command, character in _SEQUENCE.findall(data):
            if command == "H":
                self.row, self.column = (int(word) - 1 for word in parameters.split(";"))
            elif command == "C":
                self.column += int(parameters)
            elif command == "X":
                blank = (" ", frozenset[str](), "", self.background)
                self.cells[self.row][self.column : self.column + int(parameters)] = [blank] * int(parameters)
            elif command == "m":
                self._select(parameters.split(";") if parameters else ["0"])
            elif character and character != "\n":
                self._put(character)

    def shown(self) -> list[list[tuple[str, frozenset[str], str, str]]]:
        """Return the cells without the styles that are invisible on spaces."""
        return [[_visible(*cell) for cell in row] for row in self.cells]

    def _select(self, words: list[str]) -> None:
        while words:
            word = words.pop(0)
            if word in ("38", "48"):
                colour = ";".join(words[: 4 if words[0] == "2" else 2])
                del words[: 4 if words[0] == "2" else 2]
                if word == "38":
                    self.foreground = colour
                else:
                    self.background = colour
            elif word == "0":
                self.attributes, self.foreground, self.background = set(), "", ""
            elif word in _ATTRIBUTES:
                self.attributes.add(_ATTRIBUTES[word])
            elif word in _ENDS:
                self.attributes -= _ENDS[word]
            elif word in ("39", "49"):
                self.foreground, self.background = ("", self.background) if word == "39" else (self.foreground, "")
            elif word.startswith("3"):
                self.foreground = word
            else:
                assert word.startswith("4"), word
                self.background = word

    def _put(self, character: str) -> None:
        row = self.cells[self.row]
        for column, neighbour in ((self.column, -1), (self.column + cell_len(character) - 1, 1)):
            broken = column + (neighbour if neighbour == 1 else 0)
            if broken < _COLUMNS and row[broken][0] == "":  # half of a wide character stays blank
                other = broken - 1 if neighbour == -1 else broken
                row[other] = (" ", *row[other][1:])
        style = (frozenset(self.attributes), self.foreground, self.background)
        for text in [character, *repeat("", cell_len(character) - 1)]:
            row[self.column] = (text, *style)
            self.column += 1


def _visible(
    text: str, attributes: frozenset[str], foreground: str, background: str
) -> tuple[str, frozenset[str], str, str]:
    if text == " " and attributes <= {"bold", "dim", "italic"}:
        return text, frozenset(), "", background
    return text, attributes, foreground, background


_STYLES = st.sampled_from(
    [
        "",
        "1",
        "2",
        "1;2",
        "4",
        "7",
        "31",
        "1;31",
        "31;44",
        "38;2;1;2;3",
        "2;38;2;1;2;3;48;2;9;9;9",
        "48;5;17",
        "3;48;5;17",
    ]
)
_TEXTS = st.text(alphabet="ab  ⣿⡇é漢", min_size=1, max_size=8)
_LINES = st.lists(st.tuples(_STYLES, _TEXTS), min_size=1, max_size=4)


def _line(segments: list[tuple[str, str]]) -> str:
    return "".join(f"\x1b[{style}m{text}\x1b[0m" if style else text for style, text in segments)


def _fitting(segments: list[tuple[str, str]], width: int) -> list[tuple[str, str]]:
    """Cut the segments to a width in cells."""
    fitting = []
    for style, text in segments:
        while text and cell_len(text) > width:
            text = text[:-1]
        if text:
            fitting.append((style, text))
            width -= cell_len(text)
    return fitting


_BLANKS = st.lists(st.tuples(_STYLES, st.just(" " * 12)), min_size=1, max_size=1)
_UPDATES = st.lists(
    st.tuples(st.integers(0, _ROWS - 1), st.sampled_from([0, 12]), _LINES | _BLANKS), min_size=1, max_size=5
)


@given(st.lists(_UPDATES, min_size=1, max_size=8))
def test_the_screen_is_the_same_as_with_the_whole_output(frames: list) -> None:
    whole, reduced, changed_cells = _Terminal(), _Terminal(), ChangedCells(erases=True)
    for updates in frames:
        data = ""
        for row, column, segments in updates:
            # Textual writes pieces of fixed columns and cuts wide characters itself
            line = _fitting(segments, 12)
            line.append(("", " " * (12 - sum(cell_len(text) for _, text in line))))
            data += f"\x1b[{row + 1};{column + 1}H{_line(line)}\n"
        data += "\x1b[1;1H"
        whole.feed(data)
        reduced.feed(changed_cells.reduce(data))
        assert reduced.shown() == whole.shown()


def test_many_blank_cells_are_erased() -> None:
    update = f"\x1b[1;1H\x1b[48;5;17m{' ' * 20}end\x1b[0m\x1b[1;1H"
    assert ChangedCells(erases=True).reduce(update) == "\x1b[1;1H\x1b[48;5;17m\x1b[20X\x1b[20Cend\x1b[1;1H\x1b[0m"
    assert " " * 20 in ChangedCells().reduce(update)


def test_cells_of_one_style_are_written_together_if_that_is_shorter() -> None:
    key, title = "\x1b[38;2;108;182;255m", "\x1b[38;2;213;220;230m"
    update = "".join(f"\x1b[{row};1H{key}k{row}{title}title {row}\x1b[0m\n" for row in range(1, 4)) + "\x1b[1;1H"
    written = ChangedCells().reduce(update)
    assert written.count(key) == written.count(title) == 1


def test_an_update_without_changes_writes_nothing() -> None:
    changed_cells = ChangedCells()
    update = "\x1b[1;1H\x1b[1;31mrun 1\x1b[0m  \n\x1b[2;1H\x1b[31mrun 2\x1b[0m  \x1b[1;1H"
    assert changed_cells.reduce(update)
    frame = ["\x1b[?2026h", update, "\x1b[?2026l"]
    assert [changed_cells.reduce(part) for part in frame] == ["", "", ""]


def test_a_changed_cell_is_written_alone_in_a_synchronized_update() -> None:
    changed_cells = ChangedCells()
    changed_cells.reduce("\x1b[1;1Hloss 0.1234\x1b[1;1H")
    frame = ["\x1b[?2026h", "\x1b[1;1Hloss 0.1235\x1b[1;1H", "\x1b[?2026l"]
    assert [changed_cells.reduce(part) for part in frame] == ["", "\x1b[?2026h\x1b[10C5\x1b[1;1H", "\x1b[?2026l"]


def test_everything_is_written_again_after_the_screen_was_replaced() -> None:
    changed_cells = ChangedCells()
    update = "\x1b[1;1Hruns\x1b[1;1H"
    assert changed_cells.reduce(update) == "\x1b[1;1Hruns\x1b[1;1H"
    assert changed_cells.reduce("\x1b[?1049h") == "\x1b[?1049h"
    assert changed_cells.reduce(update) == "\x1b[1;1Hruns\x1b[1;1H"


def test_characters_of_uncertain_width_do_not_shift_the_rest_of_the_line() -> None:
    """Terminals disagree about the width of emoji sequences, so the text after one has a position of its own."""
    written = ChangedCells().reduce("\x1b[1;1H\x1b[31m👩‍🔬\x1b[0m\x1b[32mlab\x1b[0m\x1b[1;1H")
    assert re.search(r"👩‍🔬\x1b\[1;\d+H.*lab", written)


def test_what_is_written_after_the_terminal_has_been_closed_blocks_nothing() -> None:
    master, terminal = os.openpty()
    os.close(master)
    with os.fdopen(terminal, "w", buffering=1) as file:
        thread = WriterThread(cast("IO[str]", TerminalFile(file)))
        thread.start()
        for _ in range(200):  # more than the queue of the thread holds
            thread.write("x\n")
        thread.stop()
        assert not thread.is_alive()
        os.dup2(os.open(os.devnull, os.O_WRONLY), file.fileno())  # for what is left in the buffer
