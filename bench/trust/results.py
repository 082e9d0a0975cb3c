"""Results of the bench of trust: outcomes of trials, counted in a table that grows with each run."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

COLUMNS = ("part", "seed", "trials", "what", "tried", "survived", "lost")


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of one attempt of a trial."""

    what: str
    """Name of the attempt, equal for attempts that are counted together."""
    fault: str | None = None
    """Fault in one line; None: survived."""


class Results:
    """Outcomes of one part and seed, appended to a CSV file."""

    def __init__(self, path: Path, part: str, seed: int) -> None:
        self.path, self.part, self.seed = path, part, seed
        self.n_trials = 0
        """Number of trials, those of earlier runs included: the number of the next trial."""
        self._tried: Counter[str] = Counter()
        self._lost: Counter[str] = Counter()
        if path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                for row in csv.DictReader(file):
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

    def append(self) -> None:
        """Append the counts of this run to the file."""
        is_new = not self.path.exists()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if is_new:
                writer.writerow(COLUMNS)
            writer.writerows((self.part, self.seed, self.n_trials, *row) for row in self._rows())

    def table(self) -> str:
        """Return the counts of this run as a table in Markdown."""
        lines = ["| what | tried | survived | lost |", "| --- | --- | --- | --- |"]
        lines += [f"| {what} | {tried:,} | {survived:,} | {lost:,} |" for what, tried, survived, lost in self._rows()]
        return "\n".join(lines)

    def _rows(self) -> list[tuple[str, int, int, int]]:
        return [
            (what, tried, tried - self._lost[what], self._lost[what]) for what, tried in sorted(self._tried.items())
        ]
