"""Completion of filter expressions."""

from __future__ import annotations

import pytest

from labbench.filters import parser
from labbench.filters.completion import Vocabulary, complete

WORDS = Vocabulary(
    {"optimizer": ["adam", "sgd"], "lr": ["0.01", "0.1"], "a key": ["x y"], "tag": ["best"]}, ["val/loss", "train/loss"]
)


@pytest.mark.parametrize(
    ("expression", "completed"),
    [
        ("opt", "optimizer"),
        ("lr<0.1 OPT", "lr<0.1 optimizer"),
        ("not (opt", "not (optimizer"),
        ("optimizer=", "optimizer=adam"),
        ("optimizer=adam,s", "optimizer=adam,sgd"),
        ("optimizer != s", "optimizer != sgd"),
        ("lr=0.0", "lr=0.01"),
        ("status=f", "status=finished"),
        ("tag=", "tag=best"),
        ("val", "val/loss"),
        ("best(v", "best(val/loss"),
        ("loss", "val/loss"),
        ("a", '"a key"'),
    ],
)
def test_the_first_completion_is_the_likeliest(expression: str, completed: str) -> None:
    start, completions = complete(expression, WORDS)
    assert expression[:start] + completions[0] == completed


def test_a_complete_word_is_not_offered_again() -> None:
    assert complete("optimizer=adam", WORDS)[1] == []
    assert "optimizer" not in complete("optimizer", WORDS)[1]


def test_a_completed_value_gives_a_filter_that_parses() -> None:
    words = Vocabulary({"name": ["it's \\ x", 'say "hi"', "plain", "a,b", ""], "tag": ["best"]})
    for expression in ("name=", "status=", "not tag="):
        start, completions = complete(expression, words)
        for completion in completions:
            assert parser.parse(expression[:start] + completion) is not None, completion
