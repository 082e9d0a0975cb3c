"""Smoothing as a setting and its text form. Standard library only; `smoothing` has the arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

SmoothingKind: TypeAlias = Literal["none", "ema", "mean", "gauss"]
SMOOTHING_KINDS: tuple[SmoothingKind, ...] = get_args(SmoothingKind)


@dataclass(frozen=True, slots=True)
class Smoothing:
    """Kind of average and its amount."""

    window: SmoothingKind = "none"
    amount: float = 0.0
    """`ema`: weight of the past, in [0, 1). `mean`: window in points. `gauss`: standard deviation in points."""

    def __bool__(self) -> bool:
        return self.window != "none" and self.amount > 0

    def __str__(self) -> str:
        """Return the text that `parse_smoothing` parses."""
        short = f"{self.amount:g}"
        return f"{self.window} {short if float(short) == self.amount else repr(self.amount)}" if self else "none"

    @property
    def is_centred(self) -> bool:
        """The window is symmetric; an exponential moving average uses only the past."""
        return self.window in ("mean", "gauss")


def is_smoothing(text: str) -> bool:
    """Return True if `parse_smoothing` accepts the text."""
    try:
        parse_smoothing(text)
    except ValueError:
        return False
    return True


def parse_smoothing(text: str) -> Smoothing:
    """Parse `0.9`, `ema 0.9`, `mean 21`, `gauss 5`, `none` or an empty text. Raises ValueError for other texts."""
    first, *rest = text.lower().split() or ["none"]
    if first == "none" and not rest:
        return Smoothing()
    has_kind = first in SMOOTHING_KINDS and first != "none"
    window, numbers = (first, rest) if has_kind else ("ema" if not rest else "", [first])
    try:
        [amount] = (float(number) for number in numbers)
    except ValueError:
        amount = math.nan
    if window == "ema" and 0 <= amount < 1:
        return Smoothing("ema", amount)
    if window in ("mean", "gauss") and 1 <= amount < math.inf:
        return Smoothing("mean" if window == "mean" else "gauss", amount)
    if window == "ema" and amount >= 1:
        raise ValueError(f"{amount:g} is not a weight: `ema` takes 0 to below 1, `mean` and `gauss` a number of points")
    raise ValueError(f"`{text.strip()}` is not a smoothing: use 0.9, `ema 0.9`, `mean 21`, `gauss 5` or `none`")
