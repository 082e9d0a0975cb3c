"""What the numbers say, in sentences that follow them: each is worded for either outcome, and for none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from answers.study import flipped
from labbench.analysis.figures import change, with_interval
from labbench.analysis.intervals import Interval


@dataclass
class Answer:
    """The answer that an experiment gives: sentences, the most important first, and a table whose first row names."""

    sentences: list[str]
    table: list[list[str]]
    picture: str = ""
    """Lines drawn for a terminal."""


def compared(first: str, second: str, difference: Interval, *, higher_is_better: bool = True) -> str:
    """`Adam is ahead of SGD by 0.05 [0.04, 0.06]`, or behind it, or not to be told from it.

    `difference` is that of the first minus the second.
    """
    if not difference.excludes(0.0):
        return f"{first} and {second} cannot be told apart ({change(difference)})"
    ahead = (difference.mean > 0) == higher_is_better
    amount = with_interval(difference if difference.mean > 0 else flipped(difference))
    return f"{first} is {'ahead of' if ahead else 'behind'} {second} by {amount}"


def moved(what: str, difference: Interval) -> str:
    """`the gap grows by 0.1 [0.0, 0.2]`, or shrinks, or changes by nothing that these seeds show."""
    if not difference.excludes(0.0):
        return f"{what} does not change by anything that these seeds show ({change(difference)})"
    amount = with_interval(difference if difference.mean > 0 else flipped(difference))
    return f"{what} {'grows' if difference.mean > 0 else 'shrinks'} by {amount}"


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def proper(word: str) -> str:
    """A setting as people write it: `ReLU`, `MLP`, `fine-tuned`."""
    known = {"relu": "ReLU", "gelu": "GELU", "mlp": "MLP", "cnn": "CNN", "scratch": "from scratch"}
    return {**known, "finetuned": "fine-tuned"}.get(word, word)


def sentence(text: str) -> str:
    """With a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
