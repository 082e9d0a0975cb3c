"""Images in a terminal: pixels in, lines of coloured text out. Independent of runs and of Textual.

In colour, a character is two pixels, one above the other. Without colour, the density of a character shows the
brightness of its pixels; without UTF-8, the characters are ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import zip_longest
from typing import IO, Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from labbench.text import cell_width, cell_widths, has_true_color, prints_no_color

Colour: TypeAlias = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""
PaintMode = Literal["colour", "shades", "ascii"]
"""Drawing by colour, by character density, or by character density in ASCII."""

Image: TypeAlias = NDArray[np.uint8]
"""RGB pixels, shape (height, width, 3)."""

PlaceImage: TypeAlias = "Callable[[Image, int, int], list[StyledLine] | None]"
"""Function that shows an image as a picture in columns x rows of cells: returns their characters, None without room."""

RAMPS: Mapping[PaintMode, str] = {"shades": " ░▒▓█", "ascii": " .:-=+*#%@"}
"""Characters from dark to light."""
_BARS: Mapping[PaintMode, str] = {"colour": " ▁▂▃▄▅▆▇█", "shades": " ▁▂▃▄▅▆▇█", "ascii": " .:-=+*#%@"}


class StyledText(NamedTuple):
    """Text in one style; None is the terminal's default colour."""

    text: str
    ink: Colour | None = None
    ground: Colour | None = None
    bold: bool = False


StyledLine: TypeAlias = list[StyledText]


def choose_paint_mode(stream: IO[str], environment: Mapping[str, str]) -> PaintMode:
    """Return the paint mode of a stream.

    `ascii` if the encoding is not UTF or LABBENCH_ASCII is set; else `colour` for a terminal, unless NO_COLOR is set or
    TERM is `dumb`; else `shades`.
    """
    encoding = getattr(stream, "encoding", None) or ""
    if environment.get("LABBENCH_ASCII") or not encoding.lower().startswith("utf"):
        return "ascii"
    is_plain = prints_no_color(environment)
    return "colour" if stream.isatty() and not is_plain else "shades"


def rasterize_image(image: Image, mode: PaintMode) -> list[StyledLine]:
    """Return an image, (height, width, 3), as ceil(height / 2) lines of `width` cells."""
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


