"""One spelling for each number of a config."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench.spelling import respell_numbers, spell_number


@pytest.mark.parametrize(
    ("number", "spelling"),
    [
        (0.0001, "0.0001"),
        (0.00012, "0.00012"),
        (1e-5, "1e-5"),
        (-2.5e-7, "-2.5e-7"),
        (100000.0, "100000"),
        (1e6, "1e6"),
        (1_000_000, "1e6"),
        (2_500_000, "2.5e6"),
        (1234567, "1234567"),
        (1e25, "1e25"),
        (int(1e25), "1e25"),
        (2**53 + 1, "9007199254740993"),
        (-0.0, "0"),
        (float("inf"), "inf"),
    ],
)
def test_numbers_have_a_short_spelling(number: float, spelling: str) -> None:
    assert spell_number(number) == spelling


@given(st.floats(allow_nan=False) | st.integers())
def test_a_spelling_is_exact_and_the_same_for_equal_numbers(number: float) -> None:
    spelling = spell_number(number)
    assert number in (float(spelling), int(spelling) if spelling.lstrip("-").isdigit() else number)
    assert spell_number(float(spelling)) == spelling or isinstance(number, int)
    if isinstance(number, float) and number.is_integer():
        assert spell_number(int(number)) == spelling


def test_only_the_numbers_of_a_name_are_respelled() -> None:
    assert respell_numbers("sgd lr=1000000.0 hidden=[64,1E6] .50 s01 x1e06 v1.10.2") == (
        "sgd lr=1e6 hidden=[64,1e6] 0.5 s01 x1e06 v1.10.2"
    )
    assert respell_numbers("1" * 5000) == "inf"
