"""Runs that begin with the points of shorter runs: means over runs count these points once."""

from __future__ import annotations

import json
import math
from collections.abc import Collection, Mapping, Sequence

from labbench.records.run_record import RunRecord


def longest_runs(keys: Collection[str], sources: Mapping[str, str]) -> frozenset[str]:
    """Return the keys without the runs that others among them continue.

    Of several runs that begin with the points of the same run, the one queued last is returned.

    keys: Keys of the runs that a mean is over. sources: Key of the shorter run by the key of each run that continues
    one, in the order in which they were queued.
    """
    first_runs: dict[str, str] = {}
    for key, source in sources.items():
        first_runs[key] = first_runs.get(source, source)
    order = {key: index for index, key in enumerate(first_runs)}
    longest: dict[str, str] = {}
    for key in sorted(keys, key=lambda key: order.get(key, -1)):
        longest[first_runs.get(key, key)] = key
    return frozenset(longest.values())


def without_continued(runs: Sequence[RunRecord]) -> list[RunRecord]:
    """Return the runs without the numbers of epochs that were continued as a whole.

    Runs of a number of epochs are left out if others continue some of them, and each has a counterpart with more epochs
    and an otherwise equal config that has ended: the results of both are of the same training.
    """
    sources = {run.continued_from for run in runs} - {None}
    if not sources:
        return list(runs)
    most_epochs: dict[str, float] = {}
    for run in runs:
        if run.status not in ("queued", "running"):
            setup = _setup_without_epochs(run)
            most_epochs[setup] = max(_epochs(run), most_epochs.get(setup, -math.inf))
    last = {_epochs(run) for run in runs if _epochs(run) >= most_epochs.get(_setup_without_epochs(run), -math.inf)}
    continued = {_epochs(run) for run in runs if run.key in sources} - last
    return [run for run in runs if _epochs(run) not in continued]


def _epochs(run: RunRecord) -> float:
    value = run.config.get("epochs")
    return float(value) if isinstance(value, int | float) else -math.inf


def _setup_without_epochs(run: RunRecord) -> str:
    return json.dumps({key: value for key, value in run.config.items() if key != "epochs"}, sort_keys=True)
