"""Sequences of the kitty graphics protocol (https://sw.kovidgoyal.net/kitty/graphics-protocol/).

An image is sent once, with a virtual placement. Its cells are placeholder characters, whose diacritics number the row
and the column; the foreground colour and a third diacritic identify the image.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator

_CHUNK_CHARACTERS = 4096
PLACEHOLDER = "\U0010eeee"

_DIACRITIC_RANGES = (
    "305 30D-30E 310 312 33D-33F 346 34A-34C 350-352 357 35B 363-36F 483-487 592-595 597-599 59C-5A1 5A8-5A9 5AB-5AC "
    "5AF 5C4 610-617 657-65B 65D-65E 6D6-6DC 6DF-6E2 6E4 6E7-6E8 6EB-6EC 730 732-733 735-736 73A 73D 73F-741 743 745 "
    "747 749-74A 7EB-7F1 7F3 816-819 81B-823 825-827 829-82D 951 953-954 F82-F83 F86-F87 135D-135F 17DD 193A 1A17 "
    "1A75-1A7C 1B6B 1B6D-1B73 1CD0-1CD2 1CDA-1CDB 1CE0 1DC0-1DC1 1DC3-1DC9 1DCB-1DCC 1DD1-1DE6 1DFE 20D0-20D1 "
    "20D4-20D7 20DB-20DC 20E1 20E7 20E9 20F0 2CEF-2CF1 2DE0-2DFF A66F A67C-A67D A6F0-A6F1 A8E0-A8F1 AAB0 AAB2-AAB3 "
    "AAB7-AAB8 AABE-AABF AAC1 FE20-FE26 10A0F 10A38 1D185-1D189 1D1AA-1D1AD 1D242-1D244"
)
"""Diacritics that stand for the numbers from 0, as hexadecimal code points (rowcolumn-diacritics.txt of kitty)."""


def _parse_ranges(ranges: str) -> str:
    """Return the characters of the ranges."""
    bounds = ((first, last or first) for first, _, last in (word.partition("-") for word in ranges.split()))
    return "".join(chr(code) for first, last in bounds for code in range(int(first, 16), int(last, 16) + 1))


DIACRITICS = _parse_ranges(_DIACRITIC_RANGES)
"""Diacritic of each number."""
MAX_CELLS = len(DIACRITICS)
"""Maximum number of rows and of columns of an image."""


def upload_image(number: int, colour: int, png: bytes, columns: int, rows: int) -> Iterator[str]:
    """Yield the sequences that send an image for `columns` x `rows` cells and replace an earlier one."""
    data = base64.b64encode(png).decode()
    keys = f"a=T,U=1,f=100,q=2,i={image_id(number, colour)},c={columns},r={rows},"
    for start in range(0, len(data), _CHUNK_CHARACTERS):
        end = start + _CHUNK_CHARACTERS
        yield f"\x1b_G{keys}m={int(end < len(data))};{data[start:end]}\x1b\\"
        keys = "q=2,"


def delete_image(number: int, colour: int) -> str:
    """Return the sequence that deletes an image and frees its memory."""
    return f"\x1b_Ga=d,d=I,q=2,i={image_id(number, colour)}\x1b\\"


def image_id(number: int, colour: int) -> int:
    """Return the identifier of an image, from its number and the index of its foreground colour."""
    return number << 24 | colour


def placeholder(number: int, row: int, column: int) -> str:
    """Return the character of a cell of an image."""
    return f"{PLACEHOLDER}{DIACRITICS[row]}{DIACRITICS[column]}{DIACRITICS[number]}"
