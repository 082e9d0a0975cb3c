"""Fixtures of the tests of the store: a database with its writer and reader, and another database with three runs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.store_samples import write_three_runs
from labbench.store.reader import Reader
from labbench.store.writer import Writer


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return the path of a database that does not exist yet."""
    return tmp_path / "runs.db"


@pytest.fixture
def writer(path: Path) -> Iterator[Writer]:
    with Writer(path) as writer:
        yield writer


@pytest.fixture
def reader(path: Path, writer: Writer) -> Iterator[Reader]:
    with Reader(path) as reader:
        yield reader


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Return another database, with three runs."""
    return write_three_runs(tmp_path / "other.db")
