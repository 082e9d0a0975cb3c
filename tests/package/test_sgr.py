"""Styles of recorded text: colours are kept, everything else is harmless."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.sgr import PLAIN, remove_styles, split_styles
from labbench.text import split_lines

SEQUENCE = re.compile(r"\x1b\[[0-9;]+m")


@pytest.mark.parametrize(
    ("parameters", "style"),
    [
        ("", ""),
        ("0", ""),
        ("01;31", "1;31"),
        ("1;4;31;22", "4;31"),
        ("38;5;208", "38;5;208"),
        ("48;2;10;20;30;1", "1;48;2;10;20;30"),
        ("38:2::10:20:30", "38;2;10;20;30"),
        ("38:5:7", "38;5;7"),
        ("4:3", "4"),
        ("4;4:0", ""),
        ("97;107;39", "107"),
        ("38;5;256", ""),
        ("38;2;1;2", ""),
        ("38", ""),
        ("5;8;10;31;999", "31"),  # blinking, concealed, another font, unknown
        ("31;;1", "1"),
    ],
)
def test_parameters_change_the_style_as_in_a_terminal(parameters: str, style: str) -> None:
    assert PLAIN.change(parameters).parameters == style


@pytest.mark.parametrize(
    ("printed", "shown"),
    [
        ("\x1b[32mepoch 1\x1b[0m done\n", "\x1b[32mepoch 1\x1b[0m done"),
        ("\x1b[31mfirst\nsecond\n", "\x1b[31mfirst\x1b[0m\n\x1b[31msecond\x1b[0m"),
        ("\r\x1b[31m 10 %\r\x1b[32m100 %\x1b[0m\n", "\x1b[32m100 %\x1b[0m"),
        ("\x1b[1mbold\x1b[3Ditalic\n", "\x1b[1mbitalic\x1b[0m"),
        ("\x1b[31mred\x1b[Gno\x1b[39m!\x1b[K\n", "\x1b[31mno\x1b[0m!"),
        ("\x1b[32ma\tb\x1b[0m\tc\n", "\x1b[32ma   b\x1b[0m   c"),
        ("\x1b[>4;2mtext\x1b[?1m\n", "text"),
        ("\x1b[8mhidden\x1b[5mblinking\n", "hiddenblinking"),
    ],
)
def test_lines_keep_their_colours(printed: str, shown: str) -> None:
    assert "\n".join(split_lines([printed], styled=True)) == shown


HOSTILE = st.text(st.sampled_from([*"[]31m;:80a", "\x1b", "\x9b", "\x07", "\r", "\n"]))


@given(st.one_of(HOSTILE, st.text()))
def test_no_other_control_sequence_gets_through(printed: str) -> None:
    lines = [*split_lines([printed], styled=True)]
    for line in lines:
        assert not re.search(r"[\x00-\x1f\x7f-\x9f]", remove_styles(line))
        assert all(SEQUENCE.fullmatch(found) for found in re.findall(r"\x1b(?:\[[^m]*m)?", line))
        assert "8" not in [word for _, style in split_styles(line) for word in style.attributes]
    assert [*map(remove_styles, lines)] == [*split_lines([printed])]
    assert [*split_lines([f"{line}\n" for line in lines], styled=True)] == lines
