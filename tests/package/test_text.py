"""Formatting of values as text: escaped, aligned, short."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from labbench import text


@given(st.text(st.characters()))
def test_cleaned_text_has_no_control_characters(raw: str) -> None:
    cleaned = text.clean(raw)
    cleaned.encode()  # no lone surrogates
    assert not any(ord(character) < 0x20 or 0x7F <= ord(character) < 0xA0 for character in cleaned)
    assert not set(cleaned) & set(
        "\u200e\u200f\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\u2028\u2029"
    )
    assert text.clean(cleaned) == cleaned


def test_clean_makes_control_characters_visible() -> None:
    assert text.clean("a\x1b]52;c;AAAA\x07b\n") == "a␛]52;c;AAAA␇b␊"
    assert text.clean("\x9b31m \x7f") == "\\x9b31m ␡"
    assert text.clean("safe\u202eexe.txt") == "safe\\u202eexe.txt"
    assert text.clean("\ud800") == "\\ud800"


@pytest.mark.parametrize("harmless", ["", "adam lr=0.01", "[/nope]", "学習率", "é👍", "a  b"])
def test_clean_does_not_change_ordinary_text(harmless: str) -> None:
    assert text.clean(harmless) == harmless


@given(st.text(st.characters()).map(text.clean), st.integers(0, 40), st.booleans())
def test_fitted_text_has_exactly_the_requested_width(cleaned: str, cells: int, right: bool) -> None:
    fitted = text.fit_to_width(cleaned, cells, right=right)
    assert text.cell_width(fitted) == cells


def test_fit_pads_and_cuts() -> None:
    assert text.fit_to_width("adam", 6) == "adam  "
    assert text.fit_to_width("adam", 6, right=True) == "  adam"
    assert text.fit_to_width("adam lr=0.01", 6) == "adam …"
    assert text.fit_to_width("学習率", 4) == "学… "


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, ""),
        (0.0, "0"),
        (-0.0, "0"),
        (1.0, "1"),
        (25140.0, "25140"),
        (0.0812345, "0.0812"),
        (0.978351, "0.9784"),
        (0.99996, "1.0000"),
        (2.302585, "2.303"),
        (-2.302585, "-2.303"),
        (9.99951, "10.00"),
        (12.3456, "12.35"),
        (123.456, "123.5"),
        (4321.5, "4322"),
        (123456.7, "123457"),
        (12345678.9, "12.35e6"),
        (0.00123, "1.230e-3"),
        (0.0000123456, "12.35e-6"),
        (1e30, "1.000e30"),
        (math.nan, "nan"),
        (math.inf, "inf"),
        (-math.inf, "-inf"),
    ],
)
def test_numbers_have_three_or_four_significant_digits(value: float | None, expected: str) -> None:
    assert text.format_number(value) == expected


@given(st.floats(min_value=-1.7e308, max_value=1.7e308))
def test_a_formatted_number_is_the_rounded_value(value: float) -> None:
    formatted = text.format_number(value)
    assert math.isclose(float(formatted), value, rel_tol=5.1e-3)
    assert len(formatted) <= 12


@given(st.floats(min_value=-1e300, max_value=1e300).filter(lambda value: value == 0 or abs(value) > 1e-300))
def test_engineering_exponents_are_multiples_of_three(value: float) -> None:
    mantissa, _, exponent = text.format_engineering(value).partition("e")
    assert int(exponent or 0) % 3 == 0
    assert value == 0 or 1 <= abs(float(mantissa)) < 1000
    assert math.isclose(float(text.format_engineering(value)), value, rel_tol=5.1e-4)


def test_numbers_of_a_column_are_aligned_at_the_decimal_point() -> None:
    assert text.align_decimal_points(["0.0812", "12.35", "nan", "123457", "1.230e-3", "", "-2.303"]) == [
        "     0.0812  ",
        "    12.35    ",
        "   nan       ",
        "123457       ",
        "     1.230e-3",
        "             ",
        "    -2.303   ",
    ]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.001, "0.001"),
        (1e-5, "1e-5"),
        (1e16, "1e16"),
        (1_000_000, "1e6"),
        (1234567.0, "1234567"),
        (1 / 3, "0.333333"),
        (64, "64"),
        (True, "true"),
        (None, "none"),
        ([128, 64], "128-64"),
        ("a\x1bb", "a␛b"),
        (1.0, "1"),
    ],
)
def test_config_values_are_short_text(value: object, expected: str) -> None:
    assert text.format_setting(value) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, ""),
        (0.42, "0.4s"),
        (9.96, "10s"),
        (59.7, "1m00s"),
        (125, "2m05s"),
        (3600, "1h00m"),
        (3840, "1h04m"),
        (86400 * 3 + 7 * 3600, "3d07h"),
        (-1, "0.0s"),
    ],
)
def test_durations_have_at_most_two_units(seconds: float | None, expected: str) -> None:
    assert text.format_duration(seconds) == expected


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (None, ""),
        (0, "now"),
        (-5, "now"),
        (12, "12s"),
        (300, "5m"),
        (7200, "2h"),
        (86400 * 3, "3d"),
        (86400 * 21, "3w"),
        (4e7, "1y"),
    ],
)
def test_ages_have_one_unit(seconds: float | None, expected: str) -> None:
    assert text.format_age(seconds) == expected


@pytest.mark.parametrize(("count", "expected"), [(0, "0 runs"), (1, "1 run"), (2, "2 runs")])
def test_counts_have_a_noun_in_singular_or_plural(count: int, expected: str) -> None:
    assert text.format_count(count, "run") == expected


def test_a_progress_bar_is_full_only_at_the_end() -> None:
    assert text.progress_bar(0, 4) == "    "
    assert text.progress_bar(0.5, 4) == "██  "
    assert text.progress_bar(0.9999, 4) == "███▉"
    assert text.progress_bar(1, 4) == "████"
    assert {len(text.progress_bar(step / 100, 7)) for step in range(-10, 120)} == {7}


def test_a_sparkline_ranges_from_the_lowest_bar_to_the_highest() -> None:
    assert text.sparkline([0.0, 0.5, 1.0, math.nan, math.inf]) == "▁▅█··"
    assert text.sparkline([2.0, 2.0]) == "▁▁"
    assert text.sparkline([]) == ""
    assert text.sparkline([1e308, -1e308, 5e-324]) == "█▁▅"
    assert text.sparkline([0.0, 1e-320, 2e-320]) == "▁▅█"


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([2.3125, 0.0812, None], ["2.3125", "0.0812", ""]),
        ([0.5, 0.00934], ["0.50000", "0.00934"]),
        ([0.5, 4.606e-4, 0.0], ["0.500000", "0.000461", "0"]),
        ([0.5, 3.2e-6, 0.0], ["0.5000", "3.200e-6", "0"]),
        ([0.9886, 0.91, 4.2e9], ["0.9886", "0.9100", "4.200e9"]),
        ([0.5, 3.2e-6, 4.1e-5], ["5.000e-1", "3.200e-6", "4.100e-5"]),
        ([20, 3, 5e6], ["20", "3", "5.000e6"]),
        ([0.5, 2e-17], ["0.5000", "0.0000"]),
        ([12345.6, 0.25, math.nan], ["12345.6000", "0.2500", "nan"]),
        ([20, 3], ["20", "3"]),
        ([0.004431], ["0.00443"]),
        ([0.123456], ["0.1235"]),
    ],
)
def test_numbers_in_one_column_share_a_format(values: list[float | None], expected: list[str]) -> None:
    assert text.format_numbers(values) == expected


@pytest.mark.parametrize(
    "words",
    [
        "👩\u200d👩\u200d👧",
        "❤\ufe0f",
        "☀\ufe0e",
        "कि",
        "क्षि",
        "क्\u200dष",
        "🇩🇪",
        "e\u0301",
        "👍🏽",
        "1\ufe0f\u20e3",
        "🏳\ufe0f\u200d🌈",
        "日本",
        "กำ",
        "각",
    ],
)
def test_the_width_of_graphemes_is_that_of_the_terminal_library(words: str) -> None:
    from rich.cells import cell_len

    assert text.cell_width(words) == cell_len(words)
    assert text.cell_width(text.fit_to_width(words, 5)) == 5
