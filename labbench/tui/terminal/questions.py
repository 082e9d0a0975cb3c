"""Questions to the terminal before the screen is drawn, such as its background colour for the choice of the theme.

The background is asked with the OSC 11 sequence. The queries are sent before the imports of the terminal interface and
their answers are read after them, so that they take no time. A query of the device attributes follows, which nearly
every terminal answers: if that answer comes first, the terminal does not know the others. Keys typed in the meantime
are kept for the interface.
"""

from __future__ import annotations

import os
import re
import select
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from labbench.tui.graphics.detection import Graphics

BACKGROUND_QUESTION = b"\x1b]11;?\x1b\\"
_ATTRIBUTES_QUESTION = b"\x1b[c"
_BACKGROUND = re.compile(rb"\x1b\]11;rgba?:([0-9a-fA-F]+)/([0-9a-fA-F]+)/([0-9a-fA-F]+)[0-9a-fA-F/]*(?:\x07|\x1b\\)")
_ATTRIBUTES = re.compile(rb"\x1b\[\?[0-9;]*c")
_ANSWER_SECONDS = 0.3
"""Maximum seconds to wait for an answer."""
_LIGHT = 0.5
"""Minimum luminance of a light background, 0 to 1."""


@dataclass(frozen=True, slots=True)
class TerminalAnswers:
    """Facts about the terminal, and the keys that were typed in the meantime."""

    is_light: bool | None = None
    """True if its background is light; None if unknown."""
    graphics: Graphics | None = None
    """Protocol of images that it understands; None for none."""
    typed: bytes = b""
    """Keys that were typed before the application was created."""


def may_ask(environ: Mapping[str, str]) -> bool:
    """Return True on a terminal of this machine: over a slow connection the answer could arrive among the keys."""
    return "SSH_CONNECTION" not in environ and environ.get("TERM", "dumb") != "dumb"


class TerminalQuestion:
    """Queries to the terminal that keys are read from."""

    def __init__(self, descriptor: int, output: int, questions: bytes) -> None:
        """Send the questions; until `read_answer` typed keys and answers are not echoed."""
        import termios
        import tty

        self._descriptor = descriptor
        self._attributes: list[Any] = termios.tcgetattr(descriptor)
        tty.setcbreak(descriptor, termios.TCSANOW)
        os.write(output, questions + _ATTRIBUTES_QUESTION)
        self._deadline = time.monotonic() + _ANSWER_SECONDS

    def read_answers(self) -> bytes:
        """Return the answers, among the keys that were typed."""
        import termios

        received = b""
        while not _ATTRIBUTES.search(received):
            wait = max(0.0, self._deadline - time.monotonic())
            if not select.select([self._descriptor], [], [], wait)[0]:
                break
            chunk = os.read(self._descriptor, 4096)
            if not chunk:
                break
            received += chunk
        termios.tcsetattr(self._descriptor, termios.TCSANOW, self._attributes)
        return received


def parse_answer(received: bytes) -> tuple[bool | None, bytes]:
    """Return True for a light background, None without an answer, and the other bytes, which were typed."""
    typed = _ATTRIBUTES.sub(b"", received, count=1)
    match = _BACKGROUND.search(typed)
    if match is None:
        return None, typed
    red, green, blue = (int(digits, 16) / (16 ** len(digits) - 1) for digits in match.groups())
    is_light = 0.2126 * red + 0.7152 * green + 0.0722 * blue > _LIGHT
    return is_light, typed[: match.start()] + typed[match.end() :]
