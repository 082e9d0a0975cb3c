"""Queries of the run screen: a run with its output, files, sources and pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from labbench.errors import LabbenchError
from labbench.files import database_command
from labbench.metrics import Goal
from labbench.portraits.file import NO_PORTRAIT_MESSAGE, Portrait, portrait_path, read_portrait
from labbench.records import Artifact, RunRecord
from labbench.store.reader import Reader
from labbench.terminal_output import keep_ends
from labbench.text import split_lines

if TYPE_CHECKING:
    from labbench.portraits.logged_images import LoggedImage

FIRST_CHARACTERS, LAST_CHARACTERS = 1_000_000, 10_000_000
"""Maximum number of characters of output shown from the start and from the end."""


@dataclass(frozen=True, slots=True)
class RunDetail:
    """A run with its output, artifacts, sources and pictures."""

    record: RunRecord
    goals: Mapping[str, Goal] = field(default_factory=dict)
    output: Sequence[str] = ()
    """Lines of output, with SGR sequences."""
    artifacts: Sequence[Artifact] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    portrait: Portrait | str = ""
    """The portrait, or a message if there is none or it cannot be read."""
    images: Sequence[LoggedImage] = ()
    """Last logged image of each name."""


def read_run(path: Path, key: str) -> RunDetail:
    """Return a run with its output, artifacts, sources and pictures. Raises RunNotFound if it was deleted."""
    with Reader(path) as reader:
        record = reader.find(key)
        goals = reader.metrics()
        output = _shown_lines(path, reader, record.key)
        artifacts, sources = reader.artifacts(record.key), reader.sources(record.key)
    try:
        portrait: Portrait | str = read_portrait(portrait_path(path, record.key)) or NO_PORTRAIT_MESSAGE
    except LabbenchError as error:
        portrait = str(error)
    return RunDetail(record, goals, output, artifacts, sources, portrait, _read_images(path, record.key, artifacts))


def _read_images(path: Path, key: str, artifacts: Sequence[Artifact]) -> Sequence[LoggedImage]:
    if not any(artifact.name.startswith("images/") for artifact in artifacts):
        return []
    from labbench.portraits.logged_images import read_last_images  # imports numpy: not before the first paint

    return read_last_images(path, key, artifacts)


def _shown_lines(path: Path, reader: Reader, key: str) -> list[str]:
    """Return the lines of a run's output; if it is long, the first and last ones with a note in between."""
    lines = split_lines(reader.each_log(key, styled=True), styled=True)
    ends = keep_ends(lines, FIRST_CHARACTERS, LAST_CHARACTERS, lambda line: len(line) + 1)
    note = f"… {ends.n_between:,} lines not shown: {database_command(path)} show {key} --all …"
    return [*ends.first, *([note] if ends.n_between else []), *ends.last]
