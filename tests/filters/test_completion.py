"""What a filter may go on with."""

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
def test_the_first_offer_is_the_likeliest(expression: str, completed: str) -> None:
    start, offers = complete(expression, WORDS)
    assert expression[:start] + offers[0] == completed


def test_what_is_complete_already_is_not_offered() -> None:
    assert complete("optimizer=adam", WORDS)[1] == []
    assert "optimizer" not in complete("optimizer", WORDS)[1]


def test_an_offer_for_a_value_makes_a_filter_that_parses() -> None:
    words = Vocabulary({"name": ["it's \\ x", 'say "hi"', "plain", "a,b", ""], "tag": ["best"]})
    for expression in ("name=", "status=", "not tag="):
        start, offers = complete(expression, words)
        for offer in offers:
            assert parser.parse(expression[:start] + offer) is not None, offer
