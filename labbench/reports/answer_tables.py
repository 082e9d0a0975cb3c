"""Tables of an answer by name, with captions that state the protocol, for documents."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from labbench.analysis.answer import Answer
from labbench.analysis.setup_costs import Efficiency
from labbench.errors import InputError
from labbench.records import RunRecord
from labbench.reports.budget_sentences import budget_tables
from labbench.reports.formatting import chosen_by, is_tuned_on, repetition
from labbench.reports.tables import ReportTable, effects_table, other_tables, setups_table, tuned_tables
from labbench.text import clean

TABLE_NAMES = ("tuned", "budgets", "configurations", "effects", "means", "learning-rates", "costs")
"""Names of the tables of an answer, in their order."""
METHODS = "methods"
"""Name of the table of the search space (`reports.methods`), which is printed only if it is chosen."""
_NUMBER = re.compile(r"[−+×≤≥±✗★–(-]?\s*\d|–$|✗|nan|inf")
"""Start of a cell that is a number."""


@dataclass(frozen=True, slots=True)
class TableStyle:
    """Choice and words of the tables in documents."""

    tables: Sequence[str] = ()
    """Names of tables; empty: all, after the sentences."""
    names: Mapping[str, str] = field(default_factory=dict)
    """Other words for names of metrics and keys."""
    runs: Sequence[RunRecord] = ()
    """Runs of the answer, for the table of methods."""


@dataclass(frozen=True, slots=True)
class AnswerTable:
    """Table of an answer for a document."""

    name: str
    """One of `TABLE_NAMES`."""
    subject: str
    """Parameter that the table is about; "" for all."""
    table: ReportTable
    caption: str
    """Title and protocol, as sentences."""

    @property
    def label(self) -> str:
        """Label for references: `configurations`, `tuned-optimizer`."""
        words = [self.name, *re.findall(r"[A-Za-z0-9]+", self.subject)]
        return "-".join(words)

    @property
    def right(self) -> list[bool]:
        """True for each column that is aligned to the right: one of numbers, behind the first."""
        if self.name == METHODS:
            return [False, False]
        return [index > 0 and _holds_numbers(cells) for index, cells in enumerate(zip(*self.table.rows, strict=True))]


def answer_tables(answer: Answer, costs: Efficiency | None, chosen: Sequence[str] = ()) -> list[AnswerTable]:
    """Return the tables of an answer in their order; with `chosen` those with these names.

    Args:
        chosen: Names of `TABLE_NAMES`, also with a parameter: `tuned:optimizer`.

    Raises:
        InputError: The answer has no table of a chosen name.
    """
    setups, others = setups_table(answer), other_tables(answer, costs)
    n_means, pairs = len(answer.heat_maps), [" ".join(map(clean, heat_map.names)) for heat_map in answer.heat_maps]
    rest = others[n_means:]
    tables = [
        *(("tuned", clean(of.name), table) for of, table in zip(answer.tuned, tuned_tables(answer), strict=True)),
        *(
            ("budgets", clean(of.name or ""), table)
            for of, table in zip(answer.budgets, budget_tables(answer), strict=False)
        ),
        *([("configurations", "", setups)] if setups else []),
        *(("effects", clean(of.name), effects_table(answer, of)) for of in answer.parameters),
        *(("means", names, table) for names, table in zip(pairs, others[:n_means], strict=True)),
        *([("learning-rates", "", rest[0])] if answer.rate_ranges else []),
        *(("costs", "", table) for table in rest[len(answer.rate_ranges[:1]) :]),
    ]
    named = [AnswerTable(*each, caption=_caption(each[2], answer)) for each in tables]
    for word in chosen:
        if not any(_is_chosen(table, word) for table in named):
            names = ", ".join(dict.fromkeys(table.name for table in named)) or "none"
            raise InputError(
                f"--table {word}: the answer has no such table; it has {METHODS}, {names}, also as tuned:KEY"
            )
    return [table for table in named if not chosen or any(_is_chosen(table, word) for word in chosen)]


def protocol(answer: Answer) -> str:
    """Return how configurations were chosen and judged, and from what the intervals come, as sentences."""
    metric, unit = clean(answer.metric), repetition(answer)
    at = "last" if answer.scope is not None and answer.scope.at == "last" else "best"
    judged = f"judged by {metric}" if is_tuned_on(answer) else f"judged by its {at} value"
    counts = sorted({estimate.n for estimate in answer.ranking if estimate.n})
    n = "" if not counts else f"{counts[0]} " if counts[0] == counts[-1] else f"{counts[0]} to {counts[-1]} "
    return (
        f"Configurations are chosen by {chosen_by(answer)} and {judged}, over {n}{unit}s each. "
        f"Brackets are 95 % confidence intervals over {unit}s."
    )


def rename(text: str, names: Mapping[str, str]) -> str:
    """Replace whole names, such as `test/macro_f1`, by other words."""
    if not names:
        return text
    pattern = "|".join(re.escape(name) for name in sorted(names, key=len, reverse=True))
    return re.sub(rf"(?<![\w/.])(?:{pattern})(?![\w/]|\.\w)", lambda match: names[match[0]], text)


def rename_table(table: AnswerTable, names: Mapping[str, str]) -> AnswerTable:
    """Replace whole names in all texts of a table but its label."""

    def row(cells: Sequence[str]) -> tuple[str, ...]:
        return tuple(rename(cell, names) for cell in cells)

    report = table.table
    texts = replace(report, title=rename(report.title, names), note=rename(report.note, names))
    texts = replace(texts, header=row(report.header), rows=tuple(map(row, report.rows)))
    return replace(table, table=texts, caption=rename(table.caption, names))


def parse_renames(texts: Sequence[str]) -> dict[str, str]:
    """Return other words by name, of options `NAME=TEXT`. Raises InputError."""
    names = {}
    for text in texts:
        name, equals, words = text.rpartition("=")
        if not equals or not name.strip() or not words.strip():
            raise InputError(f"--rename {text}: write NAME=TEXT, such as test/macro_f1='Macro F1'")
        names[name.strip()] = words.strip()
    return names


def _is_chosen(table: AnswerTable, word: str) -> bool:
    name, _, subject = word.partition(":")
    return table.name == name and subject in ("", table.subject)


def _caption(table: ReportTable, answer: Answer) -> str:
    title = table.title[:1].upper() + table.title[1:] if " " in table.title.partition(":")[0] else table.title
    return " ".join(filter(None, (f"{title}.", protocol(answer), table.note)))


def _holds_numbers(cells: Sequence[str]) -> bool:
    filled = [cell for cell in cells if cell.strip()]
    return 2 * sum(_NUMBER.match(cell) is not None for cell in filled) > len(filled)
