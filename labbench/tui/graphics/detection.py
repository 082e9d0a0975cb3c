"""Detection of a terminal that shows images, from its answers to two queries and from the environment; cell size.

The answer to XTVERSION names the terminal: kitty and Ghostty show images of the kitty protocol at placeholder
characters. The device attributes announce Sixel. In tmux, tmux knows the name of the terminal around it.
"""

from __future__ import annotations

import re
import struct
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Literal

QUESTION = b"\x1b[>q"
"""Query of the terminal's name and version."""
_NAME = re.compile(rb"\x1bP>\|([^\x1b\x07]*)(?:\x1b\\|\x07)")
_ATTRIBUTES = re.compile(rb"\x1b\[\?([0-9;]*)c")
_SIXEL_ATTRIBUTE = b"4"
_PLACEHOLDER_TERMINALS = re.compile(r"^(?:xterm-)?(?:kitty|ghostty)\b(?:\(0\.(\d+))?")
_FIRST_KITTY = 28
"""Minor version of the first kitty, 0.28, with placeholder characters."""
_TMUX_SECONDS = 0.3
_VARIABLE = "LABBENCH_GRAPHICS"
DEFAULT_CELL = (10, 20)
"""Width and height of a cell of the VT340, which terminals emulate that do not report a size."""


@dataclass(frozen=True, slots=True)
class Graphics:
    """Protocol of images that the terminal understands."""

    protocol: Literal["kitty", "sixel"]
    in_tmux: bool = False


def wants_graphics(environ: Mapping[str, str]) -> bool:
    """Return True unless images are switched off, over SSH by default, or cannot be shown for lack of colours."""
    if environ.get("NO_COLOR") or environ.get("LABBENCH_ASCII"):
        return False
    setting = environ.get(_VARIABLE, "")
    return setting.lower() in ("kitty", "sixel") or (setting.lower() != "off" and "SSH_CONNECTION" not in environ)


def choose_graphics(environ: Mapping[str, str], received: bytes) -> Graphics | None:
    """Return the protocol for a terminal that sent these answers; None for none."""
    if not wants_graphics(environ):
        return None
    in_tmux = "TMUX" in environ
    setting = environ.get(_VARIABLE, "").lower()
    if setting == "kitty":
        return Graphics("kitty", in_tmux)
    name = _ask_tmux() if in_tmux else _terminal_name(received)
    if setting != "sixel" and _shows_placeholders(name):
        return Graphics("kitty", in_tmux)
    attributes = _ATTRIBUTES.search(received)
    has_sixel = attributes is not None and _SIXEL_ATTRIBUTE in attributes[1].split(b";")[1:]
    return Graphics("sixel") if setting == "sixel" or has_sixel else None


def remove_answer(received: bytes) -> bytes:
    """Return what was received without the name of the terminal."""
    return _NAME.sub(b"", received, count=1)


def _terminal_name(received: bytes) -> str:
    match = _NAME.search(received)
    return match[1].decode(errors="replace") if match else ""


def _shows_placeholders(name: str) -> bool:
    match = _PLACEHOLDER_TERMINALS.match(name)
    return match is not None and int(match[1] or _FIRST_KITTY) >= _FIRST_KITTY


def _ask_tmux() -> str:
    """Return the name of the terminal around tmux, if tmux passes sequences on to it; else an empty string."""
    command = ["tmux", "display-message", "-p", "#{allow-passthrough} #{client_termtype}"]
    with suppress(OSError, subprocess.SubprocessError):
        answer = subprocess.run(command, capture_output=True, text=True, timeout=_TMUX_SECONDS).stdout
        passthrough, _, name = answer.strip().partition(" ")
        return name if passthrough in ("on", "all", "1") else ""
    return ""


def measure_cell() -> tuple[int, int]:
    """Return the width and the height of a cell in pixels, as the terminal reports them."""
    try:
        import fcntl
        import termios

        answer = fcntl.ioctl(sys.__stderr__ or 2, termios.TIOCGWINSZ, bytes(8))
    except (ImportError, OSError, ValueError):  # Windows; no terminal
        return DEFAULT_CELL
    rows, columns, width, height = struct.unpack("HHHH", answer)
    if not (rows and columns and width >= columns and height >= rows):
        return DEFAULT_CELL
    return width // columns, height // rows
