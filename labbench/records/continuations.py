"""Runs that begin with the points of shorter runs: means over runs count these points once."""

from __future__ import annotations

from collections.abc import Collection, Mapping


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
