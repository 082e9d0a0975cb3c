"""Read from the grid files of runs whether their configurations were drawn at random."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from typing import Any

from labbench.analysis.tuning.budgets import Sampling
from labbench.records import RunRecord
from labbench.store.reader import Reader

_DRAW_OPTIONS = {"samples", "seed"}
"""Keys of `[random]` that are no parameters."""


def read_sampling(reader: Reader, runs: Sequence[RunRecord]) -> Sampling | None:
    """Return how the configurations of runs that no search has pruned were drawn, None if by their results.

    Raises:
        StoreError: The database cannot be read.
    """
    if not runs:
        return None
    documents = [_parse(text) for text in reader.grid_texts([run.id for run in runs])]
    draws = [_sampling(document) for document in documents]
    return draws[0] if draws and all(draw == draws[0] for draw in draws) and _agree(documents) else None


def _parse(text: str) -> Mapping[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # written by another version, or edited in the database
        return {}


def _sampling(document: Mapping[str, Any]) -> Sampling | None:
    search, random = document.get("search"), document.get("random")
    method = search.get("method") if isinstance(search, Mapping) else None
    if method not in (None, "random"):
        return None
    if isinstance(random, Mapping):
        return Sampling("random draws", frozenset(_flat_keys(random)) - _DRAW_OPTIONS)
    return Sampling("random subset") if method == "random" else None


def _flat_keys(table: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the keys of `[random]`; a table that is no distribution groups keys with dots."""
    keys = []
    for key, value in table.items():
        is_group = isinstance(value, Mapping) and all(isinstance(each, Mapping) for each in value.values()) and value
        keys += _flat_keys(value, f"{prefix}{key}.") if is_group else [f"{prefix}{key}"]
    return keys


def _agree(documents: Sequence[Mapping[str, Any]]) -> bool:
    """Return True if all grid files draw from the same distributions; later ones may be narrowed by results."""
    spaces = [
        {key: value for key, value in document.get("random", document.get("grid", {})).items() if key != "samples"}
        for document in documents
    ]
    return all(space == spaces[0] for space in spaces)
