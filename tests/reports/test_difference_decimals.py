"""Limits of differences show on which side of 0 they lie."""

import pytest

from helpers.analysis_grids import grid
from labbench.analysis import why
from labbench.analysis.intervals import Interval
from labbench.reports.formatting import format_change, format_gain
from labbench.reports.sentences import sentences
from labbench.reports.tables import tuned_tables


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (Interval(0.0281, 0.0047, 0.0516), "+0.028 [+0.005, +0.052]"),
        (Interval(0.0281, -0.0047, 0.0516), "+0.028 [−0.005, +0.052]"),
        (Interval(0.3, 0.00042, 0.6), "+0.3000 [+0.0004, +0.6000]"),
        (Interval(0.3, 0.0, 0.6), "+0.3 [0.0, +0.6]"),
        (Interval(0.3, 1e-12, 0.6), "+0.3 [0.0, +0.6]"),  # a rounding error
    ],
)
def test_a_limit_near_0_is_not_rounded_to_it(interval: Interval, text: str) -> None:
    assert format_change(interval) == text
    gain = format_gain(interval, "max")
    assert gain == (text.replace("+", "") if interval.low > 0 else text)
    flipped = Interval(-interval.mean, -interval.high, -interval.low)
    assert format_gain(flipped, "min") == gain


def test_the_sentence_names_the_value_that_separates_and_the_table_has_signs() -> None:
    means = {"adam": 0.9, "rmsprop": 0.8999, "sgd": 0.7}
    axes = {"optimizer": list(means), "lr": [0.1, 0.2]}
    answer = why(grid(lambda c: means[c["optimizer"]] - c["lr"] / 10, axes=axes), "val/accuracy", "max")
    line = next(line for line in sentences(answer) if line.startswith("optimizer, each value"))
    assert "too close to call" in line
    assert " is better than sgd by 0." in line
    table = next(table for table in tuned_tables(answer) if table.header[0] == "optimizer")
    behind = [row[2] for row in table.rows[1:]]
    assert all((cell.startswith(("+", "−")) and "[+" in cell) or "[−" in cell for cell in behind)
