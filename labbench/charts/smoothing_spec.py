"""Which average smooths a curve, and its words. Standard library only; `smoothing` has the arithmetic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

SmoothingKind: TypeAlias = Literal["none", "ema", "mean", "gauss"]
SMOOTHING_KINDS: tuple[SmoothingKind, ...] = get_args(SmoothingKind)


@dataclass(frozen=True, slots=True)
class Smoothing:
    """A kind of average, and how much it takes in."""

    window: SmoothingKind = "none"
    amount: float = 0.0
    """The share that the past keeps, in [0, 1), of `ema`; else points: how many `mean` averages, the deviation of
    `gauss`."""

    def __bool__(self) -> bool:
        return self.window != "none" and self.amount > 0

    def __str__(self) -> str:
        """As `parse_smoothing` reads it."""
        short = f"{self.amount:g}"
        return f"{self.window} {short if float(short) == self.amount else repr(self.amount)}" if self else "none"

    @property
    def is_centred(self) -> bool:
        """It looks ahead as far as back; an exponential average only looks back."""
        return self.window in ("mean", "gauss")


def is_smoothing(words: str) -> bool:
    """The words can be read."""
    try:
        parse_smoothing(words)
    except ValueError:
        return False
    return True


def parse_smoothing(words: str) -> Smoothing:
    """`0.9`, `ema 0.9`, `mean 21`, `gauss 5`, `none` or nothing; ValueError says what is wrong."""
    first, *rest = words.lower().split() or ["none"]
    if first == "none" and not rest:
        return Smoothing()
    named = first in SMOOTHING_KINDS and first != "none"
    window, numbers = (first, rest) if named else ("ema" if not rest else "", [first])
    try:
        [amount] = (float(number) for number in numbers)
    except ValueError:
        amount = math.nan
    if window == "ema" and 0 <= amount < 1:
        return Smoothing("ema", amount)
    if window in ("mean", "gauss") and 1 <= amount < math.inf:
        return Smoothing("mean" if window == "mean" else "gauss", amount)
    if window == "ema" and amount >= 1:
        raise ValueError(f"{amount:g} is no share: `ema` wants 0 to below 1, `mean` and `gauss` a number of points")
    raise ValueError(f"`{words.strip()}`: such as 0.9, `ema 0.9`, `mean 21`, `gauss 5` or `none`")
