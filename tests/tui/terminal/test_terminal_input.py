"""Input of the terminal: what is typed arrives, an idle terminal costs nothing, a closed one ends the reading."""

from __future__ import annotations

import os
import select
import threading
import tty
from collections.abc import Iterator
from contextlib import suppress

import pytest

from helpers.waiting import HANG_SECONDS
from labbench.tui.terminal.terminal_input import TerminalClosed, TerminalInput


class _Keyboard:
    """A pseudo-terminal and its input."""

    def __init__(self) -> None:
        self.master, self.terminal = os.openpty()
        tty.setraw(self.terminal)
        self.input = TerminalInput(self.terminal, b"jj")

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def close(self) -> None:
        self.input.close()
        for descriptor in (self.master, self.terminal):
            with suppress(OSError):  # closed by the test
                os.close(descriptor)


@pytest.fixture
def keyboard() -> Iterator[_Keyboard]:
    keyboard = _Keyboard()
    yield keyboard
    keyboard.close()


def test_keys_arrive_in_order_and_characters_are_whole(keyboard: _Keyboard) -> None:
    keyboard.type(b"a\xc3")
    chunks = filter(None, keyboard.input.chunks())
    assert [next(chunks), next(chunks)] == ["jj", "a"]
    keyboard.type(b"\xa4\xff!")  # the second byte of the letter, then one that is no UTF-8
    assert next(chunks) == "ä!"


def test_an_idle_terminal_wakes_nobody(keyboard: _Keyboard, monkeypatch: pytest.MonkeyPatch) -> None:
    timeouts: list[float | None] = []

    def record_timeout(*arguments: object) -> tuple[list[int], list[int], list[int]]:
        timeouts.append(arguments[3])  # type: ignore[arg-type]
        if arguments[3] is None:
            keyboard.input.stop()
            monkeypatch.undo()
            return select.select([keyboard.input._stopped], [], [], HANG_SECONDS)
        return [], [], []

    monkeypatch.setattr("labbench.tui.terminal.terminal_input.select.select", record_timeout)
    assert set(keyboard.input.chunks()) == {"jj", ""}
    assert timeouts[-1] is None
    assert all(timeout is not None for timeout in timeouts[:-1])
    assert 3 <= len(timeouts) <= 20  # an escape sequence has been given up by then


def test_another_thread_ends_the_reading(keyboard: _Keyboard) -> None:
    reader = threading.Thread(target=lambda: list(keyboard.input.chunks()))
    reader.start()
    keyboard.input.stop()
    reader.join(HANG_SECONDS)
    assert not reader.is_alive()


def test_a_closed_terminal_ends_the_reading(keyboard: _Keyboard) -> None:
    os.close(keyboard.master)
    with pytest.raises(TerminalClosed):
        list(keyboard.input.chunks())
