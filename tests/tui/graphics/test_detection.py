"""Images are shown where the terminal says that it can, and nowhere else."""

from __future__ import annotations

import pytest

from labbench.tui.graphics.detection import Graphics, choose_graphics, remove_answer

KITTY, GHOSTTY = b"\x1bP>|kitty(0.35.2)\x1b\\", b"\x1bP>|ghostty 1.2.0\x1b\\"
PLAIN, SIXEL = b"\x1b[?62;22c", b"\x1b[?62;4;22c"


@pytest.mark.parametrize(
    ("environ", "received", "expected"),
    [
        ({}, KITTY + PLAIN, Graphics("kitty")),
        ({}, GHOSTTY + PLAIN, Graphics("kitty")),
        ({}, b"\x1bP>|kitty(0.26.5)\x1b\\" + PLAIN, None),  # without placeholder characters
        ({}, b"\x1bP>|WezTerm 20240203\x1b\\" + SIXEL, Graphics("sixel")),
        ({}, b"j" + SIXEL, Graphics("sixel")),
        ({}, b"\x1b[?4c", None),  # the terminal is a VT132
        ({}, PLAIN, None),
        ({}, b"", None),
        ({"SSH_CONNECTION": "1"}, KITTY, None),
        ({"SSH_CONNECTION": "1", "LABBENCH_GRAPHICS": "kitty"}, b"", Graphics("kitty")),
        ({"SSH_CONNECTION": "1", "LABBENCH_GRAPHICS": "sixel"}, b"", Graphics("sixel")),
        ({"LABBENCH_GRAPHICS": "off"}, KITTY + SIXEL, None),
        ({"LABBENCH_GRAPHICS": "sixel"}, KITTY + PLAIN, Graphics("sixel")),
        ({"NO_COLOR": "1"}, KITTY, None),
        ({"LABBENCH_ASCII": "1"}, KITTY, None),
    ],
)
def test_the_protocol_follows_the_answers_and_the_environment(
    environ: dict[str, str], received: bytes, expected: Graphics | None
) -> None:
    assert choose_graphics(environ, received) == expected


def test_keys_typed_among_the_answers_are_kept() -> None:
    assert remove_answer(b"j" + KITTY + b"k") == b"jk"
