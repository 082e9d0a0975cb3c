"""Early stopping by `[stop]`: patience, target and NaN."""

from __future__ import annotations

import math

import pytest

pytest.importorskip("torch")

from labbench.errors import InputError
from labbench.records import Stop
from labbench.train.early_stopping import EarlyStopping


def epochs_until_end(stop: Stop, values: list[float]) -> tuple[int, str] | None:
    early_stopping = EarlyStopping(stop)
    for epoch, value in enumerate(values, start=1):
        reason = early_stopping.reason_to_stop({stop.metric: value, "other": 0.0})
        if reason:
            return epoch, reason
    return None


@pytest.mark.parametrize(
    ("stop", "values", "expected"),
    [
        (Stop("val/loss", "min", patience=2), [3, 2, 2.5, 1, 1.1, 1, 0], (6, "early stop")),
        (Stop("val/loss", "min", patience=2), [3, 2, 1, 0], None),
        (Stop("val/loss", "max", patience=1), [1, 2, 2], (3, "early stop")),
        (Stop("val/loss", "min", patience=2, min_delta=0.5), [3, 2.8, 2.6, 2.4], (3, "early stop")),
        (Stop("val/loss", "min", patience=2), [math.nan, math.nan, 1], (2, "early stop")),
        (Stop("val/loss", "min", patience=2), [3, math.nan, 2, math.nan, math.nan], (5, "early stop")),
        (Stop("val/accuracy", "max", target=0.9), [0.5, 0.9, 1], (2, "target reached")),
        (Stop("val/loss", "min", target=0.1), [0.5, math.nan, 0.05], (3, "target reached")),
        (Stop("val/loss", "min", target=0.1), [0.5, math.nan, 0.2], None),
    ],
)
def test_a_run_ends_without_improvement_or_at_its_target(
    stop: Stop, values: list[float], expected: tuple[int, str] | None
) -> None:
    assert epochs_until_end(stop, values) == expected


def test_without_stop_nothing_ends_a_run() -> None:
    assert EarlyStopping(None).reason_to_stop({}) is None


def test_an_unknown_stop_metric_is_refused_with_the_measured_ones() -> None:
    with pytest.raises(
        InputError, match=r"'val/f1' is not measured at the end of an epoch; use one of val/accuracy, val/loss"
    ):
        EarlyStopping(Stop("val/f1", "max", patience=1)).reason_to_stop({"val/loss": 1, "val/accuracy": 1})
