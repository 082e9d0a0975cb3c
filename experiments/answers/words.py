"""Sentences that state a result, worded for either outcome and for no significant difference."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from answers.study import negate
from labbench.analysis.intervals import Interval
from labbench.reports.formatting import format_change, format_interval


@dataclass
class Answer:
    """Result of an experiment: sentences, most important first, and a table whose first row is the header."""

    sentences: list[str]
    table: list[list[str]]
    picture: str = ""
    """A text chart."""


def comparison_clause(first: str, second: str, difference: Interval, *, higher_is_better: bool = True) -> str:
    """Return `Adam is ahead of SGD by 0.05 [0.04, 0.06]`, or the opposite, or that they do not differ significantly.

    `difference` is the first minus the second.
    """
    if not difference.excludes(0.0):
        return f"{first} and {second} do not differ significantly ({format_change(difference)})"
    ahead = (difference.mean > 0) == higher_is_better
    amount = format_interval(difference if difference.mean > 0 else negate(difference))
    return f"{first} is {'ahead of' if ahead else 'behind'} {second} by {amount}"


def change_clause(subject: str, difference: Interval) -> str:
    """Return `the gap increases by 0.1 [0.0, 0.2]`, or decreases, or does not change significantly."""
    if not difference.excludes(0.0):
        return f"{subject} does not change significantly ({format_change(difference)})"
    amount = format_interval(difference if difference.mean > 0 else negate(difference))
    return f"{subject} {'increases' if difference.mean > 0 else 'decreases'} by {amount}"


def join_words(words: Sequence[str]) -> str:
    """Join words as in `a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)


def display_name(word: str) -> str:
    """Return the usual spelling of a setting: `ReLU`, `MLP`, `fine-tuned`."""
    names = {"relu": "ReLU", "gelu": "GELU", "mlp": "MLP", "cnn": "CNN", "scratch": "from scratch"}
    return {**names, "finetuned": "fine-tuned"}.get(word, word)


def finish_sentence(text: str) -> str:
    """Add a capital letter and a full stop."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?")) else ".")
