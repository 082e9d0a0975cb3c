"""Pictures in a terminal: pixels in, lines of coloured text out. Knows neither runs nor Textual.

In colour a character is two pixels, one above the other. Without colours a character is as dense as its pixels are
light, and where there is no UTF-8 it is one of ASCII.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import IO, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.text import cell_width, cell_widths, no_color_requested

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
PaintMode = Literal["colour", "shades", "ascii"]
"""How is drawn: by colour, by density, or by density in ASCII."""
Image: TypeAlias = NDArray[np.uint8]
"""(height, width, 3)"""

RAMPS: Mapping[PaintMode, str] = {"shades": " ░▒▓█", "ascii": " .:-=+*#%@"}
"""From dark to light."""
_BARS: Mapping[PaintMode, str] = {"colour": " ▁▂▃▄▅▆▇█", "shades": " ▁▂▃▄▅▆▇█", "ascii": " .:-=+*#%@"}
_TRUECOLOR_VALUES = ("truecolor", "24bit")


class StyledText(NamedTuple):
    """Text in one colour, or in that of the terminal."""

    text: str
    ink: Colour | None = None
    ground: Colour | None = None
    bold: bool = False


StyledLine: TypeAlias = list[StyledText]


def choose_paint_mode(stream: IO[str], environment: Mapping[str, str]) -> PaintMode:
    """How to draw on a stream: colours are for a terminal whose person has not set NO_COLOR."""
    encoding = getattr(stream, "encoding", None) or ""
    if environment.get("LABBENCH_ASCII") or not encoding.lower().startswith("utf"):
        return "ascii"
    is_plain = no_color_requested(environment) or environment.get("TERM") == "dumb"
    return "colour" if stream.isatty() and not is_plain else "shades"


def rasterize_image(image: Image, mode: PaintMode) -> list[StyledLine]:
    """An image as lines of as many cells as it has columns, half as many lines as it has rows."""
    if len(image) % 2:
        image = np.concatenate([image, image[-1:]])
    upper, lower = image[::2], image[1::2]
    if mode == "colour":
        return [
            [StyledText("▀", _to_colour(above), _to_colour(below)) for above, below in zip(*pair, strict=True)]
            for pair in zip(upper, lower, strict=True)
        ]
    ramp = RAMPS[mode]
    light = (upper.astype(float).mean(axis=2) + lower.astype(float).mean(axis=2)) / 2
    level = np.minimum((light / 256 * len(ramp)).astype(int), len(ramp) - 1)
    return [[StyledText("".join(ramp[index] for index in row))] for row in level]


def enlarge(image: Image, times: int) -> Image:
    """Every pixel as a square of pixels."""
    squares: Image = image.repeat(times, axis=0).repeat(times, axis=1)
    return squares


def signed_image(values: NDArray[np.float32], most: float) -> Image:
    """Numbers (height, width) from -most (blue) over 0 (black) to most (orange), small ones lifted to be seen."""
    share = _signed_shares(values, most)[..., None]
    strength = np.abs(share) ** 0.7
    image: Image = (strength * np.where(share < 0, (70, 150, 255), (255, 160, 40))).astype(np.uint8)
    return image


def signed_grey_image(values: NDArray[np.float32], most: float) -> Image:
    """Numbers (height, width) without colours: from -most (black) to most (white)."""
    return np.repeat((127.5 * (_signed_shares(values, most) + 1)).astype(np.uint8)[..., None], 3, axis=2)


def rgb_image(values: NDArray[np.float32], most: float) -> Image:
    """Numbers (height, width, 3), one a primary colour: 0 is grey."""
    image: Image = (127.5 * (_signed_shares(values, most) + 1)).astype(np.uint8)
    return image


def _signed_shares(values: NDArray[np.float32], most: float) -> NDArray[np.float64]:
    return np.clip(values.astype(np.float64) / (most or 1.0), -1, 1)


def draw_bars(counts: NDArray[np.int64], mode: PaintMode) -> str:
    """A bar a count, as high as its square root; what is not zero is seen."""
    ramp = _BARS[mode]
    most = max(1, int(counts.max(initial=0)))
    heights = np.ceil(np.sqrt(np.maximum(counts, 0) / most) * (len(ramp) - 1)).astype(int)
    return "".join(ramp[height] for height in heights)


def line_width(line: StyledLine) -> int:
    """Cells that a line takes."""
    return sum(cell_width(piece.text) for piece in line)


def side_by_side(
    blocks: Sequence[Sequence[StyledLine]], columns: int, *, gap: int = 2, most_rows: int = 10_000
) -> list[StyledLine]:
    """Blocks of lines in rows of as many as `columns` hold, with an empty line between; blocks beyond are left out."""
    if not blocks:
        return []
    room = max(line_width(line) for block in blocks for line in block)
    each = max(1, (columns + gap) // (room + gap))
    lines: list[StyledLine] = []
    for start in range(0, min(len(blocks), each * most_rows), each):
        for parts in zip_longest(*blocks[start : start + each], fillvalue=[]):
            line: StyledLine = []
            for part in parts:
                line += [*part, StyledText(" " * (room - line_width(part) + gap))]
            lines.append(line[:-1])
        lines.append([])
    return lines[:-1]


def truncate_line(line: StyledLine, columns: int) -> StyledLine:
    """As much of a line as fits."""
    kept: StyledLine = []
    for piece in line:
        if cell_width(piece.text) > columns:
            taken = 0
            for index, wide in enumerate(cell_widths(piece.text)):
                if taken + wide > columns:
                    return [*kept, piece._replace(text=piece.text[:index])]
                taken += wide
        kept.append(piece)
        columns -= cell_width(piece.text)
    return kept


def to_plain_text(lines: Sequence[StyledLine]) -> list[str]:
    """The text alone."""
    return ["".join(piece.text for piece in line).rstrip() for line in lines]


def to_ansi(lines: Sequence[StyledLine], environment: Mapping[str, str]) -> list[str]:
    """With the terminal's codes for colours: of 24 bits where it says that it knows them, else of its 256."""
    is_rich = environment.get("COLORTERM") in _TRUECOLOR_VALUES
    return [_encode_line(line, is_rich=is_rich) for line in lines]


def _encode_line(line: StyledLine, *, is_rich: bool) -> str:
    said, now = "", ""
    for text, ink, ground, bold in line:
        codes = ["1"] if bold else []
        codes += [f"38;{_colour_code(ink, is_rich=is_rich)}"] if ink else []
        codes += [f"48;{_colour_code(ground, is_rich=is_rich)}"] if ground else []
        wanted = ";".join(codes)
        if wanted != now:
            said += f"\x1b[0;{wanted}m" if wanted else "\x1b[0m"
            now = wanted
        said += text
    return said + ("\x1b[0m" if now else "")


def _colour_code(colour: Colour, *, is_rich: bool) -> str:
    if is_rich:
        return "2;" + ";".join(map(str, colour))
    red, green, blue = colour
    if max(colour) - min(colour) < 12:  # the 24 greys, finer than those of the cube
        level = round((sum(colour) / 3 - 8) / 10)
        return f"5;{16 if level < 0 else 231 if level > 23 else 232 + level}"
    steps = [0 if part < 48 else 1 if part < 115 else (part - 35) // 40 for part in (red, green, blue)]
    return f"5;{16 + 36 * steps[0] + 6 * steps[1] + steps[2]}"


def _to_colour(pixel: NDArray[np.uint8]) -> Colour:
    red, green, blue = pixel.tolist()
    return red, green, blue