def paint_image(image: Image, mode: PaintMode, place: PlaceImage | None) -> list[StyledLine]:
    """Return an image, (height, width, 3), as a picture that `place` shows, else as `rasterize_image` draws it."""
    height, width, _ = image.shape
    lines = place(image, width, -(-height // 2)) if place is not None else None
    return rasterize_image(image, mode) if lines is None else lines


def enlarge(image: Image, times: int) -> Image:
    """Return an image, (height, width, 3), with each pixel repeated `times` in both directions."""
    squares: Image = image.repeat(times, axis=0).repeat(times, axis=1)
    return squares


def signed_image(values: NDArray[np.float32], max_abs: float) -> Image:
    """Return values, (height, width), as pixels from blue (-max_abs) through black (0) to orange (max_abs)."""
    share = _signed_shares(values, max_abs)[..., None]
    strength = np.abs(share) ** 0.7  # brightens small values
    image: Image = (strength * np.where(share < 0, (70, 150, 255), (255, 160, 40))).astype(np.uint8)
    return image


def signed_grey_image(values: NDArray[np.float32], max_abs: float) -> Image:
    """Return values, (height, width), as pixels from black (-max_abs) to white (max_abs)."""
    return np.repeat((127.5 * (_signed_shares(values, max_abs) + 1)).astype(np.uint8)[..., None], 3, axis=2)


def rgb_image(values: NDArray[np.float32], max_abs: float) -> Image:
    """Return values, (height, width, 3), as red, green and blue channels; 0 is mid-grey."""
    image: Image = (127.5 * (_signed_shares(values, max_abs) + 1)).astype(np.uint8)
    return image


def _signed_shares(values: NDArray[np.float32], max_abs: float) -> NDArray[np.float64]:
    return np.clip(values.astype(np.float64) / (max_abs or 1.0), -1, 1)


def draw_bars(counts: NDArray[np.int64], mode: PaintMode) -> str:
    """Return one bar character per count, (N,), with the square root as height; nonzero counts are never blank."""
    ramp = _BARS[mode]
    largest = max(1, int(counts.max(initial=0)))
    heights = np.ceil(np.sqrt(np.maximum(counts, 0) / largest) * (len(ramp) - 1)).astype(int)
    return "".join(ramp[height] for height in heights)


def line_width(line: StyledLine) -> int:
    """Return the width of a line in cells."""
    return sum(cell_width(piece.text) for piece in line)


def side_by_side(
    blocks: Sequence[Sequence[StyledLine]], columns: int, *, gap: int = 2, max_rows: int = 10_000
) -> list[StyledLine]:
    """Arrange blocks of lines in rows of `columns` cells with empty lines between; drop blocks beyond `max_rows`."""
    if not blocks:
        return []
    block_width = max(line_width(line) for block in blocks for line in block)
    per_row = max(1, (columns + gap) // (block_width + gap))
    lines: list[StyledLine] = []
    for start in range(0, min(len(blocks), per_row * max_rows), per_row):
        for parts in zip_longest(*blocks[start : start + per_row], fillvalue=[]):
            line: StyledLine = []
            for part in parts:
                line += [*part, StyledText(" " * (block_width - line_width(part) + gap))]
            lines.append(line[:-1])
        lines.append([])
    return lines[:-1]


def truncate_line(line: StyledLine, columns: int) -> StyledLine:
    """Return the part of a line that fits into `columns` cells."""
    fitted: StyledLine = []
    for piece in line:
        if cell_width(piece.text) > columns:
            used = 0
            for index, width in enumerate(cell_widths(piece.text)):
                if used + width > columns:
                    return [*fitted, piece._replace(text=piece.text[:index])]
                used += width
        fitted.append(piece)
        columns -= cell_width(piece.text)
    return fitted


def to_plain_text(lines: Sequence[StyledLine]) -> list[str]:
    """Return the lines as plain text, without trailing spaces."""
    return ["".join(piece.text for piece in line).rstrip() for line in lines]


def to_ansi(lines: Sequence[StyledLine], environment: Mapping[str, str]) -> list[str]:
    """Return the lines with ANSI colour codes: 24 bit if COLORTERM announces it, else 256 colours."""
    is_rich = has_true_color(environment)
    return [_encode_line(line, is_rich=is_rich) for line in lines]


def _encode_line(line: StyledLine, *, is_rich: bool) -> str:
    encoded, active = "", ""
    for text, ink, ground, bold in line:
        codes = ["1"] if bold else []
        codes += [f"38;{_colour_code(ink, is_rich=is_rich)}"] if ink else []
        codes += [f"48;{_colour_code(ground, is_rich=is_rich)}"] if ground else []
        style = ";".join(codes)
        if style != active:
            encoded += f"\x1b[0;{style}m" if style else "\x1b[0m"
            active = style
        encoded += text
    return encoded + ("\x1b[0m" if active else "")


def _colour_code(colour: Colour, *, is_rich: bool) -> str:
    if is_rich:
        return "2;" + ";".join(map(str, colour))
    red, green, blue = colour
    if max(colour) - min(colour) < 12:  # the 24 greys are finer than the greys of the colour cube
        level = round((sum(colour) / 3 - 8) / 10)
        return f"5;{16 if level < 0 else 231 if level > 23 else 232 + level}"
    steps = [0 if part < 48 else 1 if part < 115 else (part - 35) // 40 for part in (red, green, blue)]
    return f"5;{16 + 36 * steps[0] + 6 * steps[1] + steps[2]}"


def _to_colour(pixel: NDArray[np.uint8]) -> Colour:
    red, green, blue = pixel.tolist()
    return red, green, blue
