"""Table of a search space and its protocol, for the methods section and the appendix of a paper."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from labbench.analysis.answer import Answer
from labbench.records import RunRecord
from labbench.reports.answer_tables import METHODS, AnswerTable, protocol
from labbench.reports.formatting import chosen_by, format_value, repetition
from labbench.reports.tables import ReportTable
from labbench.text import clean, format_setting

MAX_VALUES = 12
"""Maximum number of values of a parameter that are listed; more are given by their range."""


def methods_table(answer: Answer, runs: Sequence[RunRecord]) -> AnswerTable:
    """Return the parameters with their values, the numbers of runs, and what they ran on; the caption is a sentence."""
    unit = repetition(answer)
    counts = sorted({estimate.n for estimate in answer.ranking if estimate.n})
    rows = [(clean(each.name), _list_values([e.value for e in each.marginal.effects])) for each in answer.parameters]
    varied = {name for name, _ in rows}
    facts = {
        "epochs": "" if "epochs" in varied else _join(format_setting(run.config.get("epochs", "")) for run in runs),
        f"{unit}s per configuration": " to ".join(dict.fromkeys(str(count) for count in (*counts[:1], *counts[-1:]))),
        "configurations": str(answer.counts.setups),
        "runs": str(len(runs)),
        "chosen by": chosen_by(answer),
        "judged by": clean(answer.metric),
        "device": _join(run.device or "" for run in runs),
        "hardware": _join((run.hardware_text for run in runs), "; "),
        "software": _join((_versions(run) for run in runs), "; "),
        "code": _join((_commit(run) for run in runs), "; "),
    }
    rows += [(name, text) for name, text in facts.items() if text]
    experiments = ", ".join(map(clean, answer.scope.experiments)) if answer.scope is not None else ""
    title = f"Search space and protocol{f' of {experiments}' if experiments else ''}"
    space = f"{answer.counts.setups} configurations of {len(varied)} parameters, {len(runs)} runs in all."
    sentence = f"{title}: {space} {protocol(answer)}"
    report = ReportTable(title, ("parameter", "values"), tuple(rows), note=sentence)
    return AnswerTable(METHODS, "", report, sentence)


def _list_values(values: Sequence[Any]) -> str:
    if len(values) <= MAX_VALUES:
        return ", ".join(format_value(value, values) for value in values)
    return f"{format_value(values[0], values)} to {format_value(values[-1], values)} ({len(values)} values)"


def _join(texts: Iterable[str], separator: str = ", ") -> str:
    """Return the different texts, once each."""
    return separator.join(clean(text) for text in dict.fromkeys(texts) if text)


def _versions(run: RunRecord) -> str:
    return ", ".join(f"{name} {version}" for name, version in run.library_versions.items())


def _commit(run: RunRecord) -> str:
    return "" if run.git_commit is None else f"commit {run.git_commit[:12]}{' with changes' if run.git_dirty else ''}"
