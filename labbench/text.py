"""Values as text, shared by the command line and the TUI; standard library only.

Every string from outside (a run's name, a config value, an error) passes through `clean` on its way to a terminal,
since it may contain an escape sequence that would rewrite the screen or the clipboard.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from labbench.spelling import spell_number

if TYPE_CHECKING:
    from labbench.metrics import Goal

# C0, DEL and C1; bidirectional and invisible formatting; line separators; tag letters; lone surrogates
_HARMFUL = re.compile(
    "[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb\U000e0000-\U000e007f\ud800-\udfff]"
)

_BLOCKS = " ▏▎▍▌▋▊▉█"

_BARS = "▁▂▃▄▅▆▇█"


def no_color_requested(environ: Mapping[str, str]) -> bool:
    """Return True if NO_COLOR is set and not empty (https://no-color.org)."""
    return bool(environ.get("NO_COLOR"))


def prints_no_color(environ: Mapping[str, str]) -> bool:
    """Return True if commands print no colours: NO_COLOR is set and not empty, or the terminal has none."""
    return no_color_requested(environ) or environ.get("TERM") == "dumb"


def has_true_color(environ: Mapping[str, str]) -> bool:
    """Return True if COLORTERM announces 24-bit colours; in GNU screen it does so for the terminal around it."""
    return environ.get("COLORTERM") in ("truecolor", "24bit") and not environ.get("STY")


def clean(text: str) -> str:
    """Return `text` with every control character made visible: one line, without escape sequences."""
    return text if text.isprintable() else _HARMFUL.sub(_visible, text)


def _visible(match: re.Match[str]) -> str:
    code = ord(match.group())
    if code < 0x20:
        return chr(0x2400 + code)  # Unicode has a symbol for each: ␛ for escape, ␊ for line feed
    if code == 0x7F:
        return "␡"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def cell_widths(text: str) -> list[int]:
    """Return the terminal cells of each character; an emoji sequence or a syllable has them at its first character.

    Wide East Asian characters and emoji have 2 cells, combining marks 0. Characters that a zero-width joiner or a
    skin tone joins to the previous one have 0, too. A variation selector widens a symbol to an emoji.
    """
    if text.isascii():
        return [1] * len(text)
    widths: list[int] = []
    before, is_joined = "", False
    for character in text:
        widths.append(0 if is_joined else _cells(character, before))
        is_joined = character == _JOINER
        before = before if character in _JOINER + _EMOJI_SELECTOR else character
    return widths


_JOINER, _EMOJI_SELECTOR = "\u200d", "\ufe0f"
_SKIN_TONES = "\U0001f3fb\U0001f3fc\U0001f3fd\U0001f3fe\U0001f3ff"
_EMOJI_OF_TEXT = "#*0123456789‼⁉ℹ"
"""Characters that are no symbols, but that a variation selector turns into an emoji."""


def _cells(character: str, before: str) -> int:
    if character == _EMOJI_SELECTOR and before:
        is_symbol = unicodedata.category(before) in ("So", "Sm") or before in _EMOJI_OF_TEXT
        return 1 if is_symbol and unicodedata.east_asian_width(before) not in "WF" else 0
    if unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"):
        return 0
    if character in _SKIN_TONES and before and unicodedata.east_asian_width(before) in "WF":
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cell_width(text: str) -> int:
    """Return the number of terminal cells of cleaned text."""
    return sum(cell_widths(text))


def fit_to_width(text: str, width: int, *, right: bool = False) -> str:
    """Return cleaned text padded or cut to exactly `width` cells.

    The padding is on the left if `right`; cut text ends with an ellipsis.
    """
    used = cell_width(text)
    if used > width:
        text, used = _cut(text, width)
    padding = " " * (width - used)
    return padding + text if right else text + padding


def fit_number(number: str, width: int, *, right: bool = False) -> str:
    """Return a number padded to exactly `width` cells, or `…` if it does not fit: its first digits would read wrong.

    Text that does not begin like a number is cut as by `fit_to_width`.
    """
    is_cut_number = cell_width(number) > width and number.lstrip(" ★▲▼+−-")[:1].isdigit()
    return fit_to_width("…" if is_cut_number and width > 0 else number, width, right=right)


def _cut(text: str, width: int) -> tuple[str, int]:
    """Return text cut to at most `width` cells, and its width."""
    if width <= 0:
        return "", 0
    used = 0
    for index, cells in enumerate(cell_widths(text)):
        if used + cells > width - 1:
            return text[:index] + "…", used + 1
        used += cells
    return text, used


def format_number(value: float | None) -> str:
    """Return a measured value with three or four significant digits.

    Examples: `0.0812`, `12.35`, `12.35e6`, `nan`; "" for None.

    Engineering notation (exponents are multiples of three) is used below 0.01 and from one million. Whole numbers have
    no decimal point.
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


@dataclass(frozen=True, slots=True)
class NumberFormat:
    """Format that the measured values of a column share, so that they can be compared by eye.

    All have the decimals that the smallest one needs for three significant digits. A value below 0.0001 or of a million
    or more is in scientific notation; all are if more than half are so. Whole numbers alone have no decimals; zero is
    always `0`.
    """

    smallest: float = math.inf
    """Smallest size of the values between 0.0001 and a million."""
    largest: float = 0.0
    n_plain: int = 0
    """Number of those values."""
    n_scientific: int = 0
    are_whole: bool = True

    def including(self, values: Iterable[float | None]) -> NumberFormat:
        """Return the format of these values and the earlier ones."""
        sizes = [abs(value) for value in values if value and math.isfinite(value)]
        if not sizes:
            return self
        plain = [size for size in sizes if 1e-4 <= size < 1e6]
        return NumberFormat(
            min([self.smallest, *plain]),
            max([self.largest, *plain]),
            self.n_plain + len(plain),
            self.n_scientific + len(sizes) - len(plain),
            self.are_whole and all(size == int(size) for size in sizes),
        )

    def format(self, value: float | None) -> str:
        """Return a value as text; "" for None."""
        if not value or not math.isfinite(value):
            return format_number(value)
        is_plain = 1e-4 <= abs(value) < 1e6 or abs(value) < _NEGLIGIBLE * self.largest
        if not is_plain or self.n_plain < self.n_scientific:
            return _format_scientific(value)
        if self.are_whole:
            return format_number(value)
        power = math.floor(math.log10(self.smallest))
        return f"{value:.{max(0, 3 - power) if power >= 0 else max(4, 2 - power)}f}"


_NEGLIGIBLE = 1e-9
"""Fraction of the largest value below which a value is a rounding error, written with the decimals of the others."""


def format_delta(value: float | None, reference: float | None, goal: Goal, numbers: NumberFormat | None = None) -> str:
    """Return the signed change from a reference after ▲ (better) or ▼ (worse); "" if either value is missing."""
    if value is None or reference is None:
        return ""
    if value == reference:
        return "= 0"
    mark = "▲" if is_better(value, reference, goal) else "▼"
    return f"{mark} {format_signed_change(value, reference, numbers)}"


def is_better(value: float, reference: float, goal: Goal) -> bool:
    """Return True if a value is better than a different reference."""
    return (value < reference) == (goal == "min")


def format_signed_change(value: float, reference: float, numbers: NumberFormat | None = None) -> str:
    """Return the change from a reference with its sign, such as `+0.0145`; a change below the last digit in full."""
    size = abs(value - reference)
    text = "" if numbers is None else numbers.format(size)
    return f"{'+' if value > reference else '−'}{text if text.strip('0.') else format_number(size)}"


def format_numbers(values: Sequence[float | None]) -> list[str]:
    """Return measured values of one column in one format; "" for None."""
    return list(map(NumberFormat().including(values).format, values))


def _format_scientific(value: float) -> str:
    mantissa, _, exponent = f"{value:.3e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def format_engineering(value: float, digits: int = 4) -> str:
    """Return a finite value in engineering notation, such as `12.35e-6`.

    The exponent is a multiple of three; an exponent of 0 is left out.
    """
    if value == 0:
        return "0"
    mantissa, _, exponent = f"{value:.{digits - 1}e}".partition("e")  # round first, which may change the exponent
    power = 3 * (int(exponent) // 3)
    whole = 1 + int(exponent) - power  # digits before the point
    sign, figures = ("-", mantissa[1:]) if value < 0 else ("", mantissa)
    figures = figures.replace(".", "").ljust(whole, "0")
    shifted = sign + figures[:whole] + (f".{figures[whole:]}" if figures[whole:] else "")
    return f"{shifted}e{power}" if power else shifted


def format_setting(value: Any) -> str:
    """Return a config value as short, cleaned text.

    Examples: `0.001`, `1e-5`, `1e6`, `true`, `none`, `128-64` for a list; a list with objects is JSON. Fractions have
    at most six significant digits.
    """
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        is_fraction = isinstance(value, float) and not value.is_integer()
        return spell_number(float(f"{value:.6g}") if is_fraction else value)
    if isinstance(value, list | tuple):
        if any(isinstance(item, dict) for item in value):
            import json  # rarely needed

            return clean(json.dumps(value, ensure_ascii=False, default=str))
        return "-".join(format_setting(item) for item in value)
    return clean(str(value))


def sparkline(values: Sequence[float]) -> str:
    """Return values as bars of one cell each, the lowest bar for the lowest value; `·` is not finite."""
    halves = [value / 2 for value in values]  # the difference of two floats may overflow, of their halves it cannot
    finite = [half for half in halves if math.isfinite(half)]
    low, high = min(finite, default=0.0), max(finite, default=0.0)
    extent = high - low or 1.0
    return "".join(
        _BARS[round((half - low) / extent * (len(_BARS) - 1))] if math.isfinite(half) else "·" for half in halves
    )


def align_decimal_points(numbers: Sequence[str]) -> list[str]:
    """Return the numbers of a column padded to the same width, with aligned decimal points."""
    split = [split_at_decimal_point(text) for text in numbers]
    left = max((len(whole) for whole, _ in split), default=0)
    right = max((len(rest) for _, rest in split), default=0)
    return [whole.rjust(left) + rest.ljust(right) for whole, rest in split]


def split_at_decimal_point(number: str) -> tuple[str, str]:
    """Split a number before its point or exponent; the second part of a whole number and of `nan` is empty."""
    match = re.search(r"[.e]", number) if number[:1] in "-0123456789" else None
    return (number[: match.start()], number[match.start() :]) if match else (number, "")


def format_count(count: int, noun: str) -> str:
    """Return a count with its noun: `1 run`, `3 runs`."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def ordinal(number: int) -> str:
    """Return a whole number as an ordinal, such as 1st, 22nd or 113th."""
    suffix = "th" if number // 10 % 10 == 1 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{suffix}"


def format_size(size: int) -> str:
    """Return a number of bytes with its unit, rounded down: `3 KiB`."""
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"


def format_duration(seconds: float | None) -> str:
    """Return a duration in one or two units; "" for None.

    Examples: `0.4s`, `12s`, `2m05s`, `1h04m`, `3d07h`.
    """
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
    """Return an age in one unit, for a narrow column; "" for None.

    Examples: `now`, `12s`, `5m`, `3h`, `2d`, `7w`, `1y`.
    """
    if seconds is None:
        return ""
    if seconds < 2:
        return "now"
    for size, unit in ((31_557_600, "y"), (604_800 * 2, "w"), (86_400, "d"), (3_600, "h"), (60, "m")):
        if seconds >= size:
            return f"{int(seconds // (604_800 if unit == 'w' else size))}{unit}"
    return f"{int(seconds)}s"


def progress_bar(fraction: float, width: int) -> str:
    """Return a progress bar of `width` cells in eighths of a cell, full only at a fraction of 1."""
    eighths = max(0, min(8 * width, int(fraction * 8 * width)))
    full, rest = divmod(eighths, 8)
    return ("█" * full + (_BLOCKS[rest] if full < width else "")).ljust(width)


def split_lines(texts: Iterable[str], *, styled: bool = False) -> Iterator[str]:
    """Yield the lines of captured text as a terminal shows them, cleaned; with SGR sequences only if `styled`."""
    from labbench.sgr import remove_styles
    from labbench.terminal_lines import terminal_lines  # 7 ms that `labbench --help` does not need

    for line in terminal_lines(texts):
        yield _clean_styled(line) if styled and "\x1b" in line else clean(remove_styles(line).expandtabs(4))


def _clean_styled(line: str) -> str:
    """Return a line with its SGR sequences and no other control character."""
    from labbench.sgr import split_styles

    column, pieces = 0, []
    for piece, style in split_styles(line):
        offset = column % 4
        expanded = (" " * offset + piece).expandtabs(4)[offset:]
        column += len(expanded)
        pieces.append(style.styled(clean(expanded)))
    return "".join(pieces)
