"""Results of the bench of trust: outcomes of trials, counted in a table that grows with each run."""

from __future__ import annotations

import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("part", "seed", "trials", "what", "tried", "survived", "lost", "worst")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one attempt of a trial."""

    what: str
    """Name of the attempt, equal for attempts that are counted together."""
    fault: str | None = None
    """Fault in one line; None: survived."""
    figure: float | None = None
    """Figure in the unit that `what` names, such as seconds; the table shows the largest."""


SMALL = os.environ.get("LABBENCH_TRUST_SMALL") == "1"
"""True in the CI form: short waits and small sizes."""

CORPUS = Path("trust-corpus")
"""Folder of the inputs that were lost."""


def keep_input(kind: str, data: bytes) -> None:
    """Write an input to the corpus."""
    CORPUS.mkdir(exist_ok=True)
    (CORPUS / f"{kind}-{hashlib.sha256(data).hexdigest()[:16]}").write_bytes(data)


class Results:
    """Outcomes of one part and seed, appended to a CSV file."""

    def __init__(self, path: Path, part: str, seed: int) -> None:
        self.path, self.part, self.seed = path, part, seed
        self.n_trials = 0
        """Number of trials, those of earlier runs included: the number of the next trial."""
        self._tried: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        self._worst: dict[str, float] = {}
        for row in read_rows(path):
            if (row["part"], row["seed"]) == (part, str(seed)):
                self.n_trials = max(self.n_trials, int(row["trials"]))

    @property
    def n_lost(self) -> int:
        """Number of lost attempts of this run."""
        return self._lost.total()

    def add(self, outcome: Outcome) -> None:
        """Count an outcome."""
        self._tried[outcome.what] += 1
        self._lost[outcome.what] += outcome.fault is not None
        if outcome.figure is not None:
            self._worst[outcome.what] = max(outcome.figure, self._worst.get(outcome.what, outcome.figure))

    def append(self) -> None:
        """Append the counts of this run to the file."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            for what, tried in sorted(self._tried.items()):
                lost, worst = self._lost[what], self._worst.get(what)
                figure = "" if worst is None else f"{worst:.4g}"
                writer.writerow((self.part, self.seed, self.n_trials, what, tried, tried - lost, lost, figure))


def read_rows(path: Path) -> list[dict[str, str]]:
    """Return the rows of a file of results; none if there is no file."""
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def format_table(rows: Iterable[dict[str, str]]) -> str:
    """Return the sums of rows as a table in Markdown."""
    sums: dict[tuple[str, str], list[float]] = {}
    worst: dict[tuple[str, str], float] = {}
    for row in rows:
        name = row["part"], row["what"]
        counts = [float(row[column]) for column in ("tried", "survived", "lost")]
        sums[name] = [total + count for total, count in zip(sums.get(name, [0, 0, 0]), counts, strict=True)]
        if row["worst"]:
            worst[name] = max(worst.get(name, float("-inf")), float(row["worst"]))
    lines = ["| part | what | tried | survived | lost | worst |", "| --- | --- | --- | --- | --- | --- |"]
    for (part, what), (tried, survived, lost) in sorted(sums.items()):
        figure = f"{worst[part, what]:.4g}" if (part, what) in worst else ""
        lines.append(f"| {part} | {what} | {tried:,.0f} | {survived:,.0f} | {lost:,.0f} | {figure} |")
    return "\n".join(lines)
