"""What a value looks like as text: shared by the command line and the TUI, standard library only.

Every string that comes from outside (a run's name, a config value, an error) goes through `clean` on its way to a
terminal: a name may hold an escape sequence that would rewrite the screen or the clipboard.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from labbench import text

# C0, DEL and C1; bidirectional and invisible formatting; line separators; tag letters; lone surrogates
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)


_BLOCKS = " ▏▎▍▌▋▊▉█"


_BARS = "▁▂▃▄▅▆▇█"


def no_color_requested(environ: Mapping[str, str]) -> bool:
    """NO_COLOR is set, and not empty (no-color.org)."""
    return bool(environ.get("NO_COLOR"))


def clean(text: str) -> str:
    """`text` with every control character made visible: one line, nothing that a terminal obeys."""
    return text if text.isprintable() else _HARMFUL.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode has a picture of each: ␛ for escape, ␊ for line feed
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cell_widths(text: str) -> list[int]:
    """Terminal cells of each character: 2 for wide East Asian ones and emoji, 0 for combining marks."""
    return [1] * len(text) if text.isascii() else [_cells(character) for character in text]


def _cells(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cell_width(text: str) -> int:
    """Terminal cells that cleaned text takes."""
    return sum(cell_widths(text))


def fit_to_width(text: str, room: int, *, right: bool = False) -> str:
    """Cleaned text in exactly `room` terminal cells: padded (on the left if `right`), or cut with an ellipsis."""
    taken = cell_width(text)
    if taken > room:
        text, taken = _cut(text, room)
    padding = " " * (room - taken)
    return padding + text if right else text + padding


def _cut(text: str, room: int) -> tuple[str, int]:
    if room <= 0:
        return "", 0
    taken = 0
    for index, wide in enumerate(cell_widths(text)):
        if taken + wide > room - 1:
            return text[:index] + "…", taken + 1
        taken += wide
    return text, taken


def format_number(value: float | None) -> str:
    """A measured value in three or four significant digits: `0.0812`, `12.35`, `12.35e6`, `nan`; "" for None.

    Engineering notation (exponents are multiples of three) below 0.01 and from a million on. Whole numbers stay whole.
    """
    if value is None:
        return ""
    if not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
    size = abs(value)
    if size < 1e6 and value == int(value):
        return str(int(value))
    if not 0.01 <= size < 999_999.5:
        return format_engineering(value)
    decimals = 4 if size < 1 else 3 if size < 9.9995 else 2 if size < 99.995 else 1 if size < 999.95 else 0
    return f"{value:.{decimals}f}"


def format_engineering(value: float, digits: int = 4) -> str:
    """A finite value with an exponent that is a multiple of three: `12.35e-6`; no exponent where it is 0."""
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")  # rounded before the exponent is read
    power = 3 * (int(exponent) // 3)
    whole = 1 + int(exponent) - power  # digits before the point
    sign, figures = ("-", mantissa[1:]) if value < 0 else ("", mantissa)
    figures = figures.replace(".", "").ljust(whole, "0")
    shifted = sign + figures[:whole] + (f".{figures[whole:]}" if figures[whole:] else "")
    return f"{shifted}e{power}" if power else shifted


def format_setting(value: Any) -> str:
    """A config value as a person writes it: `0.001`, `1e-5`, `true`, `none`, `128-64` for a list; cleaned."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        mantissa, _, exponent = f"{value:g}".partition("e")
        return f"{mantissa}e{int(exponent)}" if exponent else mantissa
    if isinstance(value, list | tuple):
        return "-".join(format_setting(item) for item in value)
    return clean(str(value))


def sparkline(values: Sequence[float]) -> str:
    """A curve with a cell a value, from the lowest bar to the highest; a value that is not finite is a `·`."""
    halves = [value / 2 for value in values]  # the difference of two floats may be infinite, that of their halves not
    finite = [half for half in halves if math.isfinite(half)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    extent = high - low or 1.0
    return "".join(
        _BARS[round((half - low) / extent * (len(_BARS) - 1))] if math.isfinite(half) else "·" for half in halves
    )


def align_decimal_points(numbers: Sequence[str]) -> list[str]:
    """Numbers of a column padded so that their decimal points stand under one another and all are equally wide."""
    split = [split_at_decimal_point(text) for text in numbers]
    left = max((len(whole) for whole, _ in split), default=0)
    right = max((len(rest) for _, rest in split), default=0)
    return [whole.rjust(left) + rest.ljust(right) for whole, rest in split]


def split_at_decimal_point(number: str) -> tuple[str, str]:
    """(up to the point, the point and what follows); a whole number, `nan` and a bare exponent have no second part."""
    match = re.search(r"[.e]", number) if number[:1] in "-0123456789" else None
    return (number[: match.start()], number[match.start() :]) if match else (number, "")


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless it is 1: `1 run`, `3 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def format_duration(seconds: float | None) -> str:
    """A time span in one or two units: `0.4s`, `12s`, `2m05s`, `1h04m`, `3d07h`; "" for None."""
    if seconds is None or not math.isfinite(seconds):
        return ""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    for size, unit, next_size, next_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit}{whole % size // next_size:02d}{next_unit}"
    return f"{whole}s"


def format_age(seconds: float | None) -> str:
    """How long ago in one unit, for a narrow column: `now`, `12s`, `5m`, `3h`, `2d`, `7w`, `1y`; "" for None."""
    if seconds is None:
        return ""
    if seconds < 2:
        return "now"
    for size, unit in ((31_557_600, "y"), (604_800 * 2, "w"), (86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // (604_800 if unit == 'w' else size))}{unit}"
    return f"{int(seconds)}s"


def progress_bar(fraction: float, room: int) -> str:
    """A progress bar of `room` cells in eighths; full only when all is done."""
    eighths = max(0, min(8 * room, int(fraction * 8 * room)))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if full < room else "")).ljust(room)


def split_lines(texts: Sequence[str]) -> list[str]:
    """The lines of captured text, cleaned; of a line that was written over by carriage returns, what stood last."""
    lines = "".join(texts).split("\n")
    if lines and not lines[-1]:
        lines.pop()
    return [text.clean(line.rstrip("\r").rpartition("\r")[2].expandtabs(4)) for line in lines]


def format_setting_cell(value: Any) -> str:
    """A config value in a narrow cell: booleans as ✓ and –."""
    if isinstance(value, bool):
        return "✓" if value else "–"
    return text.format_setting(value)
